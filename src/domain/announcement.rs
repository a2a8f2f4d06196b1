//! What a shop is told of its records over a webhook, and the message that tells it. INVARIANT: a record is named by its token's
//! digest alone, so only who keeps the token knows which one is meant; no value, token, serial or reference is in a message; and
//! equal announcements have equal numbers, so that whoever hears one twice can tell.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::domain::id::TenantId;
use crate::domain::time::Timestamp;
use crate::domain::token::TokenDigest;
use crate::domain::vocabulary::{Class, EraseReason, Topic};

/// One thing to tell of one record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Announcement {
    pub tenant: TenantId,
    pub record: TokenDigest,
    /// `None`: it came and went after the backup that this store is, and the ledger keeps no class.
    pub class: Option<Class>,
    /// Why it went, or will go.
    pub reason: EraseReason,
    /// When it went, or when it was found to be due soon.
    pub at: Timestamp,
    pub news: News,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum News {
    Erased,
    /// `rule` is the policy's own line, empty where the subject asked.
    DueSoon {
        due: Timestamp,
        rule: String,
    },
}

impl Announcement {
    pub fn topic(&self) -> Topic {
        match self.news {
            News::Erased => Topic::Erased,
            News::DueSoon { .. } => Topic::DueSoon,
        }
    }

    /// The first 128 bits of SHA-256 over all that makes it another one: tenant, topic, record, and the due that it tells of.
    pub fn number(&self) -> [u8; 16] {
        let due = match self.news {
            News::Erased => 0,
            News::DueSoon { due, .. } => due.0,
        };
        let topic = [self.topic().code()];
        hash(&[b"strongroom/announcement", self.tenant.as_str().as_bytes(), &topic, &self.record.0, &due.to_be_bytes()])
    }

    fn to_json(&self) -> Value {
        let mut said = Map::new();
        said.insert("id".into(), hex::encode(self.number()).into());
        said.insert("record".into(), hex::encode(self.record.0).into());
        if let Some(class) = self.class {
            said.insert("class".into(), class.as_str().into());
        }
        said.insert("reason".into(), self.reason.as_str().into());
        match &self.news {
            News::Erased => {
                said.insert("erased_at".into(), self.at.to_string().into());
            }
            News::DueSoon { due, rule } => {
                said.insert("due_at".into(), due.to_string().into());
                said.insert("rule".into(), rule.as_str().into());
            }
        }
        Value::Object(said)
    }
}

/// What goes over the wire: one topic of one tenant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// The same for the same announcements, however often they are sent.
    pub id: String,
    pub body: String,
}

impl Message {
    /// Of announcements that share tenant and topic; `None` where there are none.
    pub fn of(announcements: &[Announcement]) -> Option<Self> {
        let first = announcements.first()?;
        let numbers: Vec<[u8; 16]> = announcements.iter().map(Announcement::number).collect();
        let latest = announcements.iter().map(|announcement| announcement.at).max()?;
        let records: Vec<Value> = announcements.iter().map(Announcement::to_json).collect();
        let data = json!({ "tenant": first.tenant.as_str(), "records": records });
        Some(Self::new(&format!("record.{}", first.topic()), latest, &data, numbers.as_flattened()))
    }

    /// Tells nothing: to see whether a receiver takes what is signed for it.
    pub fn ping(tenant: &TenantId, at: Timestamp) -> Self {
        Self::new("ping", at, &json!({ "tenant": tenant.as_str() }), &at.0.to_be_bytes())
    }

    fn new(kind: &str, at: Timestamp, data: &Value, told: &[u8]) -> Self {
        let id = format!("msg_{}", hex::encode(hash(&[b"strongroom/message", kind.as_bytes(), told])));
        Self { id, body: json!({ "type": kind, "timestamp": at.to_string(), "data": data }).to_string() }
    }
}

/// SHA-256 over the parts, each behind its length, cut to 128 bits.
fn hash(parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut number = [0; 16];
    number.iter_mut().zip(hash.finalize()).for_each(|(place, byte)| *place = byte);
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    fn erased(record: u8) -> Announcement {
        Announcement {
            tenant: "kitchenware".parse().unwrap(),
            record: TokenDigest([record; 16]),
            class: Some(Class::Order),
            reason: EraseReason::Desensitized,
            at: Timestamp(1_767_571_200_000_000),
            news: News::Erased,
        }
    }

    #[test]
    fn a_message_says_what_the_documentation_shows() {
        let message = Message::of(&[erased(0xab)]).unwrap();
        let id = hex::encode(erased(0xab).number());
        assert_eq!(
            message.body,
            format!(
                "{{\"type\":\"record.erased\",\"timestamp\":\"2026-01-05T00:00:00Z\",\"data\":{{\"tenant\":\"kitchenware\",\
                 \"records\":[{{\"id\":\"{id}\",\"record\":\"{}\",\"class\":\"order\",\"reason\":\"desensitized\",\
                 \"erased_at\":\"2026-01-05T00:00:00Z\"}}]}}}}",
                "ab".repeat(16)
            )
        );
        let news = News::DueSoon { due: Timestamp(1_767_657_600_000_000), rule: "order.cap = \"P1Y\"".into() };
        let soon = Message::of(&[Announcement { news, ..erased(1) }]).unwrap().body;
        assert!(soon.contains(r#""due_at":"2026-01-06T00:00:00Z","rule":"order.cap = \"P1Y\"""#), "{soon}");
        assert!(soon.starts_with(r#"{"type":"record.due_soon""#) && !soon.contains("erased_at"), "{soon}");
        let unknown = Message::of(&[Announcement { class: None, ..erased(1) }]).unwrap().body;
        assert!(!unknown.contains("class") && unknown.contains(r#""reason":"desensitized""#), "{unknown}");
        assert_eq!(Message::of(&[]), None);
    }

    #[test]
    fn the_same_announcement_has_the_same_number_however_late_it_is_told_and_another_one_has_another() {
        let later = Announcement { at: Timestamp(1), reason: EraseReason::Purged, ..erased(1) };
        assert_eq!(erased(1).number(), later.number());
        let soon = |due| Announcement { news: News::DueSoon { due: Timestamp(due), rule: String::new() }, ..erased(1) };
        let others = [erased(2), soon(5), soon(6), Announcement { tenant: "garden".parse().unwrap(), ..erased(1) }];
        let numbers: std::collections::BTreeSet<_> = others.iter().chain([&later]).map(Announcement::number).collect();
        assert_eq!(numbers.len(), 5);
        let two = |a, b| Message::of(&[erased(a), erased(b)]).unwrap();
        assert_eq!(two(1, 2), two(1, 2));
        assert_ne!(two(1, 2).id, two(2, 1).id);
    }
}
