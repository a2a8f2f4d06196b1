//! The only place that draws randomness. INVARIANT: whoever needs entropy is handed an `Entropy`, and no byte of
//! `OsEntropy` is handed out twice or stays behind after it was.

use std::cell::RefCell;
use std::sync::{Mutex, PoisonError};

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use zeroize::Zeroizing;

use crate::crypto::residue::{CIPHER, wiped};

pub trait Entropy: Send + Sync {
    fn fill(&self, out: &mut [u8]);
}

/// `N` fresh bytes.
pub fn array<const N: usize>(entropy: &dyn Entropy) -> [u8; N] {
    let mut out = [0; N];
    entropy.fill(&mut out);
    out
}

/// The operating system's randomness, stretched by one ChaCha20 generator a thread.
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&self, out: &mut [u8]) {
        POOL.with_borrow_mut(|pool| pool.fill(out));
    }
}

/// The same bytes for the same seed, for tests and simulations. Never for keys that protect anything.
pub struct SeededEntropy(Mutex<ChaCha20Rng>);

impl SeededEntropy {
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(ChaCha20Rng::seed_from_u64(seed)))
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, out: &mut [u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(out);
    }
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::new(Pool::new());
}

/// One refill is 4 KiB of ChaCha20 output: the next seed, then the bytes to hand out.
const READY: usize = 4096 - 32;
const RESEED_AFTER: usize = 256 * 1024;

/// Fast key erasure (Bernstein, <https://blog.cr.yp.to/20170723-random.html>): each refill overwrites the seed that made
/// it, and each byte is wiped as it leaves, so that a later look into memory tells nothing about earlier draws.
struct Pool {
    seed: Zeroizing<[u8; 32]>,
    ready: Zeroizing<[u8; READY]>,
    used: usize,
    since_reseed: usize,
}

impl Pool {
    fn new() -> Self {
        Self {
            seed: Zeroizing::new([0; 32]),
            ready: Zeroizing::new([0; READY]),
            used: READY,
            since_reseed: RESEED_AFTER,
        }
    }

    fn fill(&mut self, out: &mut [u8]) {
        for part in out.chunks_mut(READY) {
            if READY - self.used < part.len() {
                self.refill();
            }
            for (byte, ready) in part.iter_mut().zip(self.ready.iter_mut().skip(self.used)) {
                *byte = std::mem::take(ready);
            }
            self.used += part.len();
        }
    }

    fn refill(&mut self) {
        if self.since_reseed >= RESEED_AFTER {
            reseed(&mut self.seed);
            self.since_reseed = 0;
        }
        wiped::<CIPHER, _>(|| {
            let mut generator = ChaCha20Rng::from_seed(*self.seed);
            generator.fill_bytes(&mut *self.seed);
            generator.fill_bytes(&mut *self.ready);
        });
        self.used = 0;
        self.since_reseed += READY;
    }
}

#[expect(clippy::disallowed_methods, reason = "the one draw from the operating system")]
#[expect(
    clippy::expect_used,
    reason = "without randomness nothing can be sealed, and a guessable key is worse than a stop"
)]
fn reseed(seed: &mut [u8; 32]) {
    getrandom::fill(seed).expect("the operating system gives randomness");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_seed_gives_the_same_bytes_and_another_seed_gives_others() {
        let draw = |seed| array::<40>(&SeededEntropy::new(seed));
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn no_draw_repeats_across_refills_reseeds_and_threads() {
        let draws = || (0..20_000).map(|_| array::<16>(&OsEntropy)).collect::<Vec<_>>();
        let threads: Vec<_> = (0..2).map(|_| std::thread::spawn(draws)).collect();
        let all: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), 40_000);
    }

    #[test]
    fn a_draw_longer_than_the_pool_is_filled_to_its_end() {
        let mut out = vec![0; READY * 2 + 100];
        OsEntropy.fill(&mut out);
        assert!(out.chunks(50).all(|chunk| chunk.iter().any(|byte| *byte != 0)));
    }

    #[test]
    fn drawn_bytes_and_the_seed_that_made_them_are_gone() {
        let mut pool = Pool::new();
        let mut out = [0; 64];
        pool.fill(&mut out);
        assert!(pool.ready[..64].iter().all(|byte| *byte == 0));
        let seed_now = *pool.seed;
        let mut replay = ChaCha20Rng::from_seed(seed_now);
        let mut replayed = [0; 4096];
        replay.fill_bytes(&mut replayed);
        assert!(replayed.windows(64).all(|window| window != out));
    }
}
