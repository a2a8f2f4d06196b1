//! Wipes what ciphers and hashes leave on the stack. INVARIANT: when `wiped` returns, the stack below its caller's frame holds
//! zeros as deep as the use of a key that it was for reaches.
//!
//! The libraries wipe the state that they own, not the copies that the compiler makes of it (spilled registers, moved values,
//! HMAC's padded key). Those lie in frames that are dead when the call is over. Later calls happen to write over most of them;
//! which ones is up to the compiler, so nothing is left to chance.

use std::hint::black_box;

/// Deeper than HMAC and HKDF reach: 1.4 KiB, and 4.3 KiB without optimisation (see the test).
pub(super) const HASH: usize = if cfg!(debug_assertions) { 8 * 1024 } else { 2 * 1024 };
/// Deeper than the ciphers and signatures reach: 4.6 KiB, and 16.5 KiB without optimisation.
pub(super) const CIPHER: usize = if cfg!(debug_assertions) { 20 * 1024 } else { 6 * 1024 };

/// Does `work`, then wipes the stack below, as deep as `DEPTH` bytes.
pub(super) fn wiped<const DEPTH: usize, T>(work: impl FnOnce() -> T) -> T {
    let done = below(work);
    #[cfg(test)]
    if tests::is_left() {
        return done;
    }
    wipe::<DEPTH>();
    done
}

/// In a frame of its own, below the caller's: where `wipe` will write.
#[inline(never)]
fn below<T>(work: impl FnOnce() -> T) -> T {
    work()
}

#[inline(never)]
fn wipe<const DEPTH: usize>() {
    // Whoever might look at it through `black_box` must find zeros, so they are written.
    black_box(&mut [0_u8; DEPTH]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::aead;
    use crate::crypto::entropy::SeededEntropy;
    use crate::crypto::hunt::Hunter;
    use crate::crypto::key::Key;
    use crate::crypto::keyring::Keyring;
    use crate::crypto::root::RootKey;
    use crate::crypto::signer::Signer;
    use crate::domain::time::Timestamp;
    use std::cell::Cell;
    use std::fs::File;
    use std::hint::spin_loop;
    use std::os::unix::fs::FileExt;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    const LOOKED_AT: usize = 64 * 1024;

    /// The stack below the frame that did `work`, the highest address last, as it was when a fresh thread had done it.
    fn stack_after(work: impl FnOnce() + Send) -> Vec<u8> {
        // No channels: sending and waiting would write over what is looked for.
        let (frame, looked) = (AtomicUsize::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let here = 0_u8;
                blank();
                work();
                frame.store(&raw const here as usize, Ordering::SeqCst);
                while !looked.load(Ordering::SeqCst) {
                    spin_loop();
                }
            });
            while frame.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            let mut below = vec![0; LOOKED_AT];
            let from = frame.load(Ordering::SeqCst) - LOOKED_AT;
            let memory = File::open("/proc/self/mem").unwrap();
            memory.read_exact_at(&mut below, from as u64).unwrap();
            looked.store(true, Ordering::SeqCst);
            below
        })
    }

    /// A thread may be given the used stack of one that ended.
    #[inline(never)]
    fn blank() {
        black_box(&mut [0_u8; LOOKED_AT + 4_096]);
    }

    thread_local! {
        static LEFT: Cell<bool> = const { Cell::new(false) };
    }

    /// Whether this thread leaves its stack as it is: the fault that the tests below are for.
    pub(super) fn is_left() -> bool {
        LEFT.get()
    }

    fn left_by(work: impl FnOnce() + Send) -> Vec<u8> {
        stack_after(|| {
            LEFT.set(true);
            work();
        })
    }

    #[test]
    fn no_use_of_a_key_reaches_deeper_than_is_wiped() {
        let entropy = SeededEntropy::new(1);
        let (key, signer) = (Key::generate(&entropy), Signer::generate(&entropy));
        let part = [1; 4_096];
        let sealed = aead::seal(&key, b"aad", b"", &[&part], 4_096, &entropy).unwrap();
        let uses: [(&str, usize, &(dyn Fn() + Sync)); 4] = [
            ("derive", HASH, &|| drop(key.derive("label"))),
            ("tag", HASH, &|| _ = key.tag(&[&part, b"part"])),
            ("open", CIPHER, &|| _ = aead::open(&key, b"aad", &sealed)),
            ("sign", CIPHER, &|| _ = signer.sign(&part)),
        ];
        for (what, wiped, each) in uses {
            let depth = LOOKED_AT - left_by(each).iter().position(|byte| *byte != 0).unwrap();
            println!("{what} reaches {depth} bytes deep");
            assert!(depth < wiped, "{what} reaches {depth} bytes deep");
        }
    }

    #[test]
    fn a_key_in_a_dead_frame_is_gone_when_it_is_wiped_and_there_when_not() {
        let entropy = SeededEntropy::new(1);
        let root = RootKey::generate(&entropy);
        let keyring = Keyring::create(&root, Timestamp(0), &entropy);
        let hunter = Hunter::new(&root, &keyring).unwrap();
        let copied = || {
            wiped::<HASH, _>(|| {
                let mut frame = [0; 1_024];
                frame[..32].copy_from_slice(keyring.active().mac_key().expose());
                black_box(&mut frame);
            });
        };
        assert_eq!(hunter.find(&left_by(copied)).len(), 1);
        assert_eq!(hunter.find(&stack_after(copied)).len(), 0);
    }
}
