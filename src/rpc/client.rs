//! Connects to a vault as a caller. INVARIANT: a channel exists only over TLS 1.3 with our certificate, to a server that one of
//! our roots vouches for by the name we asked for; it resumes no session.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use rustls::client::{ClientConfig, Resumption};
use rustls::pki_types::ServerName;
use rustls::version;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

use crate::rpc::trust::{ALPN, TrustError, provider, read_certificates, read_key, roots};

/// What a caller needs to be known and to know the server; PEM.
#[derive(Clone, Debug)]
pub struct ClientFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub roots: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("the endpoint is not https://host:port")]
    Endpoint,
    #[error("the client's certificates cannot be used")]
    Files(#[from] TrustError),
    #[error("cannot connect")]
    Transport(#[from] tonic::transport::Error),
}

/// Connects now, and again by itself after a loss. A server that refuses our certificate shows at the first call: in TLS 1.3
/// the client's side of the handshake ends before the server has judged.
pub async fn connect(endpoint: &str, files: &ClientFiles) -> Result<Channel, ConnectError> {
    let endpoint = Endpoint::from_shared(endpoint.to_owned()).map_err(|_| ConnectError::Endpoint)?;
    let uri = endpoint.uri();
    let authority = uri.authority().filter(|_| uri.scheme_str() == Some("https")).ok_or(ConnectError::Endpoint)?;
    let address = (authority.host().trim_matches(['[', ']']).to_owned(), authority.port_u16().unwrap_or(443));
    let name = ServerName::try_from(address.0.clone()).map_err(|_| ConnectError::Endpoint)?;
    let tls = TlsConnector::from(Arc::new(client_config(files)?));
    let connector = tower::service_fn(move |_| {
        let (tls, name, address) = (tls.clone(), name.clone(), address.clone());
        async move { dial(tls, name, address).await.map(TokioIo::new) }
    });
    Ok(endpoint.connect_with_connector(connector).await?)
}

async fn dial(
    tls: TlsConnector,
    name: ServerName<'static>,
    address: (String, u16),
) -> io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
    // Without it small requests wait for the peer's delayed acknowledgement: a hundred times slower.
    tcp.set_nodelay(true)?;
    let stream = tls.connect(name, tcp).await?;
    match stream.get_ref().1.alpn_protocol() {
        Some(ALPN) => Ok(stream),
        _ => Err(io::Error::other("the server does not speak HTTP/2")),
    }
}

fn client_config(files: &ClientFiles) -> Result<ClientConfig, TrustError> {
    let roots = roots(&files.roots, read_certificates(&files.roots)?)?;
    let (chain, key) = (read_certificates(&files.certificate)?, read_key(&files.key)?);
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(|source| TrustError::CertificateAndKey { path: files.certificate.clone(), source })?;
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}
