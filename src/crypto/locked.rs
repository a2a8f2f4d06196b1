//! Memory for keys that live long: 32-byte slots in pages that no core dump and no swap device sees. INVARIANT: a slot has one
//! owner and is wiped before it has another; what a slot holds lies in memory of the kind that `weakest` tells.
//!
//! Three kinds, the first that works: `memfd_secret` (Linux 5.14; the kernel takes the pages out of its own map, so that not
//! even root's debugger reads them), pages that are locked and left out of dumps (root's debugger reads them, a core does not
//! hold them), and, where the limit of locked memory allows neither, the ordinary heap, which the status warns of. Pages stay
//! mapped until the process ends, between two that fault when touched; a forked child has none of them.
//!
//! SECURITY: this is the one module with unsafe code (`tests/layers.rs`).

#![expect(unsafe_code, reason = "mapped pages are raw memory; each block says why it is sound")]

use std::ffi::c_void;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mlock, mmap, mmap_anonymous, munmap};
use rustix::param::page_size;
use zeroize::Zeroize;

use crate::domain::fault::{Fault, planted};

const SLOT: usize = 32;
/// Pages of one mapping: room for the keys of some seventy epochs, and little against any limit of locked memory.
const PAGES: usize = 4;

/// What keys lie in, the best first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Memory {
    /// `memfd_secret`: read by this process alone.
    Secret = 0,
    /// Locked and left out of core dumps.
    Locked = 1,
    /// The heap: in core dumps, perhaps on a swap device.
    Ordinary = 2,
}

/// The worst kind handed out so far.
static WEAKEST: AtomicU8 = AtomicU8::new(Memory::Secret as u8);
static ARENA: Mutex<Vec<Mapping>> = Mutex::new(Vec::new());

/// What the long-lived keys of this process lie in: the worst that any of them ever had to take.
pub fn weakest() -> Memory {
    match WEAKEST.load(Ordering::Relaxed) {
        0 => Memory::Secret,
        1 => Memory::Locked,
        _ => Memory::Ordinary,
    }
}

fn note(memory: Memory) {
    WEAKEST.fetch_max(memory as u8, Ordering::Relaxed);
}

/// 32 bytes of protected memory, zeros at first; wiped when dropped.
pub(super) struct Slot {
    place: NonNull<[u8; SLOT]>,
    mapping: usize,
    number: usize,
}

// SAFETY: a slot is the only handle to its place, like a `Box<[u8; 32]>`, and its mapping is never undone.
unsafe impl Send for Slot {}
// SAFETY: through a shared slot its bytes are only read.
unsafe impl Sync for Slot {}

impl Slot {
    /// `None`, and noted, where this process may have no such memory.
    pub(super) fn take() -> Option<Self> {
        if planted(Fault::KeysUnlocked) || planted(Fault::RootKept) {
            note(Memory::Ordinary);
            return None;
        }
        let mut arena = ARENA.lock().unwrap_or_else(PoisonError::into_inner);
        let mapping = arena.iter().position(|mapping| !mapping.free.is_empty()).or_else(|| {
            arena.push(Mapping::new().ok()?);
            arena.len().checked_sub(1)
        });
        let slot = mapping.and_then(|at| arena.get_mut(at)?.take(at));
        note(slot.as_ref().map_or(Memory::Ordinary, |(_, memory)| *memory));
        slot.map(|(slot, _)| slot)
    }

    pub(super) fn bytes(&self) -> &[u8; SLOT] {
        // SAFETY: the place is mapped, readable, initialised (the kernel gives zeros) and aligned (to one byte), until the
        // process ends; no other slot has it, and nobody writes while `self` is borrowed.
        unsafe { self.place.as_ref() }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8; SLOT] {
        // SAFETY: as above, and `self` is borrowed by nobody else.
        unsafe { self.place.as_mut() }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.bytes_mut().zeroize();
        let mut arena = ARENA.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mapping) = arena.get_mut(self.mapping) {
            mapping.free.push(self.number);
        }
    }
}

/// Pages of one kind, between two that nobody may touch.
struct Mapping {
    memory: Memory,
    first: NonNull<[u8; SLOT]>,
    free: Vec<usize>,
}

// SAFETY: the pointer is only an address; whoever reads or writes behind it holds a slot.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new() -> io::Result<Self> {
        Self::secret().or_else(|_| Self::locked())
    }

    fn secret() -> io::Result<Self> {
        if planted(Fault::NoSecretMemory) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let file = memfd_secret()?;
        rustix::fs::ftruncate(&file, body() as u64)?;
        Self::within(Memory::Secret, |at| {
            let flags = MapFlags::SHARED | MapFlags::FIXED;
            // SAFETY: replaces pages that `within` has just reserved and nobody else knows.
            unsafe { mmap(at, body(), ProtFlags::READ | ProtFlags::WRITE, flags, &file, 0) }?;
            // SAFETY: the pages are ours and stay mapped here; only a forked child has them not.
            unsafe { madvise(at, body(), Advice::LinuxDontFork) }
        })
    }

    fn locked() -> io::Result<Self> {
        Self::within(Memory::Locked, |at| {
            let flags = MapFlags::PRIVATE | MapFlags::FIXED;
            // SAFETY: replaces pages that `within` has just reserved and nobody else knows.
            unsafe { mmap_anonymous(at, body(), ProtFlags::READ | ProtFlags::WRITE, flags) }?;
            // SAFETY: the pages are ours and mapped; none of the three changes what they hold here.
            unsafe {
                mlock(at, body())?;
                madvise(at, body(), Advice::LinuxDontDump)?;
                madvise(at, body(), Advice::LinuxDontFork)
            }
        })
    }

    /// Reserves the pages with one more before and behind, and makes those between usable by `fill`.
    fn within(memory: Memory, fill: impl FnOnce(*mut c_void) -> rustix::io::Result<()>) -> io::Result<Self> {
        let whole = body() + 2 * page_size();
        // SAFETY: the kernel chooses the address, so nothing that is mapped is touched.
        let reserved = unsafe { mmap_anonymous(ptr::null_mut(), whole, ProtFlags::empty(), MapFlags::PRIVATE) }?;
        let first = reserved.wrapping_byte_add(page_size());
        let filled = fill(first).map_err(io::Error::from);
        let usable = filled.and_then(|()| NonNull::new(first.cast()).ok_or(io::ErrorKind::OutOfMemory.into()));
        match usable {
            Ok(first) => Ok(Self { memory, first, free: (0..body() / SLOT).rev().collect() }),
            Err(error) => {
                // SAFETY: all of it was mapped here, and no slot of it was handed out.
                let _ = unsafe { munmap(reserved, whole) };
                Err(error)
            }
        }
    }

    /// `at`: where this mapping stands in the arena.
    fn take(&mut self, at: usize) -> Option<(Slot, Memory)> {
        let number = self.free.pop()?;
        // SAFETY: `free` held numbers below the count of slots, so the place lies within the mapped pages.
        let place = unsafe { self.first.add(number) };
        Some((Slot { place, mapping: at, number }, self.memory))
    }
}

