//! The log as the world sees it: signed heads, proofs, exports that verify offline, years, witnesses, and the state of the store
//! that goes with it.
//!
//! Each check was seen red: the state by the planted fault `state-blind`; by hand, once, a verifier that takes every signature (two of
//! the first 4,000 mutations then pass), a start that does not look at its witness file, a keeper that cuts no year.
//!
//! `STRONGROOM_SEED` replays the mutations, `STRONGROOM_FULL=1` makes ten times as many.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod common;
#[path = "log/export.rs"]
mod export;
#[path = "common/people.rs"]
mod people;
#[path = "log/proofs.rs"]
mod proofs;
#[path = "log/state.rs"]
mod state;
#[path = "log/witness.rs"]
mod witness;
#[path = "log/years.rs"]
mod years;

use common::House;
use strongroom::audit::entry::{Action, Actor, Entry, RefusalCode, RequestId, SubjectTag, Verdict, Whom};
use strongroom::crypto::entropy::{Entropy as _, OsEntropy, SeededEntropy, array};
use strongroom::domain::caller::Role;
use strongroom::domain::id::Epoch;
use strongroom::domain::time::Timestamp;
use strongroom::domain::vocabulary::{Class, Field, Outcome, Purpose};
use strongroom::rpc::proto::audit_service_client::AuditServiceClient;
use strongroom::rpc::proto::{ApproveRequest, CheckpointRequest, ExportRequest, export_response};
use strongroom::store::Tx;
use tonic::Status;
use tonic::transport::Channel;

fn full() -> bool {
    std::env::var_os("STRONGROOM_FULL").is_some()
}

fn seed() -> u64 {
    let seed = std::env::var("STRONGROOM_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from_be_bytes(array(&OsEntropy)));
    println!("replay with STRONGROOM_SEED={seed}");
    seed
}

struct Dice(SeededEntropy);

impl Dice {
    fn below(&self, bound: usize) -> usize {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        usize::try_from(u64::from_be_bytes(bytes) % bound as u64).unwrap()
    }
}

fn auditor(house: &House) -> AuditServiceClient<Channel> {
    AuditServiceClient::new(house.channel(Role::Auditor, "office"))
}

/// An entry of every shape, different for every number; every third is another tenant's.
fn entry(number: u64) -> Entry {
    let pick = |count: usize| usize::try_from(number).unwrap() % count;
    let certificate = [3; 8];
    Entry {
        at: Timestamp(1_767_571_200_000_000 + i64::try_from(number).unwrap()),
        request: RequestId(array(&SeededEntropy::new(number))),
        tenant: if number % 3 == 2 { "rival" } else { "kitchenware" }.parse().unwrap(),
        actor: if number.is_multiple_of(5) {
            Actor::Vault
        } else {
            Actor::Caller { role: Role::ALL[pick(9)], name: "someone".parse().unwrap(), certificate }
        },
        action: Action::ALL[pick(Action::ALL.len())],
        class: number.is_multiple_of(2).then_some(Class::ALL[pick(3)]),
        purpose: number.is_multiple_of(4).then_some(Purpose::ALL[pick(8)]),
        verdict: if number.is_multiple_of(7) {
            Verdict::Refused(RefusalCode::ALL[pick(RefusalCode::ALL.len())])
        } else {
            Verdict::Done
        },
        outcomes: Field::ALL[..pick(4)].iter().map(|field| (*field, Outcome::ALL[pick(6)])).collect(),
        subject: (number % 2 == 1).then(|| SubjectTag(array(&SeededEntropy::new(number + 1)))),
        whom: match number % 6 {
            1 => Some(Whom::Caller { role: Role::Shop, name: "web".parse().unwrap() }),
            2 => Some(Whom::Certificate { role: Role::Carrier, name: "swift".parse().unwrap(), certificate }),
            3 => Some(Whom::Epoch { epoch: Epoch(2), rows: number }),
            _ => None,
        },
        count: (number % 9 == 4).then_some(70_000),
    }
}

/// Appends entries with these numbers, some to a commit.
fn append(house: &House, numbers: std::ops::Range<u64>) {
    let numbers: Vec<u64> = numbers.collect();
    for some in numbers.chunks(7) {
        let entries: Vec<Entry> = some.iter().map(|number| entry(*number)).collect();
        let write = move |tx: &mut Tx<'_>| {
            entries.iter().for_each(|entry| tx.log(entry.clone()));
            Ok(())
        };
        house.vault().store().run_blocking("append", write).unwrap();
    }
}

/// What an export answers: its lines in parts, or the number of the approval that it waits for.
fn exported(house: &House, request: ExportRequest) -> Result<Result<Vec<String>, String>, Status> {
    let mut auditor = auditor(house);
    house.run(async {
        let mut stream = auditor.export(request).await?.into_inner();
        let mut parts = Vec::new();
        while let Some(part) = stream.message().await? {
            match part.result.unwrap() {
                export_response::Result::Lines(lines) => parts.push(lines),
                export_response::Result::PendingApproval(pending) => return Ok(Err(pending.approval_id)),
            }
        }
        Ok(Ok(parts))
    })
}

fn approve(house: &House, approval_id: String) {
    let mut second = people::approvals(house, Role::Operator, "oncall");
    house.run(second.approve(ApproveRequest { approval_id })).unwrap();
}

/// The whole log of a year, by two people.
fn export_of(house: &House, year: u32) -> String {
    let request = ExportRequest { year, from_entry: 0, size: 0 };
    match exported(house, request).unwrap() {
        Ok(parts) => parts.concat(),
        Err(pending) => {
            approve(house, pending);
            exported(house, request).unwrap().unwrap().concat()
        }
    }
}

/// The current head, and the key it verifies by.
fn head(house: &House) -> (String, String) {
    let mut auditor = auditor(house);
    let answer = house.run(auditor.checkpoint(CheckpointRequest { year: 0 })).unwrap().into_inner();
    (answer.note, answer.verifier_key)
}
