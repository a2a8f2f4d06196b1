//! Gate 1: who may see which fields, and why. INVARIANT: one constant table says everything that is allowed, but for the phone
//! that a retention policy's file may let a carrier have, and for a disclosure by two people, which has a table of its own; a cell
//! that is not named is `Deny`, and only `decide` and `disclosure` make a `Permit`.

use crate::domain::caller::Role;
use crate::domain::fault::{Fault, planted};
use crate::domain::vocabulary::{Class, Field, Purpose};
use crate::policy::retention::Policy;

/// What gate 1 says of one field.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Access {
    Deny,
    /// Enough to recognise, too little to use.
    Mask,
    Grant,
}

/// This role may, for this purpose, open some fields of a record of this class.
#[must_use]
#[derive(Debug)]
pub struct Permit {
    row: &'static Row,
    /// What the record's own retention policy adds.
    also: Option<Field>,
}

/// Gate 1's verdict; `None` when the caller may see nothing of such a record, which is answered like an unknown token.
pub fn decide(role: Role, purpose: Purpose, class: Class) -> Option<Permit> {
    let fits = |row: &Row| row.role == role && row.purpose == purpose && row.class == class;
    if planted(Fault::RoleTooMany) && fits(&CARRIER_WITH_PHONE) {
        return Some(Permit { row: &CARRIER_WITH_PHONE, also: None });
    }
    TABLE.iter().find(|row| fits(row)).map(|row| Permit { row, also: None })
}

/// Gate 1's verdict on a legal disclosure; that two people agreed is the approval's business. Nobody gets there by stating the
/// purpose to `decide`.
pub fn disclosure(role: Role, class: Class) -> Option<Permit> {
    let fits = |row: &&Row| row.role == role && row.class == class;
    DISCLOSURES.iter().find(fits).map(|row| Permit { row, also: None })
}

impl Permit {
    /// Adds what the policy that the record was collected under lets a carrier have beside the address: the phone, if its file
    /// switches it on. Nobody else gets more by it.
    pub fn widened(self, policy: &Policy) -> Self {
        let is_a_carriers = self.row.role == Carrier && self.row.purpose == Delivery;
        let also = policy.carrier_also().iter().copied().find(|field| is_a_carriers && *field == Phone);
        Self { also, ..self }
    }

    pub fn access(&self, field: Field) -> Access {
        if self.row.grant.contains(&field) || self.also == Some(field) {
            Access::Grant
        } else if self.row.mask.contains(&field) {
            Access::Mask
        } else {
            Access::Deny
        }
    }

    pub fn purpose(&self) -> Purpose {
        self.row.purpose
    }

    pub fn class(&self) -> Class {
        self.row.class
    }
}

#[derive(Debug)]
struct Row {
    role: Role,
    purpose: Purpose,
    class: Class,
    grant: &'static [Field],
    mask: &'static [Field],
}

const fn row(role: Role, purpose: Purpose, class: Class, grant: &'static [Field], mask: &'static [Field]) -> Row {
    Row { role, purpose, class, grant, mask }
}

use Class::{Account, Case, Order};
use Field::{AccountName, Address, Email, EmergencyContact, Note, PaymentAccount, Phone, RecipientName};
use Purpose::{
    AfterSales, Delivery, Fulfilment, IdentityCheck, LegalDisclosure, Notification, Refund, SelfService, SubjectRequest,
};
use Role::{Carrier, CustomerService, Finance, PrivacyOfficer, Shop, Warehouse};

/// At most one row a role, purpose and class. Whether a class may hold a field at all is its retention rule's business.
static TABLE: &[Row] = &[
    row(Shop, Fulfilment, Order, &[RecipientName, Address, Phone], &[]),
    row(Shop, Notification, Order, &[RecipientName, Email], &[]),
    row(Shop, SelfService, Order, &[RecipientName, Address, Phone, Email, EmergencyContact], &[PaymentAccount]),
    row(Shop, Refund, Order, &[PaymentAccount], &[]),
    row(Shop, IdentityCheck, Order, &[], &[Phone, Email]),
    row(Shop, SelfService, Account, &[AccountName, Email, Phone, Address, EmergencyContact], &[PaymentAccount]),
    row(Shop, Notification, Account, &[AccountName, Email], &[]),
    row(Shop, IdentityCheck, Account, &[], &[Phone, Email]),
    row(Shop, AfterSales, Case, &[Note], &[]),
    row(Shop, SelfService, Case, &[Note], &[]),
    row(Warehouse, Fulfilment, Order, &[RecipientName, Address, Phone], &[]),
    // The parcel's serial, the other half of what a carrier sees, belongs to its shipment grant.
    row(Carrier, Delivery, Order, &[Address], &[]),
    row(CustomerService, AfterSales, Case, &[Note], &[]),
    row(CustomerService, IdentityCheck, Order, &[], &[Phone, Email]),
    row(CustomerService, IdentityCheck, Account, &[], &[Phone, Email]),
    row(Finance, Refund, Order, &[PaymentAccount], &[]),
    row(Finance, Refund, Account, &[PaymentAccount], &[]),
    row(PrivacyOfficer, SubjectRequest, Order, Field::ALL, &[]),
    row(PrivacyOfficer, SubjectRequest, Account, Field::ALL, &[]),
    row(PrivacyOfficer, SubjectRequest, Case, Field::ALL, &[]),
];

