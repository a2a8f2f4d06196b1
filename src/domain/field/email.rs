//! Email addresses. INVARIANT: an address is one mailbox at one domain name (RFC 5321, RFC 6531), with nothing around it.

use email_address::{EmailAddress, Options};
use idna::{AsciiDenyList, domain_to_ascii_cow};
use zeroize::Zeroizing;

use crate::domain::field::text::{Rules, secret_text, storable};
use crate::domain::field::{FieldError, FieldReason};

/// RFC 5321, §4.5.3.1, as corrected by erratum 1690: in octets.
const LONGEST: usize = 254;
const LONGEST_LOCAL_PART: usize = 64;

secret_text! {
    /// An email address in any script, at most 254 bytes, kept as given.
    Email;
}
storable!(Email);

impl Email {
    pub fn parse(field: &str, raw: String) -> Result<Self, FieldError> {
        let text = Rules::line(1, LONGEST).parse(field, raw)?;
        if text.len() > LONGEST {
            return Err(FieldError::new(field, FieldReason::TooLong));
        }
        if is_address(&text) { Ok(Self(text)) } else { Err(FieldError::new(field, FieldReason::NotAnEmail)) }
    }
}

impl Email {
    /// What the address is found by: letters in either case and a domain in either spelling are one mailbox to its people.
    pub fn normalized(&self) -> Zeroizing<String> {
        let (local, domain) = self.0.rsplit_once('@').unwrap_or((&self.0, ""));
        let ascii = domain_to_ascii_cow(domain.as_bytes(), AsciiDenyList::STD3);
        let domain = Zeroizing::new(ascii.map_or_else(|_| domain.to_lowercase(), |ascii| ascii.to_lowercase()));
        let local = Zeroizing::new(local.to_lowercase());
        Zeroizing::new(format!("{}@{}", *local, *domain))
    }
}

fn is_address(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else { return false };
    let Ok(domain) = domain_to_ascii_cow(domain.as_bytes(), AsciiDenyList::STD3) else { return false };
    let domain = Zeroizing::new(domain.into_owned());
    if local.len() > LONGEST_LOCAL_PART || text.contains(char::is_whitespace) {
        return false;
    }
    // The syntax is asked about an ASCII twin, in which a letter stands for each character that RFC 6531 adds to it: marks
    // and joiners of Indic scripts are legal there, though they are not letters.
    let local = local.chars().map(|c| if c.is_ascii() { c } else { 'x' });
    let mut twin = Zeroizing::new(String::with_capacity(text.len() + domain.len()));
    twin.extend(local);
    twin.push('@');
    twin.push_str(&domain);
    let options = Options::default().with_required_tld().without_domain_literal().without_display_text();
    // The crate hands a copy of the address back; it is the caller's to wipe.
    EmailAddress::parse_with_options(&twin, options).map(|address| Zeroizing::new(String::from(address))).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn email(raw: &str) -> Result<String, FieldReason> {
        Email::parse("email", raw.to_owned()).map(|email| email.expose().to_owned()).map_err(|error| error.reason)
    }

    #[test]
    fn addresses_of_the_world_are_kept_to_the_byte() {
        for raw in [
            "chris.curtis.0@example.org",
            "Chris+Shop@Example.ORG",
            "o'brien@mail.example",
            "a@b.de",
            "用户@例子.中国",
            "संपर्क@उदाहरण.भारत",
            "zoë@bücher.example",
            "x@xn--bcher-kva.example",
            "\"quoted\"@example.org",
        ] {
            assert_eq!(email(raw).as_deref(), Ok(raw));
        }
    }

    #[test]
    fn a_mailbox_has_one_normal_form_however_it_is_written() {
        let normal = |raw: &str| Email::parse("email", raw.to_owned()).unwrap().normalized().to_string();
        for (one, other) in [
            ("Anne.Smith@Example.ORG", "anne.smith@example.org"),
            ("zoë@bücher.example", "ZOË@xn--bcher-kva.example"),
            ("o'brien@mail.example", "O'Brien@MAIL.example"),
        ] {
            assert_eq!(normal(one), normal(other));
        }
        assert_ne!(normal("anne@example.org"), normal("anne+shop@example.org"));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let long_local = format!("{}@example.org", "a".repeat(65));
        let long = format!("a@{}.org", vec!["b".repeat(60); 5].join("."));
        for (raw, reason) in [
            ("", FieldReason::Empty),
            ("anne", FieldReason::NotAnEmail),
            ("@example.org", FieldReason::NotAnEmail),
            ("anne@", FieldReason::NotAnEmail),
            ("anne@localhost", FieldReason::NotAnEmail),
            ("anne@[127.0.0.1]", FieldReason::NotAnEmail),
            ("anne@exa mple.org", FieldReason::NotAnEmail),
            (" anne@example.org", FieldReason::NotAnEmail),
            ("\"an ne\"@example.org", FieldReason::NotAnEmail),
            ("Anne<anne@example.org>", FieldReason::NotAnEmail),
            ("anne@bob@example.org", FieldReason::NotAnEmail),
            ("anne..b@example.org", FieldReason::NotAnEmail),
            ("anne@example..org", FieldReason::NotAnEmail),
            ("anne@example.org.", FieldReason::NotAnEmail),
            ("anne@-example.org", FieldReason::NotAnEmail),
            ("anne@exa!mple.org", FieldReason::NotAnEmail),
            ("anne\n@example.org", FieldReason::ControlCharacter),
            ("anne\u{202E}@example.org", FieldReason::ControlCharacter),
            ("4111111111111111@example.org", FieldReason::CardNumber),
            (&long_local, FieldReason::NotAnEmail),
            (&long, FieldReason::TooLong),
        ] {
            assert_eq!(email(raw), Err(reason), "{raw}");
        }
    }
}
