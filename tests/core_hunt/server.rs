//! A real server in a process of its own, and a day's traffic for it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use strongroom::cli::dev;
use strongroom::config::Config;
use strongroom::crypto::entropy::OsEntropy;
use strongroom::crypto::keyring::{Keyring, peek};
use strongroom::crypto::root::{RootKey, RootSource, mint_key_file};
use strongroom::domain::time::SystemClock;
use strongroom::rpc::client::{ClientFiles, connect};
use strongroom::rpc::proto::delivery_service_client::DeliveryServiceClient;
use strongroom::rpc::proto::key_service_client::KeyServiceClient;
use strongroom::rpc::proto::lifecycle_service_client::LifecycleServiceClient;
use strongroom::rpc::proto::operations_service_client::OperationsServiceClient;
use strongroom::rpc::proto::token_service_client::TokenServiceClient;
use strongroom::rpc::proto::{
    DescribeRequest, DetokenizeRequest, EraseReason, EraseRequest, Field, GetDeliveryRequest, GrantShipmentRequest,
    Purpose, RotateKekRequest, RotateRootRequest, StatusRequest, StatusResponse,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tonic::transport::Channel;

use crate::common::{order, wire_time};

/// Which command serves, and where its root comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `serve`, the root in a key file that another process made.
    Serve,
    /// `serve`, the root stretched from a passphrase.
    Passphrase,
    /// `dev`, which mints its root and keyring itself.
    Dev,
    /// `serve` by a user without privileges; only for a test that is root.
    Plain,
    /// The same without any locked memory.
    Poor,
}

const NOBODY: u32 = 65_534;

const NEXT_ROOT: &str = "next.key";
/// For a configuration.
pub const WITH_NEXT_ROOT: &str = "\n[next_root]\nkey_file = \"next.key\"\nallow_same_device = true\n";

/// For a shell: cores as large as the machine lets a process write.
pub const CORES_ALLOWED: &str = "ulimit -c $(ulimit -Hc);";

/// Whether a user without privileges reaches the binary at all.
pub fn nobody_runs_it() -> bool {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
    let ran = command.arg("--version").uid(NOBODY).gid(NOBODY).stdout(Stdio::null()).status();
    let ran = ran.is_ok_and(|status| status.success());
    if !ran {
        println!("skipped: nobody but root can run the binary here");
    }
    ran
}

/// Makes all of a folder nobody's.
fn give_away(folder: &Path) {
    chown(folder, Some(NOBODY), Some(NOBODY)).unwrap();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            give_away(&path);
        } else {
            chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }
}

pub struct Server {
    pub dir: TempDir,
    pub child: Child,
    address: String,
    runtime: Runtime,
}

impl Server {
    pub fn start(kind: Kind, fault: Option<&str>) -> Self {
        Self::start_with(kind, fault, "")
    }

    /// With `more` in its configuration (`serve` only).
    pub fn start_with(kind: Kind, fault: Option<&str>, more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let mut command = Command::new("sh");
        let lock = if kind == Kind::Poor { "ulimit -l 0; " } else { "" };
        let exec = format!("{lock}{CORES_ALLOWED} exec \"$@\"");
        command.args(["-c", &exec, "sh", env!("CARGO_BIN_EXE_strongroom")]);
        if kind == Kind::Dev {
            command.args(["dev", "--listen", "127.0.0.1:0", "--dir"]).arg(&data);
        } else {
            prepare(&data, kind);
            let config = data.join("config.toml");
            fs::write(&config, fs::read_to_string(&config).unwrap() + more).unwrap();
            command.args(["serve", "--config"]).arg(data.join("config.toml"));
        }
        if kind == Kind::Plain || kind == Kind::Poor {
            give_away(dir.path());
            command.uid(NOBODY).gid(NOBODY);
        }
        command.env_remove("STRONGROOM_PLANTED_FAULT").current_dir(dir.path());
        command.envs(fault.map(|fault| ("STRONGROOM_PLANTED_FAULT", fault)));
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let address = lines.filter_map(|line| line.strip_prefix("ready ").map(str::to_owned)).next();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Self { dir, child, address: address.expect("a server that is ready"), runtime }
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub fn config(&self) -> Config {
        Config::load(&self.data().join("config.toml")).unwrap()
    }

    /// What this process can open because it has the files; the server's memory must not hold it.
    pub fn keys(&self) -> (RootKey, Keyring) {
        self.keys_by(&self.config().root)
    }

    /// The same when the keyring lies under the next root.
    pub fn next_keys(&self) -> (RootKey, Keyring) {
        self.keys_by(&RootSource::KeyFile { path: self.data().join(NEXT_ROOT) })
    }

    fn keys_by(&self, root: &RootSource) -> (RootKey, Keyring) {
        let keyring = self.config().keyring;
        let root = root.unlock(&peek(&keyring).unwrap().root).unwrap();
        let keyring = Keyring::load(&keyring, &root).unwrap();
        (root, keyring)
    }

    /// Another epoch, with everything moved under it, then another root.
    pub fn rotate(&self) {
        let mut keys = KeyServiceClient::new(self.channel("key-admin-office"));
        self.runtime.block_on(async {
            let mut moving = keys.rotate_kek(RotateKekRequest { active_epoch: 1 }).await.unwrap().into_inner();
            let mut last = None;
            while let Some(told) = moving.message().await.unwrap() {
                last = Some(told);
            }
            let last = last.unwrap();
            assert_eq!((last.active_epoch, last.rows_left), (2, 0));
            keys.rotate_root(RotateRootRequest {}).await.unwrap();
        });
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.data().join("strongroom.log")).unwrap()
    }

