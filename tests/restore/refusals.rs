//! What is not restored, and that nothing of a refused restore is left where a server would find it.

use std::fs;

use strongroom::cli::Failure;
use strongroom::store::Store;

use super::*;

struct Scene {
    house: House,
    manifest: PathBuf,
}

impl Scene {
    /// A vault with a backup, stopped, whose database is gone.
    fn new() -> Self {
        let mut house = House::new();
        let (gone, kept) = (house.tokenize(order(1)), house.tokenize(order(2)));
        let reason = EraseReason::SubjectRequest.into();
        let erase = |key: &str, token: &str| {
            let request = EraseRequest { idempotency_key: key.to_owned(), token: token.to_owned(), reason };
            house.run(house.tokens().erase(request)).unwrap();
        };
        erase("before", &gone);
        let (_, manifest) = back_up(&house);
        erase("after", &kept);
        house.stop();
        fs::remove_file(&house.config.store.database).unwrap();
        Self { house, manifest }
    }

    fn restore_with(&self, keyring: Keyring) -> Result<Restored, Failure> {
        restore(&self.house.config, keyring, &self.manifest, Arc::new(self.house.clock.clone()))
    }

    /// Why a restore is refused; then there is no database, nor anything that looks like one.
    fn refused(&self, keyring: Keyring) -> String {
        let why = self.restore_with(keyring).map(|_| ()).unwrap_err().to_string();
        let left: Vec<String> = fs::read_dir(self.house.data())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".db") || name.contains("restoring"))
            .collect();
        assert!(left.is_empty(), "{why}: {left:?}");
        why
    }

    fn keyring(&self) -> Keyring {
        keyring(&self.house.config)
    }
}

#[test]
fn a_backup_that_was_altered_is_refused_wherever_it_was() {
    let scene = Scene::new();
    let database = database_of(&scene.manifest);
    let (copy, note) = (fs::read(&database).unwrap(), fs::read(&scene.manifest).unwrap());
    for at in (0..copy.len()).step_by(copy.len() / 40 + 1) {
        let mut flipped = copy.clone();
        flipped[at] ^= 1;
        fs::write(&database, &flipped).unwrap();
        assert!(scene.refused(scene.keyring()).contains("not what its manifest says"), "byte {at}");
    }
    for cut in [0, 1, copy.len() / 2, copy.len() - 1] {
        fs::write(&database, &copy[..cut]).unwrap();
        assert!(scene.refused(scene.keyring()).contains("not what its manifest says"), "cut at {cut}");
    }
    fs::write(&database, &copy).unwrap();
    for at in (0..note.len()).step_by(7) {
        let mut flipped = note.clone();
        flipped[at] ^= 1;
        fs::write(&scene.manifest, &flipped).unwrap();
        let why = scene.refused(scene.keyring());
        assert!(
            why.contains("no manifest of this vault") || why.contains("stream did not contain"),
            "byte {at}: {why}"
        );
    }
    fs::write(&scene.manifest, &note).unwrap();
    scene.restore_with(scene.keyring()).unwrap();
}

#[test]
fn without_the_newest_ledger_nothing_is_restored() {
    let scene = Scene::new();
    let ledger = &scene.house.config.store.ledger;
    let whole = fs::read_to_string(ledger).unwrap();
    fs::remove_file(ledger).unwrap();
    assert!(scene.refused(scene.keyring()).contains("there is no erasure ledger"));
    assert!(!ledger.exists(), "and none is made");
    // Shorter than what the backup itself has heard of.
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    fs::write(ledger, lines[..lines.len() - 2].concat()).unwrap();
    assert!(scene.refused(scene.keyring()).contains("the ledger was cut or replaced"));
    fs::write(ledger, whole.replacen("subject_request", "purged", 1)).unwrap();
    assert!(scene.refused(scene.keyring()).contains("the erasure ledger is broken"));
    fs::write(ledger, &whole).unwrap();
    assert_eq!(scene.restore_with(scene.keyring()).unwrap().applied.erased, 1);
}

#[test]
fn nothing_is_overwritten_and_nothing_restored_under_a_running_server() {
    let mut scene = Scene::new();
    scene.restore_with(scene.keyring()).unwrap();
    let before = fs::read(&scene.house.config.store.database).unwrap();
    let why = scene.restore_with(scene.keyring()).map(|_| ()).unwrap_err().to_string();
    assert!(why.contains("is there already"), "{why}");
    assert_eq!(fs::read(&scene.house.config.store.database).unwrap(), before);
    scene.house.start();
    let why = scene.restore_with(scene.keyring()).map(|_| ()).unwrap_err().to_string();
    assert!(why.contains("a server holds"), "{why}");
    scene.house.stop();
}

#[test]
fn another_vaults_backup_a_dead_one_and_an_old_keyring_are_refused() {
    let scene = Scene::new();
    let other = Scene::new();
    assert!(scene.refused(other.keyring()).contains("no manifest of this vault"));
    // A keyring from before the backup.
    let scene = Scene::new();
    let old = scene.keyring();
    let mut house = scene.house;
    restore(&house.config, keyring(&house.config), &scene.manifest, Arc::new(house.clock.clone())).unwrap();
    house.start();
    let next = house.vault().store().keyring().with_new_epoch(house.clock.now(), &OsEntropy);
    next.save(&house.config.keyring, &OsEntropy).unwrap();
    house.run(house.vault().store().adopt(Arc::new(next), |_| Ok(()))).unwrap();
    let (_, newer) = back_up(&house);
    house.stop();
    fs::remove_file(&house.config.store.database).unwrap();
    let newer = Scene { house, manifest: newer };
    assert!(newer.refused(old).contains("the keyring is of generation"));
    // The epoch that opens it is gone.
    let without = newer.keyring().without(strongroom::domain::id::Epoch(1)).unwrap();
    let why = newer.refused(without);
    assert!(why.contains("the backup is dead since"), "{why}");
}

/// A restore that was killed leaves its copy; the next one begins anew, and a server does not take it for a database.
#[test]
fn what_a_killed_restore_left_is_no_database_and_is_begun_anew() {
    let scene = Scene::new();
    let left = scene.house.config.store.database.with_extension("restoring.db");
    fs::copy(database_of(&scene.manifest), &left).unwrap();
    let clock = Arc::new(scene.house.clock.clone());
    let why = Store::open(&scene.house.config.store, Arc::new(scene.keyring()), clock).map(drop).unwrap_err();
    assert!(why.to_string().contains("the database is new, but the erasure ledger"), "{why}");
    fs::remove_file(&scene.house.config.store.database).unwrap();
    assert_eq!(scene.restore_with(scene.keyring()).unwrap().applied.erased, 1);
    assert!(!left.exists());
}
