//! A vault run by the program itself, from a folder, with whatever root its configuration names.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a harness that cannot set up has failed its test")]

use std::cell::RefCell;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use strongroom::cli::dev;
use strongroom::crypto::entropy::OsEntropy;
use strongroom::domain::time::SystemClock;
use strongroom::rpc::client::{ClientFiles, connect};
use strongroom::rpc::proto::token_service_client::TokenServiceClient;
use strongroom::rpc::proto::{Class, DescribeRequest, Field, FieldValue, TokenizeRequest, field_value};
use tempfile::TempDir;

pub struct Vault {
    pub dir: TempDir,
    env: Vec<(String, String)>,
    stdin: String,
    /// All that the program ever printed.
    told: RefCell<String>,
}

pub struct Server {
    child: Child,
    dir: PathBuf,
    pub address: String,
    pub sealed: bool,
}

impl Vault {
    /// A development vault's configuration, its root replaced.
    pub fn new(root: &str) -> Self {
        let model = tempfile::tempdir().unwrap();
        let free = "127.0.0.1:0".parse().unwrap();
        dev::prepare(model.path(), Some(free), &SystemClock::new(), &OsEntropy).unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::copy(model.path().join("config.toml"), dir.path().join("config.toml")).unwrap();
        let vault = Self { dir, env: Vec::new(), stdin: String::new(), told: RefCell::default() };
        vault.root(root);
        vault
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Replaces what [root] says.
    pub fn root(&self, root: &str) {
        let file = self.path("config.toml");
        let text = fs::read_to_string(&file).unwrap();
        let (before, rest) = text.split_once("[root]\n").unwrap();
        let (_, after) = rest.split_once("[log]").unwrap();
        fs::write(file, format!("{before}[root]\n{root}\n\n[log]{after}")).unwrap();
    }

    /// A file for its owner alone.
    pub fn secret(&self, name: &str, line: &str) {
        fs::write(self.path(name), format!("{line}\n")).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }

    pub fn env(&mut self, name: &str, value: &str) {
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// What `start` gives the server to read.
    pub fn stdin(&mut self, text: &str) {
        text.clone_into(&mut self.stdin);
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
        command.args(args).env_clear().env("HOME", self.dir.path());
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a command to its end: what it printed, or what it said when it failed.
    pub fn run(&self, args: &[&str], stdin: &str) -> Result<String, String> {
        let answer = answered(self.command(args).spawn().unwrap(), stdin);
        self.told.borrow_mut().push_str(answer.as_ref().unwrap_or_else(|said| said));
        answer
    }

    pub fn init(&self) -> Result<String, String> {
        self.run(&["keys", "init", "--config", self.path("config.toml").to_str().unwrap()], "")
    }

    /// Starts the server; answers what it said when it does not come up.
    pub fn start(&self) -> Result<Server, String> {
        let dir = self.dir.path().to_str().unwrap();
        let mut child = self.command(&["dev", "--dir", dir]).spawn().unwrap();
        child.stdin.take().unwrap().write_all(self.stdin.as_bytes()).unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        while let Some(Ok(line)) = lines.next() {
            if let Some((how @ ("ready" | "sealed"), address)) = line.split_once(' ')
                && address.starts_with("https://")
            {
                let (address, sealed) = (address.to_owned(), how == "sealed");
                // The rest is read along, or the server could not print any more.
                std::thread::spawn(move || lines.for_each(drop));
                return Ok(Server { child, dir: self.dir.path().to_owned(), address, sealed });
            }
        }
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(!child.wait().unwrap().success());
        Err(said)
    }

    /// The server does not start, and says why on one line.
    pub fn refuses(&self, why: &str) {
        let Err(said) = self.start() else { panic!("the server started, and should have said: {why}") };
        self.told.borrow_mut().push_str(&said);
        assert!(said.lines().count() == 1 && said.contains(why), "expected: {why}\nsaid: {said}");
    }

    /// Serves, stores an order, stops; answers its token.
    pub fn serves_and_stores(&self) -> String {
        let server = self.start().unwrap();
        let token = server.tokenize();
        self.told.borrow_mut().push_str(&server.stop());
        token
    }

    /// Serves again, with what was stored.
    pub fn still_serves(&self, token: &str) {
        let server = self.start().unwrap();
        server.describe(token);
        self.told.borrow_mut().push_str(&server.stop());
    }

    /// None of these is in anything that was printed or logged.
    pub fn never_told(&self, secrets: &[&str]) {
        let told = self.told.borrow();
        for secret in secrets {
            assert!(!told.contains(secret), "a secret was printed or logged");
        }
    }
}

impl Server {
    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    fn files(&self, caller: &str) -> ClientFiles {
        let certs = self.dir.join("certs");
        ClientFiles {
            certificate: certs.join(format!("{caller}.pem")),
            key: certs.join(format!("{caller}-key.pem")),
            roots: certs.join("ca.pem"),
        }
    }

    fn tokenize(&self) -> String {
        Self::runtime().block_on(async {
            let mut shop = TokenServiceClient::new(connect(&self.address, &self.files("shop-backend")).await.unwrap());
            let email = field_value::Value::Text("wilhelmina@example.org".to_owned());
            let request = TokenizeRequest {
                idempotency_key: "one".to_owned(),
                subject: "customer-1".to_owned(),
                class: Class::Order.into(),
                fields: vec![FieldValue { field: Field::Email.into(), value: Some(email) }],
            };
            shop.tokenize(request).await.unwrap().into_inner().token.clone()
        })
    }

    fn describe(&self, token: &str) {
        Self::runtime().block_on(async {
            let mut shop = TokenServiceClient::new(connect(&self.address, &self.files("shop-backend")).await.unwrap());
            shop.describe(DescribeRequest { token: token.to_owned() }).await.unwrap();
        });
    }

    /// Runs a client's command as a caller.
    pub fn client(&self, caller: &str, args: &[&str], stdin: &str) -> Result<String, String> {
        let files = self.files(caller);
        let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
        command.args(args).env("STRONGROOM_SERVER", &self.address);
        command.env("STRONGROOM_CA", files.roots).env("STRONGROOM_CERT", files.certificate);
        command.env("STRONGROOM_KEY", files.key);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        answered(command.spawn().unwrap(), stdin)
    }

    /// Stops in good order; answers what it logged.
    pub fn stop(mut self) -> String {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
        let mut said = fs::read_to_string(self.dir.join("strongroom.log")).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        said
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already gone, if the test went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a command printed, or all that it said when it failed.
fn answered(mut child: Child, stdin: &str) -> Result<String, String> {
    // A command that needs no input may be gone before it is written.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let (printed, said) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    if status.success() { Ok(printed) } else { Err(printed + &said) }
}
