//! The tables `[root]` and `[next_root]`: where the root key comes from. INVARIANT: exactly one source is named, a secret by its path
//! alone, and what becomes part of an address or a path on an outside service cannot lead elsewhere.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::{At, Reason};
use crate::crypto::root::{AwsKms, BadAddress, BadCredentialName, Pkcs11, RootSource, Split, Transit};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRoot {
    passphrase_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    credential: Option<Spanned<String>>,
    transit: Option<RawTransit>,
    pkcs11: Option<RawPkcs11>,
    aws_kms: Option<Spanned<RawAwsKms>>,
    shares: Option<Spanned<RawShares>>,
    #[serde(default)]
    pub(super) allow_same_device: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTransit {
    address: Spanned<String>,
    mount: Option<Spanned<String>>,
    key: Spanned<String>,
    token_file: PathBuf,
    ca: Option<PathBuf>,
    namespace: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPkcs11 {
    module: PathBuf,
    token: Spanned<String>,
    key: Spanned<String>,
    pin_file: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAwsKms {
    key_id: Spanned<String>,
    region: Option<Spanned<String>>,
    endpoint: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawShares {
    shares: i64,
    threshold: i64,
}

/// The one source that is named.
pub(super) fn root(raw: Spanned<RawRoot>, folder: &Path) -> Result<RootSource, At> {
    let span = raw.span();
    let raw = raw.into_inner();
    let mut named = Vec::new();
    if let Some(path) = raw.passphrase_file {
        named.push(RootSource::PassphraseFile { path: folder.join(path) });
    }
    if let Some(path) = raw.key_file {
        named.push(RootSource::KeyFile { path: folder.join(path) });
    }
    if let Some(name) = raw.credential {
        let refused = |bad: BadCredentialName| (name.span(), "root.credential", bad.into());
        named.push(RootSource::Credential { name: name.get_ref().parse().map_err(refused)? });
    }
    if let Some(raw) = raw.transit {
        named.push(RootSource::Transit(transit(raw, folder)?));
    }
    if let Some(raw) = raw.pkcs11 {
        named.push(RootSource::Pkcs11(Pkcs11 {
            module: folder.join(raw.module),
            token: label(raw.token, "root.pkcs11.token", 32)?,
            key: label(raw.key, "root.pkcs11.key", 255)?,
            pin_file: folder.join(raw.pin_file),
        }));
    }
    if let Some(raw) = raw.aws_kms {
        named.push(RootSource::AwsKms(aws_kms(raw)?));
    }
    if let Some(raw) = raw.shares {
        let split = Split::new(raw.get_ref().shares, raw.get_ref().threshold);
        named.push(RootSource::Shares(split.map_err(|bad| (raw.span(), "root.shares", bad.into()))?));
    }
    match (named.pop(), named.is_empty()) {
        (Some(one), true) => Ok(one),
        _ => Err((span, "root", Reason::OneRoot)),
    }
}

fn transit(raw: RawTransit, folder: &Path) -> Result<Transit, At> {
    let refused = |bad: BadAddress| (raw.address.span(), "root.transit.address", bad.into());
    let mount = raw.mount.map(|mount| segments(mount, "root.transit.mount")).transpose()?;
    Ok(Transit {
        address: raw.address.get_ref().parse().map_err(refused)?,
        mount: mount.unwrap_or_else(|| "transit".to_owned()),
        key: segments(raw.key, "root.transit.key")?,
        token_file: folder.join(raw.token_file),
        ca: raw.ca.map(|path| folder.join(path)),
        namespace: raw.namespace.map(|name| segments(name, "root.transit.namespace")).transpose()?,
    })
}

fn aws_kms(raw: Spanned<RawAwsKms>) -> Result<AwsKms, At> {
    if !cfg!(feature = "aws-kms") {
        return Err((raw.span(), "root.aws_kms", Reason::NoKms));
    }
    let raw = raw.into_inner();
    let endpoint = raw
        .endpoint
        .map(|raw| raw.get_ref().parse().map_err(|bad: BadAddress| (raw.span(), "root.aws_kms.endpoint", bad.into())));
    Ok(AwsKms {
        key_id: label(raw.key_id, "root.aws_kms.key_id", 255)?,
        region: raw.region.map(|region| segments(region, "root.aws_kms.region")).transpose()?,
        endpoint: endpoint.transpose()?,
    })
}

/// What a token or a service calls something: any printable text.
fn label(raw: Spanned<String>, key: &'static str, most: usize) -> Result<String, At> {
    let text = raw.get_ref();
    if !(1..=most).contains(&text.len()) || text.contains(char::is_control) {
        return Err((raw.span(), key, Reason::NotPlain(most)));
    }
    Ok(raw.into_inner())
}

/// What becomes part of a path on an outside service: plain names between single slashes, so that it cannot lead elsewhere.
fn segments(raw: Spanned<String>, key: &'static str) -> Result<String, At> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let is_name = |part: &str| !part.is_empty() && !part.starts_with('.') && part.bytes().all(plain);
    if raw.get_ref().len() > 128 || !raw.get_ref().split('/').all(is_name) {
        return Err((raw.span(), key, Reason::NotPlain(128)));
    }
    Ok(raw.into_inner())
}