    fn channel(&self, caller: &str) -> Channel {
        let certs = self.data().join("certs");
        let files = ClientFiles {
            certificate: certs.join(format!("{caller}.pem")),
            key: certs.join(format!("{caller}-key.pem")),
            roots: certs.join("ca.pem"),
        };
        self.runtime.block_on(connect(&self.address, &files)).unwrap()
    }

    pub fn status(&self) -> StatusResponse {
        let mut operations = OperationsServiceClient::new(self.channel("operator-oncall"));
        self.runtime.block_on(operations.status(StatusRequest {})).unwrap().into_inner()
    }

    /// Every use of every key: records stored, read, granted, delivered, described and erased, then certificates read again.
    pub fn work(&self, orders: usize) {
        let (shop, swift) = (self.channel("shop-backend"), self.channel("carrier-swift"));
        let mut tokens = TokenServiceClient::new(shop.clone());
        let mut lifecycle = LifecycleServiceClient::new(shop);
        let mut deliveries = DeliveryServiceClient::new(swift);
        let now = strongroom::domain::time::Clock::now(&SystemClock::new());
        self.runtime.block_on(async {
            for n in 0..orders {
                let token = tokens.tokenize(order(n)).await.unwrap().into_inner().token;
                let serial = format!("SW{n:09}");
                let read = DetokenizeRequest {
                    token: token.clone(),
                    fields: vec![Field::RecipientName.into(), Field::Phone.into()],
                    purpose: Purpose::Fulfilment.into(),
                };
                tokens.detokenize(read).await.unwrap();
                let grant = GrantShipmentRequest {
                    idempotency_key: format!("grant-{n}"),
                    token: token.clone(),
                    serial: serial.clone(),
                    carrier: "swift".to_owned(),
                    not_before: Some(wire_time(now)),
                    not_after: Some(wire_time(now.plus(strongroom::domain::time::DAY))),
                    read_limit: 10,
                    parcel: 0,
                };
                lifecycle.grant_shipment(grant).await.unwrap();
                deliveries.get_delivery(GetDeliveryRequest { serial }).await.unwrap();
                tokens.describe(DescribeRequest { token: token.clone() }).await.unwrap();
                if n % 4 == 0 {
                    let erase = EraseRequest {
                        idempotency_key: format!("erase-{n}"),
                        token,
                        reason: EraseReason::SubjectRequest.into(),
                    };
                    tokens.erase(erase).await.unwrap();
                }
            }
        });
        self.status();
        self.signal(Signal::HUP);
        self.until_log_says("were read again");
    }

    pub fn until_log_says(&self, words: &str) {
        for _ in 0..200 {
            if self.log().contains(words) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("the log never said {words:?}: {}", self.log());
    }
}

fn prepare(data: &Path, kind: Kind) {
    let free = Some("127.0.0.1:0".parse().unwrap());
    if kind == Kind::Passphrase {
        fs::create_dir(data).unwrap();
        // What `dev` makes, but for the root.
        let scratch = data.with_extension("scratch");
        dev::prepare(&scratch, free, &SystemClock::new(), &OsEntropy).unwrap();
        let text = fs::read_to_string(scratch.join("config.toml")).unwrap();
        let text = text.replace("key_file = \"root.key\"", "passphrase_file = \"root.phrase\"");
        assert!(text.contains("passphrase_file"));
        fs::write(data.join("config.toml"), text).unwrap();
    }
    dev::prepare(data, free, &SystemClock::new(), &OsEntropy).unwrap();
    mint_key_file(&data.join(NEXT_ROOT), &OsEntropy).unwrap();
}

impl Drop for Server {
    fn drop(&mut self) {
        // Errors: it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
