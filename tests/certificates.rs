//! Certificate misuse: every certificate that should not open the vault is refused at the door, and on a connection that
//! lives, each with its reason in our log; a good one passes beside it, so that a door that refuses everyone fails too.
//!
//! Faults planted once, each of which turned these tests red: the clientAuth rule removed; the first of several URIs taken;
//! other kinds of names ignored; CRLs not given to the verifier; `in_time` not asked in `admit`; a verdict kept across
//! generations; unsigned CRLs taken; tickets and session storage on; any ALPN accepted; X25519MLKEM768 not offered; the oldest
//! handshake not aborted; no time limit on the preface. A stale CRL is refused at two places at the handshake
//! (`enforce_revocation_expiration`, `in_time`): it took both faults together.

#![expect(clippy::unwrap_used, reason = "a test's helpers may panic as the test may")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rcgen::{CustomExtension, Issuer, KeyPair};
use rustls::client::ClientConnection;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, StreamOwned};
use strongroom::cli::mint::{Authority, CertFolder, Eku, Leaf, LeafSpec, Serial, write_private};
use strongroom::domain::time::{Clock, DAY, SECOND, SystemClock, Timestamp};
use strongroom::rpc::client::{ClientFiles, connect};
use strongroom::rpc::identity::admit;
use strongroom::rpc::listener::{Listener, ListenerConfig, Stop};
use strongroom::rpc::trust::{Trust, TrustError, TrustFiles};
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::{Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::HealthService;

const GOOD: &str = "spiffe://shop.test/tenant/k/shop/backend";

fn now() -> Timestamp {
    SystemClock::new().now()
}

fn quick() -> ListenerConfig {
    ListenerConfig { workers: 2, drain: Duration::from_millis(50), ..ListenerConfig::default() }
}

/// A vault's door with health behind it, on a folder of minted material.
struct Vault {
    dir: tempfile::TempDir,
    authority: Authority,
    trust: Arc<Trust>,
    address: SocketAddr,
    stop: Stop,
    serving: Option<JoinHandle<std::io::Result<()>>>,
    _turn: MutexGuard<'static, ()>,
}

impl Vault {
    fn start() -> Self {
        Self::start_with(quick(), DAY)
    }

    fn start_with(config: ListenerConfig, crl_lifetime: i64) -> Self {
        let turn = log::alone();
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let folder = CertFolder::init(&path("pki"), now()).unwrap();
        let authority = Authority::load(&path("pki")).unwrap();
        write_crl(&path("pki/crl.pem"), folder.authority(), &[], now().plus(crl_lifetime), 1);
        let trust = Trust::load(TrustFiles {
            certificate: path("pki/server.pem"),
            key: path("pki/server-key.pem"),
            roots: path("pki/ca.pem"),
            crls: vec![path("pki/crl.pem")],
            trust_domain: "shop.test".into(),
            anchors: Vec::new(),
        })
        .unwrap();

        let judge = trust.clone();
        let admitted = move |request: Request<()>| match admit(&request, &judge, now()) {
            Ok(_) => Ok(request),
            Err(_) => Err(Status::unauthenticated("refused")),
        };
        let health = HealthService::from_health_reporter(tonic_health::server::HealthReporter::new());
        let routes =
            Routes::new(tonic::service::interceptor::InterceptedService::new(HealthServer::new(health), admitted));
        let listener = Listener::bind(&config).unwrap();
        let (address, stop) = (listener.local_addr(), Stop::new());
        let serving = {
            let (trust, stop) = (trust.clone(), stop.clone());
            std::thread::spawn(move || listener.serve(trust, Arc::new(SystemClock::new()), routes, stop))
        };
        Self { dir, authority, trust, address, stop, serving: Some(serving), _turn: turn }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Puts a client's files on disk.
    fn files(&self, leaf: &Leaf) -> ClientFiles {
        let (certificate, key) = (self.path("client.pem"), self.path("client-key.pem"));
        write_private(&certificate, leaf.cert_pem.as_bytes()).unwrap();
        write_private(&key, leaf.key_pem.as_bytes()).unwrap();
        ClientFiles { certificate, key, roots: self.path("pki/ca.pem") }
    }

    fn good(&self) -> Leaf {
        self.authority.issue(&LeafSpec::client(GOOD, now(), now().plus(DAY))).unwrap()
    }

    async fn channel(&self, leaf: &Leaf) -> Result<Channel, String> {
        let endpoint = format!("https://{}", self.address);
        connect(&endpoint, &self.files(leaf)).await.map_err(|error| error.to_string())
    }

    /// Connects anew and calls once.
    async fn call(&self, leaf: &Leaf) -> Result<(), String> {
        check(&self.channel(leaf).await?).await
    }

    /// A handshake by hand, then one byte of the server's SETTINGS: an error when the server closed instead.
    fn raw(&self, config: &Arc<ClientConfig>) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
        let name = ServerName::try_from("localhost").unwrap();
        let tls = ClientConnection::new(config.clone(), name).unwrap();
        let tcp = TcpStream::connect(self.address).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut stream = StreamOwned::new(tls, tcp);
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")?;
        stream.read_exact(&mut [0])?;
        Ok(stream)
    }

    /// The reasons logged for one refused connection with this certificate. One, since nothing here tries again.
    async fn reasons_against(&self, leaf: &Leaf) -> Vec<String> {
        self.raw(&Arc::new(self.client_config(Some(leaf)))).unwrap_err();
        log::settled().await
    }

    fn client_config(&self, leaf: Option<&Leaf>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.cert_pem().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match leaf {
            None => config.with_no_client_auth(),
            Some(leaf) => {
                let chain = CertificateDer::pem_slice_iter(leaf.cert_pem.as_bytes()).map(Result::unwrap).collect();
                let key = PrivateKeyDer::from_pem_slice(leaf.key_pem.as_bytes()).unwrap();
                config.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }
}

impl Drop for Vault {
    fn drop(&mut self) {
        self.stop.trigger();
        let served = self.serving.take().unwrap().join().unwrap();
        assert!(served.is_ok() || std::thread::panicking());
    }
}

fn write_crl(path: &std::path::Path, authority: &Authority, revoked: &[Serial], until: Timestamp, number: u64) {
    let crl = authority.crl(revoked, now().plus(-DAY), until, number).unwrap();
    write_private(path, crl.as_bytes()).unwrap();
}

async fn check(channel: &Channel) -> Result<(), String> {
    let mut health = HealthClient::new(channel.clone());
    let call = health.check(HealthCheckRequest { service: String::new() });
    let answered = tokio::time::timeout(Duration::from_secs(10), call).await.map_err(|_| "no answer".to_owned())?;
    answered.map(|_| ()).map_err(|status| status.to_string())
}

/// Collects the reasons our log gives. One vault at a time, since the log is the process's.
mod log {
    use super::*;
    use tracing::field::{Field, Visit};
    use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

    static REASONS: Mutex<Vec<String>> = Mutex::new(Vec::new());

    struct Collector;
    struct Reason;

    impl Visit for Reason {
        fn record_str(&mut self, field: &Field, value: &str) {
            if field.name() == "reason" {
                REASONS.lock().unwrap().push(value.to_owned());
            }
        }
        fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
    }

    impl<S: tracing::Subscriber> Layer<S> for Collector {
        fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
            event.record(&mut Reason);
        }
    }

    pub fn alone() -> MutexGuard<'static, ()> {
        static TURN: Mutex<()> = Mutex::new(());
        static COLLECTING: OnceLock<()> = OnceLock::new();
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        COLLECTING.get_or_init(|| {
            tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Collector)).unwrap();
        });
        take();
        turn
    }

    pub fn take() -> Vec<String> {
        std::mem::take(&mut REASONS.lock().unwrap())
    }

    /// The reasons logged, once there are any.
    pub async fn settled() -> Vec<String> {
        for _ in 0..200 {
            if !REASONS.lock().unwrap().is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        take()
    }
}

