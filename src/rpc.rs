//! The door: gRPC over mutual TLS. INVARIANT: no handler touches the vault before `Door::enter` has admitted the caller anew and
//! found its role among those the protocol's annotations name for that RPC.

mod approval_service;
mod audit_service;
mod caller_service;
pub mod client;
mod delivery_service;
mod disclosure_service;
mod door;
mod erasure_service;
mod guard;
pub mod identity;
mod inquiry_service;
mod key_service;
mod lifecycle_service;
mod limits;
pub mod listener;
mod operations_service;
mod progress;
pub mod proto;
mod statistics_service;
mod retention_service;
pub mod seal;
mod seal_service;
mod status;
mod token_service;
pub mod trust;
mod wire;

use std::sync::Arc;

use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use crate::domain::time::Clock;
use crate::vault::Vault;
use door::Door;
use guard::Guarded;
use proto::approval_service_server::ApprovalServiceServer;
use proto::audit_service_server::AuditServiceServer;
use proto::caller_service_server::CallerServiceServer;
use proto::delivery_service_server::DeliveryServiceServer;
use proto::disclosure_service_server::DisclosureServiceServer;
use proto::erasure_service_server::ErasureServiceServer;
use proto::inquiry_service_server::InquiryServiceServer;
use proto::key_service_server::KeyServiceServer;
use proto::lifecycle_service_server::LifecycleServiceServer;
use proto::operations_service_server::OperationsServiceServer;
use proto::retention_service_server::RetentionServiceServer;
use proto::seal_service_server::SealServiceServer;
use proto::statistics_service_server::StatisticsServiceServer;
use proto::token_service_server::TokenServiceServer;
use seal::Control;
use trust::Trust;

/// The largest message taken: a page of 256 tokens or one record's fields is far below.
const MAX_MESSAGE: usize = 256 * 1024;
/// Where there are only keys, tokens and times.
const MAX_SMALL_MESSAGE: usize = 8 * 1024;

/// What the parts above this layer have to warn an operator of, asked whenever one looks.
pub type Watch = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

/// Every service of an open vault. `clock` is the real one: certificates expire by it even where the vault's time is simulated.
fn services(
    vault: Vault,
    trust: Arc<Trust>,
    clock: Arc<dyn Clock>,
    watch: Watch,
    control: Control,
    health: &HealthReporter,
) -> Routes {
    let door = Arc::new(Door::new(vault, Arc::clone(&trust), Arc::clone(&clock), watch));
    let health = HealthServer::new(HealthService::from_health_reporter(health.clone()));
    let seals = SealServiceServer::new(seal_service::OpenSeals::new(Arc::clone(&door), control, trust, clock));
    let tokens = TokenServiceServer::new(token_service::Tokens::new(Arc::clone(&door)));
    let lifecycle = LifecycleServiceServer::new(lifecycle_service::Lifecycle::new(Arc::clone(&door)));
    let deliveries = DeliveryServiceServer::new(delivery_service::Deliveries::new(Arc::clone(&door)));
    let operations = OperationsServiceServer::new(operations_service::Operations::new(Arc::clone(&door)));
    let callers = CallerServiceServer::new(caller_service::Callers::new(Arc::clone(&door)));
    let approvals = ApprovalServiceServer::new(approval_service::Approvals::new(Arc::clone(&door)));
    let erasures = ErasureServiceServer::new(erasure_service::Erasures::new(Arc::clone(&door)));
    let statistics = StatisticsServiceServer::new(statistics_service::Statistics::new(Arc::clone(&door)));
    let disclosures = DisclosureServiceServer::new(disclosure_service::Disclosures::new(Arc::clone(&door)));
    let inquiries = InquiryServiceServer::new(inquiry_service::Inquiries::new(Arc::clone(&door)));
    let keys = KeyServiceServer::new(key_service::Keys::new(Arc::clone(&door)));
    let audit = AuditServiceServer::new(audit_service::Audit::new(Arc::clone(&door)));
    let retention = RetentionServiceServer::new(retention_service::Retention::new(Arc::clone(&door)));
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
    routes.add_service(Guarded::new(disclosures.max_decoding_message_size(MAX_SMALL_MESSAGE), &door));
    routes.add_service(Guarded::new(inquiries.max_decoding_message_size(MAX_SMALL_MESSAGE), &door));
    routes.add_service(Guarded::new(keys.max_decoding_message_size(MAX_SMALL_MESSAGE), &door));
    routes.add_service(Guarded::new(audit.max_decoding_message_size(MAX_SMALL_MESSAGE), &door));
    // A whole policy file comes in here.
    routes.add_service(Guarded::new(retention.max_decoding_message_size(MAX_MESSAGE), &door));
    routes.add_service(Guarded::new(seals.max_decoding_message_size(MAX_SMALL_MESSAGE), &door));
    routes.routes().prepare()
}

/// What answers while there is no vault: the switch has admitted the caller.
fn sealed_services(control: Control, trust: Arc<Trust>, clock: Arc<dyn Clock>, health: &HealthReporter) -> Routes {
    let mut routes = Routes::builder();
    routes.add_service(HealthServer::new(HealthService::from_health_reporter(health.clone())));
    let seals = SealServiceServer::new(seal_service::SealedSeals::new(control, trust, clock));
    routes.add_service(seals.max_decoding_message_size(MAX_SMALL_MESSAGE));
    routes.routes().prepare()
}
