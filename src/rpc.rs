//! The door: gRPC over mutual TLS. INVARIANT: no handler touches the vault before `Door::enter` has admitted the caller anew and
//! found its role among those the protocol's annotations name for that RPC.

mod approval_service;
mod caller_service;
pub mod client;
mod delivery_service;
mod door;
mod erasure_service;
mod guard;
pub mod identity;
mod lifecycle_service;
pub mod listener;
mod operations_service;
pub mod proto;
mod statistics_service;
mod status;
mod token_service;
pub mod trust;
mod wire;

use std::sync::Arc;

use tonic::service::Routes;

use crate::domain::time::Clock;
use crate::vault::Vault;
use door::Door;
use guard::Guarded;
use proto::approval_service_server::ApprovalServiceServer;
use proto::caller_service_server::CallerServiceServer;
use proto::delivery_service_server::DeliveryServiceServer;
use proto::erasure_service_server::ErasureServiceServer;
use proto::lifecycle_service_server::LifecycleServiceServer;
use proto::operations_service_server::OperationsServiceServer;
use proto::statistics_service_server::StatisticsServiceServer;
use proto::token_service_server::TokenServiceServer;
use trust::Trust;

/// The largest message taken: a page of 256 tokens or one record's fields is far below.
const MAX_MESSAGE: usize = 256 * 1024;
/// Where there are only keys, tokens and times.
const MAX_SMALL_MESSAGE: usize = 8 * 1024;

/// Every service of the vault. `clock` is the real one: certificates expire by it even where the vault's time is simulated.
pub fn services(vault: Vault, trust: Arc<Trust>, clock: Arc<dyn Clock>) -> Routes {
    let door = Arc::new(Door::new(vault, trust, clock));
    let (_always_serving, health) = tonic_health::server::health_reporter();
    let tokens = TokenServiceServer::new(token_service::Tokens::new(Arc::clone(&door)));
    let lifecycle = LifecycleServiceServer::new(lifecycle_service::Lifecycle::new(Arc::clone(&door)));
    let deliveries = DeliveryServiceServer::new(delivery_service::Deliveries::new(Arc::clone(&door)));
    let operations = OperationsServiceServer::new(operations_service::Operations::new(Arc::clone(&door)));
    let callers = CallerServiceServer::new(caller_service::Callers::new(Arc::clone(&door)));
    let approvals = ApprovalServiceServer::new(approval_service::Approvals::new(Arc::clone(&door)));
    let erasures = ErasureServiceServer::new(erasure_service::Erasures::new(Arc::clone(&door)));
    let statistics = StatisticsServiceServer::new(statistics_service::Statistics::new(Arc::clone(&door)));
    let mut routes = Routes::builder();
    routes.add_service(Guarded::new(health, &door));
    routes.add_service(Guarded::new(tokens.max_decoding_message_size(MAX_MESSAGE), &door));
    routes.add_service(Guarded::new(lifecycle.max_decoding_message_size(MAX_SMALL_MESSAGE), &door));
    routes.add_service(Guarded::new(deliveries.max_decoding_message_size(MAX_SMALL_MESSAGE), &door));
    routes.add_service(Guarded::new(operations.max_decoding_message_size(MAX_SMALL_MESSAGE), &door));
    routes.add_service(Guarded::new(callers.max_decoding_message_size(MAX_SMALL_MESSAGE), &door));
    routes.add_service(Guarded::new(approvals.max_decoding_message_size(MAX_SMALL_MESSAGE), &door));
    routes.add_service(Guarded::new(erasures.max_decoding_message_size(MAX_SMALL_MESSAGE), &door));
    routes.add_service(Guarded::new(statistics.max_decoding_message_size(MAX_SMALL_MESSAGE), &door));
    routes.routes()
}
