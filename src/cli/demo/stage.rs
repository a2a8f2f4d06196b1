//! A whole vault in a folder of its own: real certificates, real TLS on a free port, the embedded store; only time is simulated.
//! INVARIANT: whatever ends the demonstration, the server is stopped before its folder goes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tonic::transport::Channel;

use super::plan::CARRIERS;
use crate::cli::Failure;
use crate::cli::client::answer;
use crate::cli::dev::{self, TENANT};
use crate::cli::serve::{Running, failed};
use crate::config::Config;
use crate::crypto::entropy::{OsEntropy, array};
use crate::domain::caller::Role;
use crate::domain::id::{BadName, TenantId};
use crate::domain::time::{Clock as _, DAY, SimulatedClock, SystemClock, Timestamp};
use crate::rpc::client::{ClientFiles, connect};
use crate::rpc::proto::lifecycle_service_client::LifecycleServiceClient;
use crate::rpc::proto::operations_service_client::OperationsServiceClient;
use crate::rpc::proto::statistics_service_client::StatisticsServiceClient;
use crate::rpc::proto::token_service_client::TokenServiceClient;
use crate::rpc::proto::{PublishedMonth, PublishedRequest, StatusRequest, StatusResponse};
use crate::telemetry;
use crate::vault::Vault;

/// Where the demonstration works; a folder that it chose itself goes with it, unless it is to stay.
pub struct Folder {
    pub path: PathBuf,
    goes: bool,
}

impl Folder {
    pub fn new(purpose: &str, named: Option<&Path>, keep: bool) -> Self {
        let fresh =
            || std::env::temp_dir().join(format!("strongroom-{purpose}-{}", hex::encode(array::<8>(&OsEntropy))));
        Self { path: named.map_or_else(fresh, Path::to_owned), goes: named.is_none() && !keep }
    }

    pub fn stays(&self) -> bool {
        !self.goes
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.goes {
            // What cannot be removed from the machine's temporary folder is removed with it.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

pub struct Stage {
    pub config: Config,
    pub tenant: TenantId,
    pub tokens: TokenServiceClient<Channel>,
    pub lifecycle: LifecycleServiceClient<Channel>,
    /// One for each of `CARRIERS`.
    pub carriers: Vec<Channel>,
    operations: OperationsServiceClient<Channel>,
    statistics: StatisticsServiceClient<Channel>,
    clock: SimulatedClock,
    running: Running,
    runtime: Runtime,
}

impl Stage {
    /// Mints everything in the folder and starts to serve, from that instant on and with a configuration of the caller's making.
    pub fn set(folder: &Folder, at: Timestamp, configure: impl FnOnce(&mut Config)) -> Result<Self, Failure> {
        let dir = &folder.path;
        if dir.join("strongroom.db").exists() {
            return Err(Failure::usage(format!("{} holds a vault already: name a new folder", dir.display())));
        }
        let free = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let mut config = dev::prepare(dir, Some(free), &SystemClock::new(), &OsEntropy)?;
        // The development vault's example of a customer is nobody's here.
        let example = dir.join("customer.json");
        fs::remove_file(&example).map_err(|error| Failure::io(&example, &error))?;
        telemetry::init(&config.log).map_err(|error| failed("cannot start the log", &error))?;
        // The demonstration sweeps at the end of each of its own days.
        config.sweep_interval = Duration::from_secs(24 * 3_600);
        configure(&mut config);
        Self::serve(dir, config, SimulatedClock::starting_at(at))
    }

    /// Serves what is in the folder.
    pub fn serve(dir: &Path, config: Config, clock: SimulatedClock) -> Result<Self, Failure> {
        let running = Running::start(config.clone(), Arc::new(clock.clone()))?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let endpoint = format!("https://{}", running.address);
        let channel = |role: Role, name: &str| -> Result<Channel, Failure> {
            let certs = dir.join("certs");
            let stem = format!("{}-{name}", role.as_str());
            let files = ClientFiles {
                certificate: certs.join(format!("{stem}.pem")),
                key: certs.join(format!("{stem}-key.pem")),
                roots: certs.join("ca.pem"),
            };
            Ok(runtime.block_on(connect(&endpoint, &files))?)
        };
        let (shop, operator) = (channel(Role::Shop, "backend")?, channel(Role::Operator, "oncall")?);
        let tenant = TENANT.parse().map_err(|_: BadName| Failure::local("the tenant's name is outside the grammar"))?;
        Ok(Self {
            tokens: TokenServiceClient::new(shop.clone()),
            lifecycle: LifecycleServiceClient::new(shop),
            statistics: StatisticsServiceClient::new(operator.clone()),
            operations: OperationsServiceClient::new(operator),
            carriers: CARRIERS.iter().map(|name| channel(Role::Carrier, name)).collect::<Result<_, _>>()?,
            config,
            tenant,
            clock,
            running,
            runtime,
        })
    }

    pub fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The simulated clock, shared.
    pub fn clock(&self) -> SimulatedClock {
        self.clock.clone()
    }

    /// Does all that the schedule of the keys asks for now.
    pub fn keep_keys(&self) -> Result<(), Failure> {
        let vault = self.vault()?;
        self.run(async {
            while vault.keep_keys().await.map_err(|error| failed("the keys cannot be kept", &error))?.more {}
            Ok(())
        })
    }

    pub fn pass_a_day(&self) {
        self.clock.advance(DAY);
    }

    /// Lets the sweeper do all that it has to do now; answers how many records it destroyed.
    pub fn sweep(&self) -> Result<usize, Failure> {
        let vault = self.vault()?;
        self.run(async {
            let mut destroyed = 0;
            loop {
                let swept = vault.sweep().await.map_err(|error| failed("the sweeper failed", &error))?;
                destroyed += swept.destroyed;
                if !swept.more {
                    return Ok(destroyed);
                }
            }
        })
    }

    pub fn vault(&self) -> Result<Vault, Failure> {
        self.running.vault().ok_or_else(|| Failure::local("the vault is sealed"))
    }

    /// What the operator sees.
    pub fn status(&self) -> Result<StatusResponse, Failure> {
        let mut operations = self.operations.clone();
        self.run(answer(operations.status(StatusRequest {})))
    }

    /// What desensitizing has left of the months that are over, as the operator may see it.
    pub fn published(&self) -> Result<Vec<PublishedMonth>, Failure> {
        let mut statistics = self.statistics.clone();
        let request = PublishedRequest { from: "2026-01".to_owned(), until: "2027-12".to_owned() };
        Ok(self.run(answer(statistics.published(request)))?.months)
    }

    /// Stops the server in good order; the files stay.
    pub fn stop(self) -> Result<Config, Failure> {
        let Self { tokens, lifecycle, operations, statistics, carriers, running, runtime, config, .. } = self;
        // Callers first, or the server waits for them.
        drop((tokens, lifecycle, operations, statistics, carriers));
        runtime.shutdown_timeout(Duration::from_secs(1));
        running.stop()?;
        Ok(config)
    }
}
