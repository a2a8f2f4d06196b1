//! What this process keeps from its neighbours. INVARIANT: no key and no personal data is in memory before `harden` ran: no
//! core is written, nobody of the same user can attach a debugger, and pages may be locked as far as the machine allows.

use std::time::Duration;

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, dumpable_behavior, getrlimit, set_dumpable_behavior, setrlimit,
};

/// For every command: each may hold keys or personal data.
///
/// SECURITY: a limit of 0 does not stop cores that the kernel pipes to a program (`core_pattern` with `|`); that the process
/// is not dumpable stops those as well.
pub(super) fn harden() {
    // Errors: the kernel refuses neither to a process of its own; whether it did shows in the status.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    raise(Resource::Memlock);
}

/// Takes of a resource as much as the machine allows; answers whether it did.
pub(super) fn raise(resource: Resource) -> bool {
    let allowed = getrlimit(resource).maximum;
    setrlimit(resource, Rlimit { current: allowed, maximum: allowed }).is_ok()
}

pub(super) fn leaves_no_core() -> bool {
    let none = getrlimit(Resource::Core).maximum == Some(0);
    none && dumpable_behavior().is_ok_and(|behavior| behavior == DumpableBehavior::NotDumpable)
}

/// Whether this process has one thread. One that was joined is a moment longer among the kernel's.
pub(super) fn is_alone() -> bool {
    let alone = || std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1);
    (0..100).any(|_| {
        alone() || {
            std::thread::sleep(Duration::from_millis(2));
            false
        }
    })
}
