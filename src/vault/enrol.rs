//! Enrolling callers, suspending them, letting them back. INVARIANT: an enrolment is never replaced by enrolling again; what
//! takes authority away takes one person and works at once, and what gives it back takes two.

use super::approval::{Ask, Gate, Gated};
use super::call::{Call, Draft};
use super::mark::Mark;
use super::{Error, Vault};
use crate::audit::entry::{Action, RefusalCode, RequestId, Whom};
use crate::crypto::slot::Canonical;
use crate::domain::caller::{CallerId, CertificateHash, Role, SpkiHash};
use crate::domain::field::FieldReason;
use crate::domain::id::{CallerName, TenantId};
use crate::domain::time::Timestamp;
use crate::policy::approval::Verb;
use crate::policy::enrolment::{Enrolment, MAX_SUSPENDED, Pins, Standing};
use crate::store::ledger::{Learned, LedgerEntry, NOBODY};
use crate::store::{Store, StoreError, Tx};

/// Whom a request of an administrator is about; of the administrator's own tenant.
pub struct Named {
    pub role: Role,
    pub name: CallerName,
}

pub struct EnrolCaller {
    pub caller: Named,
    /// `None`: the CA that issued the administrator's own certificate.
    pub issuer: Option<SpkiHash>,
    pub pins: Pins,
}

/// One caller, or one of its certificates.
pub struct SuspendCaller {
    pub caller: Named,
    pub certificate: Option<CertificateHash>,
}

pub struct ResumeCaller {
    pub caller: Named,
    pub certificate: Option<CertificateHash>,
}

pub struct ReplacePins {
    pub caller: Named,
    pub pins: Pins,
}

/// A caller as an administrator sees it.
pub struct Enrolled {
    pub enrolment: Enrolment,
    /// Of the certificate it was last seen with since the start.
    pub certificate_good_until: Option<Timestamp>,
    /// When it was refused too often.
    pub locked_out_until: Option<Timestamp>,
}

