//! The log in the world's eyes: signed heads, proofs, what is taken out of it; and its years. INVARIANT: nothing about the log
//! leaves the vault that was not checked against a head it signs, another tenant's entries leave it as hashes alone, and taking
//! the log out takes two people.

mod years;

pub use years::KeptYears;

use super::approval::{Ask, Gate};
use super::call::{Call, Draft};
use super::{Error, Gated, Vault};
use crate::audit::checkpoint::{Checkpoint, LogName, verifier_key};
use crate::audit::entry::{Action, Entry};
use crate::audit::export;
use crate::audit::log::Tip;
use crate::audit::proof::{self, SECTION};
use crate::audit::tree::{Frontier, Hash, leaf_hash};
use crate::crypto::slot::Canonical;
use crate::domain::field::FieldReason;
use crate::domain::id::TenantId;
use crate::policy::approval::Verb;
use crate::store::{KeptNote, StoreError, Tx, View};

/// How this vault's log goes by and how long it lives.
#[derive(Clone, Debug)]
pub struct LogKeeping {
    pub name: LogName,
    /// For how many years after it was closed a year's entries are kept.
    pub keep_years: i16,
}

/// A signed head, and the key that it verifies by.
#[derive(Clone, Debug)]
pub struct HeadOf {
    pub checkpoint: Checkpoint,
    pub note: String,
    pub verifier_key: String,
}

/// A proof that ends in a head.
#[derive(Clone, Debug)]
pub struct ProofOf {
    pub head: HeadOf,
    pub hashes: Vec<Hash>,
}

/// That an entry is in the log.
#[derive(Clone, Debug)]
pub struct InclusionProof {
    pub proof: ProofOf,
    pub leaf_hash: Hash,
    /// The entry itself, where it is the caller's tenant's.
    pub entry: Option<Vec<u8>>,
}

/// Which part of the log is taken out. `year` is that of the tree; 0 the current one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TakeOut {
    pub year: i16,
    /// Begin with the section of this entry.
    pub from: u64,
    /// End where the tree had this size and a head was signed; 0: now.
    pub size: u64,
}

/// An export under way: every section of it is under one head.
#[derive(Clone, Debug)]
pub struct Exporting {
    tenant: TenantId,
    head: HeadOf,
    /// The first line.
    pub header: String,
    /// Of the first section.
    pub from: u64,
}

fn no_such(field: &str) -> Error {
    Error::invalid(field, FieldReason::NotInTheLog)
}

/// A proof that does not lead to the head was made of something spoiled.
fn spoiled() -> StoreError {
    StoreError::Tampered { table: "audit_node" }
}

impl Vault {
    /// A signed head of a year's tree: of the current one, made now; of a closed one, its last.
    pub async fn checkpoint(&self, call: &Call, year: i16) -> Result<HeadOf, Error> {
        let draft = Draft::of(call, Action::Checkpoint, self.now());
        self.log(draft.clone().done()).await?;
        let head = self.head_of(year).await;
        self.watch(&draft, head).await
    }

    pub async fn inclusion_proof(&self, call: &Call, year: i16, entry: u64) -> Result<InclusionProof, Error> {
        let draft = Draft::of(call, Action::InclusionProof, self.now());
        self.log(draft.clone().done()).await?;
        let proof = self.prove_inclusion(year, entry, &call.caller.tenant).await;
        self.watch(&draft, proof).await
    }

    /// That the tree began as it was when it had `from` entries.
    pub async fn consistency_proof(&self, call: &Call, year: i16, from: u64) -> Result<ProofOf, Error> {
        let draft = Draft::of(call, Action::ConsistencyProof, self.now());
        self.log(draft.clone().done()).await?;
        let proof = self.prove_consistency(year, from).await;
        self.watch(&draft, proof).await
    }

