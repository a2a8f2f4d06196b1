//! The real server in a process of its own, logging as finely as it can; and all that is heard of it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;

use strongroom::cli::dev;
use strongroom::crypto::entropy::OsEntropy;
use strongroom::crypto::root::write_secret;
use strongroom::crypto::webhook::Secrets;
use strongroom::domain::caller::Role;
use strongroom::domain::time::SystemClock;
use strongroom::rpc::client::{ClientFiles, connect};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tonic::Status;
use tonic::transport::Channel;

use crate::canaries::POLICY;

pub struct Served {
    dir: TempDir,
    child: Child,
    address: String,
    runtime: Runtime,
    printing: [JoinHandle<Vec<u8>>; 2],
    /// What reached a caller or a user, by where.
    pub heard: Vec<(String, Vec<u8>)>,
    /// Outputs that exist to tell tokens.
    pub told_tokens: Vec<(String, Vec<u8>)>,
}

impl Served {
    pub fn start(fault: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir(dir.path().join("inputs")).unwrap();
        let free = Some("127.0.0.1:0".parse().unwrap());
        dev::prepare(&data, free, &SystemClock::new(), &OsEntropy).unwrap();
        let config = data.join("config.toml");
        let text = std::fs::read_to_string(&config).unwrap();
        let changed = text.replace("[log]", "[log]\nlevel = \"trace\"").replace("builtin:kitchenware", "policy.toml");
        assert!(changed.contains("trace") && changed.contains("policy.toml"));
        std::fs::write(&config, changed + &watched()).unwrap();
        std::fs::write(data.join("policy.toml"), POLICY).unwrap();
        write_secret(&data.join("webhook.secret"), &Secrets::mint(&OsEntropy)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
        command.args(["serve", "--config"]).arg(&config).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(fault) = fault {
            command.env("STRONGROOM_PLANTED_FAULT", fault);
        }
        let mut child = command.spawn().unwrap();
        let (mut out, mut err) = (BufReader::new(child.stdout.take().unwrap()), child.stderr.take().unwrap());
        let (ready, address) = mpsc::channel();
        let out = std::thread::spawn(move || {
            let mut printed = Vec::new();
            while out.read_until(b'\n', &mut printed).unwrap() > 0 {
                let text = String::from_utf8_lossy(&printed).into_owned();
                if let Some((_, address)) = text.trim_end().rsplit_once("ready ") {
                    let _ = ready.send(address.to_owned());
                }
            }
            printed
        });
        let err = std::thread::spawn(move || {
            let mut printed = Vec::new();
            err.read_to_end(&mut printed).unwrap();
            printed
        });
        let address = address.recv().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Self { dir, child, address, runtime, printing: [out, err], heard: Vec::new(), told_tokens: Vec::new() }
    }

    /// What whoever scrapes the metrics gets.
    pub fn metrics(&self) -> Vec<u8> {
        let log = std::fs::read_to_string(self.data().join("strongroom.log")).unwrap();
        let line = log.lines().find(|line| line.contains("serving metrics")).unwrap();
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let mut stream = TcpStream::connect(line["address"].as_str().unwrap()).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
        let mut page = Vec::new();
        stream.read_to_end(&mut page).unwrap();
        page
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Writes a file for a command to read; what the vault keeps lies elsewhere.
    pub fn input(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Where a command's files lie.
    pub fn path(&self, name: &str) -> String {
        self.dir.path().join("inputs").join(name).to_str().unwrap().to_owned()
    }

    pub fn host(&self) -> &str {
        self.address.strip_prefix("https://").unwrap()
    }

    /// The channel of a caller, named like its certificate.
    pub fn channel(&self, caller: &str) -> Channel {
        let certs = self.data().join("certs");
        let files = ClientFiles {
            certificate: certs.join(format!("{caller}.pem")),
            key: certs.join(format!("{caller}-key.pem")),
            roots: certs.join("ca.pem"),
        };
        self.run(connect(&self.address, &files)).unwrap()
    }

    pub fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Notes all that a refused caller receives, in every form that it could be logged in.
    pub fn refused<T>(&mut self, what: &str, answer: Result<T, Status>) {
        let Err(status) = answer else { panic!("{what} was not refused") };
        let mut told = format!("{status} {status:?} {status:#?} {:?}", status.metadata()).into_bytes();
        told.extend_from_slice(status.details());
        told.extend_from_slice(status.message().as_bytes());
        self.heard.push((format!("the refusal of {what}"), told));
    }

    /// Runs a command as a caller, with `stdin`; what it prints on standard error is noted.
    pub fn command(&mut self, caller: &str, arguments: &[&str], stdin: &str) -> Output {
        let certs = self.data().join("certs");
        let mut child = Command::new(env!("CARGO_BIN_EXE_strongroom"))
            .args(arguments)
            .env("STRONGROOM_SERVER", &self.address)
            .env("STRONGROOM_CA", certs.join("ca.pem"))
            .env("STRONGROOM_CERT", certs.join(format!("{caller}.pem")))
            .env("STRONGROOM_KEY", certs.join(format!("{caller}-key.pem")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that reads nothing may be gone already.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        let output = child.wait_with_output().unwrap();
        self.heard.push((format!("standard error of {arguments:?}"), output.stderr.clone()));
        output
    }

    /// A command that is refused: nothing of it may tell anything.
    pub fn refused_command(&mut self, caller: &str, arguments: &[&str], stdin: &str) {
        let output = self.command(caller, arguments, stdin);
        assert!(!output.status.success() && !output.stderr.is_empty(), "{arguments:?} succeeded");
        self.heard.push((format!("standard output of {arguments:?}"), output.stdout));
    }

    /// A command that succeeds; what it prints is the caller's to judge.
    pub fn done_command(&mut self, caller: &str, arguments: &[&str], stdin: &str) -> String {
        let output = self.command(caller, arguments, stdin);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A command that succeeds and prints nothing of what is looked for.
    pub fn silent_command(&mut self, caller: &str, arguments: &[&str], stdin: &str) -> String {
        let printed = self.done_command(caller, arguments, stdin);
        self.heard.push((format!("standard output of {arguments:?}"), printed.clone().into_bytes()));
        printed
    }

    /// Ends the server in good order; its folder, and what it printed.
    pub fn stop(mut self) -> (TempDir, Vec<(String, Vec<u8>)>) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
        let printed = ["output", "error"].into_iter().zip(self.printing);
        let printed = printed.map(|(name, thread)| (format!("the server's standard {name}"), thread.join().unwrap()));
        (self.dir, printed.collect())
    }
}

/// Metrics, a webhook whose receiver is not there, and limits that the story does not reach.
fn watched() -> String {
    let limits = Role::ALL.iter().map(|role| {
        let far =
            "calls_per_second = 1000000\nburst = 1000000\nrefusals_per_minute = 1000000\nmisses_per_minute = 1000000";
        format!("\n[limits.{}]\n{far}\n", role.as_str())
    });
    let hook = "name = 'shop'\ntenant = 'kitchenware'\nurl = 'http://127.0.0.1:9/'\nsecret_file = 'webhook.secret'\n\
                events = ['erased', 'due_soon']\ndue_soon_days = 365\ndead_letters = 'dead.jsonl'\n";
    limits.collect::<String>() + "\n[metrics]\naddress = \"127.0.0.1:0\"\n\n[[webhook]]\n" + hook
}
