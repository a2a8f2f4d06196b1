//! Whom to reach in an emergency. INVARIANT: a contact has a name and a phone.

use crate::domain::field::{FieldError, Name, Phone};

/// A person to call, with a name and a phone number.
#[derive(Debug)]
pub struct EmergencyContact {
    name: Name,
    phone: Phone,
}

impl EmergencyContact {
    pub fn parse(field: &str, name: String, phone: String) -> Result<Self, FieldError> {
        let name = Name::parse(&format!("{field}.name"), name);
        // Both are parsed before either is refused: parsing takes the plaintext and wipes it.
        let phone = Phone::parse(&format!("{field}.phone"), phone);
        Ok(Self { name: name?, phone: phone? })
    }

    pub(super) fn from_store(name: Name, phone: Phone) -> Self {
        Self { name, phone }
    }

    pub fn name(&self) -> &Name {
        &self.name
    }

    pub fn phone(&self) -> &Phone {
        &self.phone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::field::FieldReason;

    #[test]
    fn a_bad_part_is_named() {
        let parse = |name: &str, phone: &str| EmergencyContact::parse("contact", name.to_owned(), phone.to_owned());
        let error = |field, reason| FieldError::new(field, reason);
        assert_eq!(parse("", "+376312690").map(drop), Err(error("contact.name", FieldReason::Empty)));
        assert_eq!(parse("Ronald", "312690").map(drop), Err(error("contact.phone", FieldReason::NotAPhone)));
        let contact = parse("Ronald", "+376 312 690").unwrap();
        assert_eq!((contact.name().expose(), contact.phone().expose()), ("Ronald", "+376312690"));
    }
}