    async fn prove_inclusion(&self, year: i16, index: u64, tenant: &TenantId) -> Result<InclusionProof, Error> {
        let head = self.kept_head_of(year).await?;
        let Checkpoint { first, size, root, .. } = head.checkpoint;
        if index >= size {
            return Err(no_such("entry"));
        }
        let (hashes, leaf) = self.store().read(|view| {
            let hashes = proof::inclusion(&view.tree(first), index, size)?;
            let leaf = view.leaves(first, index..index + 1)?.pop().unwrap_or_default();
            let led_to = proof::led_to(index, size, leaf_hash(&leaf), &hashes);
            if led_to == Some(root) { Ok((hashes, leaf)) } else { Err(spoiled()) }
        })?;
        let leaf_hash = leaf_hash(&leaf);
        let is_ours = Entry::from_bytes(&leaf).is_some_and(|entry| entry.tenant == *tenant);
        Ok(InclusionProof { proof: ProofOf { head, hashes }, leaf_hash, entry: is_ours.then_some(leaf) })
    }

    async fn prove_consistency(&self, year: i16, from: u64) -> Result<ProofOf, Error> {
        let head = self.kept_head_of(year).await?;
        let Checkpoint { first, size, root, .. } = head.checkpoint;
        if from == 0 || from > size {
            return Err(no_such("from_size"));
        }
        let hashes = self.store().read(|view| {
            let tree = view.tree(first);
            let (old, hashes) = (proof::root(&tree, from)?, proof::consistency(&tree, from, size)?);
            if proof::is_beginning(from, old, size, root, &hashes) { Ok(hashes) } else { Err(spoiled()) }
        })?;
        Ok(ProofOf { head, hashes })
    }

    /// Begins to take the log out, once a second person has agreed; for the rest of that day the same caller may go on with it.
    pub async fn export(&self, call: &Call, ask: TakeOut) -> Result<Gated<Exporting>, Error> {
        let draft = Draft::of(call, Action::Export, self.now());
        let year = if ask.year == 0 { self.store().read(|view| view.audit_tip())?.year } else { ask.year };
        let gate = Ask::new(self, call, Verb::ExportLog, format!("take out the log of {year}"));
        let digest = gate.digest(&Canonical::new("export_log").i64(i64::from(year)));
        let log = draft.clone();
        let write = move |tx: &mut Tx<'_>| {
            let agreed = match gate.goes_on(tx, digest)? {
                Some(agreed) => agreed,
                None => match gate.gate(tx, digest)? {
                    Gate::Agreed(agreed) => agreed,
                    Gate::Pending(pending) => return Ok(Ok(Some(pending))),
                    Gate::Closed(error) => return Ok(Err(error)),
                },
            };
            tx.log(log.clone().under(agreed.story()).done());
            Ok(Ok(None))
        };
        let answer = self.store().run("export", write).await.map_err(Error::from).and_then(|answer| answer);
        if let Some(pending) = self.watch(&draft, answer).await? {
            return Ok(Gated::Pending(pending));
        }
        let begun = self.begin_export(call.caller.tenant.clone(), TakeOut { year, ..ask }).await;
        self.watch(&draft, begun).await.map(Gated::Done)
    }

    async fn begin_export(&self, tenant: TenantId, TakeOut { year, from, size }: TakeOut) -> Result<Exporting, Error> {
        let mut head = self.kept_head_of(year).await?;
        if size > 0 && size != head.checkpoint.size {
            let first = head.checkpoint.first;
            let kept = self.store().read(|view| view.note(first, size))?.ok_or_else(|| no_such("size"))?;
            head = self.read_head(kept)?;
        }
        if from >= head.checkpoint.size {
            return Err(no_such("from_entry"));
        }
        let from = from - from % SECTION;
        let first = head.checkpoint.first;
        let peaks = self.store().read(|view| proof::peaks(&view.tree(first), from))?;
        let header = export::header(&tenant, from, &peaks, &head.note);
        Ok(Exporting { tenant, head, header, from })
    }

    /// The lines of the section that starts at `first`, and where the next one does; `None` behind the last.
    pub fn export_section(&self, export: &Exporting, first: u64) -> Result<Option<(String, u64)>, Error> {
        let Checkpoint { first: base, size, root, .. } = export.head.checkpoint;
        if first >= size {
            return Ok(None);
        }
        let end = size.min(first + SECTION);
        let lines = self.store().read(|view| {
            let leaves = view.leaves(base, first..end)?;
            let path = proof::section(&view.tree(base), first, size)?;
            let mut frontier = Frontier::new();
            leaves.iter().for_each(|leaf| frontier.append(leaf));
            if proof::led_to(first / SECTION, size.div_ceil(SECTION), frontier.root(), &path) != Some(root) {
                return Err(spoiled());
            }
            let (origin, keyring) = (export.head.checkpoint.origin(), self.keyring());
            export::section(&origin, &export.tenant, first, &leaves, &path, keyring.signer()).ok_or_else(spoiled)
        })?;
        Ok(Some((lines, end)))
    }

    /// As `head_of`, for a tree whose entries are kept.
    async fn kept_head_of(&self, year: i16) -> Result<HeadOf, Error> {
        let head = self.head_of(year).await?;
        let kept_from = self.store().read(|view| view.audit_kept_from())?;
        if head.checkpoint.first < kept_from { Err(no_such("year")) } else { Ok(head) }
    }

    async fn head_of(&self, year: i16) -> Result<HeadOf, Error> {
        let (tip, closed) = self.store().read(|view| Ok((view.audit_tip()?, view.last_notes()?)))?;
        if year == 0 || year == tip.year {
            return self.sign_head(tip).await;
        }
        for kept in closed {
            let head = self.read_head(kept)?;
            if head.checkpoint.year == year {
                return Ok(head);
            }
        }
        Err(no_such("year"))
    }

    /// Signs the current head and keeps the note, unless it is signed already. `None`: the tree has no entries yet.
    pub async fn sign_now(&self) -> Result<Option<HeadOf>, Error> {
        let tip = self.store().read(|view| view.audit_tip())?;
        if tip.frontier.size() == 0 { Ok(None) } else { self.sign_head(tip).await.map(Some) }
    }

    async fn sign_head(&self, tip: Tip) -> Result<HeadOf, Error> {
        let (first, size) = (tip.first, tip.frontier.size());
        if let Some(kept) = self.store().read(|view| view.note(first, size))? {
            return self.read_head(kept);
        }
        let name = self.inner.parts.log.name.clone();
        let root = tip.frontier.root();
        let checkpoint = Checkpoint { name, year: tip.year, first, size, root, at: self.now(), is_last: false };
        let note = checkpoint.sign(self.keyring().signer());
        let kept = KeptNote { first, size, is_last: false, note };
        let row = kept.clone();
        let write = move |tx: &mut Tx<'_>| {
            // Cut meanwhile, it has its last note.
            if tx.audit_tip()?.first == first { tx.put_note(&row) } else { Ok(()) }
        };
        self.store().run("put_note", write).await?;
        self.read_head(kept)
    }

    fn read_head(&self, kept: KeptNote) -> Result<HeadOf, Error> {
        let public = self.keyring().signer().public();
        let checkpoint = Checkpoint::verify(&kept.note, &public).ok();
        let fits = |read: &Checkpoint| (read.first, read.size, read.is_last) == (kept.first, kept.size, kept.is_last);
        let checkpoint = checkpoint.filter(fits).ok_or(Error::Tampered { table: "checkpoint" })?;
        let verifier_key = verifier_key(&checkpoint.name, &public);
        Ok(HeadOf { checkpoint, note: kept.note, verifier_key })
    }
}

