//! The metrics of a server: where they are served, and what is measured when somebody looks. INVARIANT: nothing here keeps the
//! vault: a sealed one is told as such.

use std::io;
use std::net::{SocketAddr, TcpListener};

use metrics_exporter_prometheus::PrometheusHandle;

use super::{failed, told};
use crate::cli::Failure;
use crate::domain::time::Timestamp;
use crate::rpc::trust::Trust;
use crate::telemetry::{self, metrics};
use crate::vault::{Vault, days};

/// Metrics that nobody is served yet.
pub(super) struct Metrics {
    pub socket: TcpListener,
    pub address: SocketAddr,
    pub handle: PrometheusHandle,
}

impl Metrics {
    pub fn bind(address: SocketAddr) -> Result<Self, Failure> {
        let bound = || {
            let socket = TcpListener::bind(address)?;
            socket.set_nonblocking(true)?;
            Ok((socket.local_addr()?, socket))
        };
        let what = || format!("cannot serve metrics on {address}");
        let (address, socket) = bound().map_err(|error: io::Error| failed(&what(), &error))?;
        let handle = metrics::install().map_err(|error| failed(&what(), &error))?;
        Ok(Self { socket, address, handle })
    }
}

/// Sets all gauges, before somebody looks.
pub(super) fn measure(vault: Option<&Vault>, trust: &Trust, now: Timestamp) {
    ::metrics::gauge!("strongroom_sealed").set(u32::from(vault.is_none()));
    if let Some(Err(error)) = vault.map(|vault| vault.measure(now)) {
        tracing::warn!(reason = told(&error), "the store cannot be measured");
    }
    let (own, list) = trust.validities();
    for (name, validity) in [("strongroom_server_certificate_days_left", own), ("strongroom_crl_days_left", list)] {
        if let Some(validity) = validity {
            days(name, None, validity.until, now);
        }
    }
    let certificates = vault.map_or(0, |vault| vault.certificate_warnings(now));
    let warnings = trust.warnings(now).len() + certificates + usize::from(telemetry::log_warning().is_some());
    ::metrics::gauge!("strongroom_warnings").set(u32::try_from(warnings).unwrap_or(u32::MAX));
}