impl Vault {
    /// Gives an identity of the administrator's tenant its authority. The same again answers as before.
    pub async fn enrol_caller(&self, call: &Call, ask: &EnrolCaller) -> Result<Enrolled, Error> {
        let id = ask.caller.of(call);
        let now = self.now();
        let draft = Draft::of(call, Action::EnrolCaller, now).whom(whom(&id, None));
        let Some(issuer) = ask.issuer.or_else(|| call.caller.keys.map(|keys| keys.issuer)) else {
            return self.watch(&draft, Err(Error::invalid("issuer", FieldReason::Missing))).await;
        };
        let watched = draft.clone();
        let (by, pins) = (call.caller.id(), ask.pins.clone());
        let write = move |tx: &mut Tx<'_>| {
            if let Some(known) = tx.enrolment(&id)? {
                let is_same = known.issuer == issuer && known.pins == pins && known.standing == Standing::Active;
                let draft = draft.clone();
                tx.log(if is_same { draft.done() } else { draft.refused(RefusalCode::AlreadyEnrolled) });
                return Ok((is_same.then_some(known).ok_or(Error::AlreadyEnrolled), None));
            }
            let Some(enroller) = tx.enrolment(&by)? else {
                tx.log(draft.clone().refused(RefusalCode::NotEnrolled));
                return Ok((Err(Error::NotFound), None));
            };
            let enrolment = Enrolment {
                id: id.clone(),
                issuer,
                standing: Standing::Active,
                pins: pins.clone(),
                suspended: Vec::new(),
                enrolled_by: Some(enroller.id),
                line: enroller.line,
                since: now,
                version: 1,
            };
            tx.insert_enrolment(&enrolment)?;
            tx.log(draft.clone().done());
            Ok((Ok(enrolment.clone()), Some(enrolment)))
        };
        let answer = self.change_caller("enrol_caller", write).await.and_then(|answer| answer);
        Ok(self.enrolled(self.watch(&watched, answer).await?))
    }

    /// Takes authority away from a caller or from one of its certificates, at once. Again answers the same.
    pub async fn suspend_caller(&self, call: &Call, ask: &SuspendCaller) -> Result<Enrolled, Error> {
        let (id, certificate) = (ask.caller.of(call), ask.certificate);
        let draft = Draft::of(call, Action::SuspendCaller, self.now()).whom(whom(&id, certificate));
        let watched = draft.clone();
        let write = move |tx: &mut Tx<'_>| {
            let Some(mut enrolment) = tx.enrolment(&id)? else {
                tx.log(draft.clone().refused(RefusalCode::Unknown));
                return Ok((Err(Error::NotFound), None));
            };
            if is_suspended(&enrolment, certificate) {
                tx.log(draft.clone().done());
                return Ok((Ok(enrolment), None));
            }
            match certificate {
                None => enrolment.standing = Standing::Suspended,
                Some(_) if enrolment.suspended.len() >= MAX_SUSPENDED => {
                    return Ok((Err(Error::invalid("certificate", FieldReason::TooMany)), None));
                }
                Some(certificate) => enrolment.suspended.push(certificate),
            }
            let changed = update(tx, enrolment)?;
            tx.log(draft.clone().done());
            Ok((Ok(changed.clone()), Some(changed)))
        };
        let answer = self.change_caller("suspend_caller", write).await.and_then(|answer| answer);
        if let (Ok(suspended), None) = (&answer, certificate) {
            self.end_lock_out(&suspended.id);
        }
        Ok(self.enrolled(self.watch(&watched, answer).await?))
    }

    /// Lets a suspended caller or certificate back in, once a second person has agreed.
    pub async fn resume_caller(&self, call: &Call, ask: &ResumeCaller) -> Result<Gated<Enrolled>, Error> {
        let (id, certificate) = (ask.caller.of(call), ask.certificate);
        let about = match certificate {
            None => format!("let {id} back in"),
            Some(CertificateHash(hash)) => format!("let the certificate {} of {id} back in", hex::encode(hash)),
        };
        let request = move |now: &Enrolment| {
            let certificate = certificate.as_ref().map_or(&[][..], |certificate| &certificate.0);
            Canonical::new("resume_caller").bytes(now.id.to_string().as_bytes()).u64(now.version).bytes(certificate)
        };
        let change = move |mut enrolment: Enrolment| {
            if !is_suspended(&enrolment, certificate) {
                return None;
            }
            match certificate {
                None => enrolment.standing = Standing::Active,
                Some(back) => enrolment.suspended.retain(|suspended| *suspended != back),
            }
            Some(enrolment)
        };
        let draft = Draft::of(call, Action::ResumeCaller, self.now()).whom(whom(&id, certificate));
        self.change_by_two(call, Verb::ResumeCaller, id, about, draft, request, change).await
    }

    /// Sets a caller's pinned keys, once a second person has agreed: both slots, as they shall be.
    pub async fn replace_pins(&self, call: &Call, ask: &ReplacePins) -> Result<Gated<Enrolled>, Error> {
        let (id, pins) = (ask.caller.of(call), ask.pins.clone());
        let keys: Vec<String> = pins.keys().iter().map(|key| hex::encode(key.0)).collect();
        let about =
            format!("pin {id} to the keys {}", if keys.is_empty() { "(any)".into() } else { keys.join(" and ") });
        let wanted = pins.clone();
        let request = move |now: &Enrolment| {
            let canonical = Canonical::new("replace_pins").bytes(now.id.to_string().as_bytes()).u64(now.version);
            wanted.keys().iter().fold(canonical, |canonical, key| canonical.bytes(&key.0))
        };
        let change =
            move |enrolment: Enrolment| (enrolment.pins != pins).then(|| Enrolment { pins: pins.clone(), ..enrolment });
        let draft = Draft::of(call, Action::ReplacePins, self.now()).whom(whom(&id, None));
        self.change_by_two(call, Verb::ReplacePins, id, about, draft, request, change).await
    }

    /// The tenant's callers.
    pub async fn list_callers(&self, call: &Call) -> Result<Vec<Enrolled>, Error> {
        let draft = Draft::of(call, Action::ListCallers, self.now());
        let tenant = &call.caller.tenant;
        let read = || {
            let all: Result<Vec<Enrolment>, StoreError> =
                self.store().read(|view| view.enrolments())?.into_iter().collect();
            let ours = all?.into_iter().filter(|enrolment| enrolment.id.tenant == *tenant);
            Ok(ours.map(|enrolment| self.enrolled(enrolment)).collect())
        };
        let listed = self.watch(&draft, read()).await?;
        self.log(draft.done()).await?;
        Ok(listed)
    }

    /// A change of an enrolment that takes two people: `request` tells it from any other, and binds it to the enrolment as it
    /// stands, so that an approval does not outlive what it was given for; `change` answers `None` where nothing is to change.
    #[expect(clippy::too_many_arguments, reason = "one act in its parts; two callers, both above")]
    async fn change_by_two(
        &self,
        call: &Call,
        verb: Verb,
        id: CallerId,
        about: String,
        draft: Draft,
        request: impl Fn(&Enrolment) -> Canonical + Send + 'static,
        change: impl Fn(Enrolment) -> Option<Enrolment> + Send + 'static,
    ) -> Result<Gated<Enrolled>, Error> {
        let ask = Ask::new(self, call, verb, about);
        let watched = draft.clone();
        let write = move |tx: &mut Tx<'_>| {
            let Some(enrolment) = tx.enrolment(&id)? else {
                tx.log(draft.clone().refused(RefusalCode::Unknown));
                return Ok((Err(Error::NotFound), None));
            };
            let digest = ask.digest(&request(&enrolment));
            let Some(changed) = change(enrolment.clone()) else {
                tx.log(draft.clone().done());
                return Ok((Ok(Gated::Done(enrolment)), None));
            };
            match ask.gate(tx, digest)? {
                Gate::Closed(error) => Ok((Err(error), None)),
                Gate::Pending(pending) => Ok((Ok(Gated::Pending(pending)), None)),
                Gate::Agreed(agreed) => {
                    let changed = update(tx, changed)?;
                    tx.log(draft.clone().under(agreed.story()).done());
                    Ok((Ok(Gated::Done(changed.clone())), Some(changed)))
                }
            }
        };
        let answer = self.change_caller(verb.name(), write).await.and_then(|answer| answer);
        Ok(match self.watch(&watched, answer).await? {
            Gated::Done(enrolment) => Gated::Done(self.enrolled(enrolment)),
            Gated::Pending(pending) => Gated::Pending(pending),
        })
    }

    fn enrolled(&self, enrolment: Enrolment) -> Enrolled {
        let certificate_good_until = self.certificate_of(&enrolment.id);
        let locked_out_until = self.locked_out_until(&enrolment.id);
        Enrolled { enrolment, certificate_good_until, locked_out_until }
    }
}

