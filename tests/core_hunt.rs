//! Memory: a core of the idle process, taken as root, shows no long-lived key, and neither does all of its memory that root can
//! read; a server is confined to what serving takes.
//!
//! Seen red: with the fault `keys-unlocked` the same hunt finds every key but the root, with `root-kept` the root too (the tests
//! named `planted…`). Needs root; and for cores, and calls made in the server's place, gdb. Where one is missing it says so.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod common;
#[path = "core_hunt/memory.rs"]
mod memory;
#[path = "core_hunt/server.rs"]
mod server;

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Duration;

use memory::{Hunt, hunt_core, hunt_memory};
use rustix::process::{Signal, geteuid};
use server::{CORES_ALLOWED, Kind, Server, WITH_NEXT_ROOT, nobody_runs_it};
use strongroom::crypto::hunt::Hunter;
use strongroom::crypto::keyring::Keyring;
use strongroom::crypto::root::RootKey;

/// How much traffic a server has seen before it is idle.
fn orders() -> usize {
    if std::env::var_os("STRONGROOM_FULL").is_some() { 2_000 } else { 40 }
}

fn is_root() -> bool {
    let root = geteuid().is_root();
    if !root {
        println!("skipped: only root reads another process's memory");
    }
    root
}

/// Works the server, lets it idle, and hunts its memory and, where gdb is, its core.
fn worked_and_hunted(server: &Server) -> (Hunt, Option<Hunt>) {
    server.work(orders());
    std::thread::sleep(Duration::from_millis(500));
    hunted(server)
}

fn hunted(server: &Server) -> (Hunt, Option<Hunt>) {
    hunted_for(server, &server.keys())
}

fn hunted_for(server: &Server, (root, keyring): &(RootKey, Keyring)) -> (Hunt, Option<Hunt>) {
    let hunter = Hunter::new(root, keyring).unwrap();
    // The server signs with this key, so it knows it; everyone may.
    let surely = keyring.signer().public().0;
    let memory = hunt_memory(server.pid(), &hunter, &surely);
    let core = hunt_core(server.pid(), server.dir.path(), &hunter, &surely);
    println!("{} keys hunted in {} bytes of memory, {} refused", hunter.keys().len(), memory.read, memory.refused);
    if let Some(core) = &core {
        println!("and in a core of {} bytes", core.read);
    }
    (memory, core)
}

fn assert_nothing(hunt: &Hunt) {
    assert!(hunt.saw, "the hunt has not seen what is surely there");
    assert!(hunt.found.is_empty(), "{:#?}", hunt.found);
}

#[test]
fn an_idle_server_shows_no_long_lived_key_to_a_core_nor_to_root() {
    if !is_root() {
        return;
    }
    let server = Server::start(Kind::Serve, None);
    let (memory, core) = worked_and_hunted(&server);
    assert_nothing(&memory);
    if let Some(core) = core {
        assert_nothing(&core);
    }
    if server.status().protection.unwrap().key_memory == "memfd_secret" {
        assert!(memory.refused > 0, "the keys' own pages could be read");
    }
}

#[test]
fn epochs_and_roots_that_come_and_go_under_way_leave_nothing_either() {
    if !is_root() {
        return;
    }
    let server = Server::start_with(Kind::Serve, None, WITH_NEXT_ROOT);
    let before = server.keys();
    server.work(orders());
    server.rotate();
    std::thread::sleep(Duration::from_millis(500));
    for keys in [before, server.next_keys()] {
        let (memory, core) = hunted_for(&server, &keys);
        assert_nothing(&memory);
        if let Some(core) = core {
            assert_nothing(&core);
        }
    }
}

#[test]
fn a_root_that_was_stretched_from_a_passphrase_is_gone_with_its_passphrase() {
    if !is_root() {
        return;
    }
    let server = Server::start(Kind::Passphrase, None);
    let (memory, core) = hunted(&server);
    assert_nothing(&memory);
    if let Some(core) = core {
        assert_nothing(&core);
    }
    let phrase = fs::read(server.data().join("root.phrase")).unwrap();
    let (root, keyring) = server.keys();
    let hunter = Hunter::new(&root, &keyring).unwrap();
    assert!(!hunt_memory(server.pid(), &hunter, &phrase[..20]).saw, "the passphrase is still there");
}

#[test]
fn a_development_vault_keeps_none_of_the_keys_that_it_has_just_made() {
    if !is_root() {
        return;
    }
    let (memory, core) = worked_and_hunted(&Server::start(Kind::Dev, None));
    assert_nothing(&memory);
    if let Some(core) = core {
        assert_nothing(&core);
    }
}

