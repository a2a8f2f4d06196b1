//! The root key split among people (Shamir, "How to share a secret", 1979). INVARIANT: fewer shares than the threshold tell nothing
//! of the key; a share that is mistyped, of another set, repeated or forged is told apart from a good one by itself, before
//! anything is combined, so that one bad share costs nobody else's.
//!
//! A share's text carries its own checksum (bech32m) and the set it is of. The keyring's clear header names the set, the
//! threshold and a digest of each share: 256 random bits stand behind a digest, so it tells nothing of the share.

use bech32::primitives::decode::UncheckedHrpstring;
use bech32::primitives::iter::{ByteIterExt, Fe32IterExt};
use bech32::{Bech32m, Hrp};
use blahaj::Sharks;
use rand_core::{TryCryptoRng, TryRng};
use sha2::{Digest, Sha256};
use std::convert::Infallible;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{Argon2Cost, Fresh, RootError, RootHeader, RootKey, Source, Split};
use crate::crypto::entropy::{Entropy, array};
use crate::crypto::key::{Key, debug_by_name};
use crate::domain::fault::{Fault, planted};

pub(super) const ROLE: &str = "set of shares";

const KIND: &str = "srs";
const FORMAT: u8 = 1;
/// Format, set (8), threshold, number, value (32).
const SHARE: usize = 43;
/// "srs1", 43 bytes in characters of 5 bits, six characters of checksum: within the length that bech32m is proven for.
const TEXT_LENGTH: usize = 79;

/// One person's part of the root key.
pub struct Share {
    set: [u8; 8],
    threshold: u8,
    /// From 1; the point that the polynomial was evaluated at.
    number: u8,
    value: Zeroizing<[u8; 32]>,
}

/// The shares that were made together: what a keyring's header says of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShareSet {
    id: [u8; 8],
    threshold: u8,
    /// One a share, in order.
    digests: Vec<[u8; 16]>,
}

/// Shares that have come in so far; wiped when dropped.
pub struct Gathering {
    set: ShareSet,
    held: Vec<Share>,
}

debug_by_name!(Share, Gathering);

/// How far a gathering is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    pub held: u8,
    pub threshold: u8,
}

/// Why a share is not taken. Carries nothing of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadShare {
    #[error(
        "this is no share, or it is mistyped: a share is srs1 and 75 more lower-case characters, checksum included"
    )]
    NotAShare,
    #[error("the share is of another set: it was made for another keyring, or before the root was replaced")]
    OtherSet,
    #[error("the share is in already")]
    Repeated,
    #[error("the share is none of those that were handed out: its checksum fits, its value does not")]
    Forged,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("too few shares: {} of the {} that are needed", .0.held, .0.threshold)]
pub struct TooFew(pub Progress);

impl Source for Split {
    fn kind(&self) -> &'static str {
        ROLE
    }

    fn fresh(&self, _cost: Argon2Cost, entropy: &dyn Entropy) -> Result<Fresh, RootError> {
        let key = Key::generate(entropy);
        let (set, shares) = split(&key, *self, entropy);
        Ok(Fresh { root: RootKey { key, header: RootHeader::Shares(set) }, shares })
    }

    fn unlock(&self, header: &RootHeader) -> Result<Key, RootError> {
        match header {
            RootHeader::Shares(set) => Err(RootError::NeedsShares { threshold: set.threshold }),
            other => Err(other.other_source()),
        }
    }
}

fn split(key: &Key, into: Split, entropy: &dyn Entropy) -> (ShareSet, Vec<Share>) {
    let (id, threshold) = (array(entropy), into.threshold());
    let points = Sharks(threshold).dealer_rng(key.expose(), &mut Draws(entropy));
    let shares: Vec<Share> = points
        .take(usize::from(into.shares()))
        .map(|point| {
            let bytes = Zeroizing::new(Vec::from(&point));
            let mut share = Share { set: id, threshold, number: 0, value: Zeroizing::new([0; 32]) };
            if let Some((number, value)) = bytes.split_first() {
                share.number = *number;
                share.value.iter_mut().zip(value).for_each(|(place, byte)| *place = *byte);
            }
            share
        })
        .collect();
    (ShareSet { id, threshold, digests: shares.iter().map(Share::digest).collect() }, shares)
}

impl Share {
    pub fn number(&self) -> u8 {
        self.number
    }

    /// The only spelling: 79 characters, `srs1…`.
    pub fn to_text(&self) -> Zeroizing<String> {
        let kind = Hrp::parse_unchecked(KIND);
        let bytes = self.to_bytes();
        let mut text = Zeroizing::new(String::with_capacity(TEXT_LENGTH));
        text.extend(bytes.iter().copied().bytes_to_fes().with_checksum::<Bech32m>(&kind).chars());
        text
    }

