//! Servers in processes of their own: this program, started again with a role. INVARIANT: a server ends when its standard
//! input does, so none outlives the bench; all of the CPU that its threads ran is counted, and nothing else is.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Lines, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::ToSpan as _;
use jiff::tz::TimeZone;
use rusqlite::{Connection, OpenFlags};
use strongroom::cli::dev;
use strongroom::cli::serve::Running;
use strongroom::config::Config;
use strongroom::crypto::entropy::OsEntropy;
use strongroom::domain::caller::Role as Caller;
use strongroom::domain::id::Epoch;
use strongroom::domain::time::{Clock, DAY, HOUR, SystemClock, Timestamp};
use strongroom::rpc::client::ClientFiles;
use strongroom::rpc::listener::{Listener, Stop};
use strongroom::rpc::trust::Trust;
use strongroom::telemetry;
use tokio::time::Instant;
use tonic::service::Routes;

use crate::echo::Echo;
use crate::load::{Load, Target, runtime};
use crate::report::Measure;

/// The first argument of a process that is a server.
pub const ARGUMENT: &str = "server";

#[derive(Clone, Copy, Debug)]
pub enum Role {
    Echo,
    Vault,
}

/// The server's side: serves from `folder` until standard input ends.
pub fn serve(role: &str, folder: &Path) {
    let config = Config::load(&folder.join("config.toml")).unwrap();
    telemetry::init(&config.log).unwrap();
    if role == format!("{:?}", Role::Echo) { serve_echo(config) } else { serve_vault(config) }
}

fn serve_echo(config: Config) {
    let trust = Trust::load(config.trust.clone()).unwrap();
    let listener = Listener::bind(&config.listener).unwrap();
    let (address, stop) = (listener.local_addr(), Stop::new());
    let stopped = stop.clone();
    let serving = std::thread::spawn(move || {
        let _ = listener.serve(trust, Arc::new(SystemClock::new()), Routes::new(Echo), stopped);
    });
    obey(address, |_| None);
    stop.trigger();
    serving.join().unwrap();
}

