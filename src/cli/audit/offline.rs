//! Verifies an exported log with a public key and nothing else. INVARIANT: this module is written apart from the vault: its own
//! parsing, hashing, tree and signature check, no import from the rest of the crate; so a mistake of the writer's is not
//! repeated here. Memory does not grow with the log.
//!
//! ```text
//! header → checkpoint: signed by the key → its head
//! section → leaves → section's head → path → the checkpoint's head; leaves, bitmap and lines → signature
//! entry → its bytes → leaf hash = the section's; the words written for people = what the bytes say
//! all leaves → frontier → every head known from elsewhere, at its size
//! ```

mod entry;
mod lines;
mod names;
mod note;
mod tree;

use std::io::{self, BufRead, Read as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use lines::{Header, Section, canonical};
pub use note::{Note, VerifierKey, notes_in};
use tree::{Frontier, Hash, SECTION, leaf_hash, led_to};

/// Far above any line: a section's head has 256 hashes in base64.
const LONGEST: u64 = 1024 * 1024;

/// A whole export.
#[derive(Debug, PartialEq, Eq)]
pub struct Report {
    pub tenant: String,
    pub checkpoint: Note,
    /// Number of the first entry that is in the export.
    pub from: u64,
    /// Entries told of, those of other tenants included.
    pub entries: u64,
    /// The tenant's own.
    pub shown: u64,
    /// Heads from elsewhere that this log leads to.
    pub heads_met: usize,
    /// Heads that say nothing about this export: of another year, before its first entry, or later than it.
    pub heads_beside: usize,
}

/// The first bad place.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}{}: {what}", entry.map(|entry| format!(", entry {entry}")).unwrap_or_default())]
pub struct Flaw {
    /// From 1.
    pub line: u64,
    /// In the year's tree, from 0; none in the header.
    pub entry: Option<u64>,
    pub what: What,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum What {
    #[error("the file cannot be read: {0:?}")]
    Unreadable(io::ErrorKind),
    #[error("the header is not as the vault writes one")]
    Header,
    #[error("the checkpoint is not signed by this key")]
    NotSigned,
    #[error("the section's head was altered, cut, moved or doubled")]
    Section,
    #[error("the section's hashes do not lead to the checkpoint: an entry was altered, added or taken out")]
    Path,
    #[error("the section's signature is not good for it")]
    Signature,
    #[error("the entry was altered")]
    Altered,
    #[error("the words written for people are not what the entry's bytes say")]
    Words,
    #[error("the entry has a code that this build does not know: verify it with the vault's version")]
    UnknownCode,
    #[error("the entry is missing")]
    Cut,
    #[error("the entry is not in its place")]
    Reordered,
    #[error("an entry that is not the tenant's was added")]
    Added,
    #[error("the export ends before its checkpoint does")]
    TailCut,
    #[error("something follows behind the last entry")]
    Trailing,
    #[error("the log is another than the one that is known: it forked before this entry at the latest")]
    Forked,
    #[error("the entry is another than the one that is known: the log forked here")]
    ForkedHere,
    #[error("the log is shorter than it was known to be earlier")]
    RolledBack,
}

/// Reads lines and counts them.
struct Lines<R> {
    from: R,
    /// Of the line read last, from 1.
    number: u64,
    line: String,
}

impl<R: BufRead> Lines<R> {
    /// The next line with its newline, or nothing at the end. A line without one is no line.
    fn read(&mut self) -> Result<Option<&str>, What> {
        self.number += 1;
        let mut bytes = Vec::new();
        let read = self.from.by_ref().take(LONGEST).read_until(b'\n', &mut bytes);
        read.map_err(|error| What::Unreadable(error.kind()))?;
        self.line = String::from_utf8(bytes).map_err(|_| What::Altered)?;
        match self.line.as_str() {
            "" => Ok(None),
            line if line.ends_with('\n') => Ok(Some(line)),
            _ => Err(What::TailCut),
        }
    }
}

/// Verifies an export. `heads` are signed heads from elsewhere, `earlier` an export of the same log taken before.
pub fn verify<R: BufRead, E: BufRead>(
    export: R,
    key: &VerifierKey,
    heads: &[Note],
    earlier: Option<E>,
) -> Result<Report, Flaw> {
    let mut lines = Lines { from: export, number: 0, line: String::new() };
    let header = lines.read().ok().flatten().and_then(Header::parse);
    let bad_header = |what| Flaw { line: 1, entry: None, what };
    let header = header.ok_or(bad_header(What::Header))?;
    let checkpoint = Note::verify(&header.checkpoint, key).ok_or(bad_header(What::NotSigned))?;
    let frontier = Frontier::from_peaks(header.from, &header.peaks).ok_or(bad_header(What::Header))?;
    if header.from % SECTION != 0 || header.from >= checkpoint.size {
        return Err(bad_header(What::Header));
    }
    let mut known = Known::of(&header, &checkpoint, heads, earlier)?;
    let mut walk = Walk { header, checkpoint, frontier, shown: 0, section: None };
    known.met(&walk).map_err(bad_header)?;
    loop {
        let end = match lines.read() {
            Ok(line) => line.is_none(),
            Err(what) => return Err(walk.flaw(lines.number, what)),
        };
        if end {
            walk.close().map_err(|(entry, what)| Flaw { line: lines.number, entry: Some(entry), what })?;
            break;
        }
        let number = lines.number;
        if lines.line.starts_with("{\"section\":") {
            walk.close().map_err(|(entry, what)| Flaw { line: number, entry: Some(entry), what })?;
            let opened = walk.open(&lines.line, &mut known);
            opened.map_err(|(entry, what)| Flaw { line: number, entry: Some(entry), what })?;
        } else {
            let told = walk.entry(&lines.line);
            told.map_err(|(entry, what)| Flaw { line: number, entry: Some(entry), what })?;
        }
    }
    let entries = walk.frontier.size();
    if entries < walk.checkpoint.size {
        return Err(Flaw { line: lines.number, entry: Some(entries), what: What::TailCut });
    }
    // The peaks of an export that begins later are good only if they lead here too.
    if walk.frontier.root() != walk.checkpoint.root {
        return Err(bad_header(What::Header));
    }
    Ok(Report {
        tenant: walk.header.tenant,
        from: walk.header.from,
        entries: entries - walk.header.from,
        shown: walk.shown,
        checkpoint: walk.checkpoint,
        heads_met: known.met,
        heads_beside: known.beside,
    })
}

pub fn code_names() -> [names::Names; 7] {
    use names::{ACTIONS, CLASSES, FIELDS, OUTCOMES, PURPOSES, REFUSALS, ROLES};
    [ROLES, ACTIONS, REFUSALS, CLASSES, PURPOSES, FIELDS, OUTCOMES]
}

/// How far the verification has come.
struct Walk {
    header: Header,
    checkpoint: Note,
    frontier: Frontier,
    shown: u64,
    section: Option<Open>,
}

/// A section whose entries are being read.
struct Open {
    head: Section,
    first: u64,
    leaves: Vec<Hash>,
    ours: Vec<u8>,
    /// The entry that may come next.
    next: u64,
    digest: Sha256,
    signature: Vec<u8>,
}

/// An error is about this entry.
type Bad = (u64, What);

impl Walk {
    fn flaw(&self, line: u64, what: What) -> Flaw {
        let next = self.section.as_ref().map_or(self.frontier.size(), |open| open.next);
        Flaw { line, entry: Some(next), what }
    }

    /// A section's head: its hashes lead to the checkpoint.
    fn open<E: BufRead>(&mut self, line: &str, known: &mut Known<E>) -> Result<(), Bad> {
        let first = self.frontier.size();
        let bad = |what| (first, what);
        if first >= self.checkpoint.size {
            return Err(bad(What::Trailing));
        }
        let head = Section::parse(line).filter(|head| head.section == first).ok_or(bad(What::Section))?;
        let count = SECTION.min(self.checkpoint.size - first);
        let leaves = lines::hashes(&head.leaves).filter(|leaves| leaves.len() as u64 == count);
        let leaves = leaves.ok_or(bad(What::Section))?;
        let ours = STANDARD.decode(&head.ours).ok().filter(|ours| ours.len() as u64 == SECTION / 8);
        let ours = ours.ok_or(bad(What::Section))?;
        let path: Option<Vec<Hash>> = head.path.iter().map(|hash| lines::hash(hash)).collect();
        let path = path.ok_or(bad(What::Section))?;
        let signature = STANDARD.decode(&head.signature).map_err(|_| bad(What::Section))?;
        let mut alone = Frontier::default();
        leaves.iter().for_each(|leaf| alone.append(*leaf));
        // Before the path: a fork is told by its first entry, not by its section.
        known.compare(first, &leaves)?;
        let sections = self.checkpoint.size.div_ceil(SECTION);
        if led_to(first / SECTION, sections, alone.root(), &path) != Some(self.checkpoint.root) {
            return Err(bad(What::Path));
        }
        for leaf in &leaves {
            self.frontier.append(*leaf);
            known.met(self).map_err(|what| (self.frontier.size() - 1, what))?;
        }
        let digest = Sha256::new().chain_update(leaves.as_flattened()).chain_update(&ours);
        self.section = Some(Open { head, first, leaves, ours, next: first, digest, signature });
        Ok(())
    }

    /// One of the tenant's entries.
    fn entry(&mut self, line: &str) -> Result<(), Bad> {
        let at = self.frontier.size();
        let open = self.section.as_mut().ok_or((at, What::Section))?;
        // What must come here; a line that is something else was altered, or this one is missing.
        let expected = (open.next..).find(|number| open.is_ours(*number)).filter(|number| *number < at);
        let Some(told) = entry::Line::parse(line) else {
            return Err(expected.map_or((at, What::Section), |expected| (expected, What::Altered)));
        };
        let number = told.entry;
        match expected {
            Some(expected) if number == expected => {}
            Some(expected) if number > expected && number < at && open.is_ours(number) => {
                return Err((expected, What::Cut));
            }
            Some(expected) if number < at && !open.is_ours(number) => return Err((expected, What::Added)),
            Some(expected) => return Err((expected, What::Reordered)),
            None if number < at => return Err((number, What::Reordered)),
            None => return Err((at, What::Section)),
        }
        let bytes = STANDARD.decode(&told.bytes).map_err(|_| (number, What::Altered))?;
        let leaf = usize::try_from(number - open.first).ok().and_then(|at| open.leaves.get(at));
        if leaf != Some(&leaf_hash(&bytes)) {
            return Err((number, What::Altered));
        }
        let (says, tenant) = entry::read(number, &bytes).ok_or((number, What::UnknownCode))?;
        if tenant != self.header.tenant || canonical(&says) != line {
            return Err((number, What::Words));
        }
        open.digest.update(line);
        open.next = number + 1;
        self.shown += 1;
        Ok(())
    }

    /// The section's end: nothing of ours is missing, and all of it is signed.
    fn close(&mut self) -> Result<(), Bad> {
        let Some(open) = self.section.take() else { return Ok(()) };
        let missing = (open.next..self.frontier.size()).find(|number| open.is_ours(*number));
        if let Some(missing) = missing {
            return Err((missing, What::Cut));
        }
        let (origin, tenant) = (self.checkpoint.origin(), &self.header.tenant);
        let digest = STANDARD.encode(open.digest.finalize());
        let signed = format!("strongroom/export\n{origin}\n{tenant}\n{}\n{digest}\n", open.head.section);
        let is_good = self.checkpoint.key.verify(signed.as_bytes(), &open.signature);
        if is_good { Ok(()) } else { Err((open.first, What::Signature)) }
    }
}

impl Open {
    fn is_ours(&self, number: u64) -> bool {
        let at = number.wrapping_sub(self.first);
        let byte = usize::try_from(at / 8).ok().and_then(|byte| self.ours.get(byte));
        // Behind the bitmap nothing is looked for: a search ends there.
        byte.is_none_or(|byte| byte & (0x80 >> (at % 8)) != 0)
    }
}

/// What is known of the log from elsewhere.
struct Known<E> {
    /// Of this tree, by size.
    heads: Vec<Note>,
    met: usize,
    beside: usize,
    earlier: Option<Earlier<E>>,
}

/// An export of the same log taken before: its leaves are looked at, section by section.
struct Earlier<E> {
    lines: Lines<E>,
    section: Option<(u64, Vec<Hash>)>,
}

impl<E: BufRead> Known<E> {
    fn of(header: &Header, checkpoint: &Note, heads: &[Note], earlier: Option<E>) -> Result<Self, Flaw> {
        let mut heads = heads.to_vec();
        let mut lines = earlier.map(|from| Lines { from, number: 0, line: String::new() });
        if let Some(lines) = &mut lines {
            let before = lines.read().ok().flatten().and_then(Header::parse);
            let before = before.and_then(|before| Note::verify(&before.checkpoint, &checkpoint.key));
            heads.extend(before);
        }
        let all = heads.len();
        heads.retain(|head| head.origin() == checkpoint.origin() && head.first == checkpoint.first);
        let is_cut = |head: &Note| head.size > checkpoint.size && head.time <= checkpoint.time;
        if heads.iter().any(is_cut) {
            return Err(Flaw { line: 1, entry: Some(checkpoint.size), what: What::RolledBack });
        }
        heads.retain(|head| (header.from..=checkpoint.size).contains(&head.size) && head.size > 0);
        heads.sort_by_key(|head| head.size);
        let beside = all - heads.len();
        heads.reverse();
        let earlier = lines.map(|lines| Earlier { lines, section: None });
        Ok(Self { heads, met: 0, beside, earlier })
    }

    /// Compares the heads of the size that was reached.
    fn met(&mut self, walk: &Walk) -> Result<(), What> {
        while let Some(head) = self.heads.pop_if(|head| head.size == walk.frontier.size()) {
            if head.root != walk.frontier.root() {
                return Err(What::Forked);
            }
            self.met += 1;
        }
        Ok(())
    }

    /// Compares the leaves of the section at `first` with those known.
    fn compare(&mut self, first: u64, leaves: &[Hash]) -> Result<(), Bad> {
        let Some(earlier) = &mut self.earlier else { return Ok(()) };
        let known = earlier.section_at(first);
        let differs = known.and_then(|known| known.iter().zip(leaves).position(|(known, leaf)| known != leaf));
        differs.map_or(Ok(()), |at| Err((first + at as u64, What::ForkedHere)))
    }
}

impl<E: BufRead> Earlier<E> {
    fn section_at(&mut self, first: u64) -> Option<&[Hash]> {
        while self.section.as_ref().is_none_or(|(at, _)| *at < first) {
            let line = self.lines.read().ok().flatten()?;
            if let Some(head) = Section::parse(line) {
                self.section = Some((head.section, lines::hashes(&head.leaves)?));
            }
        }
        self.section.as_ref().filter(|(at, _)| *at == first).map(|(_, leaves)| leaves.as_slice())
    }
}
