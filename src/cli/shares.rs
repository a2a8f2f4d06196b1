//! Shares of a root key on their way to people and back. INVARIANT: a share goes to standard output or to a file of its own for
//! its owner alone, and comes back by standard input or file; no command line, log or error carries one.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::Failure;
use super::client::{self, print};
use super::serve::failed;
use crate::crypto::keyring::Keyring;
use crate::crypto::root::shares::{Gathering, Share, ShareSet};
use crate::crypto::root::{Fresh, write_secret};

/// Gives every share away, once: to files of a folder, or to standard output. What was given away is first seen to make the
/// root key again.
pub fn hand_out(fresh: &Fresh, set: &ShareSet, out: Option<&Path>) -> Result<(), Failure> {
    let mut gathering = Gathering::new(set.clone());
    for share in &fresh.shares {
        let again = Share::parse(&share.to_text()).and_then(|share| gathering.add(share));
        again.map_err(|bad| failed("the shares do not read back", &bad))?;
    }
    let root = gathering.combine().map_err(|few| failed("the shares do not make the root key", &few))?;
    if root.check() != fresh.root.check() {
        return Err(Failure::local("the shares make another key than the root"));
    }
    let (all, threshold) = (set.shares(), set.threshold());
    for share in &fresh.shares {
        let text = share.to_text();
        match out {
            Some(folder) => {
                let path = file_of(folder, share);
                write_secret(&path, &text).map_err(|error| Failure::io(&path, &error))?;
                print(&format!("share    {} ({} of {all})", path.display(), share.number()))?;
            }
            None => {
                let line = Zeroizing::new(format!("share {} of {all}  {}", share.number(), text.as_str()));
                print(&line)?;
            }
        }
    }
    print(&format!(
        "\n{threshold} of these {all} shares open the vault; they are shown this once. Give each to another person, by a way that \
         leaves no copy.\nWith fewer than {threshold} left, ALL DATA IS LOST; whoever gathers {threshold} holds the root key.\n"
    ))
}

fn file_of(folder: &Path, share: &Share) -> PathBuf {
    folder.join(format!("share-{}.txt", share.number()))
}

/// Makes the folder for share files, for its owner alone; refuses one that holds shares already.
pub fn prepare(folder: &Path) -> Result<(), Failure> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| Failure::io(folder, &error))?;
    if folder.join("share-1.txt").exists() {
        return Err(Failure::local(format!("{} holds shares already: they are never overwritten", folder.display())));
    }
    Ok(())
}

/// The shares of one text: one a line, as they were printed or filed.
pub fn read(path: Option<&Path>) -> Result<Vec<Zeroizing<String>>, Failure> {
    let text = client::read_text(path, "shares, one a line")?;
    let mut shares = Vec::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        // As printed by `keys init`, the share is the last word.
        let word = line.split_whitespace().last().unwrap_or_default();
        Share::parse(word).map_err(|bad| Failure::usage(format!("line {}: {bad}", at + 1)))?;
        shares.push(Zeroizing::new(word.to_owned()));
    }
    Ok(shares)
}

/// Opens a keyring whose root is split, on this machine, with shares from standard input.
pub(super) fn open(keyring: &Path, set: &ShareSet) -> Result<Keyring, Failure> {
    let mut gathering = Gathering::new(set.clone());
    for (at, text) in read(None)?.iter().enumerate() {
        let added = Share::parse(text).and_then(|share| gathering.add(share));
        added.map_err(|bad| Failure::usage(format!("share {} of those given: {bad}", at + 1)))?;
    }
    let root = gathering.combine().map_err(|few| Failure::usage(few.to_string()))?;
    Keyring::load(keyring, &root)
        .map_err(|error| failed(&format!("cannot open the keyring {}", keyring.display()), &error))
}
