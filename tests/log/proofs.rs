//! Heads and proofs over the wire, against ct-merkle's verification.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ct_merkle::RootHash;
use ct_merkle::mem_backed_tree::MemoryBackedTree;
use sha2::Sha256;
use strongroom::rpc::proto::{CheckpointRequest, ConsistencyProofRequest, InclusionProofRequest};
use strongroom::store::{LogVerdict, verify_log};
use tonic::Code;

use super::{append, auditor, entry, head, people};
use crate::common::House;

/// Size and head of a note.
fn size_and_root(note: &str) -> (u64, [u8; 32]) {
    let lines: Vec<&str> = note.lines().collect();
    (lines[1].parse().unwrap(), STANDARD.decode(lines[2]).unwrap().try_into().unwrap())
}

/// The log as another implementation holds it: every entry, appended from the first on.
fn tree(house: &House, size: u64) -> MemoryBackedTree<Sha256, Vec<u8>> {
    let mut tree = MemoryBackedTree::new();
    people::log(house).iter().take(usize::try_from(size).unwrap()).for_each(|entry| tree.push(entry.to_bytes()));
    tree
}

#[test]
fn heads_and_proofs_agree_with_another_implementation() {
    let house = House::new();
    append(&house, 0..700);
    let mut auditor = auditor(&house);
    let log = people::log(&house);
    for entry in [0, 1, 255, 256, 511, 512, 699] {
        let proof = house.run(auditor.inclusion_proof(InclusionProofRequest { year: 0, entry })).unwrap().into_inner();
        let (size, root) = size_and_root(&proof.note);
        let tree = tree(&house, size);
        assert_eq!(root.as_slice(), tree.root().as_bytes().as_slice());
        let index = usize::try_from(entry).unwrap();
        assert_eq!(proof.hashes.concat(), tree.prove_inclusion(index).as_bytes());
        let known = RootHash::<Sha256>::new(root.into(), size);
        let theirs = ct_merkle::InclusionProof::<Sha256>::from_bytes(proof.hashes.concat());
        known.verify_inclusion(&log[index].to_bytes(), entry, &theirs).unwrap();
        // Another tenant's entry is proved and not shown.
        let shown = if log[index].tenant.as_str() == "kitchenware" { log[index].to_bytes() } else { Vec::new() };
        assert_eq!(proof.entry, shown);
    }
    for from_size in [1, 255, 256, 257, 700] {
        let request = ConsistencyProofRequest { year: 0, from_size };
        let proof = house.run(auditor.consistency_proof(request)).unwrap().into_inner();
        let (size, root) = size_and_root(&proof.note);
        let (old, new) = (tree(&house, from_size), RootHash::<Sha256>::new(root.into(), size));
        let theirs = ct_merkle::ConsistencyProof::<Sha256>::try_from_bytes(proof.hashes.concat()).unwrap();
        new.verify_consistency(&old.root(), &theirs).unwrap();
    }
    for request in [(0, 1 << 40), (1999, 0)] {
        let (year, entry) = request;
        let refused = house.run(auditor.inclusion_proof(InclusionProofRequest { year, entry })).unwrap_err();
        assert_eq!((refused.code(), people::reason(&refused).as_str()), (Code::InvalidArgument, "NOT_IN_THE_LOG"));
    }
    for from_size in [0, 1 << 40] {
        let refused = house.run(auditor.consistency_proof(ConsistencyProofRequest { year: 0, from_size })).unwrap_err();
        assert_eq!(people::reason(&refused), "NOT_IN_THE_LOG");
    }
    let refused = house.run(auditor.checkpoint(CheckpointRequest { year: 70_000 })).unwrap_err();
    assert_eq!(people::reason(&refused), "NOT_IN_THE_LOG");
}

#[test]
fn heads_are_signed_on_demand_at_an_interval_and_at_the_stop() {
    let mut house = House::new();
    house.stop();
    house.config.audit.checkpoint_interval = std::time::Duration::from_secs(1);
    house.start();
    let count = |house: &House| {
        let connection = rusqlite::Connection::open(&house.config.store.database).unwrap();
        connection
            .query_row("SELECT COUNT(*), MAX(size) FROM checkpoint", [], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
    };
    let (before, _): (u64, u64) = count(&house);
    append(&house, 0..1);
    let mut waited = 0;
    while count(&house).0 == before {
        std::thread::sleep(std::time::Duration::from_millis(100));
        waited += 1;
        assert!(waited < 100, "no head was signed at the interval");
    }
    let (note, _) = head(&house);
    let (size, _) = size_and_root(&note);
    assert_eq!(count(&house).1, size);
    append(&house, 1..4);
    house.stop();
    assert_eq!(count(&house).1, size + 3, "the last head is signed at the stop");
    house.start();
    assert_eq!(people::log(&house)[usize::try_from(size).unwrap()], entry(1));
}

/// Nodes and heads in the store are checked with the log; proofs made of spoiled ones are not given.
#[test]
fn a_spoiled_node_or_head_is_found_and_no_proof_is_made_of_it() {
    let mut house = House::new();
    append(&house, 0..600);
    head(&house);
    house.stop();
    let database = house.config.store.database.clone();
    let kept = std::fs::read(&database).unwrap();
    let whole = verify_log(&database, None, None).unwrap();
    assert!(matches!(whole, LogVerdict::Sound(_)));
    for spoil in [
        "UPDATE audit_node SET hash = zeroblob(32) WHERE level = 8 AND \"end\" = 256",
        "DELETE FROM audit_node WHERE level = 9",
        "INSERT INTO audit_node VALUES (300, 8, zeroblob(32))",
        "UPDATE checkpoint SET size = size - 1 WHERE size = (SELECT MAX(size) FROM checkpoint)",
        "UPDATE checkpoint SET note = replace(note, 'time 2026', 'time 2027')",
        "UPDATE checkpoint SET last = 1 WHERE size = (SELECT MAX(size) FROM checkpoint)",
    ] {
        let connection = rusqlite::Connection::open(&database).unwrap();
        assert!(connection.execute(spoil, []).unwrap() > 0, "{spoil}");
        drop(connection);
        let keyring = people::keyring(&house);
        let verdict = verify_log(&database, Some(&keyring), None).unwrap();
        assert!(matches!(verdict, LogVerdict::Flawed(_)), "{spoil}: {verdict:?}");
        if spoil.contains("audit_node SET") || spoil.starts_with("DELETE") {
            house.start();
            let mut auditor = auditor(&house);
            let entry = if spoil.starts_with("DELETE") { 590 } else { 300 };
            let refused = house.run(auditor.inclusion_proof(InclusionProofRequest { year: 0, entry }));
            assert_eq!(people::reason(&refused.unwrap_err()), "TAMPERED", "{spoil}");
            house.stop();
        }
        for suffix in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{suffix}", database.display()));
        }
        std::fs::write(&database, &kept).unwrap();
    }
}
