//! Logs that cannot carry personal data. INVARIANT: a line holds ids, roles, reasons and counts only; what the libraries
//! beneath us say is kept to warnings, and a panic is logged by its place, never by its message.
//!
//! SECURITY: at finer levels h2 and hyper log whole header frames, rustls its handshakes, so no setting opens them; our own
//! code logs nothing that a client chose. A panic's message may quote the value that caused it.

pub mod metrics;
mod sink;

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use serde::Deserialize;
use sink::Sink;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt};

/// Where our log goes, and how much of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LogConfig {
    pub level: Level,
    pub format: Format,
    /// Appended to, mode 0600; without it: stderr.
    pub file: Option<PathBuf>,
}

/// The finest of our own lines that are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One object a line, for machines.
    #[default]
    Json,
    /// For people who watch.
    Text,
}

#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("the log file {path} cannot be opened")]
    File { path: PathBuf, source: io::Error },
    #[error("the log file cannot be opened again")]
    Reopen { source: io::Error },
    #[error("this process logs already")]
    Twice,
}

/// Starts the log of this process, and logs its panics; once a process.
pub fn init(config: &LogConfig) -> Result<(), TelemetryError> {
    let sink = Arc::new(match &config.file {
        None => Sink::to_stderr(),
        Some(path) => Sink::to_file(path).map_err(|source| TelemetryError::File { path: path.clone(), source })?,
    });
    let layer = layer(config, BoxMakeWriter::new(Arc::clone(&sink)));
    tracing_subscriber::registry().with(layer).try_init().map_err(|_| TelemetryError::Twice)?;
    let _ = SINK.set(sink);
    std::panic::set_hook(Box::new(|panic| log_panic(panic.location())));
    Ok(())
}

/// The sink of this process, once it logs.
static SINK: OnceLock<Arc<Sink>> = OnceLock::new();

/// Opens the log file anew: whoever rotates logs has moved the old one aside.
pub fn reopen_log() -> Result<(), TelemetryError> {
    let Some(sink) = SINK.get() else { return Ok(()) };
    sink.reopen().map_err(|source| TelemetryError::Reopen { source })
}

/// What is wrong with the log, for the operator's status.
pub fn log_warning() -> Option<String> {
    SINK.get().and_then(|sink| sink.warning())
}

/// For commands that keep no log: a panic prints its place alone.
pub fn init_panic_hook() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        // Nobody is left to tell when stderr is closed.
        let _ = writeln!(io::stderr(), "strongroom: a defect of the program stopped it at {place}");
    }));
}

fn log_panic(place: Option<&std::panic::Location<'_>>) {
    let place = place.map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    tracing::error!(place, thread = thread.name().unwrap_or_default(), "a defect of the program stopped a thread");
}

fn layer(config: &LogConfig, writer: BoxMakeWriter) -> Box<dyn Layer<Registry> + Send + Sync> {
    let lines = fmt::layer().with_writer(writer).with_ansi(false).log_internal_errors(false);
    let filter = filter(config.level);
    match config.format {
        Format::Json => lines.json().flatten_event(true).with_filter(filter).boxed(),
        Format::Text => lines.with_filter(filter).boxed(),
    }
}

/// Ours as configured, everyone else's warnings.
fn filter(level: Level) -> Targets {
    let ours = match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    Targets::new().with_default(LevelFilter::WARN).with_target(env!("CARGO_CRATE_NAME"), ours)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Clone, Default)]
    struct Heard(Arc<Mutex<Vec<u8>>>);

    impl Write for Heard {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(config: &LogConfig, work: impl FnOnce()) -> String {
        let sink = Heard::default();
        let writer = sink.clone();
        let layer = layer(config, BoxMakeWriter::new(move || writer.clone()));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), work);
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn the_libraries_beneath_us_get_no_word_in_below_a_warning_whatever_the_level() {
        let config = LogConfig { level: Level::Trace, ..LogConfig::default() };
        let lines = logged(&config, || {
            tracing::debug!(target: "h2::codec", "canary-7f3a");
            tracing::info!(target: "rustls::server", "canary-7f3a");
            tracing::trace!(target: "tonic::transport", "canary-7f3a");
            tracing::warn!(target: "hyper::proto", "heard");
            tracing::trace!("ours");
        });
        assert!(!lines.contains("canary-7f3a") && lines.contains("heard") && lines.contains("ours"), "{lines}");
    }

    #[test]
    fn a_json_line_is_one_object() {
        let lines = logged(&LogConfig::default(), || tracing::info!(role = "shop", "called"));
        let line: serde_json::Value = serde_json::from_str(lines.trim_end()).unwrap();
        assert_eq!((line["level"].as_str(), line["role"].as_str()), (Some("INFO"), Some("shop")));
        assert_eq!(line["message"], "called");
    }

    #[test]
    fn a_level_silences_our_finer_lines() {
        let config = LogConfig { level: Level::Warn, format: Format::Text, file: None };
        let lines = logged(&config, || {
            tracing::info!("whispered");
            tracing::error!("cried");
        });
        assert!(!lines.contains("whispered") && lines.contains("cried"));
    }

    #[test]
    fn a_panic_is_logged_by_its_place_without_its_message() {
        let lines = logged(&LogConfig::default(), || log_panic(Some(std::panic::Location::caller())));
        assert!(lines.contains("telemetry.rs:"), "{lines}");
    }
}