/// What a head from outside, a witness's, says against this log; `None` when the log leads to it.
pub fn contradiction(view: &View<'_>, seen: &Checkpoint) -> Result<Option<&'static str>, StoreError> {
    let tip = view.audit_tip()?;
    let public = view.keyring().signer().public();
    let closed = view.last_notes()?.into_iter().filter_map(|kept| Checkpoint::verify(&kept.note, &public).ok());
    let closed = closed.map(|last| (last.first, last.size, last.root)).find(|(first, ..)| *first == seen.first);
    let here = (tip.first == seen.first).then(|| (tip.first, tip.frontier.size(), tip.frontier.root()));
    let Some((first, size, root)) = closed.or(here) else {
        let is_ahead = seen.first > tip.first;
        return Ok(Some(if is_ahead { "the log is behind it" } else { "the log has no tree that began there" }));
    };
    if seen.size > size {
        return Ok(Some("the log is behind it"));
    }
    let is_kept = first >= view.audit_kept_from()?;
    let then = match () {
        () if seen.size == size => root,
        () if is_kept => proof::root(&view.tree(first), seen.size)?,
        // Its entries have served their time; that the tree was closed behind it is all that can be said.
        () => seen.root,
    };
    Ok((then != seen.root).then_some("the log is another than the one it saw"))
}
