//! The closed vocabularies: fields, purposes, classes, events, outcomes, reasons. INVARIANT: each has a stable code (stored,
//! bound into AADs and audit entries, equal to its protobuf number) and a stable name (policies, logs, errors); code 0 is
//! nobody, and neither is ever reused.

macro_rules! vocabulary {
    ($($(#[$doc:meta])* $name:ident { $($(#[$item_doc:meta])* $item:ident = $code:literal $text:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum $name { $($(#[$item_doc])* $item = $code,)* }

        impl $name {
            pub const ALL: &[$name] = &[$($name::$item,)*];

            pub fn code(self) -> u8 {
                self as u8
            }

            pub fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some($name::$item),)* _ => None }
            }

            /// The name used in policies, logs and errors.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$item => $text,)* }
            }

            pub fn parse(raw: &str) -> Option<Self> {
                match raw { $($text => Some($name::$item),)* _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    )*};
}

vocabulary! {
    /// What a record may hold. A parcel's serial is not here: it belongs to the shipment grant.
    Field {
        AccountName = 1 "account_name",
        RecipientName = 2 "recipient_name",
        Address = 3 "address",
        Phone = 4 "phone",
        Email = 5 "email",
        EmergencyContact = 6 "emergency_contact",
        /// The public id of an account with a payment provider; never a card number.
        PaymentAccount = 7 "payment_account",
        /// What the customer said in an after-sales case.
        Note = 8 "note",
    }

    /// What a class may let its records be found by.
    Findable {
        Email = 1 "email",
        Phone = 2 "phone",
        /// The shop's own name for a data subject; no field of any record.
        CustomerReference = 3 "customer_reference",
    }

    /// Why a caller reads. Stated on every read, checked by gate 1, logged.
    Purpose {
        /// Packing, labels, arranging the route.
        Fulfilment = 1 "fulfilment",
        /// Carrying one parcel to its door.
        Delivery = 2 "delivery",
        /// Telling the customer about the order.
        Notification = 3 "notification",
        /// Showing customers their own data in their own account.
        SelfService = 4 "self_service",
        /// Working on an after-sales case.
        AfterSales = 5 "after_sales",
        /// Settling a refund, auditing a payment.
        Refund = 6 "refund",
        /// Checking that a person is who they say, by masked values.
        IdentityCheck = 7 "identity_check",
        /// Answering a data-subject request.
        SubjectRequest = 8 "subject_request",
        /// Answering an authority, by two people; nobody may state it to read.
        LegalDisclosure = 9 "legal_disclosure",
    }

    /// Which retention rules a record lives by.
    Class {
        Order = 1 "order",
        Account = 2 "account",
        Case = 3 "case",
    }

    /// What happened in the shop's business; retention starts and waits by these.
    EventKind {
        Placed = 1 "placed",
        Dispatched = 2 "dispatched",
        /// Delivered, which is to say signed for.
        Delivered = 3 "delivered",
        Returned = 4 "returned",
        Cancelled = 5 "cancelled",
        Completed = 6 "completed",
        AfterSalesOpened = 7 "after_sales_opened",
        AfterSalesClosed = 8 "after_sales_closed",
        RefundOpened = 9 "refund_opened",
        RefundSettled = 10 "refund_settled",
        AccountActive = 11 "account_active",
        AccountCancelled = 12 "account_cancelled",
        /// The customer asks for a completed order's clearing.
        ClearingRequested = 13 "clearing_requested",
        /// The record turned out to be a minor's, taken by mistake.
        MinorFound = 14 "minor_found",
    }

    /// What became of one field that a caller asked for.
    Outcome {
        Granted = 1 "granted",
        /// A part of the value, enough to recognise and too little to use.
        Masked = 2 "masked",
        /// The record holds no such field.
        NotSet = 3 "not_set",
        /// Not for this role and purpose.
        Denied = 4 "denied",
        /// Retention is over; the sweeper is on its way.
        Expired = 5 "expired",
        /// Destroyed.
        Erased = 6 "erased",
    }

    /// Who wants a record kept.
    HoldKind {
        /// A court's order; the only one that a minor's erasure waits for.
        Court = 1 "court",
        /// A public authority's.
        Authority = 2 "authority",
        /// A dispute that the shop must be able to prove something in.
        Dispute = 3 "dispute",
    }

    /// Why a record was destroyed.
    EraseReason {
        SubjectRequest = 1 "subject_request",
        Cancellation = 2 "cancellation",
        Minor = 3 "minor",
        Controller = 4 "controller",
        /// The retention timer: purged.
        Purged = 5 "purged",
        /// The retention timer: desensitized, counted in the statistics.
        Desensitized = 6 "desensitized",
    }

    /// What a webhook is told of.
    Topic {
        /// A record is gone.
        Erased = 1 "erased",
        /// A record goes within the webhook's days, as things stand.
        DueSoon = 2 "due_soon",
    }
}

impl Findable {
    /// The field that holds such a value, if a field does.
    pub fn field(self) -> Option<Field> {
        match self {
            Self::Email => Some(Field::Email),
            Self::Phone => Some(Field::Phone),
            Self::CustomerReference => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_and_name_lead_back_to_the_item() {
        for field in Field::ALL {
            assert_eq!(Field::from_code(field.code()), Some(*field));
            assert_eq!(Field::parse(field.as_str()), Some(*field));
        }
        assert_eq!((Field::from_code(0), Purpose::from_code(0), Outcome::from_code(0)), (None, None, None));
    }
}
