//! The tables `[[webhook]]`: who is told over the web of what becomes of a tenant's records. INVARIANT: as for all of the
//! configuration, what is left out has a default and what is wrong is named; what is told goes over TLS, or stays on this
//! machine; an address may hold a secret, so it is never printed.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use jiff::SignedDuration;
use reqwest::Url;
use serde::Deserialize;
use toml::Spanned;

use super::{At, Reason, name};
use crate::domain::id::TenantId;
use crate::domain::time::DAY;
use crate::domain::vocabulary::Topic;
use crate::policy::webhook::Subscription;

/// One webhook, and how it is reached.
#[derive(Clone, Debug)]
pub struct WebhookConfig {
    pub subscription: Subscription,
    pub url: WebhookUrl,
    /// What messages are signed with; read anew for each.
    pub secret_file: PathBuf,
    /// Who vouches for the receiver; without it, the machine's own CAs.
    pub ca: Option<PathBuf>,
    /// Where messages end that were never taken.
    pub dead_letters: PathBuf,
    /// The pause after the first try in vain; it doubles.
    pub first_retry: Duration,
    /// How old a message may become.
    pub give_up_after: Duration,
}

/// Where messages are posted.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookUrl(Url);

impl WebhookUrl {
    pub fn url(&self) -> &Url {
        &self.0
    }

    /// The TCP port that it is reached on.
    pub fn port(&self) -> Option<u16> {
        self.0.port_or_known_default()
    }

    pub fn is_tls(&self) -> bool {
        self.0.scheme() == "https"
    }
}

/// Tells nothing of what was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no https:// address, or http:// on this machine, without a name, password or fragment in it")]
pub struct BadWebhookUrl;

impl FromStr for WebhookUrl {
    type Err = BadWebhookUrl;

