//! The outside services, each started for one test and stopped with it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a harness that cannot set up has failed its test")]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

/// Whether a tool that is not here fails its test.
pub fn required() -> bool {
    std::env::var_os("STRONGROOM_ROOTS_REQUIRED").is_some()
}

/// A tool by its variable, in the folder of tools, or on the path.
pub fn find(variable: &str, name: &str) -> Option<PathBuf> {
    let named = std::env::var_os(variable).map(PathBuf::from);
    let target = Path::new(env!("CARGO_BIN_EXE_strongroom")).ancestors().nth(2).unwrap();
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(target.join("tools/python/bin")).chain(std::env::split_paths(&on_path));
    let found = named.or_else(|| folders.map(|folder| folder.join(name)).find(|path| path.is_file()));
    if found.is_none() {
        assert!(!required(), "{name} is required and not here");
        println!("skipped: {name} is not here");
    }
    found
}

/// A port that was free just now.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn wait_for(port: u16, child: &mut Child) {
    for _ in 0..600 {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return;
        }
        assert!(child.try_wait().unwrap().is_none(), "the service ended before it listened");
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("the service does not listen");
}

/// A child that ends with its owner.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// OpenBao's server over TLS, with a transit key, a token that may use it, and one that may nothing.
pub struct Bao {
    bao: PathBuf,
    dir: TempDir,
    process: Option<Process>,
    pub address: String,
    pub ca: String,
    pub token: String,
    pub powerless: String,
}

const POLICY: &str = "\
path \"transit/encrypt/strongroom\" { capabilities = [\"update\"] }
path \"transit/decrypt/strongroom\" { capabilities = [\"update\"] }
";

impl Bao {
    pub fn start() -> Option<Self> {
        let bao = find("STRONGROOM_TEST_BAO", "bao")?;
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
        let certs = dir.path().join("certs");
        fs::create_dir(&certs).unwrap();
        let mut server = Command::new(&bao);
        server.args(["server", "-dev-tls", "-dev-root-token-id=canary-root", "-dev-no-store-token"]);
        server.arg(format!("-dev-tls-cert-dir={}", certs.display()));
        server.arg(format!("-dev-listen-address=127.0.0.1:{port}"));
        server.env("HOME", dir.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = Process(server.spawn().unwrap());
        wait_for(port, &mut process.0);
        let ca = fs::read_dir(&certs).unwrap().map(|entry| entry.unwrap().path());
        let ca = ca.into_iter().find(|path| path.to_str().unwrap().ends_with("-ca.pem")).unwrap();
        let mut started = Self {
            bao,
            dir,
            process: Some(process),
            address: format!("https://127.0.0.1:{port}"),
            ca: ca.to_str().unwrap().to_owned(),
            token: String::new(),
            powerless: String::new(),
        };
        started.cli(&["secrets", "enable", "transit"]);
        started.cli(&["write", "-f", "transit/keys/strongroom"]);
        let policy = started.dir.path().join("policy.hcl");
        fs::write(&policy, POLICY).unwrap();
        started.cli(&["policy", "write", "strongroom", policy.to_str().unwrap()]);
        started.token = started.cli(&["token", "create", "-policy=strongroom", "-field=token"]);
        started.powerless = started.cli(&["token", "create", "-policy=default", "-field=token"]);
        Some(started)
    }

    /// Runs the command line as its root; answers what it printed.
    pub fn cli(&self, args: &[&str]) -> String {
        let mut command = Command::new(&self.bao);
        command.args(args).env("HOME", self.dir.path());
        command.env("BAO_ADDR", &self.address).env("BAO_TOKEN", "canary-root").env("BAO_CACERT", &self.ca);
        let output = command.output().unwrap();
        assert!(output.status.success(), "bao {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub fn stop(&mut self) {
        self.process = None;
    }
}

/// SoftHSM 2 with tokens in a folder of its own.
pub struct SoftHsm {
    util: PathBuf,
    _dir: TempDir,
    pub conf: String,
    pub module: String,
}

impl SoftHsm {
    pub const PIN: &str = "canary-7f3a-pin";

    pub fn new() -> Option<Self> {
        let util = find("STRONGROOM_TEST_SOFTHSM", "softhsm2-util")?;
        let places = ["/usr/lib/softhsm", "/usr/lib/x86_64-linux-gnu/softhsm", "/usr/lib/aarch64-linux-gnu/softhsm"];
        let module = places.iter().map(|place| Path::new(place).join("libsofthsm2.so")).find(|path| path.exists())?;
        let dir = tempfile::tempdir().unwrap();
        let (conf, tokens) = (dir.path().join("softhsm2.conf"), dir.path().join("tokens"));
        fs::create_dir(&tokens).unwrap();
        let text =
            format!("directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n", tokens.display());
        fs::write(&conf, text).unwrap();
        let (conf, module) = (conf.to_str().unwrap().to_owned(), module.to_str().unwrap().to_owned());
        Some(Self { util, _dir: dir, conf, module })
    }

    pub fn init_token(&self, label: &str) {
        let mut command = Command::new(&self.util);
        command.args(["--init-token", "--free", "--label", label, "--pin", Self::PIN, "--so-pin", "5678-so-pin"]);
        let output = command.env("SOFTHSM2_CONF", &self.conf).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// moto's server, which speaks KMS.
#[cfg(feature = "aws-kms")]
pub struct Moto {
    process: Option<Process>,
    pub address: String,
}

#[cfg(feature = "aws-kms")]
impl Moto {
    pub fn start() -> Option<Self> {
        let moto = find("STRONGROOM_TEST_MOTO", "moto_server")?;
        let port = free_port();
        let mut server = Command::new(moto);
        server.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = Process(server.spawn().unwrap());
        wait_for(port, &mut process.0);
        Some(Self { process: Some(process), address: format!("http://127.0.0.1:{port}") })
    }

    /// A new key's ARN.
    pub fn create_key(&self) -> String {
        let scope = "Credential=testing/20260101/eu-central-1/kms/aws4_request";
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let answer = runtime.block_on(async {
            let client = reqwest::Client::builder().no_proxy().tls_certs_only(Vec::new()).build().unwrap();
            let call = client.post(&self.address).header("X-Amz-Target", "TrentService.CreateKey");
            let call = call.header("Content-Type", "application/x-amz-json-1.1");
            let signed = format!("AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=0");
            call.header("Authorization", signed).body("{}").send().await.unwrap().text().await.unwrap()
        });
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        answer.pointer("/KeyMetadata/Arn").unwrap().as_str().unwrap().to_owned()
    }

    pub fn stop(&mut self) {
        self.process = None;
    }
}
