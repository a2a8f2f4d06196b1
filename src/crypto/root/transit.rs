//! The root key wrapped by the transit engine of OpenBao or HashiCorp Vault. INVARIANT: the key that wraps never leaves the
//! engine, ours leaves this process only over TLS or to this machine, and a redirect or a proxy is never followed with it.
//!
//! The engine's form of the wrapped key (`vault:v1:…`) names the version that wrapped it, so rotating the engine's key needs
//! nothing here, as long as its `min_decryption_version` lets the old version be.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::redirect::Policy;
use vaultrs::api::transit::requests::{DecryptDataRequest, EncryptDataRequest};
use vaultrs::client::{VaultClient, VaultClientSettingsBuilder};
use vaultrs::error::ClientError;
use vaultrs::transit::data;
use zeroize::Zeroizing;

use super::file::read_line;
use super::outside::{Address, PATIENCE, Trouble, block_on, cause, trouble, within};
use super::{Argon2Cost, Fresh, PURPOSE, RootError, RootHeader, Source, Wrapped, Wrapper, unwrapped};
use crate::crypto::entropy::Entropy;
use crate::crypto::key::Key;

pub(super) const ROLE: &str = "transit engine";
const TOKEN_FILE: &str = "transit engine's token file";
const CA_FILE: &str = "transit engine's CA file";

/// Where the engine is, which of its keys wraps, and the token that lets us use it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transit {
    pub address: Address,
    pub mount: String,
    pub key: String,
    pub token_file: PathBuf,
    /// Who vouches for the server; without it, the machine's own CAs.
    pub ca: Option<PathBuf>,
    pub namespace: Option<String>,
}

impl Source for &Transit {
    fn kind(&self) -> &'static str {
        ROLE
    }

    fn fresh(&self, _cost: Argon2Cost, entropy: &dyn Entropy) -> Result<Fresh, RootError> {
        let key = Key::generate(entropy);
        let plain = Zeroizing::new(BASE64.encode(key.expose()));
        let (transit, client) = ((*self).clone(), self.client()?);
        let wrapped = within(ROLE, PATIENCE, move || {
            let mut options = EncryptDataRequest::builder();
            options.associated_data(BASE64.encode(PURPOSE));
            block_on(async {
                let wrapping = data::encrypt(&client, &transit.mount, &transit.key, &plain, Some(&mut options));
                wrapping.await.map_err(|error| told(&error))
            })
        })?;
        let wrapped = Wrapped::new(Wrapper::Transit, &self.key, wrapped.ciphertext.into_bytes())?;
        Ok(Fresh::of(key, RootHeader::Wrapped(wrapped)))
    }

    fn unlock(&self, header: &RootHeader) -> Result<Key, RootError> {
        let blob = Wrapped::of(header, Wrapper::Transit, Some(&self.key))?;
        let blob = std::str::from_utf8(blob).map_err(|_| trouble(ROLE, Trouble::Nonsense))?.to_owned();
        let (transit, client) = ((*self).clone(), self.client()?);
        let plain = within(ROLE, PATIENCE, move || {
            let mut options = DecryptDataRequest::builder();
            options.associated_data(BASE64.encode(PURPOSE));
            block_on(async {
                let unwrapping = data::decrypt(&client, &transit.mount, &transit.key, &blob, Some(&mut options));
                let answer = unwrapping.await.map_err(|error| told(&error))?;
                Ok(Zeroizing::new(answer.plaintext))
            })
        })?;
        let bytes = BASE64.decode(plain.as_bytes()).map(Zeroizing::new);
        unwrapped(ROLE, &bytes.map_err(|_| trouble(ROLE, Trouble::Nonsense))?)
    }
}

impl Transit {
    /// The HTTP client is built here rather than by the library, whose own follows redirects and proxies and takes what it is not
    /// told from the environment.
    fn client(&self) -> Result<VaultClient, RootError> {
        let token = read_line(&self.token_file, TOKEN_FILE)?;
        let http = reqwest::Client::builder()
            .tls_backend_rustls()
            .timeout(PATIENCE)
            .redirect(Policy::none())
            .no_proxy()
            .https_only(self.address.is_tls());
        let http = match &self.ca {
            // Plain http needs no CA; looking for the machine's would fail where it has none.
            _ if !self.address.is_tls() => http.tls_certs_only(Vec::new()),
            Some(path) => {
                let pem = std::fs::read(path).map_err(|source| RootError::Unreadable { role: CA_FILE, source })?;
                let certificates = reqwest::Certificate::from_pem_bundle(&pem).ok().filter(|found| !found.is_empty());
                http.tls_certs_only(certificates.ok_or(RootError::NotALine { role: CA_FILE })?)
            }
            None => http,
        };
        let http = http.build().map_err(|_| trouble(ROLE, Trouble::Failed))?;
        // Made for an address that needs no CAs, then given ours.
        let mut settings = VaultClientSettingsBuilder::default();
        settings.address("http://127.0.0.1").ca_certs(Vec::new()).identity(None).token(token.as_str()).verify(true);
        settings.namespace(self.namespace.clone());
        let settings = settings.build().map_err(|_| trouble(ROLE, Trouble::Failed))?;
        let mut client = VaultClient::new(settings).map_err(|_| trouble(ROLE, Trouble::Failed))?;
        self.address.as_str().clone_into(&mut client.http.base);
        client.http.http = http;
        Ok(client)
    }
}

/// The server's words are sorted, never repeated.
fn told(error: &ClientError) -> Trouble {
    match error {
        ClientError::APIError { code, errors } => said(*code, errors),
        ClientError::ResponseEmptyError | ClientError::ResponseDataEmptyError | ClientError::JsonParseError { .. } => {
            Trouble::Nonsense
        }
        other => match (cause::<reqwest::Error>(other), cause::<rustls::Error>(other)) {
            (_, Some(_)) => Trouble::Untrusted,
            (Some(http), _) if http.is_timeout() => Trouble::TimedOut,
            (Some(http), _) if http.is_connect() || http.is_request() => Trouble::Unreachable,
            _ => Trouble::Nonsense,
        },
    }
}

/// <https://openbao.org/api-docs/#http-status-codes>; the texts are those of the engine's source.
fn said(code: u16, errors: &[String]) -> Trouble {
    let says = |words: &str| errors.iter().any(|error| error.contains(words));
    match code {
        401 | 403 => Trouble::Denied,
        503 => Trouble::Sealed,
        404 => Trouble::NoSuchKey,
        _ if says("encryption key not found") || says("no existing key named") => Trouble::NoSuchKey,
        _ if says("disallowed by policy") || says("version is disallowed") => Trouble::KeyVersion,
        _ if says("message authentication failed") || says("invalid ciphertext") || says("unable to decrypt") => {
            Trouble::WrongKey
        }
        _ if says("associated_data") || says("not supported") || says("not support") => Trouble::Unfit,
        _ => Trouble::Failed,
    }
}