fn body() -> usize {
    PAGES * page_size()
}

/// memfd_secret(2), closed on exec; no crate wraps it yet.
fn memfd_secret() -> io::Result<OwnedFd> {
    // SAFETY: the call takes flags and touches no memory of ours.
    let answer = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    match i32::try_from(answer) {
        // SAFETY: the kernel has just made this descriptor for us alone.
        Ok(descriptor) if descriptor >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// The line of /proc/self/smaps that tells of the mapping which holds `address`, its flags with it.
    fn mapped(address: usize) -> String {
        let text = fs::read_to_string("/proc/self/smaps").unwrap();
        let mut blocks = text.split_inclusive('\n').fold(Vec::<String>::new(), |mut blocks, line| {
            match line.split_once('-').map(|(start, _)| u64::from_str_radix(start, 16)) {
                Some(Ok(_)) => blocks.push(line.to_owned()),
                _ => blocks.last_mut().unwrap().push_str(line),
            }
            blocks
        });
        blocks.retain(|block| {
            let (start, rest) = block.split_once('-').unwrap();
            let end = rest.split(' ').next().unwrap();
            let [start, end] = [start, end].map(|digits| usize::from_str_radix(digits, 16).unwrap());
            (start..end).contains(&address)
        });
        blocks.concat()
    }

    fn slot_of(mapping: io::Result<Mapping>) -> (Mapping, usize) {
        let mapping = mapping.unwrap();
        let address = mapping.first.as_ptr() as usize;
        (mapping, address)
    }

    #[test]
    fn what_is_written_is_read_and_a_freed_slot_comes_back_as_zeros() {
        let mut slots: Vec<_> = (0..1_000).map(|_| Slot::take().unwrap()).collect();
        for (n, slot) in slots.iter_mut().enumerate() {
            slot.bytes_mut()[..8].copy_from_slice(&n.to_be_bytes());
        }
        for (n, slot) in slots.iter().enumerate() {
            assert_eq!(slot.bytes()[..8], n.to_be_bytes());
        }
        drop(slots);
        let again: Vec<_> = (0..1_000).map(|_| Slot::take().unwrap()).collect();
        assert!(again.iter().all(|slot| *slot.bytes() == [0; SLOT]));
    }

    #[test]
    fn slots_are_taken_and_dropped_by_many_threads_without_meeting() {
        let turn = |n: u8| {
            for _ in 0..2_000 {
                let mut slot = Slot::take().unwrap();
                assert_eq!(*slot.bytes(), [0; SLOT]);
                slot.bytes_mut().fill(n);
                std::thread::yield_now();
                assert_eq!(*slot.bytes(), [n; SLOT]);
            }
        };
        std::thread::scope(|scope| (1..=4).for_each(|n| drop(scope.spawn(move || turn(n)))));
    }

    #[test]
    fn locked_pages_are_locked_and_left_out_of_dumps_and_children() {
        let (_mapping, at) = slot_of(Mapping::locked());
        let told = mapped(at);
        let flags = told.lines().find(|line| line.starts_with("VmFlags")).unwrap();
        for flag in [" lo", " dd", " dc"] {
            assert!(flags.contains(flag), "{flag} is not in {flags}");
        }
    }

    #[test]
    fn secret_pages_cannot_be_read_from_outside_the_program() {
        use std::os::unix::fs::FileExt;
        let mapping = match Mapping::secret() {
            Ok(mapping) => mapping,
            Err(error) => return println!("skipped: no memfd_secret here: {error}"),
        };
        let (_mapping, at) = slot_of(Ok(mapping));
        assert!(mapped(at).contains("secretmem"));
        let memory = fs::File::open("/proc/self/mem").unwrap();
        let mut bytes = [0; SLOT];
        assert!(memory.read_exact_at(&mut bytes, at as u64).is_err());
        let (_mapping, at) = slot_of(Mapping::locked());
        memory.read_exact_at(&mut bytes, at as u64).unwrap();
    }

    #[test]
    fn the_pages_before_and_behind_are_nobodys() {
        for mapping in [Mapping::locked(), Mapping::new()] {
            let (_mapping, at) = slot_of(mapping);
            for guard in [at - 1, at + body()] {
                assert!(mapped(guard).lines().next().unwrap().contains(" ---p "), "{}", mapped(guard));
            }
        }
    }
}