/// A change to an otherwise good specification.
type Change = fn(&mut LeafSpec);

#[tokio::test]
async fn a_certificate_that_breaks_a_rule_is_refused_fresh() {
    let vault = Vault::start();
    let cases: &[(&str, Change)] = &[
        ("expired", |spec| spec.not_after = now().plus(-2 * SECOND)),
        ("not_yet_valid", |spec| spec.not_before = now().plus(DAY / 2)),
        ("wrong_eku", |spec| spec.eku.clear()),
        ("wrong_eku", |spec| spec.eku = vec![Eku::Server]),
        ("wrong_eku", |spec| spec.eku = vec![Eku::Any]),
        ("wrong_eku", |spec| spec.eku = vec![Eku::Client, Eku::Any]),
        ("ca_as_leaf", |spec| spec.is_ca = true),
        ("no_uri_san", |spec| spec.uris.clear()),
        ("no_uri_san", |spec| (spec.uris, spec.dns) = (vec![], vec!["shop.test".into()])),
        ("several_uri_sans", |spec| spec.uris.push(GOOD.into())),
        ("several_uri_sans", |spec| spec.uris.push("https://shop.test/".into())),
        ("odd_san", |spec| spec.ips.push("127.0.0.1".parse().unwrap())),
    ];
    for (reason, change) in cases {
        let mut spec = LeafSpec::client(GOOD, now(), now().plus(DAY));
        change(&mut spec);
        assert_eq!(vault.reasons_against(&vault.authority.issue(&spec).unwrap()).await, [*reason]);
    }
    vault.call(&vault.good()).await.unwrap();
    assert!(log::take().is_empty());
}