    fn from_str(raw: &str) -> Result<Self, BadWebhookUrl> {
        let url = Url::parse(raw).map_err(|_| BadWebhookUrl)?;
        let host = url.host_str().ok_or(BadWebhookUrl)?;
        let numeric = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let here = host == "localhost" || numeric.is_ok_and(|address| address.is_loopback());
        let carried = url.scheme() == "https" || (url.scheme() == "http" && here);
        let nameless = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
        if carried && nameless { Ok(Self(url)) } else { Err(BadWebhookUrl) }
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookUrl")
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWebhook {
    name: Spanned<String>,
    tenant: Spanned<String>,
    url: Spanned<String>,
    secret_file: PathBuf,
    ca: Option<PathBuf>,
    events: Spanned<Vec<Spanned<String>>>,
    due_soon_days: Option<Spanned<i64>>,
    dead_letters: PathBuf,
    first_retry: Option<Spanned<String>>,
    give_up_after: Option<Spanned<String>>,
}

const FIRST_RETRY: Duration = Duration::from_secs(1);
const GIVE_UP_AFTER: Duration = Duration::from_secs(72 * 3_600);

/// `serves`: whether the configuration has such a tenant.
pub(super) fn webhooks(
    raw: Vec<RawWebhook>,
    folder: &Path,
    serves: impl Fn(&TenantId) -> bool,
) -> Result<Vec<WebhookConfig>, At> {
    let mut names = BTreeSet::new();
    let hook = |raw: RawWebhook| {
        let subscription = subscription(&raw)?;
        if !names.insert(subscription.name.clone()) {
            return Err((raw.name.span(), "webhook.name", Reason::Twice));
        }
        if !serves(&subscription.tenant) {
            return Err((raw.tenant.span(), "webhook.tenant", Reason::NoSuchTenant));
        }
        let refused = |bad: BadWebhookUrl| (raw.url.span(), "webhook.url", bad.into());
        Ok(WebhookConfig {
            subscription,
            url: raw.url.get_ref().parse().map_err(refused)?,
            secret_file: folder.join(raw.secret_file),
            ca: raw.ca.map(|path| folder.join(path)),
            dead_letters: folder.join(raw.dead_letters),
            first_retry: raw.first_retry.as_ref().map_or(Ok(FIRST_RETRY), first_retry)?,
            give_up_after: raw.give_up_after.as_ref().map_or(Ok(GIVE_UP_AFTER), give_up_after)?,
        })
    };
    raw.into_iter().map(hook).collect()
}

fn subscription(raw: &RawWebhook) -> Result<Subscription, At> {
    let mut topics = BTreeSet::new();
    for event in raw.events.get_ref() {
        let topic = Topic::parse(event.get_ref()).ok_or((event.span(), "webhook.events", Reason::NotATopic))?;
        if !topics.insert(topic) {
            return Err((event.span(), "webhook.events", Reason::Twice));
        }
    }
    if topics.is_empty() {
        return Err((raw.events.span(), "webhook.events", Reason::NotATopic));
    }
    let due_soon = match (&raw.due_soon_days, topics.contains(&Topic::DueSoon)) {
        (Some(days), true) if (1..=365).contains(days.get_ref()) => Some(days.get_ref() * DAY),
        (Some(days), true) => return Err((days.span(), "webhook.due_soon_days", Reason::OutOfRange("1 and 365"))),
        (Some(days), false) => return Err((days.span(), "webhook.due_soon_days", Reason::DueSoonDays)),
        (None, true) => return Err((raw.events.span(), "webhook.due_soon_days", Reason::DueSoonDays)),
        (None, false) => None,
    };
    Ok(Subscription {
        name: name(&raw.name, "webhook.name")?,
        tenant: name(&raw.tenant, "webhook.tenant")?,
        erased: topics.contains(&Topic::Erased),
        due_soon,
    })
}

fn first_retry(raw: &Spanned<String>) -> Result<Duration, At> {
    let bounds = (SignedDuration::from_millis(10), SignedDuration::from_mins(1));
    duration(raw, "webhook.first_retry", bounds, "10ms and 1m")
}

fn give_up_after(raw: &Spanned<String>) -> Result<Duration, At> {
    let bounds = (SignedDuration::from_secs(1), SignedDuration::from_hours(30 * 24));
    duration(raw, "webhook.give_up_after", bounds, "1s and 720h")
}

fn duration(
    raw: &Spanned<String>,
    key: &'static str,
    (least, most): (SignedDuration, SignedDuration),
    words: &'static str,
) -> Result<Duration, At> {
    let parsed: SignedDuration = raw.get_ref().parse().map_err(|_| (raw.span(), key, Reason::NotADuration))?;
    let within = Some(parsed).filter(|parsed| (least..=most).contains(parsed)).map(|parsed| parsed.unsigned_abs());
    within.ok_or((raw.span(), key, Reason::OutOfRange(words)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
name = 'shop'
tenant = 'kitchenware'
url = 'https://shop.example/hooks?key=canary-7f3a'
secret_file = 'secret'
events = ['erased', 'due_soon']
due_soon_days = 7
dead_letters = 'dead.jsonl'
";

    fn read(tables: &[String]) -> Result<Vec<WebhookConfig>, (&'static str, String)> {
        #[derive(Deserialize)]
        struct File {
            webhook: Vec<RawWebhook>,
        }
        let text: String = tables.iter().map(|table| format!("[[webhook]]\n{table}")).collect();
        let file: File = toml::from_str(&text).map_err(|error| ("", error.message().to_owned()))?;
        webhooks(file.webhook, Path::new("/etc/s"), |tenant| tenant.as_str() == "kitchenware")
            .map_err(|(_, key, reason)| (key, reason.to_string()))
    }

    #[test]
    fn a_good_table_is_read_its_paths_start_at_the_folder_and_its_address_is_not_printed() {
        let hook = read(&[GOOD.to_owned()]).unwrap().remove(0);
        assert_eq!((hook.subscription.erased, hook.subscription.due_soon), (true, Some(7 * DAY)));
        assert_eq!((hook.secret_file.as_path(), hook.ca.as_ref()), (Path::new("/etc/s/secret"), None));
        assert_eq!((hook.first_retry, hook.give_up_after), (FIRST_RETRY, GIVE_UP_AFTER));
        assert_eq!(hook.url.port(), Some(443));
        assert!(!format!("{hook:?}").contains("canary"), "{hook:?}");
        let other = GOOD.replace("'shop'", "'other'").replace(", 'due_soon'", "").replace("due_soon_days = 7\n", "");
        let both = read(&[GOOD.to_owned(), other + "first_retry = '50ms'\ngive_up_after = '2h'\n"]).unwrap();
        assert_eq!((both[1].subscription.due_soon, both[1].first_retry.as_millis()), (None, 50));
        assert_eq!(both[1].give_up_after.as_secs(), 7_200);
    }

    #[test]
    fn plain_http_stays_on_this_machine() {
        for (url, good) in [
            ("http://127.0.0.1:8080/hook", true),
            ("http://[::1]/", true),
            ("http://localhost:1", true),
            ("https://10.0.0.7/x?y", true),
            ("http://10.0.0.7/", false),
            ("http://shop.example/", false),
            ("http://localhost.example/", false),
            ("https://me:pw@shop.example/", false),
            ("https://shop.example/#x", false),
            ("ftp://localhost/", false),
            ("shop.example", false),
        ] {
            assert_eq!(url.parse::<WebhookUrl>().is_ok(), good, "{url}");
        }
    }

    #[test]
    fn every_mistake_is_named_by_its_key_and_its_value_is_not_repeated() {
        for (from, to, key, words) in [
            ("'shop'", "'Shop'", "webhook.name", "a name is"),
            ("'kitchenware'", "'garden'", "webhook.tenant", "no tenant of this configuration"),
            ("https://shop", "http://shop", "webhook.url", "is no https:// address"),
            ("['erased', 'due_soon']", "[]", "webhook.events", "erased and due_soon"),
            ("'erased'", "'canary-7f3a'", "webhook.events", "erased and due_soon"),
            ("'erased'", "'due_soon'", "webhook.events", "given twice"),
            ("due_soon_days = 7", "due_soon_days = 0", "webhook.due_soon_days", "between 1 and 365"),
            ("due_soon_days = 7\n", "", "webhook.due_soon_days", "goes with"),
            (", 'due_soon'", "", "webhook.due_soon_days", "goes with"),
            ("due_soon_days", "due_days", "", "unknown field"),
            ("dead_letters", "first_retry = '5m'\ndead_letters", "webhook.first_retry", "between 10ms and 1m"),
            ("dead_letters", "give_up_after = 'never'\ndead_letters", "webhook.give_up_after", "is no duration"),
            ("dead_letters = 'dead.jsonl'\n", "", "", "missing field `dead_letters`"),
            ("secret_file = 'secret'", "secret = 'whsec_canary-7f3a'", "", "unknown field `secret`"),
        ] {
            let changed = GOOD.replacen(from, to, 1);
            assert_ne!(changed, GOOD, "{to}");
            let (named, reason) = read(&[changed]).unwrap_err();
            assert_eq!(named, key, "{to}: {reason}");
            assert!(reason.contains(words) && !reason.contains("canary"), "{to}: {reason}");
        }
        assert_eq!(read(&[GOOD.to_owned(), GOOD.to_owned()]).unwrap_err().0, "webhook.name");
    }
}
