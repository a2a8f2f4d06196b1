//! The witness file: every head that was signed, one after the other, where whoever can write the database cannot. INVARIANT: a
//! head is on disk before it counts as shown, nothing in the file is ever changed, and a server does not start over a log that
//! is behind, or other than, what the file has seen.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::audit::checkpoint::Checkpoint;
use crate::cli::Failure;
use crate::store::Store;
use crate::vault::contradiction;

/// Far more than one note.
const TAIL: u64 = 16 * 1024;
const SIGNATURE: &str = "\u{2014} ";

pub(super) struct WitnessFile {
    path: PathBuf,
}

impl WitnessFile {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Appends a note behind an empty line, durably. What a crash left of one before stays, and is no note.
    pub(super) fn append(&self, note: &str) -> io::Result<()> {
        let tail = self.tail()?;
        if last_note(&tail).as_deref() == Some(note) {
            return Ok(());
        }
        let before = match tail.as_bytes().last() {
            None => "",
            Some(b'\n') => "\n",
            Some(_) => "\n\n",
        };
        let mut file = File::options().create(true).append(true).mode(0o600).open(&self.path)?;
        file.write_all(format!("{before}{note}").as_bytes())?;
        file.sync_all()
    }

    /// The last whole note; `None` where there is none yet.
    pub(super) fn last(&self) -> io::Result<Option<String>> {
        Ok(last_note(&self.tail()?))
    }

    fn tail(&self) -> io::Result<String> {
        let mut file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
            opened => opened?,
        };
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// The last note of a text: a signature line that was written to its end, the empty line before it, and the lines before that.
fn last_note(text: &str) -> Option<String> {
    let (whole, _torn) = text.rsplit_once('\n')?;
    let lines: Vec<&str> = whole.split('\n').collect();
    let signature = lines.iter().rposition(|line| line.starts_with(SIGNATURE))?;
    let empty = signature.checked_sub(1).filter(|at| lines.get(*at).is_some_and(|line| line.is_empty()))?;
    let first = lines.get(..empty)?.iter().rposition(|line| line.is_empty()).map_or(0, |at| at + 1);
    Some(lines.get(first..=signature)?.join("\n") + "\n")
}

/// Refuses a log that contradicts the last head in the file.
pub(super) fn check(path: &Path, store: &Store) -> Result<(), Failure> {
    let named = |what: &str| Failure::local(format!("the witness file {}: {what}", path.display()));
    let last = WitnessFile::new(path).last().map_err(|error| named(&error.to_string()))?;
    let Some(last) = last else { return Ok(()) };
    let seen = Checkpoint::verify(&last, &store.keyring().signer().public());
    let seen = seen.map_err(|error| named(&format!("its last head is not this vault's: {error}")))?;
    let found = store.read(|view| contradiction(view, &seen)).map_err(|error| named(&error.to_string()))?;
    let Some(what) = found else { return Ok(()) };
    let (size, origin) = (seen.size, seen.origin());
    Err(named(&format!(
        "{what}: it has seen {size} entries of {origin} at {}. An old copy of the database was brought back, or the log \
         was rewritten. To serve it all the same, put the file aside and keep it",
        seen.at
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_appended_and_the_last_whole_one_is_found_behind_a_torn_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = WitnessFile::new(&folder.path().join("heads"));
        let note = |n: u8| format!("origin\n{n}\nroot\n\n{SIGNATURE}key {n}\n");
        assert_eq!(file.last().unwrap(), None);
        for n in 1..=3 {
            file.append(&note(n)).unwrap();
            file.append(&note(n)).unwrap();
            assert_eq!(file.last().unwrap(), Some(note(n)));
        }
        let whole = std::fs::read_to_string(&file.path).unwrap();
        assert_eq!(whole, format!("{}\n{}\n{}", note(1), note(2), note(3)));
        for torn in 1..note(4).len() {
            std::fs::write(&file.path, format!("{whole}\n{}", String::from_utf8_lossy(&note(4).as_bytes()[..torn])))
                .unwrap();
            assert_eq!(file.last().unwrap(), Some(note(3)), "{torn}");
            file.append(&note(5)).unwrap();
            assert_eq!(file.last().unwrap(), Some(note(5)), "{torn}");
        }
    }
}
