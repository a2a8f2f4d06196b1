//! A full disk: calls are refused clearly, nothing acknowledged is lost, and once there is room again nothing needs a hand.
//! Needs to mount a small file system; where that is not allowed, it says so and checks nothing.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{House, order};
use strongroom::rpc::proto::{DetokenizeRequest, EraseReason, EraseRequest, Field, Outcome, Purpose, StatusRequest};
use tonic::{Code, Status};

/// A small disk of our own, gone with the value.
struct Disk(PathBuf);

impl Disk {
    fn mount(folder: &Path) -> Option<Self> {
        fs::create_dir_all(folder).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"]).arg(folder).status();
        mounted.is_ok_and(|status| status.success()).then(|| Self(folder.to_owned()))
    }

    /// Leaves no room at all.
    fn fill(&self) {
        let filler = self.0.join("filler");
        for size in [1 << 20, 1 << 12, 1] {
            let block = vec![0_u8; size];
            while append(&filler, &block) {}
        }
    }

    fn free(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

fn append(path: &Path, block: &[u8]) -> bool {
    use std::io::Write as _;
    let mut file = fs::File::options().create(true).append(true).open(path).unwrap();
    file.write_all(block).is_ok()
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn read(house: &House, token: &str) -> Result<Outcome, Status> {
    let request = DetokenizeRequest {
        token: token.to_owned(),
        fields: vec![Field::Phone.into()],
        purpose: Purpose::Fulfilment.into(),
    };
    let mut tokens = house.tokens();
    house.run(tokens.detokenize(request)).map(|reply| reply.into_inner().fields[0].outcome())
}

fn erase(house: &House, token: &str) -> Result<(), Status> {
    let request = EraseRequest {
        idempotency_key: format!("erase-{token}"),
        token: token.to_owned(),
        reason: EraseReason::SubjectRequest.into(),
    };
    let mut tokens = house.tokens();
    house.run(tokens.erase(request)).map(drop)
}

#[test]
fn a_full_disk_refuses_clearly_and_recovers_unaided() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::mount(&folder.path().join("disk")) else {
        println!("skipped: this user may not mount a file system");
        return;
    };
    let mut house = House::new();
    house.stop();
    // The store moves with what it holds: who is enrolled.
    let moved = |from: &std::path::Path, name: &str| {
        std::fs::copy(from, disk.0.join(name)).unwrap();
        disk.0.join(name)
    };
    house.config.store.database = moved(&house.config.store.database, "strongroom.db");
    house.config.store.ledger = moved(&house.config.store.ledger, "erasure.ledger");
    house.start();
    let (kept, going) = (house.tokenize(order(1)), house.tokenize(order(2)));
    erase(&house, &house.tokenize(order(3))).unwrap();

    disk.fill();
    let mut tokens = house.tokens();
    // The log preallocates a little; from some call on, none is answered without its entry.
    let refused = (10..5_000).find_map(|n| house.run(tokens.tokenize(order(n))).err()).unwrap();
    assert_eq!(refused.code(), Code::Unavailable);
    assert_eq!(erase(&house, &going).unwrap_err().code(), Code::Unavailable);

    disk.free();
    assert_eq!(read(&house, &kept).unwrap(), Outcome::Granted);
    erase(&house, &going).unwrap();
    assert_eq!(read(&house, &going).unwrap(), Outcome::Erased);
    house.tokenize(order(9_999));
    let mut operations = house.operations();
    house.run(operations.status(StatusRequest {})).unwrap();

    house.stop();
    house.start();
    assert_eq!(read(&house, &kept).unwrap(), Outcome::Granted);
    assert_eq!(read(&house, &going).unwrap(), Outcome::Erased);
}