#[test]
fn a_server_says_how_its_keys_are_protected() {
    let server = Server::start(Kind::Serve, None);
    let status = server.status();
    let protection = status.protection.unwrap();
    let kernel = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", server.pid())).unwrap();
    let says = |name: &str, value: &str| {
        kernel("status").lines().any(|line| line.split_whitespace().eq([&format!("{name}:"), value]))
    };
    assert_eq!(protection.seccomp, says("Seccomp", "2"));
    assert!(says("NoNewPrivs", "1"));
    assert!(protection.no_core);
    let limits = kernel("limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert!(core.split_whitespace().eq(["Max", "core", "file", "size", "0", "0", "bytes"]), "{core}");
    let secret = kernel("maps").contains("secretmem");
    assert_eq!(protection.key_memory == "memfd_secret", secret);
    let warned = |word: &str| status.warnings.iter().any(|warning| warning.contains(word));
    assert_eq!(warned("memfd_secret"), protection.key_memory == "mlock");
    assert_eq!(warned("Landlock"), protection.landlock_abi == 0);
    println!("{protection:?}");
}

#[test]
fn a_server_without_privileges_is_protected_all_the_same() {
    if !is_root() || !nobody_runs_it() {
        return;
    }
    let (ours, theirs) = (Server::start(Kind::Serve, None), Server::start(Kind::Plain, None));
    theirs.work(4);
    assert_eq!(ours.status().protection, theirs.status().protection);
}

#[test]
fn a_server_that_may_lock_no_memory_serves_and_says_so() {
    if !is_root() || !nobody_runs_it() {
        return;
    }
    let server = Server::start(Kind::Poor, None);
    server.work(4);
    let status = server.status();
    let protection = status.protection.unwrap();
    assert!(protection.no_core && protection.key_memory == "heap", "{protection:?}");
    assert!(status.warnings.iter().any(|warning| warning.contains("ordinary memory")));
}

#[test]
fn an_operator_may_do_without_the_sandbox_and_is_warned() {
    let server = Server::start_with(Kind::Serve, None, "[process]\nsandbox = false\n");
    let status = server.status();
    let protection = status.protection.unwrap();
    assert!(protection.no_core && !protection.seccomp && protection.landlock_abi == 0);
    assert!(status.warnings.iter().any(|warning| warning.contains("process.sandbox = false")));
}

/// Whether this machine writes a core of a process that dies of `SIGABRT`; the control.
fn cores_are_written() -> bool {
    let folder = tempfile::tempdir().unwrap();
    let dies = format!("{CORES_ALLOWED} kill -s ABRT $$");
    Command::new("sh").args(["-c", &dies]).current_dir(folder.path()).status().unwrap().core_dumped()
}

#[test]
fn a_crash_writes_no_core() {
    if !cores_are_written() {
        return println!("skipped: this machine writes no core of any process");
    }
    let mut server = Server::start(Kind::Serve, None);
    server.signal(Signal::ABORT);
    let ended = server.child.wait().unwrap();
    assert_eq!(ended.signal(), Some(Signal::ABORT.as_raw()));
    assert!(!ended.core_dumped());
}

#[test]
fn a_server_reads_renewed_certificates_where_they_are_and_nowhere_else() {
    let server = Server::start(Kind::Serve, None);
    if server.status().protection.unwrap().landlock_abi == 0 {
        return println!("skipped: no Landlock here");
    }
    let crl = server.data().join("certs/crl.pem");
    let renew = |from: &std::path::Path| {
        let beside = crl.with_extension("new");
        symlink(from, &beside).unwrap();
        fs::rename(&beside, &crl).unwrap();
        server.signal(Signal::HUP);
    };
    let (inside, outside) = (server.data().join("certs/crl-2.pem"), server.dir.path().join("crl.pem"));
    fs::copy(&crl, &inside).unwrap();
    fs::copy(&crl, &outside).unwrap();
    renew(&outside);
    server.until_log_says("Permission denied");
    assert!(!server.log().contains("were read again"), "{}", server.log());
    renew(&inside);
    server.until_log_says("were read again");
}

/// What a system call answers, and its error number, that gdb makes in the server's place. `None`: gdb is not there, or the
/// call ended the server.
fn called(server: &Server, number: i64, arguments: &str) -> Option<(i64, i64)> {
    let call = format!("print ((long (*)(long, long, long, long, long, long, long)) syscall)({number}, {arguments})");
    let error = "print *((int *(*)(void)) __errno_location)()";
    let pid = server.pid().to_string();
    let mut gdb = Command::new("gdb");
    // In a folder that goes away: gdb itself may die of a server that was killed under it.
    gdb.args(["-batch", "-nx", "-p", &pid, "-ex", &call, "-ex", error]).current_dir(server.dir.path());
    let output = gdb.output().ok()?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let answer = |name: &str| {
        let line = printed.lines().find_map(|line| line.strip_prefix(&format!("{name} = ")));
        line.and_then(|value| value.trim().parse().ok())
    };
    answer("$1").zip(answer("$2"))
}

#[test]
fn whoever_takes_over_a_server_opens_no_other_file_and_starts_no_program() {
    const NO_ACCESS: (i64, i64) = (-1, libc::EACCES as i64);
    const NO_SUCH_CALL: (i64, i64) = (-1, libc::ENOSYS as i64);
    let mut server = Server::start(Kind::Serve, None);
    let protection = server.status().protection.unwrap();
    if protection.landlock_abi < 4 || !protection.seccomp {
        return println!("skipped: not the whole sandbox here: {protection:?}");
    }
    let open =
        |path: &str, flags: i32| called(&server, libc::SYS_openat, &format!("-100, {path:?}, {flags}, 384, 0, 0"));
    let within = |name: &str| server.data().join(name).to_str().unwrap().to_owned();
    let Some((own, _)) = open(&within("strongroom.db"), libc::O_RDWR) else {
        return println!("skipped: no gdb that may attach");
    };
    assert!(own > 2, "the server cannot open its own database");
    assert!(open(&within("made"), libc::O_WRONLY | libc::O_CREAT).unwrap().0 > 2, "nor make its files");
    let outside = server.dir.path().join("made").to_str().unwrap().to_owned();
    for (path, flags) in [
        ("/etc/shadow", libc::O_RDONLY),
        ("/etc/passwd", libc::O_RDONLY),
        ("/proc/1/environ", libc::O_RDONLY),
        ("/bin/sh", libc::O_RDONLY),
        (&outside, libc::O_WRONLY | libc::O_CREAT),
        ("/dev/zero", libc::O_RDONLY),
    ] {
        assert_eq!(open(path, flags), Some(NO_ACCESS), "{path}");
    }
    assert!(!server.dir.path().join("made").exists());
    let unknown = [
        ("a new process", libc::SYS_fork, "0, 0, 0, 0, 0, 0"),
        ("a new process", libc::SYS_clone, "17, 0, 0, 0, 0, 0"),
        ("dumpable again", libc::SYS_prctl, "4, 1, 0, 0, 0, 0"),
        ("memory that is written and run", libc::SYS_mmap, "0, 4096, 7, 34, -1, 0"),
        ("a raw socket", libc::SYS_socket, "17, 3, 0, 0, 0, 0"),
        ("a folder", libc::SYS_mkdirat, "-100, \"made\", 448, 0, 0, 0"),
    ];
    for (what, number, arguments) in unknown {
        assert_eq!(called(&server, number, arguments), Some(NO_SUCH_CALL), "{what}");
    }
    // To port 9 of this machine.
    let (socket, _) = called(&server, libc::SYS_socket, "2, 1, 0, 0, 0, 0").unwrap();
    let address = r#""\002\000\000\011\177\000\000\001\000\000\000\000\000\000\000\000""#;
    assert_eq!(called(&server, libc::SYS_connect, &format!("{socket}, {address}, 16, 0, 0, 0")), Some(NO_ACCESS));
    assert!(server.status().protection.is_some(), "the server did not survive its examination");
    assert_eq!(called(&server, libc::SYS_execve, "\"/bin/true\", 0, 0, 0, 0, 0"), None);
    assert_eq!(server.child.wait().unwrap().signal(), Some(Signal::SYS.as_raw()), "it may run a program");
}

#[cfg(feature = "planted")]
mod planted {
    use super::*;
    use crate::memory::LEFT_OUT;
    use std::collections::BTreeSet;

    /// All keys but the root.
    fn all_but_the_root(server: &Server) -> BTreeSet<String> {
        let (root, keyring) = server.keys();
        let hunter = Hunter::new(&root, &keyring).unwrap();
        hunter.keys().iter().filter(|key| *key != "the root").cloned().collect()
    }

    fn names(hunt: &Hunt) -> BTreeSet<String> {
        hunt.found.values().flatten().map(|found| found.key.clone()).collect()
    }

    #[test]
    fn planted_unlocked_keys_are_found_in_memory_and_core_but_the_wiped_root_is_not() {
        if !is_root() {
            return;
        }
        let server = Server::start(Kind::Serve, Some("keys-unlocked"));
        let (memory, core) = worked_and_hunted(&server);
        assert_eq!(names(&memory), all_but_the_root(&server));
        if let Some(core) = core {
            assert_eq!(names(&core), all_but_the_root(&server));
        }
        let status = server.status();
        assert_eq!(status.protection.unwrap().key_memory, "heap");
        assert!(status.warnings.iter().any(|warning| warning.contains("ordinary memory")));
    }

    #[test]
    fn planted_a_root_that_is_not_wiped_is_found() {
        if !is_root() {
            return;
        }
        let (memory, core) = hunted(&Server::start(Kind::Serve, Some("root-kept")));
        assert!(names(&memory).contains("the root"), "{:?}", memory.found);
        assert!(core.is_none_or(|core| names(&core).contains("the root")));
    }

    /// Not a fault of ours: an older kernel.
    #[test]
    fn planted_without_secret_memory_keys_are_locked_and_in_no_core() {
        if !is_root() {
            return;
        }
        let server = Server::start(Kind::Serve, Some("no-secret-memory"));
        let (memory, core) = worked_and_hunted(&server);
        assert_eq!(names(&memory), all_but_the_root(&server), "root's debugger reads locked memory");
        assert!(memory.found.keys().all(|place| place.starts_with(LEFT_OUT)), "{:#?}", memory.found);
        if let Some(core) = core {
            assert_nothing(&core);
        }
        let status = server.status();
        assert_eq!(status.protection.unwrap().key_memory, "mlock");
        assert!(status.warnings.iter().any(|warning| warning.contains("memfd_secret")));
    }
}
