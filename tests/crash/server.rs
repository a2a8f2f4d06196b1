//! The real binary in a process of its own, on a folder as `strongroom dev` makes it, so that it can be killed.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use strongroom::cli::dev;
use strongroom::crypto::entropy::OsEntropy;
use strongroom::domain::caller::Role;
use strongroom::domain::time::SystemClock;
use strongroom::rpc::client::{ClientFiles, connect};
use tempfile::TempDir;
use tonic::transport::Channel;

/// Where one vault lives, whichever process serves it.
pub struct Folder {
    dir: TempDir,
}

impl Folder {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        dev::prepare(&dir.path().join("data"), Some(anywhere), &SystemClock::new(), &OsEntropy).unwrap();
        Self { dir }
    }

    /// Runs the binary on this folder's configuration, without the faults that this process may have been told to plant.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
        command.args(words).arg("--config").arg(self.data().join("config.toml"));
        command.env_remove("STRONGROOM_PLANTED_FAULT");
        command
    }

    /// A server that is ready; or all that one had to say which ended instead.
    pub fn serve(&self, fault: Option<&str>) -> Result<Server, Output> {
        let mut command = self.command(&["serve"]);
        command.envs(fault.map(|fault| ("STRONGROOM_PLANTED_FAULT", fault)));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        match line.trim_end().strip_prefix("ready ") {
            Some(endpoint) => Ok(Server { endpoint: endpoint.to_owned(), child }),
            None => Err(child.wait_with_output().unwrap()),
        }
    }

    pub async fn channel(&self, endpoint: &str, role: Role, name: &str) -> Channel {
        let certs = self.data().join("certs");
        let stem = format!("{}-{name}", role.as_str());
        let files = ClientFiles {
            certificate: certs.join(format!("{stem}.pem")),
            key: certs.join(format!("{stem}-key.pem")),
            roots: certs.join("ca.pem"),
        };
        connect(endpoint, &files).await.unwrap()
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }
}

/// A server at work; it never outlives its test.
pub struct Server {
    pub endpoint: String,
    child: Child,
}

impl Server {
    /// SIGKILL: no handler, no destructor, no flush. `false`: it had ended by itself.
    pub fn kill(&mut self) -> bool {
        let alive = self.child.try_wait().unwrap().is_none();
        self.child.kill().unwrap();
        alive
    }

    pub fn terminate(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
    }

    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub fn address(&self) -> SocketAddr {
        self.endpoint.strip_prefix("https://").unwrap().parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Errors: it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
