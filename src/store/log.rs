//! What else of the log lies in the store, checked against its entries: the ends of years, stored nodes, checkpoints. INVARIANT: a
//! log that passes has one closing note for every tree before the last, contiguous from entry 0, nodes exactly where its
//! entries complete subtrees, and no checkpoint that its entries do not lead to.

use super::StoreError;
use super::tx::Reads;
use super::tx::log::KeptNote;
use crate::audit::checkpoint::Checkpoint;
use crate::audit::proof::STORED_FROM;
use crate::audit::verify::{Flaw, Head, Verifier, What};
use crate::crypto::keyring::Keyring;

/// Notes read at a time.
const PAGE: usize = 500;

/// What a reading of the log has seen beside its entries.
#[derive(Default)]
pub(super) struct Beside {
    nodes: u64,
    notes: u64,
}

/// The first entry that is kept, as the store says; without keys, as it claims.
pub(super) fn kept_from(reads: &dyn Reads, keyring: Option<&Keyring>) -> Result<u64, StoreError> {
    if let Some(keyring) = keyring {
        return super::View::new(reads, keyring).audit_kept_from();
    }
    let row = reads.meta("audit_kept_from")?;
    let first = row.and_then(|(row, _)| row.value.try_into().ok()).map_or(0, i64::from_le_bytes);
    Ok(u64::try_from(first).unwrap_or(0))
}

/// What a kept note says, if that is what its columns say and the vault's key has signed it.
pub(super) fn told(kept: &KeptNote, keyring: Option<&Keyring>) -> Option<Checkpoint> {
    let read = match keyring {
        Some(keyring) => Checkpoint::verify(&kept.note, &keyring.signer().public()),
        None => Checkpoint::read(&kept.note),
    };
    let fits = |told: &Checkpoint| (told.first, told.size, told.is_last) == (kept.first, kept.size, kept.is_last);
    read.ok().filter(fits)
}

/// The trees that are closed, in order; each begins where the one before ended.
pub(super) fn closed(
    reads: &dyn Reads,
    keyring: Option<&Keyring>,
    verifier: &Verifier,
) -> Result<Result<Vec<Checkpoint>, Flaw>, StoreError> {
    let (mut next, mut closed) = (0, Vec::new());
    for kept in reads.last_notes()? {
        match told(&kept, keyring).filter(|told| told.first == next) {
            Some(told) => {
                next = told.first + told.size;
                closed.push(told);
            }
            None => return Ok(Err(verifier.flaw(What::Checkpoint))),
        }
    }
    Ok(Ok(closed))
}

/// A head from elsewhere that lies before the first entry that is kept: only where a tree was closed can it still be compared.
pub(super) fn known_before(closed: &[Checkpoint], known: &Head) -> Result<(), KnownBefore> {
    match closed.iter().find(|last| last.first + last.size == known.size) {
        Some(last) if last.root == known.root => Ok(()),
        Some(_) => Err(KnownBefore::Forked),
        None => Err(KnownBefore::Expired),
    }
}

pub(super) enum KnownBefore {
    Forked,
    Expired,
}

/// Starts the next tree where one was closed.
pub(super) fn cross(verifier: &mut Verifier, closed: &[Checkpoint]) -> Result<(), Flaw> {
    let at = verifier.entries();
    let is_here = |last: &&Checkpoint| last.first == verifier.first() && last.first + last.size == at;
    match closed.iter().find(is_here) {
        Some(last) => verifier.cut(&last.root),
        None => Ok(()),
    }
}

impl Beside {
    /// After a batch: the nodes that it completed are there, and a checkpoint of its head says the same head.
    pub(super) fn follow(&mut self, reads: &dyn Reads, verifier: &Verifier) -> Result<Result<(), Flaw>, StoreError> {
        for node in verifier.completed().iter().filter(|node| node.level >= STORED_FROM) {
            self.nodes += 1;
            match reads.node(node.level, node.end) {
                Ok(Some(hash)) if hash == node.hash => {}
                Ok(_) | Err(StoreError::Corrupt { .. }) => return Ok(Err(verifier.flaw(What::Node))),
                Err(error) => return Err(error),
            }
        }
        let size = verifier.entries() - verifier.first();
        if let Some(kept) = reads.note(verifier.first(), size)? {
            self.notes += 1;
            if Checkpoint::read(&kept.note).map(|told| told.root) != Ok(verifier.root()) {
                return Ok(Err(verifier.flaw(What::Checkpoint)));
            }
        }
        Ok(Ok(()))
    }

    /// Behind the last batch: nothing more is there than was seen, and every note is signed.
    pub(super) fn finish(
        &self,
        reads: &dyn Reads,
        keyring: Option<&Keyring>,
        verifier: &Verifier,
        kept_from: u64,
    ) -> Result<Result<(), Flaw>, StoreError> {
        if reads.nodes(kept_from + 1..verifier.entries() + 1)? != self.nodes {
            return Ok(Err(verifier.flaw(What::Node)));
        }
        let (mut at, mut seen) = (None, 0);
        loop {
            let notes = reads.notes_after(at, PAGE)?;
            let Some(last) = notes.last() else { break };
            at = Some((last.first, last.size));
            for kept in &notes {
                if told(kept, keyring).is_none() {
                    return Ok(Err(verifier.flaw(What::Checkpoint)));
                }
                seen += u64::from(kept.first >= kept_from && kept.first + kept.size <= verifier.entries());
            }
        }
        Ok(if seen == self.notes { Ok(()) } else { Err(verifier.flaw(What::Checkpoint)) })
    }
}
