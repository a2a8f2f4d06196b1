//! One record by the client's books: what was acknowledged of it, what was asked and never answered, and what that lets a
//! reader see. All values follow from the record's number and revision, so that the books stay small and exact.

use strongroom::rpc::proto::batch_detokenize_item::Result as ItemResult;
use strongroom::rpc::proto::{
    BatchDetokenizeItem, Class, CorrectRequest, EraseReason, EraseRequest, EventKind, Field, FieldResult, FieldValue,
    Outcome, ReportEventRequest, TokenizeRequest, field_result, field_value,
};

use crate::common::{address, text};

/// Every field that an order may hold, in the order they are asked for.
pub const FIELDS: [Field; 5] =
    [Field::RecipientName, Field::Address, Field::Phone, Field::Email, Field::PaymentAccount];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Write {
    Tokenize,
    Correct,
    Report,
    Erase,
}

#[derive(Debug, Default)]
pub struct Record {
    pub number: usize,
    /// What acknowledgements have told.
    pub token: Option<String>,
    pub revision: u32,
    pub due: Option<prost_types::Timestamp>,
    pub erased: bool,
    /// Sent, and cut off before an answer came.
    pub open: Option<Write>,
    /// Something was asked since the last look.
    pub touched: bool,
    /// What was cut off was asked again since.
    pub repeated: bool,
    /// Found otherwise than the books allow; nothing more is asked of it.
    pub lost: bool,
}

/// What a reader found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen {
    /// Every value of this revision and no other.
    Whole(u32),
    Erased,
    /// No such record.
    Unknown,
    /// Anything else: values missing, of two revisions, of nobody.
    Half,
}

impl Record {
    pub fn new(number: usize) -> Self {
        Self { number, touched: true, ..Self::default() }
    }

    /// A record that something more can be asked of.
    pub fn is_live(&self) -> bool {
        self.token.is_some() && !self.erased && self.open.is_none()
    }

    /// What the books allow: an acknowledged write is there, one that was cut off is there whole or not at all.
    pub fn allows(&self, seen: Seen) -> bool {
        let acknowledged = if self.erased { Seen::Erased } else { Seen::Whole(self.revision) };
        seen == acknowledged || self.landed(seen)
    }

    /// The write that was cut off has happened all the same.
    pub fn landed(&self, seen: Seen) -> bool {
        match self.open {
            Some(Write::Correct) => seen == Seen::Whole(self.revision + 1),
            Some(Write::Erase) => seen == Seen::Erased,
            Some(Write::Tokenize | Write::Report) | None => false,
        }
    }

    pub fn seen(&self, item: BatchDetokenizeItem) -> Seen {
        let Some(ItemResult::Done(reply)) = item.result else { return Seen::Unknown };
        let erased = |field: &FieldResult| field.outcome() == Outcome::Erased && field.value.is_none();
        if reply.fields.len() != FIELDS.len() {
            Seen::Half
        } else if reply.revision == 0 && reply.fields.iter().all(erased) {
            Seen::Erased
        } else if reply.fields == released(self.number, reply.revision) {
            Seen::Whole(reply.revision)
        } else {
            Seen::Half
        }
    }

    /// The same for the same books: a request repeated is the request that was cut off.
    pub fn tokenize(&self) -> TokenizeRequest {
        TokenizeRequest {
            idempotency_key: self.key(Write::Tokenize),
            // Two records a data subject, so that erasures take the last of one and one of two.
            subject: format!("customer-{}@shop.example", self.number / 2),
            class: Class::Order.into(),
            fields: values(self.number, 1),
        }
    }

    pub fn correct(&self) -> CorrectRequest {
        let next = self.revision + 1;
        let mut fields = values(self.number, next);
        fields.retain(|value| value.field() != Field::Phone);
        let cleared = !fields.iter().any(|value| value.field() == Field::PaymentAccount);
        CorrectRequest {
            idempotency_key: self.key(Write::Correct),
            token: self.token.clone().unwrap(),
            if_revision: self.revision,
            fields,
            clear: cleared.then(|| Field::PaymentAccount.into()).into_iter().collect(),
        }
    }

    pub fn report(&self, occurred_at: prost_types::Timestamp) -> ReportEventRequest {
        ReportEventRequest {
            idempotency_key: self.key(Write::Report),
            token: self.token.clone().unwrap(),
            kind: EventKind::Delivered.into(),
            ordinal: 0,
            occurred_at: Some(occurred_at),
        }
    }

    pub fn erase(&self) -> EraseRequest {
        EraseRequest {
            idempotency_key: self.key(Write::Erase),
            token: self.token.clone().unwrap(),
            reason: EraseReason::SubjectRequest.into(),
        }
    }

    fn key(&self, write: Write) -> String {
        format!("{write:?}-{}-{}", self.number, self.revision)
    }
}

/// What a record holds at a revision; every other one has no payment account.
fn values(number: usize, revision: u32) -> Vec<FieldValue> {
    let mut values = vec![
        text(Field::RecipientName, &format!("Wilhelmina Ottokar {number} of {revision}")),
        address(&[&format!("{number} Kastanienallee"), &format!("Hinterhaus {revision}")], "Berlin", "10435", "DE"),
        text(Field::Phone, &format!("+493090{:06}", number % 1_000_000)),
        text(Field::Email, &format!("wilhelmina.{number}.{revision}@example.org")),
    ];
    if revision % 2 == 1 {
        values.push(text(Field::PaymentAccount, &format!("pay-account-{number}-{revision}")));
    }
    values
}

/// The same as a reader gets it who may see all.
pub fn released(number: usize, revision: u32) -> Vec<FieldResult> {
    let values = values(number, revision);
    let of = |field: Field| {
        let value = values.iter().find(|value| value.field() == field).and_then(|value| value.value.clone());
        let outcome = if value.is_some() { Outcome::Granted } else { Outcome::NotSet };
        let value = value.map(|value| match value {
            field_value::Value::Text(text) => field_result::Value::Text(text),
            field_value::Value::Address(address) => field_result::Value::Address(address),
            field_value::Value::EmergencyContact(contact) => field_result::Value::EmergencyContact(contact),
        });
        FieldResult { field: field.into(), outcome: outcome.into(), value }
    };
    FIELDS.into_iter().map(of).collect()
}
