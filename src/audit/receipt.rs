//! Receipts of erasures: the vault's signed word that a record is gone, for whoever has to show it. INVARIANT: a receipt
//! is verified with the public key alone, offline; it names the record by its token's digest, which only somebody who has
//! the token can connect to it, and holds no value.
//!
//! ```text
//! strongroom/receipt/v1
//! record 5d41…                       digest of the token: see `Token::digest`
//! tenant kitchenware
//! class order
//! reason subject_request
//! online-at 2026-03-01T12:00:00Z     from here on nothing live opens it
//! in-backups-by 2026-03-31T12:00:00Z  from here on no backup does: every epoch that wrapped a key of it is destroyed
//! method …
//! key 17 epoch 3                     every data key that was destroyed, and the epoch it was wrapped under
//! log-entry 4711                     the entry that tells of it, from 0
//! ledger-line 12                     the line that a restored backup is held to, from 1
//!
//! — strongroom …
//! ```

use crate::crypto::note::{self, NoteError};
use crate::crypto::signer::{PublicKey, Signer};
use crate::domain::id::{DekId, Epoch, TenantId};
use crate::domain::time::Timestamp;
use crate::domain::token::{Token, TokenDigest};
use crate::domain::vocabulary::{Class, EraseReason};

const KIND: &str = "strongroom/receipt/v1";

/// How the vault erases.
const METHOD: &str = "data keys destroyed; values, grants, index entries and holds deleted; write-ahead log truncated";

/// What a receipt says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Receipt {
    pub record: TokenDigest,
    pub tenant: TenantId,
    pub class: Class,
    pub reason: EraseReason,
    pub online_at: Timestamp,
    pub in_backups_by: Timestamp,
    pub keys: Vec<(DekId, Epoch)>,
    pub log_entry: u64,
    pub ledger_line: u64,
}

/// Why something is no receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    #[error(transparent)]
    Note(#[from] NoteError),
    #[error("the signature is good, but line {0} is not what a receipt says there; is it of a later version?")]
    Line(usize),
    #[error("the receipt is another record's: the token is not the one that was erased")]
    OtherToken,
}

impl Receipt {
    /// The signed text; the same receipt, signed again, is the same to the byte.
    pub fn sign(&self, signer: &Signer) -> String {
        note::sign(note::NAME, signer, &self.text())
    }

    fn text(&self) -> String {
        let Self { tenant, class, reason, online_at, in_backups_by, log_entry, ledger_line, .. } = self;
        let mut text = format!(
            "{KIND}\nrecord {}\ntenant {tenant}\nclass {class}\nreason {reason}\nonline-at {online_at}\n\
             in-backups-by {in_backups_by}\nmethod {METHOD}\n",
            hex::encode(self.record.0)
        );
        for (key, epoch) in &self.keys {
            text.push_str(&format!("key {key} epoch {epoch}\n"));
        }
        text.push_str(&format!("log-entry {log_entry}\nledger-line {ledger_line}\n"));
        text
    }

    /// What a signed text says, if it is a receipt of that key.
    pub fn verify(signed: &str, key: &PublicKey) -> Result<Self, ReceiptError> {
        let text = note::open(signed, KIND, key)?;
        let mut lines = Lines { rest: text.lines().skip(1).peekable(), number: 1 };
        let receipt = lines.receipt().ok_or(ReceiptError::Line(lines.number))?;
        // One spelling only: what is printed of it is what was signed.
        if receipt.text() == text { Ok(receipt) } else { Err(ReceiptError::Line(lines.number)) }
    }

    /// Whether it is about the record of this token.
    pub fn is_of(&self, token: &Token) -> Result<(), ReceiptError> {
        if token.digest(&self.tenant) == self.record { Ok(()) } else { Err(ReceiptError::OtherToken) }
    }
}

struct Lines<'a, I: Iterator<Item = &'a str>> {
    rest: std::iter::Peekable<I>,
    /// Of the line that was read last, from 1.
    number: usize,
}