#[tokio::test]
async fn a_uri_that_is_not_exactly_an_identity_of_ours_is_refused_fresh() {
    let vault = Vault::start();
    for (reason, uri) in [
        ("identity_grammar", "spiffe://shop.test"),
        ("identity_grammar", "spiffe://shop.test/tenant/k/carrier"),
        ("identity_grammar", "spiffe://shop.test/tenant/k/carrier/swift/"),
        ("identity_grammar", "spiffe://shop.test/tenant/k/carrier/swift/x"),
        ("identity_grammar", "spiffe://shop.test//tenant/k/carrier/swift"),
        ("identity_grammar", "spiffe://shop.test/tenant/K/carrier/swift"),
        ("identity_grammar", "spiffe://shop.test/tenant/k/carrier/swift?x"),
        ("identity_grammar", "spiffe://shop.test/tenant/k/carrier/sw%69ft"),
        ("identity_grammar", "spiffe://shop.test/tenant/k/carrier/swift\0"),
        ("identity_grammar", "SPIFFE://shop.test/tenant/k/carrier/swift"),
        ("identity_grammar", "https://shop.test/tenant/k/carrier/swift"),
        ("unknown_role", "spiffe://shop.test/tenant/k/../k/carrier/swift"),
        ("unknown_role", "spiffe://shop.test/tenant/k/root/swift"),
        ("foreign_trust_domain", "spiffe://evil.test/tenant/k/carrier/swift"),
        ("foreign_trust_domain", "spiffe://Shop.test/tenant/k/carrier/swift"),
        ("foreign_trust_domain", "spiffe://shop.test.evil/tenant/k/carrier/swift"),
        ("foreign_trust_domain", "spiffe://shop.test:443/tenant/k/carrier/swift"),
        ("foreign_trust_domain", "spiffe://u@shop.test/tenant/k/carrier/swift"),
    ] {
        let leaf = vault.authority.issue(&LeafSpec::client(uri, now(), now().plus(DAY))).unwrap();
        assert_eq!(vault.reasons_against(&leaf).await, [reason], "{uri}");
    }
    vault.call(&vault.good()).await.unwrap();
}

/// A second URI that is no UTF-8 is skipped by the TLS library's reader; it still counts.
#[tokio::test]
async fn an_unreadable_second_uri_is_refused_fresh() {
    let vault = Vault::start();
    let ca_key = KeyPair::from_pem(&std::fs::read_to_string(vault.path("pki/ca-key.pem")).unwrap()).unwrap();
    let issuer = Issuer::from_ca_cert_pem(vault.authority.cert_pem(), ca_key).unwrap();
    let mut names = vec![0x86, u8::try_from(GOOD.len()).unwrap()];
    names.extend(GOOD.as_bytes());
    names.extend([0x86, 2, 0xff, 0xfe]);
    let mut san = vec![0x30, u8::try_from(names.len()).unwrap()];
    san.extend(names);
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    params.custom_extensions = vec![CustomExtension::from_oid_content(&[2, 5, 29, 17], san)];
    let key = KeyPair::generate().unwrap();
    let cert_pem = params.signed_by(&key, &issuer).unwrap().pem();
    let leaf = Leaf { cert_pem, key_pem: key.serialize_pem().into(), ..vault.good() };

    assert_eq!(vault.reasons_against(&leaf).await, ["odd_san"]);
    vault.call(&vault.good()).await.unwrap();
}

