use super::*;
use crate::audit::entry::{Action, Actor, RequestId, Verdict};
use crate::crypto::entropy::SeededEntropy;
use crate::crypto::root::RootKey;
use crate::domain::time::{SimulatedClock, Timestamp};
use crate::domain::vocabulary::{Class, EraseReason};
use crate::store::rows::TombstoneRow;
use crate::store::{LogVerdict, Store, verify_log, verify_state};

/// 2027-03-01T00:00:00Z.
const NOW: Timestamp = Timestamp(1_803_859_200_000_000);

fn entry(number: u16) -> Entry {
    let [high, low] = number.to_be_bytes();
    Entry {
        at: NOW,
        request: RequestId([high, low, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        tenant: "kitchen".parse().unwrap(),
        actor: Actor::Vault,
        action: Action::Start,
        class: None,
        purpose: None,
        verdict: Verdict::Done,
        outcomes: Vec::new(),
        subject: None,
        whom: None,
        count: None,
    }
}

fn tombstone(n: u8) -> TombstoneRow {
    let (class, reason) = (Class::Order, EraseReason::Minor);
    let digest = crate::domain::token::TokenDigest([n; 16]);
    TombstoneRow { digest, tenant: "kitchen".parse().unwrap(), class, reason, until: NOW, erased: None, story: None }
}

/// What an earlier build left: one log without a name, no nodes, no state.
#[test]
fn a_store_of_an_earlier_build_gets_its_nodes_its_year_and_its_state() {
    let folder = tempfile::tempdir().unwrap();
    let paths = StorePaths { database: folder.path().join("db"), ledger: folder.path().join("ledger") };
    let entropy = SeededEntropy::new(1);
    let keyring = Arc::new(Keyring::create(&RootKey::generate(&entropy), NOW, &entropy));
    let open = || Store::open(&paths, Arc::clone(&keyring), Arc::new(SimulatedClock::starting_at(NOW)));
    let write = |tx: &mut Tx<'_>| {
        (0..600).for_each(|number| tx.log(entry(number)));
        tx.put_tombstone(&tombstone(1))
    };
    let store = open().unwrap();
    store.run_blocking("write", write).unwrap();
    let tip = store.read(|view| view.audit_tip()).unwrap();
    drop(store);
    let uncut = MetaRow { key: "audit_frontier".into(), value: tip.frontier.to_bytes() };
    let connection = Connection::open(&paths.database).unwrap();
    Reader { connection: &connection }.put_meta(&uncut, &stamp(&keyring, &uncut)).unwrap();
    connection.execute_batch("DELETE FROM audit_node; DELETE FROM meta WHERE key = 'audit_state'").unwrap();
    drop(connection);

    let store = open().unwrap();
    assert_eq!(store.read(|view| view.audit_tip()).unwrap(), tip);
    assert_eq!(tip.year, 2027);
    store.run_blocking("write", |tx| tx.put_tombstone(&tombstone(2))).unwrap();
    drop(store);
    let verdict = verify_log(&paths.database, Some(&keyring), None).unwrap();
    assert!(matches!(verdict, LogVerdict::Sound(told) if told.entries == 600), "{verdict:?}");
    assert_eq!(verify_state(&paths.database, &keyring).unwrap(), []);

    // A store of this build without its state is no store of an earlier one.
    let connection = Connection::open(&paths.database).unwrap();
    connection.execute_batch("DELETE FROM meta WHERE key = 'audit_state'").unwrap();
    drop(connection);
    let refused = open().map(drop).unwrap_err().to_string();
    assert!(refused.contains("lost its own note of its state"), "{refused}");
}
