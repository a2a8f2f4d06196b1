//! A server's sandbox: what it may still do once it serves. INVARIANT: the process opens only the files that `needs` names,
//! binds and connects to only those ports, makes only the system calls of `syscalls`, and cannot undo any of it; threads made
//! afterwards inherit it, so it is put on while there is one.
//!
//! Landlock (files, ports) and seccomp (system calls) work without privileges. A kernel without one of them leaves the other,
//! and a warning in the status.

use std::fs;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, LandlockStatus, NetPort, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    RulesetStatus, Scope, path_beneath_rules,
};

use super::syscalls;
use crate::cli::Failure;
use crate::cli::process;
use crate::cli::serve::failed;
use crate::config::Config;
use crate::crypto::root::{Address, RootSource};
use crate::vault::Confinement;

/// The newest interface that was tried; an older kernel does what it can of it.
const LANDLOCK: ABI = ABI::V6;

/// All that a server touches outside its own memory.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// Files, and folders with all in them.
    read: Vec<PathBuf>,
    /// Folders whose files are made, written, renamed and removed.
    write: Vec<PathBuf>,
    /// TCP ports to listen on; 0 is any free one.
    bind: Vec<u16>,
    /// TCP ports to connect to, anywhere.
    connect: Vec<u16>,
}

/// What the C library and SQLite look at; nothing of it is secret.
const SYSTEM: &[&str] = &[
    "/dev/null",
    "/dev/urandom",
    "/etc/localtime",
    "/usr/share/zoneinfo",
    "/proc/self",
    "/proc/sys/kernel/random/boot_id",
    "/proc/sys/vm/overcommit_memory",
    "/sys/devices/system/cpu",
];

/// What resolving a name and verifying a server on the internet takes; wanted where `connect` is not empty.
const INTERNET: &[&str] = &[
    "/etc/gai.conf",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/ssl",
    "/etc/pki",
    "/usr/lib/ssl",
    "/usr/share/ca-certificates",
];

/// What a configuration makes necessary. Whoever adds a file, a listener or an outgoing call to the server adds it here.
pub(super) fn needs(config: &Config) -> Needs {
    let trust = &config.trust;
    let renewed = [&trust.certificate, &trust.key, &trust.roots].into_iter().chain(&trust.crls);
    let renewed = renewed.chain(trust.anchors.iter().map(|anchor| &anchor.roots));
    // A renewed file is another file under the same name: the folder counts, and that of the file a link leads to.
    let mut read: Vec<PathBuf> = renewed.flat_map(|path| folders(path)).collect();
    let mut connect = Vec::new();
    for root in [Some(&config.root), config.keys.next_root.as_ref()].into_iter().flatten() {
        // It is read again when the vault is opened again, and may be another file by then.
        read.extend(root.path().iter().flat_map(|path| folders(path)));
        match root {
            RootSource::Transit(transit) => {
                // A token is renewed like a certificate.
                read.extend(
                    [Some(&transit.token_file), transit.ca.as_ref()]
                        .into_iter()
                        .flatten()
                        .flat_map(|path| folders(path)),
                );
                connect.extend(transit.address.port());
            }
            RootSource::AwsKms(kms) => {
                // KMS itself, and where a machine's own credentials come from.
                connect.extend([443, 80].into_iter().chain(kms.endpoint.as_ref().and_then(Address::port)));
                read.extend(std::env::var_os("HOME").map(|home| Path::new(&home).join(".aws")));
            }
            // Foreign code, which opens what it likes: the configuration does not confine such a server.
            RootSource::Pkcs11(_)
            | RootSource::KeyFile { .. }
            | RootSource::PassphraseFile { .. }
            | RootSource::Credential { .. }
            | RootSource::Shares(_) => {}
        }
    }
    for hook in &config.webhooks {
        // A secret is replaced while the server runs.
        read.extend([Some(&hook.secret_file), hook.ca.as_ref()].into_iter().flatten().flat_map(|path| folders(path)));
        connect.extend(hook.url.port());
    }
    let dead_letters = config.webhooks.iter().map(|hook| &hook.dead_letters);
    let written =
        [&config.store.database, &config.store.ledger, &config.keyring].into_iter().chain(&config.keys.places.copies);
    // A log that was rotated away is made anew under its name.
    let written = written.chain(&config.log.file).chain(&config.audit.witness_file).chain(dead_letters);
    let written = written.flat_map(|path| folders(path));
    let write = written.chain(config.backups.clone()).collect();
    let bind = [config.listener.address].into_iter().chain(config.metrics).map(|address| address.port()).collect();
    let witness = config.audit.witness_url.iter().filter_map(|url| reqwest::Url::parse(url).ok());
    connect.extend(witness.filter_map(|url| url.port_or_known_default()));
    Needs { read, write, bind, connect }
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let target = fs::canonicalize(path).ok();
    let folder = |path: &Path| match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _here => PathBuf::from("."),
    };
    [Some(path), target.as_deref()].into_iter().flatten().map(folder).collect()
}