/// What may be disclosed to an authority; none of it is in `TABLE`.
static DISCLOSURES: &[Row] = &[
    row(PrivacyOfficer, LegalDisclosure, Order, Field::ALL, &[]),
    row(PrivacyOfficer, LegalDisclosure, Account, Field::ALL, &[]),
    row(PrivacyOfficer, LegalDisclosure, Case, Field::ALL, &[]),
];

/// The planted fault: the mistake that the tests of the carrier's reply must notice.
static CARRIER_WITH_PHONE: Row = row(Carrier, Delivery, Order, &[Address, Phone], &[]);

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Role, purpose, class, then the fields; `~` marks a mask. Written apart from the table, by name.
    const ALLOWED: &str = "
        shop fulfilment order recipient_name address phone
        shop notification order recipient_name email
        shop self_service order recipient_name address phone email emergency_contact ~payment_account
        shop refund order payment_account
        shop identity_check order ~phone ~email
        shop self_service account account_name address phone email emergency_contact ~payment_account
        shop notification account account_name email
        shop identity_check account ~phone ~email
        shop after_sales case note
        shop self_service case note
        warehouse fulfilment order recipient_name address phone
        carrier delivery order address
        customer-service after_sales case note
        customer-service identity_check order ~phone ~email
        customer-service identity_check account ~phone ~email
        finance refund order payment_account
        finance refund account payment_account
        privacy-officer subject_request order account_name recipient_name address phone email emergency_contact payment_account note
        privacy-officer subject_request account account_name recipient_name address phone email emergency_contact payment_account note
        privacy-officer subject_request case account_name recipient_name address phone email emergency_contact payment_account note
    ";

    fn cube() -> impl Iterator<Item = (Role, Purpose, Class)> {
        Role::ALL.into_iter().flat_map(|role| {
            Purpose::ALL.iter().flat_map(move |purpose| Class::ALL.iter().map(move |class| (role, *purpose, *class)))
        })
    }

    #[test]
    fn every_cell_of_the_cube_is_as_written_and_all_else_is_denied() {
        let expected: BTreeSet<String> = ALLOWED
            .lines()
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                let place = [words.next()?, words.next()?, words.next()?].join(" ");
                Some(words.map(move |field| format!("{place} {field}")).collect::<Vec<_>>())
            })
            .flatten()
            .collect();
        let mut found = BTreeSet::new();
        for (role, purpose, class) in cube() {
            let Some(permit) = decide(role, purpose, class) else { continue };
            assert_eq!((permit.purpose(), permit.class()), (purpose, class));
            for field in Field::ALL {
                let mark = match permit.access(*field) {
                    Access::Deny => continue,
                    Access::Mask => "~",
                    Access::Grant => "",
                };
                found.insert(format!("{} {purpose} {class} {mark}{field}", role.as_str()));
            }
        }
        assert_eq!(found, expected);
    }

    #[test]
    fn a_disclosure_is_the_privacy_officers_alone_and_by_its_own_door() {
        for (role, purpose, class) in cube() {
            assert!(purpose != LegalDisclosure || decide(role, purpose, class).is_none());
            let permit = disclosure(role, class);
            assert_eq!(permit.is_some(), role == PrivacyOfficer);
            if let Some(permit) = permit {
                assert_eq!((permit.purpose(), permit.class()), (LegalDisclosure, class));
                assert!(Field::ALL.iter().all(|field| permit.access(*field) == Access::Grant));
            }
        }
    }

    #[test]
    fn operator_auditor_and_key_admin_see_nothing() {
        for (role, purpose, class) in cube() {
            if matches!(role, Role::Operator | Role::Auditor | Role::KeyAdmin) {
                assert!(decide(role, purpose, class).is_none());
            }
        }
    }

    #[test]
    fn a_policy_that_says_so_lets_a_carrier_have_the_phone_and_nobody_else_more() {
        let on = Policy::CROSS_BORDER.replace("carrier = []", "carrier = [\"phone\"]");
        let (on, off) = (Policy::parse(&on).unwrap(), Policy::parse(Policy::CROSS_BORDER).unwrap());
        for (role, purpose, class) in cube() {
            let (Some(plain), Some(not), Some(wide)) = (
                decide(role, purpose, class),
                decide(role, purpose, class).map(|permit| permit.widened(&off)),
                decide(role, purpose, class).map(|permit| permit.widened(&on)),
            ) else {
                continue;
            };
            for field in Field::ALL {
                assert_eq!(plain.access(*field), not.access(*field));
                let is_the_phone = (role, purpose, *field) == (Carrier, Delivery, Phone);
                let expected = if is_the_phone { Access::Grant } else { plain.access(*field) };
                assert_eq!(wide.access(*field), expected, "{} {purpose} {class} {field}", role.as_str());
            }
        }
    }

    #[test]
    fn no_two_rows_speak_of_the_same_place() {
        let places: BTreeSet<_> = TABLE.iter().map(|row| (row.role, row.purpose, row.class)).collect();
        assert_eq!(places.len(), TABLE.len());
    }
}
