//! Reads the lines to import. INVARIANT: one line is held at a time, no longer than a limit, and it is wiped after use.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::journal::Resumed;
use crate::cli::Failure;
use crate::cli::customer::Customer;
use crate::domain::vocabulary::Class;

/// Longer than any customer whose fields keep to their limits.
const LIMIT: usize = 256 << 10;

pub struct Rows {
    path: PathBuf,
    length: u64,
    lines: Lines<BufReader<File>>,
}

pub struct Row {
    /// From 1.
    pub line: u64,
    /// Without its end of line.
    pub text: Zeroizing<Vec<u8>>,
    /// Whether the line was too long to be read whole.
    pub is_cut: bool,
}

impl Rows {
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let open = || {
            let file = File::open(path)?;
            Ok((file.metadata()?.len(), BufReader::with_capacity(64 << 10, file)))
        };
        let (length, reader) = open().map_err(|error: io::Error| Failure::io(path, &error))?;
        Ok(Self { path: path.to_owned(), length, lines: Lines { reader, line: 0, read: 0 } })
    }

    pub fn length(&self) -> u64 {
        self.length
    }

    /// How many bytes were read so far.
    pub fn read(&self) -> u64 {
        self.lines.read
    }

    pub fn next(&mut self) -> Result<Option<Row>, Failure> {
        self.lines.next().map_err(|error| Failure::io(&self.path, &error))
    }

    /// Passes over what an earlier run has filed, making sure that it is the file which that run read.
    pub fn skip_to(&mut self, resumed: &Resumed) -> Result<(), Failure> {
        let other = || {
            let path = self.path.display().to_string();
            Failure::usage(format!("{path}: not the file this tokens file was begun from; give another --tokens"))
        };
        let (other_file, last) = (other(), resumed.last.as_ref());
        for line in 1..=resumed.lines() {
            let Some(row) = self.next()? else { return Err(other_file) };
            if let Some((_, order)) = last.filter(|(last, _)| *last == line) {
                // What an order number is does not depend on the class.
                let found = Customer::parse(&row.text, Class::Order).ok().and_then(|customer| customer.order);
                if found != *order {
                    return Err(other_file);
                }
            }
        }
        Ok(())
    }
}

struct Lines<R> {
    reader: R,
    line: u64,
    read: u64,
}

impl<R: BufRead> Lines<R> {
    fn next(&mut self) -> io::Result<Option<Row>> {
        let mut text = Zeroizing::new(Vec::with_capacity(2048));
        let read = (&mut self.reader).take(LIMIT as u64 + 1).read_until(b'\n', &mut text)?;
        if read == 0 {
            return Ok(None);
        }
        self.line += 1;
        self.read += read as u64;
        let is_cut = text.last() != Some(&b'\n') && text.len() > LIMIT;
        if is_cut {
            self.read += self.reader.skip_until(b'\n')? as u64;
        }
        for end in [b'\n', b'\r'] {
            if text.last() == Some(&end) {
                text.pop();
            }
        }
        Ok(Some(Row { line: self.line, text, is_cut }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Vec<(u64, usize, bool)> {
        let mut lines = Lines { reader: text, line: 0, read: 0 };
        let rows: Vec<_> = std::iter::from_fn(|| lines.next().unwrap()).collect();
        assert_eq!(lines.read, text.len() as u64);
        rows.iter().map(|row| (row.line, row.text.len(), row.is_cut)).collect()
    }

    #[test]
    fn every_line_has_its_number_and_only_a_final_end_may_be_missing() {
        assert_eq!(read(b"ab\r\n\nc"), [(1, 2, false), (2, 0, false), (3, 1, false)]);
        assert_eq!(read(b"ab\n"), [(1, 2, false)]);
        assert_eq!(read(b""), []);
    }

    #[test]
    fn a_line_too_long_is_passed_over_whole() {
        let mut text = vec![b'a'; LIMIT * 3];
        text.extend(b"\nb\n");
        assert_eq!(read(&text), [(1, LIMIT + 1, true), (2, 1, false)]);
        let mut longest = vec![b'a'; LIMIT];
        longest.push(b'\n');
        assert_eq!(read(&longest), [(1, LIMIT, false)]);
    }

    #[test]
    fn another_input_than_the_one_begun_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{\"order\":\"A\"}\n{\"order\":\"B\"}\n{}\n").unwrap();
        let skip = |tokenized, last| {
            let mut rows = Rows::open(file.path()).unwrap();
            rows.skip_to(&Resumed { tokenized, last, ..Resumed::default() })
                .map(|()| rows.next().unwrap().map(|row| row.line))
        };
        assert_eq!(skip(2, Some((2, Some("B".to_owned())))).unwrap(), Some(3));
        assert_eq!(skip(3, Some((3, None))).unwrap(), None);
        assert_eq!(skip(2, Some((2, Some("A".to_owned())))).unwrap_err().code, 2);
        assert_eq!(skip(4, None).unwrap_err().code, 2);
    }
}
