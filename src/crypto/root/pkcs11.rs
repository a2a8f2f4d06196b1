//! The root key wrapped by a key inside a PKCS#11 token (a hardware security module, a smart card, SoftHSM). INVARIANT: the key
//! that wraps is made in the token and never leaves it; a wrong PIN is tried once and no more, since tokens count.
//!
//! AES-256-GCM (PKCS#11 v3.0 §6.13.4) with our nonce and our purpose as associated data. A PKCS#11 module belongs to the whole
//! process, so one thread at a time uses it, from `C_Initialize` to `C_Finalize`.

use std::mem::ManuallyDrop;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11 as Module};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::object::{Attribute, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use zeroize::Zeroizing;

use super::file::read_line;
use super::outside::{PATIENCE, Trouble, trouble, within};
use super::{Argon2Cost, Fresh, PURPOSE, RootError, RootHeader, Source, Wrapped, Wrapper, unwrapped};
use crate::crypto::entropy::{Entropy, array};
use crate::crypto::key::Key;

pub(super) const ROLE: &str = "PKCS#11 token";
const PIN_FILE: &str = "PKCS#11 token's PIN file";

/// The first byte of the wrapped form: how it was wrapped.
const AES_GCM: u8 = 1;
const NONCE: usize = 12;
const TAG_BITS: u64 = 128;

/// Which module, which token, which of its keys, and the PIN.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pkcs11 {
    pub module: PathBuf,
    /// The token's label.
    pub token: String,
    /// The key's label.
    pub key: String,
    pub pin_file: PathBuf,
}

impl Source for &Pkcs11 {
    fn kind(&self) -> &'static str {
        ROLE
    }

    fn fresh(&self, _cost: Argon2Cost, entropy: &dyn Entropy) -> Result<Fresh, RootError> {
        let key = Key::generate(entropy);
        let plain = Zeroizing::new(*key.expose());
        let nonce: [u8; NONCE] = array(entropy);
        let sealed = self.with_key(move |session, wrapping| {
            let mut iv = nonce;
            session.encrypt(&gcm(&mut iv)?, wrapping, plain.as_slice()).map_err(|error| told(&error))
        })?;
        let blob = [&[AES_GCM], &nonce[..], &sealed].concat();
        let wrapped = Wrapped::new(Wrapper::Pkcs11, &self.key, blob)?;
        Ok(Fresh::of(key, RootHeader::Wrapped(wrapped)))
    }

    fn unlock(&self, header: &RootHeader) -> Result<Key, RootError> {
        let blob = Wrapped::of(header, Wrapper::Pkcs11, Some(&self.key))?;
        let nonsense = || trouble(ROLE, Trouble::Nonsense);
        let [AES_GCM, rest @ ..] = blob else { return Err(nonsense()) };
        let (nonce, sealed) = rest.split_first_chunk::<NONCE>().ok_or_else(nonsense)?;
        let (nonce, sealed) = (*nonce, sealed.to_vec());
        let plain = self.with_key(move |session, wrapping| {
            let mut iv = nonce;
            session.decrypt(&gcm(&mut iv)?, wrapping, &sealed).map(Zeroizing::new).map_err(|error| told(&error))
        })?;
        unwrapped(ROLE, &plain)
    }

    /// Makes the wrapping key where the token has none of that label.
    fn mint(&self, _entropy: &dyn Entropy) -> Result<bool, RootError> {
        let label = self.key.clone();
        self.in_session(true, move |session| match the_key(session, &label) {
            Ok(_) => Ok(false),
            Err(Trouble::NoSuchKey) => {
                let mut template = wanted(&label);
                template.extend([
                    Attribute::Token(true),
                    Attribute::Private(true),
                    Attribute::Sensitive(true),
                    Attribute::Extractable(false),
                    Attribute::Encrypt(true),
                    Attribute::Decrypt(true),
                    Attribute::ValueLen(32.into()),
                ]);
                session.generate_key(&Mechanism::AesKeyGen, &template).map_err(|error| told(&error))?;
                Ok(true)
            }
            Err(other) => Err(other),
        })
    }
}

