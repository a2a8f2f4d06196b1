//! Where log lines end up. INVARIANT: a line that could not be written is counted and warned of, and holds nobody up; after
//! `reopen` lines go to the file that has the path's name now.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub(super) struct Sink {
    /// Absent: standard error.
    path: Option<PathBuf>,
    file: Mutex<Open>,
    /// Lines lost since the file was opened.
    lost: AtomicU64,
}

#[derive(Default)]
struct Open {
    file: Option<File>,
    /// The last line was cut short: the next one begins anew.
    is_torn: bool,
}

impl Sink {
    pub(super) fn to_stderr() -> Self {
        Self { path: None, file: Mutex::default(), lost: AtomicU64::new(0) }
    }

    /// Appends to the file, which is made for our eyes alone.
    pub(super) fn to_file(path: &Path) -> io::Result<Self> {
        let open = Open { file: Some(append_to(path)?), is_torn: false };
        Ok(Self { path: Some(path.to_owned()), file: Mutex::new(open), lost: AtomicU64::new(0) })
    }

    /// Opens the path anew, for it may name another file now; on an error the old one stays in use.
    pub(super) fn reopen(&self) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let file = append_to(path)?;
        *self.lock() = Open { file: Some(file), is_torn: false };
        self.lost.store(0, Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn warning(&self) -> Option<String> {
        let path = self.path.as_deref().map_or_else(|| "standard error".to_owned(), |path| path.display().to_string());
        let lost = self.lost.load(Ordering::Relaxed);
        if lost > 0 {
            return Some(format!(
                "{lost} lines of the log could not be written to {path}; mend that, then send SIGHUP"
            ));
        }
        let open = self.lock();
        let links = open.file.as_ref().and_then(|file| file.metadata().ok()).map(|metadata| metadata.nlink());
        (links == Some(0)).then(|| format!("the log file {path} was deleted; send SIGHUP to begin a new one"))
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One call is one line.
impl Write for &Sink {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut open = self.lock();
        let Open { file, is_torn } = &mut *open;
        let written = match file {
            None => io::stderr().write_all(line),
            Some(file) => {
                let begun = if *is_torn { file.write_all(b"\n") } else { Ok(()) };
                begun.and_then(|()| file.write_all(line))
            }
        };
        *is_torn = written.is_err();
        if written.is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
            metrics::counter!("strongroom_log_write_errors_total").increment(1);
        }
        // Whoever logs can do nothing about it.
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    File::options().create(true).append(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_reopening_lines_go_to_the_file_of_that_name() {
        let folder = tempfile::tempdir().unwrap();
        let (path, aside) = (folder.path().join("log"), folder.path().join("log.1"));
        let sink = Sink::to_file(&path).unwrap();
        (&sink).write_all(b"one\n").unwrap();
        std::fs::rename(&path, &aside).unwrap();
        (&sink).write_all(b"two\n").unwrap();
        sink.reopen().unwrap();
        (&sink).write_all(b"three\n").unwrap();
        assert_eq!(std::fs::read_to_string(aside).unwrap(), "one\ntwo\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\n");
        assert_eq!(sink.warning(), None);
        std::fs::remove_file(&path).unwrap();
        assert!(sink.warning().unwrap().contains("was deleted"));
    }

    #[test]
    fn a_line_that_cannot_be_written_is_counted_and_warned_of_until_reopened() {
        let sink = Sink::to_file(Path::new("/dev/full")).unwrap();
        (&sink).write_all(b"lost\n").unwrap();
        (&sink).write_all(b"lost too\n").unwrap();
        assert!(sink.warning().unwrap().starts_with("2 lines of the log could not be written to /dev/full"));
        sink.reopen().unwrap();
        assert_eq!(sink.warning(), None);
    }
}
