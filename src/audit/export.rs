//! The log as a file that verifies far from here: JSON lines, for one tenant's auditor. INVARIANT: every byte of an export is
//! either derived from what the vault has signed or signed itself, and an entry of another tenant is in it by its hash alone.
//!
//! ```text
//! {"format":…,"tenant":…,"from":0,"peaks":[],"checkpoint":"the signed head that everything here is under"}
//! {"section":0,"leaves":"256 leaf hashes","ours":"256 bits","path":[from its head to the checkpoint's],"signature":…}
//! {"entry":0,"at":…,"request":…,"actor":…,"action":…,…,"bytes":"the canonical bytes that the leaf's hash is of"}
//! {"entry":3,…}                    1 and 2 are other tenants'
//! {"section":256,…}
//! ```
//! A section's signature binds its leaves, which of them are ours, and the lines that follow it: none of the tenant's own entries can
//! be left out or passed off as another's. Numbers are counted in the year's tree. `peaks` are the heads of the complete subtrees before `from`: with them an
//! export that begins later still shows what every earlier checkpoint from there on must have been.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::entry::{Actor, Entry, Verdict, Whom};
use super::proof::SECTION;
use super::tree::{Hash, leaf_hash};
use crate::crypto::signer::Signer;
use crate::domain::id::TenantId;

const FORMAT: &str = "strongroom log export 1";

#[derive(Serialize)]
struct Header<'a> {
    format: &'a str,
    tenant: &'a str,
    from: u64,
    peaks: Vec<String>,
    checkpoint: &'a str,
}

#[derive(Serialize)]
struct Section {
    section: u64,
    leaves: String,
    ours: String,
    path: Vec<String>,
    signature: String,
}

#[derive(Serialize)]
struct Line {
    entry: u64,
    at: String,
    request: String,
    actor: String,
    certificate: Option<String>,
    action: String,
    class: Option<String>,
    purpose: Option<String>,
    verdict: String,
    outcomes: Vec<String>,
    subject: Option<String>,
    whom: Option<String>,
    whom_certificate: Option<String>,
    count: Option<u32>,
    bytes: String,
}

/// The first line; `note` is the checkpoint that the export is under.
pub fn header(tenant: &TenantId, from: u64, peaks: &[Hash], note: &str) -> String {
    let peaks = peaks.iter().map(|hash| STANDARD.encode(hash)).collect();
    line(&Header { format: FORMAT, tenant: tenant.as_str(), from, peaks, checkpoint: note })
}

/// The lines of one section: what it is made of, and those of its entries that are the tenant's.
pub fn section(
    origin: &str,
    tenant: &TenantId,
    first: u64,
    leaves: &[Vec<u8>],
    path: &[Hash],
    signer: &Signer,
) -> Option<String> {
    let hashes: Vec<Hash> = leaves.iter().map(|leaf| leaf_hash(leaf)).collect();
    let (mut ours, mut shown) = ([0_u8; SECTION as usize / 8], String::new());
    for ((at, number), leaf) in (0_usize..).zip(first..).zip(leaves) {
        let entry = Entry::from_bytes(leaf)?;
        if entry.tenant == *tenant {
            *ours.get_mut(at / 8)? |= 0x80 >> (at % 8);
            shown.push_str(&line(&told(number, &entry, leaf)));
        }
    }
    let digest = Sha256::new().chain_update(hashes.as_flattened()).chain_update(ours).chain_update(&shown).finalize();
    // SECURITY: begins with a kind of its own, see `checkpoint`.
    let signed = format!("strongroom/export\n{origin}\n{tenant}\n{first}\n{}\n", STANDARD.encode(digest));
    let head = Section {
        section: first,
        leaves: STANDARD.encode(hashes.as_flattened()),
        ours: STANDARD.encode(ours),
        path: path.iter().map(|hash| STANDARD.encode(hash)).collect(),
        signature: STANDARD.encode(signer.sign(signed.as_bytes())),
    };
    Some(line(&head) + &shown)
}

fn told(number: u64, entry: &Entry, leaf: &[u8]) -> Line {
    let (actor, certificate) = match &entry.actor {
        Actor::Vault => ("vault".to_owned(), None),
        Actor::Caller { role, name, certificate } => {
            (format!("{}/{}", role.as_str(), name.as_str()), Some(hex::encode(certificate)))
        }
    };
    let (whom, whom_certificate) = match &entry.whom {
        None => (None, None),
        Some(Whom::Caller { role, name }) => (Some(format!("{}/{}", role.as_str(), name.as_str())), None),
        Some(Whom::Certificate { role, name, certificate }) => {
            (Some(format!("{}/{}", role.as_str(), name.as_str())), Some(hex::encode(certificate)))
        }
        Some(Whom::Epoch { epoch, rows }) => (Some(format!("epoch {}, {rows} rows", epoch.0)), None),
    };
    Line {
        entry: number,
        at: entry.at.to_string(),
        request: entry.request.to_string(),
        actor,
        certificate,
        action: entry.action.to_string(),
        class: entry.class.map(|class| class.to_string()),
        purpose: entry.purpose.map(|purpose| purpose.to_string()),
        verdict: match entry.verdict {
            Verdict::Done => "done".to_owned(),
            Verdict::Refused(code) => code.to_string(),
        },
        outcomes: entry.outcomes.iter().map(|(field, outcome)| format!("{field} {outcome}")).collect(),
        subject: entry.subject.map(|tag| tag.to_string()),
        whom,
        whom_certificate,
        count: entry.count,
        bytes: STANDARD.encode(leaf),
    }
}

/// One JSON object and its newline. These types have no maps and no fallible parts, so there is nothing that could fail.
fn line(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default() + "\n"
}