impl Pkcs11 {
    fn with_key<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Session, ObjectHandle) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, RootError> {
        let label = self.key.clone();
        self.in_session(false, move |session| work(session, the_key(session, &label)?))
    }

    fn in_session<T: Send + 'static>(
        &self,
        writes: bool,
        work: impl FnOnce(&Session) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, RootError> {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let pin = AuthPin::from(read_line(&self.pin_file, PIN_FILE)?.to_string());
        let (path, token) = (self.module.clone(), self.token.clone());
        within(ROLE, PATIENCE, move || {
            let _one_at_a_time = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
            let module = Module::new(&path).map_err(|_| Trouble::NoModule)?;
            // Unloading a module takes its threads' code away with it on some; it stays.
            let _stays_loaded = ManuallyDrop::new(module.clone());
            match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
                Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) | Ok(()) => {}
                Err(error) => return Err(told(&error)),
            }
            let done = logged_in(&module, &token, &pin, writes).and_then(|session| work(&session));
            // The session is closed by now, which logs out.
            let _ = module.finalize();
            done
        })
    }
}

fn logged_in(module: &Module, token: &str, pin: &AuthPin, writes: bool) -> Result<Session, Trouble> {
    let mut found = Vec::new();
    for slot in module.get_slots_with_token().map_err(|error| told(&error))? {
        if module.get_token_info(slot).map_err(|error| told(&error))?.label() == token {
            found.push(slot);
        }
    }
    let slot = match found.as_slice() {
        [slot] => *slot,
        [] => return Err(Trouble::NoToken),
        _ => return Err(Trouble::SeveralTokens),
    };
    let opened = if writes { module.open_rw_session(slot) } else { module.open_ro_session(slot) };
    let session = opened.map_err(|error| told(&error))?;
    match session.login(UserType::User, Some(pin)) {
        Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(session),
        Err(error) => Err(told(&error)),
    }
}

fn wanted(label: &str) -> Vec<Attribute> {
    vec![
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::Label(label.as_bytes().to_vec()),
    ]
}

fn the_key(session: &Session, label: &str) -> Result<ObjectHandle, Trouble> {
    match session.find_objects(&wanted(label)).map_err(|error| told(&error))?.as_slice() {
        [key] => Ok(*key),
        [] => Err(Trouble::NoSuchKey),
        _ => Err(Trouble::SeveralKeys),
    }
}

fn gcm(nonce: &mut [u8; NONCE]) -> Result<Mechanism<'_>, Trouble> {
    let params = GcmParams::new(nonce, PURPOSE.as_bytes(), TAG_BITS.into());
    Ok(Mechanism::AesGcm(params.map_err(|_| Trouble::Failed)?))
}

fn told(error: &Error) -> Trouble {
    use RvError as Rv;
    let Error::Pkcs11(returned, _) = error else { return Trouble::Failed };
    match returned {
        Rv::PinIncorrect | Rv::PinInvalid | Rv::PinLenRange => Trouble::WrongPin,
        Rv::PinLocked => Trouble::PinLocked,
        Rv::PinExpired | Rv::UserPinNotInitialized | Rv::UserNotLoggedIn | Rv::KeyFunctionNotPermitted => {
            Trouble::Denied
        }
        Rv::TokenNotPresent | Rv::TokenNotRecognized | Rv::SlotIdInvalid => Trouble::NoToken,
        Rv::DeviceRemoved | Rv::DeviceError => Trouble::Unreachable,
        Rv::MechanismInvalid | Rv::MechanismParamInvalid | Rv::KeyTypeInconsistent | Rv::KeySizeRange => Trouble::Unfit,
        Rv::EncryptedDataInvalid | Rv::EncryptedDataLenRange => Trouble::WrongKey,
        // What SoftHSM says of a tag that does not fit.
        Rv::GeneralError => Trouble::WrongKey,
        _ => Trouble::Failed,
    }
}