#[tokio::test]
async fn a_certificate_of_another_issuer_is_refused_fresh() {
    let vault = Vault::start();
    let spec = LeafSpec::client(GOOD, now(), now().plus(DAY));
    let stranger = Authority::mint("another CA", now()).unwrap();
    assert_eq!(vault.reasons_against(&stranger.issue(&spec).unwrap()).await, ["unknown_issuer"]);

    let namesake = Authority::mint("Strongroom development CA", now()).unwrap();
    assert_eq!(vault.reasons_against(&namesake.issue(&spec).unwrap()).await, ["bad_signature"]);

    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.subject_alt_names = vec![rcgen::SanType::URI(GOOD.try_into().unwrap())];
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    let cert_pem = params.self_signed(&key).unwrap().pem();
    let self_signed = Leaf { cert_pem, key_pem: key.serialize_pem().into(), ..vault.good() };
    assert_eq!(vault.reasons_against(&self_signed).await, ["unknown_issuer"]);
    vault.call(&vault.good()).await.unwrap();
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_fresh_and_its_neighbour_passes() {
    let vault = Vault::start();
    let revoked = vault.good();
    write_crl(&vault.path("pki/crl.pem"), &vault.authority, std::slice::from_ref(&revoked.serial), now().plus(DAY), 2);
    vault.trust.reload(SystemClock::new().now()).unwrap();
    assert_eq!(vault.reasons_against(&revoked).await, ["revoked"]);
    vault.call(&vault.good()).await.unwrap();
}

#[tokio::test]
async fn a_stale_revocation_list_refuses_everyone_until_a_fresh_one_comes() {
    let vault = Vault::start_with(quick(), -SECOND);
    assert_eq!(vault.reasons_against(&vault.good()).await, ["stale_crl"]);
    write_crl(&vault.path("pki/crl.pem"), &vault.authority, &[], now().plus(DAY), 2);
    vault.trust.reload(SystemClock::new().now()).unwrap();
    vault.call(&vault.good()).await.unwrap();
}

#[tokio::test]
async fn what_is_not_tls_1_3_with_a_certificate_and_http_2_is_refused() {
    let vault = Vault::start();
    vault.raw(&Arc::new(vault.client_config(None))).unwrap_err();
    assert_eq!(log::settled().await, ["no_certificate"]);

    let mut without_alpn = vault.client_config(Some(&vault.good()));
    without_alpn.alpn_protocols.clear();
    vault.raw(&Arc::new(without_alpn)).unwrap_err();
    assert_eq!(log::settled().await, ["alpn"]);

    let mut http_1 = vault.client_config(Some(&vault.good()));
    http_1.alpn_protocols = vec![b"http/1.1".to_vec()];
    vault.raw(&Arc::new(http_1)).unwrap_err();
    assert_eq!(log::settled().await, ["alpn"]);

    vault.says(TLS_1_2_CLIENT_HELLO);
    assert_eq!(log::settled().await, ["tls_version"]);

    vault.says(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    assert_eq!(log::settled().await, ["not_tls"]);

    vault.raw(&Arc::new(vault.client_config(Some(&vault.good())))).unwrap();
}

impl Vault {
    /// Sends these bytes bare and waits until the server closes.
    fn says(&self, bytes: &[u8]) {
        let mut tcp = TcpStream::connect(self.address).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        tcp.write_all(bytes).unwrap();
        // An alert may come first; a reset is a close as well.
        let mut answer = Vec::new();
        let _ = tcp.read_to_end(&mut answer);
        assert!(answer.first().is_none_or(|kind| *kind == 21), "something other than an alert was answered");
    }
}

/// RFC 5246 §7.4.1.2: ECDHE-ECDSA and ECDHE-RSA with AES-128-GCM; P-256; ECDSA and RSA with SHA-256; no supported_versions.
const TLS_1_2_CLIENT_HELLO: &[u8] = &[
    22, 3, 1, 0, 75, // record: handshake
    1, 0, 0, 71, 3, 3, // ClientHello, TLS 1.2
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, // random
    0, // no session
    0, 4, 0xc0, 0x2b, 0xc0, 0x2f, // cipher suites
    1, 0, // no compression
    0, 26, // extensions
    0, 10, 0, 4, 0, 2, 0, 23, // supported_groups
    0, 11, 0, 2, 1, 0, // ec_point_formats
    0, 13, 0, 8, 0, 6, 4, 3, 4, 1, 8, 4, // signature_algorithms
];

#[tokio::test]
async fn a_session_is_never_resumed() {
    let vault = Vault::start();
    let config = Arc::new(vault.client_config(Some(&vault.good())));
    for _ in 0..2 {
        let stream = vault.raw(&config).unwrap();
        assert_eq!(stream.conn.tls13_tickets_received(), 0);
        assert_eq!(stream.conn.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(stream.conn.negotiated_key_exchange_group().unwrap().name(), rustls::NamedGroup::X25519MLKEM768);
    }
}

#[tokio::test]
async fn an_expired_certificate_ends_a_live_connection() {
    let vault = Vault::start();
    let short = LeafSpec::client(GOOD, now(), now().plus(2 * SECOND));
    let channel = vault.channel(&vault.authority.issue(&short).unwrap()).await.unwrap();
    let lasting = vault.channel(&vault.good()).await.unwrap();
    check(&channel).await.unwrap();
    tokio::time::sleep(Duration::from_millis(3_100)).await;
    assert!(check(&channel).await.unwrap_err().contains("refused"));
    assert_eq!(log::settled().await, ["expired"]);
    check(&lasting).await.unwrap();
}

#[tokio::test]
async fn a_revoked_certificate_ends_a_live_connection() {
    let vault = Vault::start();
    let (bad, good) = (vault.good(), vault.good());
    let (revoked, lasting) = (vault.channel(&bad).await.unwrap(), vault.channel(&good).await.unwrap());
    check(&revoked).await.unwrap();
    write_crl(&vault.path("pki/crl.pem"), &vault.authority, &[bad.serial], now().plus(DAY), 2);
    check(&revoked).await.unwrap();
    assert_eq!(vault.trust.reload(SystemClock::new().now()).unwrap(), 2);
    for _ in 0..3 {
        assert!(check(&revoked).await.unwrap_err().contains("refused"));
    }
    assert_eq!(log::settled().await, ["revoked"]);
    check(&lasting).await.unwrap();
}

#[tokio::test]
async fn a_removed_ca_ends_a_live_connection() {
    let vault = Vault::start();
    let channel = vault.channel(&vault.good()).await.unwrap();
    check(&channel).await.unwrap();
    let successor = Authority::mint("the next CA", now()).unwrap();
    write_private(&vault.path("pki/ca.pem"), successor.cert_pem().as_bytes()).unwrap();
    write_crl(&vault.path("pki/crl.pem"), &successor, &[], now().plus(DAY), 1);
    vault.trust.reload(SystemClock::new().now()).unwrap();
    assert!(check(&channel).await.unwrap_err().contains("refused"));
    assert_eq!(log::settled().await, ["unknown_issuer"]);

    let issued = successor.issue(&LeafSpec::client(GOOD, now(), now().plus(DAY))).unwrap();
    let files = vault.files(&issued);
    let old_root = vault.path("old-ca.pem");
    write_private(&old_root, vault.authority.cert_pem().as_bytes()).unwrap();
    let endpoint = format!("https://{}", vault.address);
    let channel = connect(&endpoint, &ClientFiles { roots: old_root, ..files }).await.unwrap();
    check(&channel).await.unwrap();
}

#[tokio::test]
async fn a_revocation_list_that_goes_stale_stops_a_live_connection_until_a_fresh_one_comes() {
    let vault = Vault::start_with(quick(), 3 * SECOND);
    let channel = vault.channel(&vault.good()).await.unwrap();
    check(&channel).await.unwrap();
    tokio::time::sleep(Duration::from_millis(3_100)).await;
    assert!(check(&channel).await.unwrap_err().contains("refused"));
    assert_eq!(log::settled().await, ["stale_crl"]);
    write_crl(&vault.path("pki/crl.pem"), &vault.authority, &[], now().plus(DAY), 2);
    vault.trust.reload(SystemClock::new().now()).unwrap();
    check(&channel).await.unwrap();
}

#[tokio::test]
async fn a_bad_reload_keeps_the_trust_in_use() {
    let vault = Vault::start();
    let channel = vault.channel(&vault.good()).await.unwrap();
    let stranger = Authority::mint("Strongroom development CA", now()).unwrap();
    let leaf = stranger.issue(&LeafSpec::server(&["localhost"], now(), now().plus(DAY))).unwrap();
    let crl = |authority: &Authority| authority.crl(&[], now().plus(-DAY), now().plus(DAY), 9).unwrap();
    let two_lists = crl(&vault.authority) + &crl(&vault.authority);
    let two_roots = vault.authority.cert_pem().to_owned() + Authority::mint("x", now()).unwrap().cert_pem();
    type Expected = fn(&TrustError) -> bool;
    let cases: [(&str, &str, Expected); 9] = [
        ("ca.pem", "", |error| matches!(error, TrustError::Missing { .. })),
        ("ca.pem", &two_roots, |error| matches!(error, TrustError::RootWithoutCrl { .. })),
        ("crl.pem", "", |error| matches!(error, TrustError::Missing { .. })),
        ("crl.pem", "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", |error| {
            matches!(error, TrustError::Malformed { .. })
        }),
        ("crl.pem", &two_lists, |error| matches!(error, TrustError::SecondCrl { .. })),
        ("crl.pem", &crl(&stranger), |error| matches!(error, TrustError::ForgedCrl { .. })),
        ("server-key.pem", &leaf.key_pem, |error| matches!(error, TrustError::CertificateAndKey { .. })),
        ("server-key.pem", "", |error| matches!(error, TrustError::Missing { .. })),
        ("server.pem", &leaf.cert_pem, |error| matches!(error, TrustError::CertificateAndKey { .. })),
    ];
    for (name, content, expected) in cases {
        let path = vault.path("pki").join(name);
        let before = std::fs::read(&path).unwrap();
        write_private(&path, content.as_bytes()).unwrap();
        let error = vault.trust.reload(SystemClock::new().now()).unwrap_err();
        assert!(expected(&error), "{name}: {error}");
        write_private(&path, &before).unwrap();
        check(&channel).await.unwrap();
        vault.call(&vault.good()).await.unwrap();
    }
    assert_eq!(vault.trust.reload(SystemClock::new().now()).unwrap(), 2);
    assert!(log::take().is_empty());
}

#[tokio::test]
async fn silent_sockets_keep_nobody_out() {
    let patience = Duration::from_millis(500);
    let config = ListenerConfig { max_handshakes: 16, handshake_timeout: patience, ..quick() };
    let vault = Vault::start_with(config, DAY);
    let silent: Vec<_> = (0..200).map(|_| TcpStream::connect(vault.address).unwrap()).collect();
    tokio::time::timeout(patience, vault.call(&vault.good())).await.unwrap().unwrap();
    tokio::time::sleep(2 * patience).await;
    let reasons = log::take();
    assert_eq!(reasons.len(), silent.len(), "{reasons:?}");
    assert!(reasons.iter().all(|reason| reason == "gave_way" || reason == "timeout"), "{reasons:?}");
    assert!(reasons.contains(&"timeout".to_owned()));

    // Authenticated, then silent: no HTTP/2 preface.
    let name = ServerName::try_from("localhost").unwrap();
    let tls = ClientConnection::new(Arc::new(vault.client_config(Some(&vault.good()))), name).unwrap();
    let mut stream = StreamOwned::new(tls, TcpStream::connect(vault.address).unwrap());
    stream.write_all(b"PRI").unwrap();
    stream.sock.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let _ = stream.read_to_end(&mut Vec::new());
    assert_eq!(log::settled().await, ["timeout"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_waits_for_no_idle_connection() {
    let patience = Duration::from_secs(20);
    let vault = Vault::start_with(ListenerConfig { drain: patience, ..quick() }, DAY);
    let idle = vault.channel(&vault.good()).await.unwrap();
    check(&idle).await.unwrap();
    vault.stop.trigger();
    let stopped = async {
        while !vault.serving.as_ref().unwrap().is_finished() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(patience / 2, stopped).await.unwrap();
    check(&idle).await.unwrap_err();
}