fn serve_vault(mut config: Config) {
    // It sweeps when it is told to.
    config.sweep_interval = Duration::from_secs(3_600);
    // As fast as it can.
    config.keys.budget = 10_000_000;
    // Metered and measured like any other, but the one carrier of the bench is as fast as a shop.
    config.limits = config.limits.clone().with(Caller::Carrier, config.limits.of(Caller::Shop));
    config.metrics = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    let clock = Arc::new(LeapingClock { machine: SystemClock::new(), ahead: AtomicI64::new(0) });
    let running = Running::start(config, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
    let runtime = runtime();
    obey(running.address, |command| {
        let vault = || running.vault().unwrap();
        // Sweeps for so long, or until there is nothing more to do; answers when it began and what it destroyed.
        let sweep = |length: Duration| {
            let (started, mut destroyed) = (Instant::now(), 0);
            while started.elapsed() < length {
                let swept = runtime.block_on(vault().sweep()).unwrap();
                destroyed += swept.destroyed;
                if !swept.more {
                    break;
                }
            }
            (started, destroyed as u64)
        };
        let pass = |micros: i64| clock.ahead.fetch_add(micros, Ordering::SeqCst);
        let (command, number) = command.split_once(' ').unwrap_or((command, ""));
        let (started, done) = match command {
            "pass" => {
                pass(number.parse::<i64>().unwrap() * HOUR);
                (Instant::now(), 0)
            }
            "age" => {
                // The cap of a year, by the calendar, that ends every order.
                let stored = clock.now().plus(-number.parse::<i64>().unwrap() * HOUR).to_jiff().to_zoned(TimeZone::UTC);
                let due = Timestamp::from_jiff(stored.checked_add(1.year()).unwrap().timestamp());
                pass(8 * DAY);
                sweep(Duration::MAX);
                pass(due.plus(-DAY / 2).since(clock.now()));
                sweep(Duration::MAX);
                pass(DAY);
                (Instant::now(), 0)
            }
            "sweep-for" => sweep(Duration::from_micros(number.parse().unwrap())),
            "sweep" => sweep(Duration::MAX),
            "rewrap" => {
                // Past the period of the active epoch, which everything lies under.
                clock.ahead.fetch_add(15 * DAY, Ordering::SeqCst);
                let old = vault().store().keyring().active().number();
                let (started, rows) = (Instant::now(), rows_under(&running, old));
                while runtime.block_on(vault().keep_keys()).unwrap().more {}
                let left = rows_under(&running, old);
                assert_eq!(left, 0, "the rewrap has left something behind");
                (started, rows)
            }
            _ => return None,
        };
        Some(format!("{done} {}", started.elapsed().as_micros()))
    });
    running.stop().unwrap();
}

/// What a rewrap has to move.
fn rows_under(running: &Running, epoch: Epoch) -> u64 {
    let rows = running.vault().unwrap().store().read(|view| view.rows_under(Some(epoch))).unwrap();
    rows.iter().filter(|rows| rows.table != "idempotency").map(|rows| rows.rows).sum()
}

/// Says where it serves, then answers one line to every line, until there are no more.
fn obey(address: SocketAddr, mut answer: impl FnMut(&str) -> Option<String>) {
    println!("{address}");
    for command in std::io::stdin().lines().map_while(Result::ok) {
        println!("{}", answer(&command).unwrap_or_default());
    }
}

/// The machine's clock, and as far ahead of it as it was told.
struct LeapingClock {
    machine: SystemClock,
    ahead: AtomicI64,
}

impl Clock for LeapingClock {
    fn now(&self) -> Timestamp {
        self.machine.now().plus(self.ahead.load(Ordering::Relaxed))
    }

    fn boot(&self) -> i64 {
        self.machine.boot() + self.ahead.load(Ordering::Relaxed)
    }

    fn boot_id(&self) -> u128 {
        self.machine.boot_id()
    }
}

/// The bench's side of a server.
pub struct Child {
    process: std::process::Child,
    /// Held open: its end is the server's.
    pipe: Mutex<(ChildStdin, Lines<BufReader<ChildStdout>>)>,
    folder: PathBuf,
    address: String,
}

impl Child {
    pub fn start(role: Role, folder: &Path) -> Self {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        dev::prepare(folder, Some(free), &SystemClock::new(), &OsEntropy).unwrap();
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args([ARGUMENT, &format!("{role:?}")])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let address = lines.next().unwrap().unwrap();
        let pipe = Mutex::new((process.stdin.take().unwrap(), lines));
        Self { process, pipe, folder: folder.to_owned(), address }
    }

    pub fn target(&self, caller: &str) -> Target {
        let certs = self.folder.join("certs");
        let files = ClientFiles {
            certificate: certs.join(format!("{caller}.pem")),
            key: certs.join(format!("{caller}-key.pem")),
            roots: certs.join("ca.pem"),
        };
        Target { endpoint: format!("https://{}", self.address), files }
    }

    pub fn database(&self) -> PathBuf {
        self.folder.join("strongroom.db")
    }

    /// Makes so much time pass in the server.
    pub fn pass(&self, hours: i64) {
        self.ordered(&format!("pass {hours}"));
    }

    /// Makes time pass in the server until what was stored so many hours ago falls due, much as it would without leaps: idempotency
    /// keys expire after their week, and the day before the sweeper forecasts what comes; what nobody foresaw it would not destroy.
    pub fn age(&self, stored_hours_ago: i64) {
        self.ordered(&format!("age {stored_hours_ago}"));
    }

    /// Destroys what is due, and expires what has served its time.
    pub fn sweep(&self) -> Load {
        self.ordered("sweep")
    }

    /// The same for so long.
    pub fn sweep_for(&self, length: Duration) -> Load {
        self.ordered(&format!("sweep-for {}", length.as_micros()))
    }

    /// Makes the next epoch active in the server and rewraps all that lies under the last one.
    pub fn rewrap(&self) -> Load {
        self.ordered("rewrap")
    }

    /// What the server has done by order, and how long it took by its own word.
    fn ordered(&self, command: &str) -> Load {
        let mut pipe = self.pipe.lock().unwrap();
        writeln!(pipe.0, "{command}").unwrap();
        let answer = pipe.1.next().unwrap().unwrap();
        let (destroyed, micros) = answer.split_once(' ').unwrap();
        let lasted = Duration::from_micros(micros.parse().unwrap());
        Load { calls: destroyed.parse().unwrap(), lasted, latencies: Vec::new() }
    }

    /// `sweep_for` with what it costs this server: how many, and how long.
    pub fn watch_sweep(&self, length: Duration) -> (u64, Duration, Measure) {
        let mut done = (0, Duration::ZERO);
        let measure = self.watch(|| {
            let load = self.sweep_for(length);
            done = (load.calls, load.lasted);
            load
        });
        (done.0, done.1, measure)
    }

    /// Measures `work` with what it costs this server.
    pub fn watch(&self, work: impl FnOnce() -> Load) -> Measure {
        let (cpu, commits) = (self.cpu(), self.commits());
        let load = work();
        let mut spent = self.cpu();
        for (thread, before) in cpu {
            spent.entry(thread).and_modify(|nanos| *nanos = nanos.saturating_sub(before));
        }
        let commits = self.commits().zip(commits).map(|(after, before)| after - before);
        Measure::new(load, spent, commits)
    }

    /// Nanoseconds on a core by thread name, workers of one kind together.
    fn cpu(&self) -> BTreeMap<String, u64> {
        let mut spent = BTreeMap::new();
        for task in fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap().flatten() {
            let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            let first = task.file_name().to_str() == Some(&self.process.id().to_string());
            let kind =
                if first { "main" } else { name.trim().trim_end_matches(|c: char| c.is_ascii_digit() || c == '-') };
            *spent.entry(kind.to_owned()).or_default() += on_core(&task.path().join("schedstat"));
        }
        spent
    }

    /// Commits that logged something, since the beginning.
    fn commits(&self) -> Option<u64> {
        let database = self.database();
        database.exists().then(|| {
            let connection = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
            connection.query_row("SELECT COUNT(*) FROM audit_batch", [], |row| row.get(0)).unwrap()
        })
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The first figure of a schedstat: nanoseconds on a core.
pub fn on_core(schedstat: &Path) -> u64 {
    let text = fs::read_to_string(schedstat).unwrap_or_default();
    text.split_whitespace().next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0)
}
