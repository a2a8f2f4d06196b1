//! The file of messages that a webhook never took: one JSON line each. INVARIANT: a line is on disk before its announcements leave
//! the outbox; a line leaves the file only when it lies in the file beside it, and that one only when it was taken or put back; so
//! a crash can double a line, and loses none.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::crypto::root::sync_folder_of;
use crate::domain::announcement::Message;
use crate::domain::id::{HookName, TenantId};
use crate::domain::time::Timestamp;

pub struct DeadLetters {
    path: PathBuf,
}

/// One line of it.
#[derive(Debug, PartialEq)]
pub struct Letter {
    pub hook: HookName,
    /// Whose records it tells of.
    pub tenant: TenantId,
    pub message: Message,
}

impl Letter {
    fn to_line(hook: &HookName, message: &Message, at: Timestamp) -> io::Result<String> {
        // The body is ours: read and written again it is the same to the byte.
        let body: Value = serde_json::from_str(&message.body)?;
        let line = json!({ "webhook": hook.as_str(), "given_up_at": at.to_string(), "id": message.id, "body": body });
        Ok(format!("{line}\n"))
    }

    /// `None`: the line is torn, or was not written here.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let line: Value = serde_json::from_slice(line).ok()?;
        let hook = line.get("webhook")?.as_str()?.parse().ok()?;
        let tenant = line.pointer("/body/data/tenant")?.as_str()?.parse().ok()?;
        let (id, body) = (line.get("id")?.as_str()?.to_owned(), line.get("body")?.to_string());
        Some(Self { hook, tenant, message: Message { id, body } })
    }
}

impl DeadLetters {
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Makes the file where it is missing, and sees that it can be written.
    pub fn open(&self) -> io::Result<()> {
        let is_new = !self.path.exists();
        self.file()?;
        if is_new { sync_folder_of(&self.path) } else { Ok(()) }
    }

    pub fn is_empty(&self) -> bool {
        fs::metadata(&self.path).map_or(true, |file| file.len() == 0)
    }

    /// Appends a message, durably.
    pub fn append(&self, hook: &HookName, message: &Message, at: Timestamp) -> io::Result<()> {
        self.write(Letter::to_line(hook, message, at)?.as_bytes())
    }

    /// Lines that were taken aside come back.
    pub fn put_back(&self, lines: &[Vec<u8>]) -> io::Result<()> {
        if lines.is_empty() { Ok(()) } else { self.write(&lines.concat()) }
    }

    /// Moves all lines to the file beside this one, where those of an interrupted redelivery may lie already.
    pub fn take_aside(&self) -> io::Result<Aside> {
        let mut name = self.path.clone().into_os_string();
        name.push(".redelivering");
        let aside = Self::new(Path::new(&name));
        let (from, mut to) = (locked(self.file()?)?, locked(aside.file()?)?);
        let mut lines = Vec::new();
        (&from).read_to_end(&mut lines)?;
        finish_line(&mut to)?;
        to.write_all(&lines)?;
        to.sync_all()?;
        sync_folder_of(&aside.path)?;
        from.set_len(0)?;
        from.sync_all()?;
        Ok(Aside { path: aside.path, file: to })
    }

    fn write(&self, lines: &[u8]) -> io::Result<()> {
        let mut file = locked(self.file()?)?;
        finish_line(&mut file)?;
        file.write_all(lines)?;
        file.sync_all()
    }

    fn file(&self) -> io::Result<File> {
        File::options().create(true).read(true).append(true).mode(0o600).open(&self.path)
    }
}

/// Lines under way; nobody else redelivers while this is held.
pub struct Aside {
    path: PathBuf,
    file: File,
}

impl Aside {
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    /// Each line was taken, or lies in the dead-letter file again. The file stays: one that is deleted could still be locked by
    /// who waits for it.
    pub fn clear(self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.sync_all()
    }
}

/// For one process alone, and never waited for.
fn locked(file: File) -> io::Result<File> {
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(io::Error::other("another process is at work on it")),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

/// What a crash left of a line stays, and is no message.
fn finish_line(file: &mut File) -> io::Result<()> {
    if file.metadata()?.len() == 0 {
        return Ok(());
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    if last == *b"\n" { Ok(()) } else { file.write_all(b"\n") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(n: u8) -> Message {
        let record = format!("{n:02x}").repeat(16);
        let body = format!("{{\"type\":\"record.erased\",\"data\":{{\"tenant\":\"k\",\"alpha\":\"{record}\"}}}}");
        Message { id: format!("msg_{n}"), body }
    }

    fn letters(path: &Path) -> Vec<Option<String>> {
        let bytes = fs::read(path).unwrap_or_default();
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| Letter::parse(line).map(|letter| letter.message.id)).collect()
    }

    #[test]
    fn a_line_reads_back_as_the_very_message() {
        let hook: HookName = "shop".parse().unwrap();
        let line = Letter::to_line(&hook, &message(7), Timestamp(0)).unwrap();
        let tenant = "k".parse().unwrap();
        assert_eq!(Letter::parse(line.as_bytes()), Some(Letter { hook, tenant, message: message(7) }));
        for torn in 0..line.len() - 1 {
            assert_eq!(Letter::parse(&line.as_bytes()[..torn]), None, "{torn}");
        }
    }

    #[test]
    fn lines_go_aside_and_come_back_and_none_is_lost_where_a_crash_tore_or_interrupted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dead.jsonl");
        let (dead, hook) = (DeadLetters::new(&path), "shop".parse().unwrap());
        let append = |n| dead.append(&hook, &message(n), Timestamp(0)).unwrap();
        let id = |n: u8| Some(format!("msg_{n}"));
        append(1);
        // Torn.
        File::options().append(true).open(&path).unwrap().write_all(b"{\"webhook\":\"sh").unwrap();
        append(2);
        assert_eq!(letters(&path), [id(1), None, id(2)]);
        let aside = dead.take_aside().unwrap();
        assert!(dead.take_aside().is_err(), "one at a time");
        assert_eq!((letters(&path), letters(aside.path())), (vec![], vec![id(1), None, id(2)]));
        // Killed here; the server goes on.
        let beside = aside.path().to_owned();
        drop(aside);
        append(3);
        let aside = dead.take_aside().unwrap();
        assert_eq!(letters(aside.path()), [id(1), None, id(2), id(3)]);
        append(4);
        let whole = fs::read(&beside).unwrap();
        let lines: Vec<Vec<u8>> = whole.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        dead.put_back(&lines[2..]).unwrap();
        aside.clear().unwrap();
        assert_eq!((letters(&path), letters(&beside)), (vec![id(4), id(2), id(3)], vec![]));
        assert!(!dead.is_empty());
    }
}
