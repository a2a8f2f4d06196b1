//! An entry as a sentence. INVARIANT: the sentence says what the entry says and nothing else; what a code means is written where
//! the code is.

use std::fmt::Write as _;

use super::entry::{Actor, Entry, Verdict, Whom};

/// `carrier/swift (certificate 0707…): get delivery of an order for delivery: done; address granted.`
pub fn tell(entry: &Entry) -> String {
    let mut said = match &entry.actor {
        Actor::Vault => "the vault by itself".to_owned(),
        Actor::Caller { role, name, certificate } => {
            format!("{}/{} (certificate {}…)", role.as_str(), name.as_str(), hex::encode(certificate))
        }
    };
    let _ = write!(said, ": {}", plain(entry.action));
    if let Some(class) = entry.class {
        let article =
            if matches!(class.as_str().as_bytes(), [b'a' | b'e' | b'i' | b'o' | b'u', ..]) { "an" } else { "a" };
        let _ = write!(said, " of {article} {class} record");
    }
    match &entry.whom {
        None => {}
        Some(Whom::Caller { role, name }) => {
            let _ = write!(said, " about {}/{}", role.as_str(), name.as_str());
        }
        Some(Whom::Certificate { role, name, certificate }) => {
            let _ = write!(
                said,
                " about the certificate {}… of {}/{}",
                hex::encode(certificate),
                role.as_str(),
                name.as_str()
            );
        }
        Some(Whom::Epoch { epoch, rows }) => {
            let _ = write!(said, " about the key epoch {}, {rows} rows under it", epoch.0);
        }
    }
    if let Some(purpose) = entry.purpose {
        let _ = write!(said, " for {}", plain(purpose));
    }
    match entry.verdict {
        Verdict::Done => said.push_str(": done"),
        Verdict::Refused(code) => {
            let _ = write!(said, ": refused as {}", plain(code));
        }
    }
    if let Some(count) = entry.count {
        let _ = write!(said, ", {count} times");
    }
    for (number, (field, outcome)) in entry.outcomes.iter().enumerate() {
        said.push_str(if number == 0 { "; " } else { ", " });
        let _ = write!(said, "{} {}", plain(field), plain(outcome));
    }
    said.push('.');
    let because = match entry.verdict {
        Verdict::Refused(code) => code.meaning(),
        Verdict::Done => entry.action.meaning(),
    };
    if !because.is_empty() {
        let _ = write!(said, " {because}");
    }
    said
}

/// A name of the vocabulary as people write it.
fn plain(name: impl std::fmt::Display) -> String {
    name.to_string().replace('_', " ")
}

#[cfg(test)]
mod tests {
    use super::super::entry::tests::sample;
    use super::super::entry::{Action, RefusalCode};
    use super::*;
    use crate::domain::caller::Role;
    use crate::domain::vocabulary::{Class, Field, Outcome, Purpose};

    #[test]
    fn a_reading_a_refusal_and_an_administrators_act_are_told_in_words() {
        let read =
            Entry { outcomes: vec![(Field::Address, Outcome::Granted), (Field::Phone, Outcome::NotSet)], ..sample(1) };
        assert_eq!(
            tell(&read),
            "carrier/swift (certificate 0707070707070707…): get delivery of an order record for delivery: done; \
             address granted, phone not set."
        );
        let (verdict, outcomes) = (Verdict::Refused(RefusalCode::ReadLimit), Vec::new());
        assert_eq!(
            tell(&Entry {
                verdict,
                outcomes,
                class: Some(Class::Case),
                purpose: Some(Purpose::AfterSales),
                ..sample(1)
            }),
            "carrier/swift (certificate 0707070707070707…): get delivery of a case record for after sales: refused as \
             read limit. The shipment grant was read as often as it allows."
        );
        let whom = Some(Whom::Caller { role: Role::Shop, name: "web".parse().unwrap() });
        let (actor, action, outcomes) = (Actor::Vault, Action::EnrolCaller, Vec::new());
        let plain = Entry { actor, action, whom, outcomes, class: None, purpose: None, subject: None, ..sample(1) };
        assert_eq!(tell(&plain), "the vault by itself: enrol caller about shop/web: done.");
        let purged = Entry { action: Action::Purge, whom: None, class: Some(Class::Account), ..plain };
        assert_eq!(
            tell(&purged),
            "the vault by itself: purge of an account record: done. Retention was over: destroyed."
        );
    }

    #[test]
    fn every_refusal_says_why() {
        for code in RefusalCode::ALL {
            assert!(code.meaning().ends_with('.'), "{code} is not explained where it is defined");
        }
    }
}
