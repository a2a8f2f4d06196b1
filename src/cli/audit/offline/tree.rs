//! RFC 6962's tree for the verifier. INVARIANT: written from the RFC, not from the vault's own.

use sha2::{Digest, Sha256};

pub type Hash = [u8; 32];

/// How many entries a section of an export has.
pub const SECTION: u64 = 256;

pub fn leaf_hash(leaf: &[u8]) -> Hash {
    let mut sha = Sha256::new();
    sha.update([0x00]);
    sha.update(leaf);
    sha.finalize().into()
}

fn interior(left: &Hash, right: &Hash) -> Hash {
    let mut sha = Sha256::new();
    sha.update([0x01]);
    sha.update(left);
    sha.update(right);
    sha.finalize().into()
}

/// The heads of complete subtrees with their sizes, the largest first.
#[derive(Default)]
pub struct Frontier(Vec<(u64, Hash)>);

impl Frontier {
    /// `None`: the hashes are not as many as a tree of that size has.
    pub fn from_peaks(size: u64, hashes: &[Hash]) -> Option<Self> {
        let sizes = (0..64).rev().map(|bit| 1_u64 << bit).filter(|part| size & part != 0);
        let peaks: Vec<(u64, Hash)> = sizes.zip(hashes.iter().copied()).collect();
        (peaks.len() == hashes.len() && peaks.iter().map(|(part, _)| part).sum::<u64>() == size).then_some(Self(peaks))
    }

    pub fn size(&self) -> u64 {
        self.0.iter().map(|(size, _)| size).sum()
    }

    pub fn append(&mut self, leaf: Hash) {
        let mut last = (1, leaf);
        while let Some((size, left)) = self.0.pop_if(|(size, _)| *size == last.0) {
            last = (size * 2, interior(&left, &last.1));
        }
        self.0.push(last);
    }

    pub fn root(&self) -> Hash {
        let mut heads = self.0.iter().rev().map(|(_, hash)| *hash);
        let last = heads.next();
        last.map_or_else(|| Sha256::digest(b"").into(), |last| heads.fold(last, |right, left| interior(&left, &right)))
    }
}

/// The head that the audit path of leaf `index` of `size` leads to, by following the splits from the top; `None` when the path
/// is longer or shorter than the way.
pub fn led_to(index: u64, size: u64, leaf: Hash, path: &[Hash]) -> Option<Hash> {
    match (size, path.split_last()) {
        (1, None) if index == 0 => Some(leaf),
        (2.., Some((beside, rest))) => {
            let mut split = 1;
            while split * 2 < size {
                split *= 2;
            }
            if index < split {
                Some(interior(&led_to(index, split, leaf, rest)?, beside))
            } else {
                Some(interior(beside, &led_to(index - split, size - split, leaf, rest)?))
            }
        }
        _ => None,
    }
}
