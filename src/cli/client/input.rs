//! Reads what a command works on: from a file, or from standard input. INVARIANT: what was read is wiped after use, and
//! no error tells more of it than the number of a line.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read, Write as _};
use std::path::Path;

use serde::Deserialize;
use zeroize::Zeroizing;

use super::Failure;
use crate::domain::token::Token;

/// Enough for 100,000 tokens with their orders.
const LIMIT: u64 = 16 << 20;

/// Everything in `path`, or on standard input where there is none (or it is `-`).
pub fn read(path: Option<&Path>, what: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    match path.filter(|path| path.as_os_str() != "-") {
        Some(path) => File::open(path).and_then(read_whole).map_err(|error| Failure::io(path, &error)),
        None => {
            let stdin = io::stdin().lock();
            if stdin.is_terminal() {
                writeln!(io::stderr(), "Reading {what} from the terminal; end with Ctrl-D.")?;
            }
            Ok(read_whole(stdin)?)
        }
    }
}

fn read_whole(from: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(64 << 10));
    from.take(LIMIT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LIMIT { Err(io::Error::other("longer than 16 MiB")) } else { Ok(bytes) }
}

/// One text, without the white space around it.
pub fn read_text(path: Option<&Path>, what: &str) -> Result<Zeroizing<String>, Failure> {
    let bytes = read(path, what)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| Failure::usage(format!("{what}: not text in UTF-8")))?.trim();
    if text.is_empty() {
        return Err(Failure::usage(format!("{what}: there is nothing to read")));
    }
    Ok(Zeroizing::new(text.to_owned()))
}

/// A token, and the order it was printed with.
pub struct Named {
    pub order: Option<String>,
    pub token: Zeroizing<String>,
}

/// One token: bare, or as `tokenize` prints it.
pub fn read_token(path: Option<&Path>) -> Result<Zeroizing<String>, Failure> {
    let mut tokens = read_tokens(path)?;
    match (tokens.pop(), tokens.is_empty()) {
        (Some(named), true) => Ok(named.token),
        _ => Err(Failure::usage("give exactly one token")),
    }
}

/// One token or more, one a line: bare, as `tokenize` prints them, or as `import` files them.
pub fn read_tokens(path: Option<&Path>) -> Result<Vec<Named>, Failure> {
    let text = read_text(path, "a token")?;
    let mut tokens = Vec::new();
    for (at, line) in text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty()) {
        match parse(line) {
            Some(Line::Token(named)) => tokens.push(named),
            Some(Line::Heading) => {}
            None => return Err(Failure::usage(format!("line {} holds no token (srt1…)", at + 1))),
        }
    }
    if tokens.is_empty() { Err(Failure::usage("there is no token to read")) } else { Ok(tokens) }
}

/// What says whose records are meant: a token, or the shop's own reference of a customer.
pub fn token_or_subject(token: Option<&Path>, subject: Option<&Path>) -> Result<(String, String), Failure> {
    Ok(match subject {
        Some(path) => (String::new(), read_text(Some(path), "a customer's reference")?.to_string()),
        None => (read_token(token)?.to_string(), String::new()),
    })
}

enum Line {
    Token(Named),
    /// The first line of a tokens file.
    Heading,
}

fn parse(line: &str) -> Option<Line> {
    #[derive(Deserialize)]
    struct Printed {
        order: Option<String>,
        token: Option<String>,
        import: Option<String>,
    }
    let (order, token) = if line.starts_with('{') {
        match serde_json::from_str(line).ok()? {
            Printed { token: Some(token), order, .. } => (order, Zeroizing::new(token)),
            Printed { import: Some(_), .. } => return Some(Line::Heading),
            Printed { .. } => return None,
        }
    } else {
        (None, Zeroizing::new(line.to_owned()))
    };
    Token::parse(&token).ok()?;
    Some(Line::Token(Named { order, token }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "srt1qqqsyqcyq5rqwzqfpg9scrgwpugpzysn7qwlrd";

    fn tokens(text: &str) -> Result<Vec<Named>, Failure> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        read_tokens(Some(file.path()))
    }

    #[test]
    fn a_token_is_read_in_every_form_we_print() {
        let printed = format!(
            "{{\"import\":\"00\"}}\n{TOKEN}\n{{\"token\":\"{TOKEN}\"}}\n\n{{\"line\":3,\"order\":\"SO-1\",\"token\":\"{TOKEN}\"}}\n"
        );
        let read = tokens(&printed).unwrap();
        assert_eq!(read.iter().map(|named| named.order.as_deref()).collect::<Vec<_>>(), [None, None, Some("SO-1")]);
        assert!(read.iter().all(|named| *named.token == TOKEN));
    }

    #[test]
    fn what_is_no_token_is_named_by_its_line_alone() {
        for bad in ["canary-7f3a", "{\"order\":\"canary-7f3a\"}", "{canary-7f3a"] {
            let failure = tokens(&format!("{TOKEN}\n{bad}\n")).map(drop).unwrap_err();
            assert_eq!((failure.code, failure.message.as_str()), (2, "line 2 holds no token (srt1…)"));
        }
        assert!(tokens(" \n").is_err());
    }

    #[test]
    fn a_missing_file_is_named() {
        let failure = read(Some(Path::new("/nonexistent/customer.json")), "a customer").map(drop).unwrap_err();
        assert!(failure.code == 5 && failure.message.starts_with("/nonexistent/customer.json: "));
    }
}