/// Puts this thread, and all that it will start, into the sandbox. Errors: the kernel has a sandbox and refuses this one.
pub(super) fn confine(needs: &Needs) -> Result<Confinement, Failure> {
    if !process::is_alone() {
        return Err(Failure::local("cannot confine the server: a thread runs already and would stay outside"));
    }
    confine_thread(needs)
}

fn confine_thread(needs: &Needs) -> Result<Confinement, Failure> {
    let landlock_abi =
        landlock(needs).map_err(|error| failed("cannot confine the server's files (Landlock)", &error))?;
    let seccomp =
        syscalls::confine().map_err(|error| failed("cannot confine the server's system calls (seccomp)", &error))?;
    Ok(Confinement { no_core: process::leaves_no_core(), landlock_abi, seccomp })
}

/// The interface of the kernel that confines us from now on; 0 if it has none.
fn landlock(needs: &Needs) -> Result<u32, RulesetError> {
    let reading = AccessFs::ReadFile | AccessFs::ReadDir;
    let writing = reading | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::MakeReg | AccessFs::RemoveFile;
    let system = SYSTEM.iter().chain(if needs.connect.is_empty() { [].as_slice() } else { INTERNET });
    let ports = |ports: &[u16], access: AccessNet| -> Vec<_> {
        ports.iter().map(|port| Ok::<_, RulesetError>(NetPort::new(*port, access))).collect()
    };
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .handle_access(AccessNet::from_all(LANDLOCK))?
        .scope(Scope::from_all(LANDLOCK))?
        .create()?
        .add_rules(path_beneath_rules(system, reading))?
        .add_rules(path_beneath_rules(["/dev/null"], reading | AccessFs::WriteFile))?
        .add_rules(path_beneath_rules(&needs.read, reading))?
        .add_rules(path_beneath_rules(&needs.write, writing))?
        .add_rules(ports(&needs.bind, AccessNet::BindTcp))?
        .add_rules(ports(&needs.connect, AccessNet::ConnectTcp))?
        .restrict_self()?;
    Ok(match (status.ruleset, status.landlock) {
        (RulesetStatus::NotEnforced, _) => 0,
        (_, LandlockStatus::Available { effective_abi, kernel_abi }) => {
            kernel_abi.and_then(|abi| u32::try_from(abi).ok()).unwrap_or(effective_abi as u32)
        }
        _ => 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::entropy::OsEntropy;
    use crate::domain::time::SystemClock;
    use std::io::{self, ErrorKind};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::os::unix::fs::symlink;

    fn development(dir: &Path) -> Config {
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        crate::cli::dev::prepare(dir, Some(anywhere), &SystemClock::new(), &OsEntropy).unwrap()
    }

    fn webhooks() -> Vec<crate::config::WebhookConfig> {
        let name = "shop".parse().unwrap();
        let subscription =
            crate::policy::webhook::Subscription { name, tenant: "k".parse().unwrap(), erased: true, due_soon: None };
        vec![crate::config::WebhookConfig {
            subscription,
            url: "https://shop.example:8443/hook".parse().unwrap(),
            secret_file: "secrets/webhook".into(),
            ca: Some("cas/shop.pem".into()),
            dead_letters: "dead/letters.jsonl".into(),
            first_retry: std::time::Duration::from_secs(1),
            give_up_after: std::time::Duration::from_secs(1),
        }]
    }

    /// Runs `work` in a thread of its own, confined to `needs`; the test's other threads are not.
    fn confined<T: Send>(needs: &Needs, work: impl FnOnce() -> T + Send) -> Option<T> {
        std::thread::scope(|scope| {
            let confined = scope.spawn(|| {
                let done = confine_thread(needs).unwrap();
                (done.landlock_abi >= 4 && done.seccomp).then(work)
            });
            let answer = confined.join().unwrap();
            if answer.is_none() {
                println!("skipped: this kernel has not the whole sandbox");
            }
            answer
        })
    }

    fn denied<T>(answer: io::Result<T>) -> bool {
        answer.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
    }

    #[test]
    fn a_confined_thread_reads_and_writes_what_it_needs_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        let [read, write] = ["read", "write"].map(|name| dir.join(name));
        for folder in [&read, &write] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join("file"), "there").unwrap();
        }
        fs::write(dir.join("secret"), "there").unwrap();
        symlink(dir.join("secret"), read.join("link")).unwrap();
        let needs = Needs { read: vec![read.clone()], write: vec![write.clone()], ..Needs::default() };
        confined(&needs, || {
            assert_eq!(fs::read_to_string(read.join("file")).unwrap(), "there");
            assert!(denied(fs::write(read.join("file"), "changed")) && denied(fs::remove_file(read.join("file"))));
            assert!(denied(fs::read(dir.join("secret"))) && denied(fs::read(read.join("link"))));
            assert!(denied(fs::read("/etc/passwd")) && denied(fs::read_dir("/")));
            fs::write(write.join("new"), "made").unwrap();
            fs::rename(write.join("new"), write.join("file")).unwrap();
            fs::remove_file(write.join("file")).unwrap();
            assert!(denied(fs::write(dir.join("new"), "made")));
            assert!(fs::rename(write.join("file"), dir.join("file")).is_err());
        });
    }

    #[test]
    fn a_confined_thread_listens_where_it_should_and_calls_nobody_else() {
        let [own, other] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        let needs = Needs { bind: vec![0], connect: vec![port(&own)], ..Needs::default() };
        confined(&needs, || {
            TcpListener::bind("127.0.0.1:0").unwrap();
            assert!(denied(TcpListener::bind("127.0.0.1:1")));
            TcpStream::connect(own.local_addr().unwrap()).unwrap();
            assert!(denied(TcpStream::connect(other.local_addr().unwrap())));
        });
    }

    #[test]
    fn a_confined_thread_starts_threads_but_no_process() {
        confined(&Needs::default(), || {
            std::thread::spawn(|| assert!(denied(fs::read("/etc/passwd")))).join().unwrap();
            assert!(std::process::Command::new("/bin/true").spawn().is_err());
        });
    }

    #[test]
    fn a_process_with_threads_is_not_confined_halfway() {
        let refused = confine(&Needs::default()).unwrap_err();
        assert!(refused.message.contains("a thread runs already"), "{refused}");
        assert!(fs::read("/etc/passwd").is_ok());
    }

    #[test]
    fn what_is_needed_is_the_folders_of_what_is_configured_and_of_what_links_lead_to() {
        let folder = tempfile::tempdir().unwrap();
        let (dir, mounted) = (folder.path().join("data"), folder.path().join("mounted"));
        let mut config = development(&dir);
        fs::create_dir(&mounted).unwrap();
        fs::rename(&config.trust.key, mounted.join("tls.key")).unwrap();
        symlink(mounted.join("tls.key"), &config.trust.key).unwrap();
        config.store.ledger = "elsewhere/erasure.ledger".into();
        config.keyring = "keyring".into();
        config.listener.address.set_port(7443);
        config.webhooks = webhooks();
        let needs = needs(&config);
        let root = config.root.path().unwrap();
        let secrets = Path::new("secrets");
        for path in [dir.join("certs").as_path(), &mounted, root.parent().unwrap(), secrets, Path::new("cas")] {
            assert!(needs.read.iter().any(|read| read == path), "{} in {needs:?}", path.display());
        }
        for path in [dir.as_path(), Path::new("elsewhere"), Path::new("."), Path::new("dead")] {
            assert!(needs.write.iter().any(|written| written == path), "{} in {needs:?}", path.display());
        }
        assert!(!needs.write.contains(&mounted) && !needs.write.contains(&dir.join("certs")));
        assert!(!needs.write.iter().any(|path| path == secrets) && !needs.read.contains(&"dead".into()));
        assert_eq!((needs.bind, needs.connect), (vec![7443], vec![8443]));
    }
}
