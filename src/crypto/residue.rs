//! Wipes what ciphers and hashes leave on the stack. INVARIANT: when `wiped` returns, the stack below its caller's frame holds
//! zeros as deep as any of our uses of a key reaches.
//!
//! The libraries wipe the state that they own, not the copies that the compiler makes of it (spilled registers, moved values,
//! HMAC's padded key). Those lie in frames that are dead when the call is over, and would stay there while a thread idles.

use std::hint::black_box;

use crate::domain::fault::{Fault, planted};

/// Deeper than opening, the deepest of them, reaches (see the test): without optimisation 17 KiB.
const DEPTH: usize = if cfg!(debug_assertions) { 20 * 1024 } else { 8 * 1024 };

/// Does `work`, then wipes the stack that it used.
pub(super) fn wiped<T>(work: impl FnOnce() -> T) -> T {
    let done = below(work);
    if !planted(Fault::ResidueKept) {
        wipe();
    }
    done
}

/// In a frame of its own, below the caller's: where `wipe` will write.
#[inline(never)]
fn below<T>(work: impl FnOnce() -> T) -> T {
    work()
}

#[inline(never)]
fn wipe() {
    // Whoever might look at it through `black_box` must find zeros, so they are written.
    black_box(&mut [0_u8; DEPTH]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::aead;
    use crate::crypto::entropy::SeededEntropy;
    use crate::crypto::key::Key;
    use crate::crypto::signer::Signer;
    use std::fs::File;
    use std::os::unix::fs::FileExt;
    use std::sync::mpsc::channel;

    const LOOKED_AT: usize = 64 * 1024;
    /// Room for the frames between the one measured from and the one that wipes.
    const FRAMES: usize = 1_024;

    /// The stack below the frame that did `work`, the highest address last, as it was when a fresh thread had done it.
    fn stack_after(work: impl FnOnce() + Send) -> Vec<u8> {
        std::thread::scope(|scope| {
            let (tell, told) = channel();
            let (hold, held) = channel::<()>();
            scope.spawn(move || {
                let frame = 0_u8;
                blank();
                work();
                tell.send(&raw const frame as usize).unwrap();
                let _ = held.recv();
            });
            let mut below = vec![0; LOOKED_AT];
            let frame: usize = told.recv().unwrap();
            File::open("/proc/self/mem").unwrap().read_exact_at(&mut below, (frame - LOOKED_AT) as u64).unwrap();
            drop(hold);
            below
        })
    }

    /// A thread may be given the used stack of one that ended.
    #[inline(never)]
    fn blank() {
        black_box(&mut [0_u8; LOOKED_AT + 4_096]);
    }

    /// How deep the stack was written, by work that wipes it too: to the end of what is wiped, or further.
    fn depth_of(work: impl FnOnce() + Send) -> usize {
        let stack = stack_after(|| below(work));
        LOOKED_AT - stack.iter().position(|byte| *byte != 0).unwrap()
    }

    #[test]
    fn no_use_of_a_key_reaches_deeper_than_is_wiped() {
        let entropy = SeededEntropy::new(1);
        let (key, signer) = (Key::generate(&entropy), Signer::generate(&entropy));
        let part = [1; 4_096];
        let sealed = aead::seal(&key, b"aad", b"", &[&part], 4_096, &entropy).unwrap();
        let depths = [
            ("derive", depth_of(|| drop(key.derive("label")))),
            ("tag", depth_of(|| _ = key.tag(&[&part, b"part"]))),
            ("open", depth_of(|| drop(aead::open(&key, b"aad", &sealed).unwrap()))),
            ("sign", depth_of(|| _ = signer.sign(&part))),
        ];
        println!("{depths:?}");
        for (what, depth) in depths {
            assert!((DEPTH..DEPTH + FRAMES).contains(&depth), "{what} reaches {depth} bytes deep");
        }
    }

    #[test]
    fn what_work_leaves_on_the_stack_is_gone_when_it_is_wiped_and_there_when_not() {
        fn work() {
            black_box(&mut [0xa5_u8; 1_024]);
        }
        let left = |stack: Vec<u8>| stack.windows(16).any(|bytes| bytes == [0xa5; 16]);
        assert!(left(stack_after(|| below(work))));
        assert!(!left(stack_after(|| wiped(work))));
    }
}
