//! The tokens file and the rejects file, written and taken up again. INVARIANT: every line of the input is in exactly
//! one of the two, in order; what a kill left torn or out of step is cut away before anything is added, and asked for
//! again.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cli::Failure;
use crate::cli::customer::Flaw;
use crate::crypto::entropy::{self, Entropy};
use crate::domain::token::Token;
use crate::domain::vocabulary::{Class, Field};

/// How many lines a power failure may ask for again.
const SYNC_EVERY: u32 = 1000;
/// Longer than any line we write.
const LINE_LIMIT: u64 = 512 << 10;

/// The first line of a tokens file: what its lines were made with.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heading {
    import: String,
    class: String,
    skipped: Vec<String>,
}

impl Heading {
    pub fn new(entropy: &dyn Entropy, class: Class, skip: &[Field]) -> Self {
        let mut skipped: Vec<_> = skip.iter().map(ToString::to_string).collect();
        skipped.sort();
        skipped.dedup();
        Self { import: hex::encode(entropy::array::<16>(entropy)), class: class.to_string(), skipped }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tokenized {
    line: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    order: Option<String>,
    token: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rejected {
    line: u64,
    field: String,
    reason: String,
}

/// What stands of earlier runs.
#[derive(Default, PartialEq, Eq, Debug)]
pub struct Resumed {
    /// The id that every run of this import shares.
    pub import: String,
    pub tokenized: u64,
    pub rejected: u64,
    /// The last line with a token, and its order.
    pub last: Option<(u64, Option<String>)>,
    pub(super) tokens_end: u64,
    pub(super) rejects_end: u64,
}

impl Resumed {
    /// How many lines of the input need not be looked at again.
    pub fn lines(&self) -> u64 {
        self.tokenized + self.rejected
    }
}

/// How many lines have found their place, earlier runs included.
#[derive(Clone, Copy)]
pub struct Counts {
    pub tokenized: u64,
    pub rejected: u64,
}

pub struct Journal {
    tokens: Output,
    rejects: Output,
    counts: Counts,
    unsynced: u32,
}

impl Journal {
    /// Takes up the two files, or makes them. What `heading` says must be what they were begun with.
    pub fn open(tokens: &Path, rejects: &Path, heading: Heading) -> Result<(Self, Resumed), Failure> {
        let (mut tokens, mut rejects) = (Output::open(tokens)?, Output::open(rejects)?);
        // Either file may be an innocent stranger, given by mistake: never cut one that is not ours.
        tokens.must_begin(b"{\"import\":")?;
        rejects.must_begin(b"{\"line\":")?;
        let (import, heading_end) = match tokens.heading()? {
            Some((begun, _)) if (&begun.class, &begun.skipped) != (&heading.class, &heading.skipped) => {
                return Err(
                    tokens.usage("begun with another --class or --skip-field; give the same, or another --tokens")
                );
            }
            Some((begun, end)) => (begun.import, end),
            None if rejects.length()? > 0 => {
                return Err(rejects.usage("belongs to another import; move it away or give another --rejects"));
            }
            None => {
                tokens.cut(0)?;
                tokens.line(&heading)?;
                // Its id must be there to stay before the first line is sent under it.
                tokens.sync()?;
                tokens.sync_folder()?;
                rejects.sync_folder()?;
                (heading.import, tokens.length()?)
            }
        };
        let standing = standing(tokens.reader(heading_end)?, heading_end, rejects.reader(0)?);
        let resumed = Resumed { import, ..standing.map_err(|error| tokens.failed(&error))? };
        tokens.cut(resumed.tokens_end)?;
        rejects.cut(resumed.rejects_end)?;
        let counts = Counts { tokenized: resumed.tokenized, rejected: resumed.rejected };
        Ok((Self { tokens, rejects, counts, unsynced: 0 }, resumed))
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    pub fn token(&mut self, line: u64, order: Option<&str>, token: &str) -> Result<(), Failure> {
        self.tokens.line(&Tokenized { line, order: order.map(str::to_owned), token: token.to_owned() })?;
        self.counts.tokenized += 1;
        self.filed()
    }

    pub fn reject(&mut self, line: u64, flaw: &Flaw) -> Result<(), Failure> {
        self.rejects.line(&Rejected { line, field: flaw.field.clone(), reason: flaw.reason.to_owned() })?;
        self.counts.rejected += 1;
        self.filed()
    }

    fn filed(&mut self) -> Result<(), Failure> {
        self.unsynced += 1;
        if self.unsynced >= SYNC_EVERY { self.sync() } else { Ok(()) }
    }

    /// Everything filed so far is there to stay.
    pub fn sync(&mut self) -> Result<(), Failure> {
        self.unsynced = 0;
        self.tokens.sync().and(self.rejects.sync())
    }
}

/// Follows the input's lines through both files, from 1 until one is in neither.
fn standing(tokens: impl BufRead, heading_end: u64, rejects: impl BufRead) -> io::Result<Resumed> {
    let mut tokens = Entries::<_, Tokenized>::new(tokens, heading_end);
    let mut rejects = Entries::<_, Rejected>::new(rejects, 0);
    let mut resumed = Resumed { tokens_end: heading_end, ..Resumed::default() };
    let (mut token, mut reject) = (tokens.next()?, rejects.next()?);
    loop {
        let line = resumed.lines() + 1;
        if let Some((entry, end)) = token.take_if(|(entry, _)| entry.line == line && Token::parse(&entry.token).is_ok())
        {
            resumed.tokenized += 1;
            resumed.tokens_end = end;
            resumed.last = Some((line, entry.order));
            token = tokens.next()?;
        } else if let Some((_, end)) = reject.take_if(|(entry, _)| entry.line == line) {
            resumed.rejected += 1;
            resumed.rejects_end = end;
            reject = rejects.next()?;
        } else {
            return Ok(resumed);
        }
    }
}

/// The sound lines of a file, each with the place where it ends; nothing after the first unsound one.
struct Entries<R, T> {
    reader: R,
    end: u64,
    kind: std::marker::PhantomData<T>,
}

impl<R: BufRead, T: DeserializeOwned> Entries<R, T> {
    fn new(reader: R, start: u64) -> Self {
        Self { reader, end: start, kind: std::marker::PhantomData }
    }

    fn next(&mut self) -> io::Result<Option<(T, u64)>> {
        let mut line = Vec::new();
        let read = (&mut self.reader).take(LINE_LIMIT).read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            return Ok(None);
        }
        self.end += read as u64;
        Ok(serde_json::from_slice(&line).ok().map(|entry| (entry, self.end)))
    }
}

/// A file that one import alone appends to.
struct Output {
    path: PathBuf,
    file: File,
}

impl Output {
    fn open(path: &Path) -> Result<Self, Failure> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let file = file.map_err(|error| Failure::io(path, &error))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), file }),
            Err(_) => Err(Failure::usage(format!("{}: another import is writing it", path.display()))),
        }
    }

    /// Refuses a file whose beginning is neither `prefix` nor a torn piece of it.
    fn must_begin(&mut self, prefix: &[u8]) -> Result<(), Failure> {
        let mut found = Vec::new();
        let begin = self.reader(0)?.take(prefix.len() as u64).read_to_end(&mut found);
        begin.map_err(|error| self.failed(&error))?;
        if prefix.starts_with(&found) {
            Ok(())
        } else {
            Err(self.usage("exists, and no import wrote it; give another name"))
        }
    }

    /// The heading and where it ends; none where the file is new, or was torn before the first line was sent.
    fn heading(&mut self) -> Result<Option<(Heading, u64)>, Failure> {
        let heading = Entries::new(self.reader(0)?, 0).next().map_err(|error| self.failed(&error))?;
        if heading.is_none() && self.reader(0)?.lines().nth(1).is_some() {
            return Err(self.usage("its first line is damaged; give another --tokens"));
        }
        Ok(heading)
    }

    fn reader(&mut self, from: u64) -> Result<BufReader<File>, Failure> {
        let open = || {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(from))?;
            Ok(BufReader::with_capacity(64 << 10, file))
        };
        open().map_err(|error| self.failed(&error))
    }

    fn length(&self) -> Result<u64, Failure> {
        self.file.metadata().map(|metadata| metadata.len()).map_err(|error| self.failed(&error))
    }

    fn cut(&mut self, end: u64) -> Result<(), Failure> {
        let cut = self.file.set_len(end).and_then(|()| self.file.seek(SeekFrom::Start(end)));
        cut.map(drop).map_err(|error| self.failed(&error))
    }

    /// In one write and unbuffered: what was filed outlives the process.
    fn line(&mut self, entry: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_vec(entry).map_err(io::Error::from);
        let written = text.and_then(|mut text| {
            text.push(b'\n');
            self.file.write_all(&text)
        });
        written.map_err(|error| self.failed(&error))
    }

    fn sync(&mut self) -> Result<(), Failure> {
        self.file.sync_data().map_err(|error| self.failed(&error))
    }

    /// A file made is there to stay only when its folder is synced too.
    fn sync_folder(&self) -> Result<(), Failure> {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| Failure::io(folder, &error))
    }

    fn failed(&self, error: &io::Error) -> Failure {
        Failure::io(&self.path, error)
    }

    fn usage(&self, what: &str) -> Failure {
        Failure::usage(format!("{}: {what}", self.path.display()))
    }
}

#[cfg(test)]
mod tests;
