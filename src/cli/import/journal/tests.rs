//! What stands of two files that a kill left anyhow. INVARIANT: none of these tests needs a server.

use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::crypto::entropy::SeededEntropy;

const TOKEN: &str = "srt1qqqsyqcyq5rqwzqfpg9scrgwpugpzysn7qwlrd";

struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn tokens(&self) -> PathBuf {
        self.folder.path().join("tokens.jsonl")
    }

    fn rejects(&self) -> PathBuf {
        self.folder.path().join("rejects.jsonl")
    }

    fn open_with(&self, seed: u64, skip: &[Field]) -> Result<(Journal, Resumed), Failure> {
        let heading = Heading::new(&SeededEntropy::new(seed), Class::Order, skip);
        Journal::open(&self.tokens(), &self.rejects(), heading)
    }

    fn open(&self, seed: u64) -> (Journal, Resumed) {
        self.open_with(seed, &[]).unwrap()
    }

    fn bytes(&self) -> (Vec<u8>, Vec<u8>) {
        (std::fs::read(self.tokens()).unwrap(), std::fs::read(self.rejects()).unwrap())
    }

    fn put(&self, tokens: &[u8], rejects: &[u8]) {
        std::fs::write(self.tokens(), tokens).unwrap();
        std::fs::write(self.rejects(), rejects).unwrap();
    }
}

/// Files lines `from..=12`, of which the 4th, 5th and 9th are bad.
fn file_from(journal: &mut Journal, from: u64) {
    for line in from..=12 {
        if [4, 5, 9].contains(&line) {
            journal.reject(line, &Flaw { field: "phone".to_owned(), reason: "NOT_A_PHONE" }).unwrap();
        } else {
            journal.token(line, Some(&format!("SO-{line}")), TOKEN).unwrap();
        }
    }
    journal.sync().unwrap();
}

#[test]
fn cut_anywhere_and_taken_up_again_the_files_are_the_same() {
    let files = Files::new();
    let (mut journal, begun) = files.open(1);
    file_from(&mut journal, 1);
    drop(journal);
    let (tokens, rejects) = files.bytes();
    let heading = tokens.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    // Steps that fit into no line's length, and the ends.
    for tokens_end in (heading..tokens.len()).step_by(7).chain([tokens.len()]) {
        for rejects_end in (0..rejects.len()).step_by(5).chain([rejects.len()]) {
            files.put(&tokens[..tokens_end], &rejects[..rejects_end]);
            let (mut journal, resumed) = files.open(2);
            assert_eq!(resumed.import, begun.import);
            file_from(&mut journal, resumed.lines() + 1);
            drop(journal);
            assert!(files.bytes() == (tokens.clone(), rejects.clone()), "cut at {tokens_end} and {rejects_end}");
        }
    }
}

#[test]
fn a_complete_import_taken_up_again_is_left_alone() {
    let files = Files::new();
    let (mut journal, _) = files.open(1);
    file_from(&mut journal, 1);
    drop(journal);
    let before = files.bytes();
    let (journal, resumed) = files.open(2);
    assert_eq!((resumed.tokenized, resumed.rejected, resumed.lines()), (9, 3, 12));
    assert_eq!(resumed.last, Some((12, Some("SO-12".to_owned()))));
    drop(journal);
    assert!(files.bytes() == before);
}

#[test]
fn a_heading_torn_before_anything_was_sent_is_written_anew() {
    let files = Files::new();
    drop(files.open(1));
    let (tokens, _) = files.bytes();
    for end in 0..tokens.len() {
        files.put(&tokens[..end], b"");
        let (_, resumed) = files.open(2);
        assert_eq!((resumed.lines(), resumed.import.len()), (0, 32), "{end}");
    }
}

#[test]
fn a_line_spoilt_in_the_middle_is_asked_for_again() {
    let files = Files::new();
    let (mut journal, _) = files.open(1);
    file_from(&mut journal, 1);
    drop(journal);
    let (tokens, rejects) = files.bytes();
    let place = tokens.windows(4).position(|window| window == b"SO-3").unwrap();
    for spoilt in [b"\0".as_slice(), b"\n", b"\""] {
        let mut tokens = tokens.clone();
        tokens.splice(place..place + 1, spoilt.iter().copied());
        files.put(&tokens, &rejects);
        assert_eq!(files.open(2).1.lines(), 2);
    }
}

#[test]
fn a_strangers_file_is_never_cut() {
    let files = Files::new();
    for (tokens, rejects) in [
        ("My novel\nChapter 1\n", ""),
        ("", "My novel\nChapter 1\n"),
        ("", "{\"line\":1,\"field\":\"\",\"reason\":\"NOT_JSON\"}\n"),
        ("{\"import\":\"damaged\n{\"line\":1,\"token\":\"…\"}\n", ""),
    ] {
        files.put(tokens.as_bytes(), rejects.as_bytes());
        assert_eq!(files.open_with(1, &[]).map(drop).unwrap_err().code, 2);
        assert!(files.bytes() == (tokens.into(), rejects.into()));
    }
}

#[test]
fn other_options_than_those_begun_with_are_refused() {
    let files = Files::new();
    drop(files.open_with(1, &[Field::Phone, Field::Email]).unwrap());
    assert!(files.open_with(2, &[Field::Email, Field::Phone, Field::Email]).is_ok());
    assert_eq!(files.open_with(2, &[Field::Email]).map(drop).unwrap_err().code, 2);
}

#[test]
fn two_imports_do_not_share_a_file() {
    let files = Files::new();
    let _first = files.open(1);
    assert!(files.open_with(2, &[]).map(drop).unwrap_err().message.contains("another import"));
}

#[test]
fn nobody_else_may_read_what_is_made() {
    let files = Files::new();
    drop(files.open(1));
    for path in [files.tokens(), files.rejects()] {
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