    pub fn parse(text: &str) -> Result<Self, BadShare> {
        if text.len() != TEXT_LENGTH || text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(BadShare::NotAShare);
        }
        let unchecked = UncheckedHrpstring::new(text).map_err(|_| BadShare::NotAShare)?;
        let looked_at = !planted(Fault::ShareUnchecked);
        if unchecked.hrp() != Hrp::parse_unchecked(KIND)
            || unchecked.data_part_ascii().len() < 6
            || (looked_at && !unchecked.has_valid_checksum::<Bech32m>())
        {
            return Err(BadShare::NotAShare);
        }
        let mut bytes = Zeroizing::new([0; SHARE]);
        let parsed = unchecked.remove_checksum::<Bech32m>();
        let mut read = parsed.byte_iter();
        if read.len() != SHARE {
            return Err(BadShare::NotAShare);
        }
        bytes.iter_mut().zip(&mut read).for_each(|(place, byte)| *place = byte);
        let share = Self::from_bytes(&bytes).ok_or(BadShare::NotAShare)?;
        // One bit is left over behind the bytes: it must be the one that we write.
        if looked_at && share.to_text().as_str() != text { Err(BadShare::NotAShare) } else { Ok(share) }
    }

    fn to_bytes(&self) -> Zeroizing<[u8; SHARE]> {
        let head = [&[FORMAT], &self.set[..], &[self.threshold, self.number]].concat();
        let mut bytes = Zeroizing::new([0; SHARE]);
        bytes.iter_mut().zip(head.iter().chain(self.value.iter())).for_each(|(place, byte)| *place = *byte);
        bytes
    }

    fn from_bytes(bytes: &[u8; SHARE]) -> Option<Self> {
        let ([FORMAT], rest) = bytes.split_first_chunk()? else { return None };
        let (set, rest) = rest.split_first_chunk()?;
        let ([threshold, number], value) = rest.split_first_chunk()?;
        let value: &[u8; 32] = value.try_into().ok()?;
        let sound = *number >= 1 && *threshold >= 2;
        sound.then(|| Self { set: *set, threshold: *threshold, number: *number, value: Zeroizing::new(*value) })
    }

    fn digest(&self) -> [u8; 16] {
        let mut hash = Sha256::new();
        hash.update(b"strongroom/share");
        hash.update(self.to_bytes());
        let mut digest = [0; 16];
        digest.iter_mut().zip(hash.finalize()).for_each(|(place, byte)| *place = byte);
        digest
    }
}

impl ShareSet {
    pub fn threshold(&self) -> u8 {
        self.threshold
    }

    pub fn shares(&self) -> usize {
        self.digests.len()
    }

    /// Id (8), threshold, one digest (16) a share.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        [&self.id[..], &[self.threshold], self.digests.as_flattened()].concat()
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (id, rest) = bytes.split_first_chunk()?;
        let ([threshold], digests) = rest.split_first_chunk()?;
        let (digests, []) = digests.as_chunks::<16>() else { return None };
        Split::new(i64::try_from(digests.len()).ok()?, i64::from(*threshold)).ok()?;
        Some(Self { id: *id, threshold: *threshold, digests: digests.to_vec() })
    }

    fn check(&self, share: &Share) -> Result<(), BadShare> {
        if share.set != self.id {
            return Err(BadShare::OtherSet);
        }
        if planted(Fault::ShareUnchecked) {
            return Ok(());
        }
        let place = usize::from(share.number).checked_sub(1);
        let digest = place.and_then(|place| self.digests.get(place)).ok_or(BadShare::Forged)?;
        if bool::from(digest.ct_eq(&share.digest())) { Ok(()) } else { Err(BadShare::Forged) }
    }
}

impl Gathering {
    pub fn new(set: ShareSet) -> Self {
        Self { held: Vec::with_capacity(set.shares()), set }
    }

    pub fn progress(&self) -> Progress {
        let held = u8::try_from(self.held.len()).unwrap_or(u8::MAX);
        Progress { held, threshold: self.set.threshold }
    }

    pub fn is_complete(&self) -> bool {
        self.progress().held >= self.set.threshold
    }

    /// Takes one share in. A bad one changes nothing.
    pub fn add(&mut self, share: Share) -> Result<Progress, BadShare> {
        self.set.check(&share)?;
        if self.held.iter().any(|held| held.number == share.number) {
            return Err(BadShare::Repeated);
        }
        self.held.push(share);
        Ok(self.progress())
    }

    /// The root key of these shares. That it is the keyring's own, the keyring says when it opens.
    pub fn combine(&self) -> Result<RootKey, TooFew> {
        let too_few = || TooFew(self.progress());
        if !self.is_complete() {
            return Err(too_few());
        }
        let point = |share: &Share| {
            let bytes = Zeroizing::new([&[share.number], &share.value[..]].concat());
            blahaj::Share::try_from(bytes.as_slice()).ok()
        };
        let points: Option<Vec<blahaj::Share>> =
            self.held.iter().take(usize::from(self.set.threshold)).map(point).collect();
        let points = points.ok_or_else(too_few)?;
        let secret = Sharks(self.set.threshold).recover(&points).map(Zeroizing::new).map_err(|_| too_few())?;
        let secret: &[u8; 32] = secret.as_slice().try_into().map_err(|_| too_few())?;
        let key = Key::filled(|key| *key = *secret);
        Ok(RootKey { key, header: RootHeader::Shares(self.set.clone()) })
    }
}

/// Our entropy as the splitting library takes it.
struct Draws<'a>(&'a dyn Entropy);

impl TryRng for Draws<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::from_le_bytes(array(self.0)))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from_le_bytes(array(self.0)))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill(out);
        Ok(())
    }
}

impl TryCryptoRng for Draws<'_> {}

#[cfg(test)]
mod tests;