impl<'a, I: Iterator<Item = &'a str>> Lines<'a, I> {
    fn after(&mut self, name: &str) -> Option<&'a str> {
        self.number += 1;
        self.rest.next()?.strip_prefix(name)?.strip_prefix(' ')
    }

    fn receipt(&mut self) -> Option<Receipt> {
        let mut record = [0; 16];
        hex::decode_to_slice(self.after("record")?, &mut record).ok()?;
        let tenant = self.after("tenant")?.parse().ok()?;
        let class = Class::parse(self.after("class")?)?;
        let reason = EraseReason::parse(self.after("reason")?)?;
        let online_at = time(self.after("online-at")?)?;
        let in_backups_by = time(self.after("in-backups-by")?)?;
        self.after("method")?;
        let mut keys = Vec::new();
        while self.rest.peek().is_some_and(|line| line.starts_with("key ")) {
            let (key, epoch) = self.after("key")?.split_once(" epoch ")?;
            keys.push((DekId(key.parse().ok()?), Epoch(epoch.parse().ok()?)));
        }
        let log_entry = self.after("log-entry")?.parse().ok()?;
        let ledger_line = self.after("ledger-line")?.parse().ok()?;
        let receipt = Receipt {
            record: TokenDigest(record),
            tenant,
            class,
            reason,
            online_at,
            in_backups_by,
            keys,
            log_entry,
            ledger_line,
        };
        self.rest.next().is_none().then_some(receipt)
    }
}

fn time(text: &str) -> Option<Timestamp> {
    text.parse().ok().map(Timestamp::from_jiff)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::entropy::SeededEntropy;

    fn receipt() -> Receipt {
        Receipt {
            record: Token::from_bytes([3; 20]).digest(&"kitchenware".parse().unwrap()),
            tenant: "kitchenware".parse().unwrap(),
            class: Class::Order,
            reason: EraseReason::Minor,
            online_at: Timestamp(1_767_571_200_123_456),
            in_backups_by: Timestamp(1_770_163_200_123_456),
            keys: vec![(DekId(17), Epoch(1)), (DekId(19), Epoch(2))],
            log_entry: 4711,
            ledger_line: 12,
        }
    }

    fn signer() -> Signer {
        Signer::generate(&SeededEntropy::new(1))
    }

    #[test]
    fn a_receipt_says_in_plain_lines_what_verifying_it_answers() {
        let (signer, receipt) = (signer(), receipt());
        let signed = receipt.sign(&signer);
        assert!(signed.contains("\nreason minor\nonline-at 2026-01-05T00:00:00.123456Z\n"), "{signed}");
        assert!(signed.contains("\nkey 17 epoch 1\nkey 19 epoch 2\nlog-entry 4711\nledger-line 12\n\n— "), "{signed}");
        assert_eq!(Receipt::verify(&signed, &signer.public()), Ok(receipt.clone()));
        let without = Receipt { keys: Vec::new(), ..receipt };
        assert_eq!(Receipt::verify(&without.sign(&signer), &signer.public()), Ok(without));
    }

    #[test]
    fn a_receipt_is_one_tokens_of_one_tenant() {
        let other = Receipt { tenant: "garden".parse().unwrap(), ..receipt() };
        assert_eq!(receipt().is_of(&Token::from_bytes([3; 20])), Ok(()));
        assert_eq!(receipt().is_of(&Token::from_bytes([4; 20])), Err(ReceiptError::OtherToken));
        assert_eq!(other.is_of(&Token::from_bytes([3; 20])), Err(ReceiptError::OtherToken));
    }

    /// Each signed by the right key: the signature alone makes no receipt.
    #[test]
    fn a_signed_text_that_is_no_receipt_is_named_by_its_line() {
        let (signer, text) = (signer(), receipt().text());
        for (old, new, line) in [
            ("record ", "record zz", 2),
            ("tenant kitchenware", "tenant Kitchenware", 3),
            ("class order", "class parcel", 4),
            ("reason minor", "reason boredom", 5),
            ("online-at 2026", "online-at next", 6),
            ("key 17 epoch 1", "key 17", 9),
            ("log-entry 4711", "log-entry -1", 11),
            ("ledger-line 12\n", "ledger-line 12\nmore\n", 12),
            ("log-entry 4711", "log-entry 04711", 12),
            ("method data", "method no data", 12),
        ] {
            let altered = text.replacen(old, new, 1);
            assert_ne!(altered, text);
            let signed = note::sign(note::NAME, &signer, &altered);
            assert_eq!(Receipt::verify(&signed, &signer.public()), Err(ReceiptError::Line(line)), "{new}");
        }
    }
}