/// Someone to be enrolled on the machine itself.
#[derive(Clone, Debug)]
pub struct OnTheMachine {
    pub id: CallerId,
    pub issuer: SpkiHash,
    pub pins: Pins,
}

/// Enrols on a store that nobody serves: the first administrators, and the way back in when all others are locked out. Whoever
/// can do this holds the root key; so it replaces what is there, ends suspensions, and starts a line of its own.
pub fn enrol_on_the_machine(
    store: &Store,
    callers: Vec<OnTheMachine>,
    request: RequestId,
    now: Timestamp,
) -> Result<(), StoreError> {
    store.run_blocking("enrol_on_the_machine", move |tx| {
        Mark::not_yet(tx)?;
        for OnTheMachine { id, issuer, pins } in callers.iter().cloned() {
            let known = tx.enrolment(&id)?.map(|known| known.version);
            let enrolment = Enrolment {
                line: id.clone(),
                id,
                issuer,
                standing: Standing::Active,
                pins,
                suspended: Vec::new(),
                enrolled_by: None,
                since: now,
                version: known.unwrap_or(0) + 1,
            };
            match known {
                None => tx.insert_enrolment(&enrolment)?,
                Some(_) => tx.update_enrolment(&enrolment)?,
            }
            let tenant: &TenantId = &enrolment.id.tenant;
            tx.note(LedgerEntry::learned(tenant, NOBODY, now, Learned::Caller(Box::new(enrolment.clone()))));
            let draft = Draft::by_vault(tenant, request, Action::EnrolCaller, now);
            tx.log(draft.whom(whom(&enrolment.id, None)).done());
        }
        Ok(())
    })
}

impl Named {
    pub(crate) fn of(&self, call: &Call) -> CallerId {
        CallerId { tenant: call.caller.tenant.clone(), role: self.role, name: self.name.clone() }
    }
}

fn is_suspended(enrolment: &Enrolment, certificate: Option<CertificateHash>) -> bool {
    match certificate {
        None => enrolment.standing == Standing::Suspended,
        Some(certificate) => enrolment.suspended.contains(&certificate),
    }
}

fn update(tx: &mut Tx<'_>, enrolment: Enrolment) -> Result<Enrolment, StoreError> {
    let next = Enrolment { version: enrolment.version + 1, ..enrolment };
    tx.update_enrolment(&next)?;
    Ok(next)
}

pub(crate) fn whom(id: &CallerId, certificate: Option<CertificateHash>) -> Whom {
    let (role, name) = (id.role, id.name.clone());
    match certificate {
        None => Whom::Caller { role, name },
        Some(CertificateHash([a, b, c, d, e, f, g, h, ..])) => {
            Whom::Certificate { role, name, certificate: [a, b, c, d, e, f, g, h] }
        }
    }
}
