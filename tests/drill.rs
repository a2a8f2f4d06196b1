//! The drill that is shipped, on real customers: at once nothing of what was erased opens with all keys, nor anything of a backup
//! without the root; after the horizon nothing of the backup opens with all keys of that day, dictionary included; before it, with the
//! keys, all of it does. CI size 10,000 values; `STRONGROOM_FULL=1` takes all customers there are.
//!
//! Planted, each makes the drill fail by the claim that watches for it: a restore without the ledger, a write-ahead log that is not
//! truncated, an epoch that stays, an index that no rotation changes.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::process::Command;

/// 1,500 customers have well over 10,000 values.
const CI_SIZE: usize = 1_500;

/// Runs the drill; whether every claim held, and what it told.
fn drill(orders: Option<&Path>, fault: Option<&str>) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
    command.arg("drill").args(orders).env_remove("STRONGROOM_PLANTED_FAULT");
    command.envs(fault.map(|fault| ("STRONGROOM_PLANTED_FAULT", fault)));
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (output.status.success(), told)
}

#[test]
fn what_is_erased_is_unreadable_at_once_and_in_every_backup_after_the_horizon() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/orders.jsonl");
    let file = tempfile::NamedTempFile::new().unwrap();
    let orders = match std::fs::read_to_string(&shared) {
        Ok(text) => {
            let size = if std::env::var_os("STRONGROOM_FULL").is_some() { usize::MAX } else { CI_SIZE };
            let lines: Vec<&str> = text.lines().take(size).collect();
            std::fs::write(file.path(), lines.join("\n")).unwrap();
            Some(file.path())
        }
        Err(_) => {
            println!("skipped: 10,000 values of real customers, which are not here; the bundled sample instead");
            None
        }
    };
    let (held, told) = drill(orders, None);
    println!("{told}");
    assert!(held && told.contains("All 19 claims held."), "{told}");
    assert!(!told.contains("NOT TRUE"));
    if orders.is_some() {
        let values = told.split(" values to the vault").next().and_then(|text| text.rsplit(' ').next()).unwrap();
        let values: usize = values.replace(',', "").parse().unwrap();
        assert!(values >= 10_000, "{values} values");
    }
}

#[cfg(feature = "planted")]
#[test]
fn planted_faults_fail_the_drill_by_the_claim_that_watches_for_them() {
    for (fault, claim) in [
        ("ledger-unapplied", "the restored vault answers ERASED"),
        ("wal-kept", "keys of erased records anywhere"),
        ("epoch-kept", "of the backup's keys unwrap"),
        ("index-eternal", "the dictionary meets"),
    ] {
        let (held, told) = drill(None, Some(fault));
        // A claim is wrapped to the terminal.
        let told = told.split_whitespace().collect::<Vec<_>>().join(" ");
        let failed = |text: &str| text.split('✔').next().is_some_and(|text| text.contains(claim));
        let is_named = told.split("NOT TRUE:").skip(1).any(failed);
        assert!(!held && is_named, "{fault}: {told}");
    }
}
