//! Metrics, served as Prometheus text. INVARIANT: a label is a role, an RPC, a code or a reason of ours, never what a client
//! chose and never a tenant's or a caller's name; the listener answers `GET /metrics` and nothing else, and is of no use to
//! anyone who would slow the vault down.
//!
//! Whatever layer something happens in counts it there, through the `metrics` facade, which costs nothing where nobody has
//! asked for metrics. Gauges of the store are read when somebody looks.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::TelemetryError;
use crate::rpc::listener::Stop;

/// Seconds of a call or a commit, from a hit in memory to the patience of a client.
const SECONDS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
const TRANSACTIONS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// Scrapes at once.
const CONNECTIONS: usize = 8;
const PATIENCE: Duration = Duration::from_secs(10);
/// Histograms keep every value until somebody looks; so somebody does.
const UPKEEP: Duration = Duration::from_secs(5);

/// Begins to count. One recorder a process; another server in the same process counts into it too.
pub fn install() -> Result<PrometheusHandle, TelemetryError> {
    static INSTALLED: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    let handle = INSTALLED.get_or_init(|| {
        let builder = PrometheusBuilder::new();
        let builder = builder.set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS).ok()?;
        let builder = builder.set_buckets_for_metric(Matcher::Suffix("_transactions".to_owned()), TRANSACTIONS).ok()?;
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).ok()?;
        describe();
        Some(handle)
    });
    handle.clone().ok_or(TelemetryError::Twice)
}

/// Serves until `stop`. `measure` sets the gauges before each answer. Blocks; to be called outside any runtime.
pub fn serve(
    socket: std::net::TcpListener,
    handle: PrometheusHandle,
    measure: Arc<dyn Fn() + Send + Sync>,
    stop: &Stop,
) -> io::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let socket = TcpListener::from_std(socket)?;
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let mut upkeep = tokio::time::interval(UPKEEP);
        let stopped = stop.wait();
        tokio::pin!(stopped);
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut stopped => return Ok(()),
                _ = upkeep.tick() => {
                    handle.run_upkeep();
                    continue;
                }
                accepted = socket.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                // Out of descriptors, most likely: data comes before metrics.
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
            let (handle, measure) = (handle.clone(), Arc::clone(&measure));
            tokio::spawn(async move {
                let _place = place;
                // Whoever hangs up or dawdles has no answer.
                let _ = tokio::time::timeout(PATIENCE, attend(stream, &handle, measure.as_ref())).await;
            });
        }
    })
}

async fn attend(stream: TcpStream, handle: &PrometheusHandle, measure: &(dyn Fn() + Send + Sync)) {
    let service = service_fn(|request: Request<hyper::body::Incoming>| async move {
        Ok::<_, Infallible>(reply(request.method(), request.uri().path(), || {
            measure();
            handle.render()
        }))
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).keep_alive(false).max_buf_size(16 * 1024);
    // Whoever hangs up has no answer.
    let _ = http.serve_connection(TokioIo::new(stream), service).await;
}

fn reply(method: &Method, path: &str, render: impl FnOnce() -> String) -> Response<String> {
    let (status, text) = match (method, path) {
        (&Method::GET, "/metrics") => (StatusCode::OK, render()),
        (_, "/metrics") => (StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, "there is only /metrics\n".to_owned()),
    };
    let mut response = Response::new(text);
    *response.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, kind);
    response
}

/// What each metric says; shown beside it.
fn describe() {
    for (name, text) in COUNTERS {
        metrics::describe_counter!(*name, *text);
    }
    for (name, text) in GAUGES {
        metrics::describe_gauge!(*name, *text);
    }
    for (name, text) in HISTOGRAMS {
        metrics::describe_histogram!(*name, *text);
    }
}

const COUNTERS: &[(&str, &str)] = &[
    ("strongroom_calls_total", "Calls, by RPC, role and gRPC code; a stream counts once"),
    ("strongroom_refusals_total", "Refusals in the audit log, by role and reason"),
    ("strongroom_rate_limited_total", "Calls over their caller's rate, refused before the audit log, by role"),
    ("strongroom_lock_outs_total", "Certificates that were locked out, by role"),
    ("strongroom_locked_out_total", "Calls of certificates that are locked out, by role"),
    ("strongroom_connections_refused_total", "Connections refused before any request, by reason"),
    ("strongroom_accept_errors_total", "Connections that could not be accepted: out of descriptors"),
    ("strongroom_audit_entries_total", "Entries added to the audit log since the start"),
    ("strongroom_commits_failed_total", "Commits that failed"),
    ("strongroom_swept_total", "Records destroyed because their retention was over"),
    ("strongroom_announcements_total", "Announcements that webhooks have taken"),
    ("strongroom_webhook_failures_total", "Messages that a webhook did not take, tries counted one by one"),
    ("strongroom_dead_letters_total", "Announcements that were given up and lie in a dead-letter file"),
    ("strongroom_log_write_errors_total", "Lines that could not be written to the log"),
];

const GAUGES: &[(&str, &str)] = &[
    ("strongroom_connections", "Authenticated connections"),
    ("strongroom_records_live", "Records"),
    ("strongroom_records_due", "Records that wait for the sweeper"),
    ("strongroom_tombstones", "Tombstones"),
    ("strongroom_sweep_lag_seconds", "How long the oldest due record has waited"),
    ("strongroom_sweep_paused", "1: far more came due than was forecast, and destruction waits for a person"),
    ("strongroom_mark_lag_seconds", "How far the time that destruction goes by and the clock are apart"),
    ("strongroom_audit_entries", "Entries in the audit log"),
    ("strongroom_ledger_entries", "Entries in the erasure ledger"),
    ("strongroom_active_epoch", "The epoch that new keys are wrapped under"),
    ("strongroom_epochs", "Epochs in the keyring"),
    ("strongroom_locked_out", "Certificates that are locked out now"),
    ("strongroom_tampered_records", "Due records that fail their authentication"),
    ("strongroom_announcements_waiting", "Announcements in the webhooks' outbox"),
    ("strongroom_announcements_lag_seconds", "How long the oldest of them has waited"),
    ("strongroom_store_poisoned", "1: the store refuses until a restart"),
    ("strongroom_disk_full", "1: the disk is full, and only what takes away is done"),
    ("strongroom_database_bytes", "Size of the database file"),
    ("strongroom_wal_bytes", "Size of the write-ahead log"),
    ("strongroom_certificate_days_left", "Days left of the caller's certificate that runs out first, by role"),
    ("strongroom_server_certificate_days_left", "Days left of the server's own certificate"),
    ("strongroom_crl_days_left", "Days left of the revocation list that goes stale first"),
    ("strongroom_warnings", "Warnings about certificates, revocation lists and the log"),
];

const HISTOGRAMS: &[(&str, &str)] = &[
    ("strongroom_call_seconds", "Time of a call, by RPC; of a stream, until it begins"),
    ("strongroom_commit_seconds", "Time of a commit"),
    ("strongroom_commit_transactions", "Transactions in one commit"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_page_and_it_is_only_read() {
        let page = || "strongroom_up 1\n".to_owned();
        for (method, path, status) in [
            (Method::GET, "/metrics", 200),
            (Method::POST, "/metrics", 405),
            (Method::GET, "/", 404),
            (Method::GET, "/metrics/../etc/passwd", 404),
        ] {
            let reply = reply(&method, path, page);
            assert_eq!(reply.status(), status, "{method} {path}");
            assert_eq!(reply.body() == &page(), status == 200);
        }
    }
}
