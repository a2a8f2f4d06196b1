//! Posts one signed message to one webhook. INVARIANT: it speaks to the configured address and nobody else (no redirect, no
//! proxy), waits no longer than `PATIENCE`, and goes by an answer's status alone; what it says of a failure holds neither the
//! address, nor the secret, nor anything of the message.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::redirect::Policy;

use crate::cli::serve::told;
use crate::config::{WebhookConfig, WebhookUrl};
use crate::crypto::root::{OWNER_ONLY, read_owner_only};
use crate::crypto::webhook::Secrets;
use crate::domain::announcement::Message;
use crate::domain::time::{SECOND, Timestamp};

/// How long a receiver may take for everything: it should take the message in and do its work later.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections are not kept for longer than this in silence.
const IDLE: Duration = Duration::from_secs(30);
/// What is read of an answer's body, so that its connection serves again, and for how long.
const BODY: usize = 4096;
const BODY_PATIENCE: Duration = Duration::from_millis(500);

/// One webhook, ready to be told.
pub struct Receiver {
    client: reqwest::Client,
    url: WebhookUrl,
    secret_file: PathBuf,
}

impl Receiver {
    /// Errors: the secret or the CA cannot be used, in words.
    pub fn new(hook: &WebhookConfig) -> Result<Self, String> {
        secrets(&hook.secret_file)?;
        let client = reqwest::Client::builder()
            .tls_backend_rustls()
            .timeout(PATIENCE)
            .connect_timeout(PATIENCE / 2)
            .pool_idle_timeout(IDLE)
            .redirect(Policy::none())
            .no_proxy()
            .https_only(hook.url.is_tls());
        let client = match &hook.ca {
            // Plain http needs no CA; looking for the machine's would fail where it has none.
            _ if !hook.url.is_tls() => client.tls_certs_only(Vec::new()),
            Some(path) => client.tls_certs_only(authorities(path)?),
            None => client,
        };
        let client = client.build().map_err(|error| told(&error.without_url()))?;
        Ok(Self { client, url: hook.url.clone(), secret_file: hook.secret_file.clone() })
    }

    /// Answers once the receiver has taken it, or why it has not.
    pub async fn post(&self, message: &Message, now: Timestamp) -> Result<(), String> {
        let seconds = now.0.div_euclid(SECOND);
        let signature = secrets(&self.secret_file)?.sign(&message.id, seconds, &message.body);
        let request = self
            .client
            .post(self.url.url().clone())
            .header("content-type", "application/json")
            .header("user-agent", concat!("strongroom/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", &message.id)
            .header("webhook-timestamp", seconds)
            .header("webhook-signature", signature)
            .body(message.body.clone());
        let mut answer = request.send().await.map_err(|error| told(&error.without_url()))?;
        let status = answer.status();
        // Whatever is in it, and whether it ends: the status has said all.
        let _ = tokio::time::timeout(BODY_PATIENCE, skip_body(&mut answer)).await;
        if status.is_success() { Ok(()) } else { Err(format!("it answered {status}")) }
    }
}

async fn skip_body(answer: &mut reqwest::Response) {
    let mut read = 0;
    while let Ok(Some(chunk)) = answer.chunk().await {
        read += chunk.len();
        if read > BODY {
            return;
        }
    }
}

/// Read for every message, so that a secret can be replaced while the server runs.
fn secrets(path: &Path) -> Result<Secrets, String> {
    let bytes = read_owner_only(path, "webhook's secret file", OWNER_ONLY).map_err(|error| told(&error))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| "the webhook's secret file is not text".to_owned())?;
    Secrets::parse(text).map_err(|bad| format!("the webhook's secret file {bad}"))
}

fn authorities(path: &Path) -> Result<Vec<reqwest::Certificate>, String> {
    let pem = std::fs::read(path).map_err(|error| format!("the webhook's CA file cannot be read: {error}"))?;
    let found = reqwest::Certificate::from_pem_bundle(&pem).ok().filter(|found| !found.is_empty());
    found.ok_or_else(|| "the webhook's CA file holds no certificate in PEM".to_owned())
}
