//! The system calls that a server makes once it serves. INVARIANT: a call that is not listed answers as if the kernel did not
//! have it; one that only an intruder makes ends the process.
//!
//! "Does not have it" (ENOSYS) rather than "may not" (EPERM): libraries then take the way of older kernels. So the C library
//! makes threads by `clone`, whose flags can be looked at, and not by `clone3`, whose flags cannot.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter,
};

/// Without arguments being looked at, so that the kernel decides by number alone.
const ALLOWED: &[libc::c_long] = &[
    // Memory.
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_memfd_secret,
    libc::SYS_mlock,
    libc::SYS_mremap,
    libc::SYS_munlock,
    libc::SYS_munmap,
    // Threads, signals, the end.
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
    // Time, chance, who and what we are.
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_gettimeofday,
    libc::SYS_getuid,
    libc::SYS_nanosleep,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    // Files; which ones, Landlock knows.
    libc::SYS_close,
    libc::SYS_copy_file_range,
    libc::SYS_dup,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fallocate,
    libc::SYS_fchmod,
    libc::SYS_fchown,
    libc::SYS_fcntl,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_lseek,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_sendfile,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_umask,
    libc::SYS_unlinkat,
    libc::SYS_write,
    libc::SYS_writev,
    // Sockets; which ports, Landlock knows.
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_listen,
    libc::SYS_pipe2,
    libc::SYS_ppoll,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_socketpair,
];

/// The same by their older names, which newer machines never had.
#[cfg(target_arch = "x86_64")]
const ALLOWED_OLD: &[libc::c_long] = &[
    libc::SYS_access,
    libc::SYS_epoll_wait,
    libc::SYS_getdents,
    libc::SYS_lstat,
    libc::SYS_open,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_stat,
    libc::SYS_time,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_OLD: &[libc::c_long] = &[];

/// Other programs, other processes' memory, the kernel's own doors: no library that we use ever calls these.
const DEADLY: &[libc::c_long] = &[
    libc::SYS_acct,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_delete_module,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_init_module,
    libc::SYS_kcmp,
    libc::SYS_kexec_load,
    libc::SYS_mount,
    libc::SYS_move_mount,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_personality,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_reboot,
    libc::SYS_setns,
    libc::SYS_swapon,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
];

/// Confines this thread and all that it will start. `false`: the kernel, or this build's kind of machine, has no such filter.
pub(super) fn confine() -> Result<bool, Error> {
    let Ok(machine) = TargetArch::try_from(std::env::consts::ARCH) else { return Ok(false) };
    let no_such_call = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let deadly = DEADLY.iter().map(|call| (*call, Vec::new())).collect();
    let deadly = SeccompFilter::new(deadly, SeccompAction::Allow, SeccompAction::KillProcess, machine)?;
    let allowed = SeccompFilter::new(allowed()?, no_such_call, SeccompAction::Allow, machine)?;
    // The kernel goes by the stricter of two filters.
    let programs = [BpfProgram::try_from(deadly)?, BpfProgram::try_from(allowed)?];
    for program in &programs {
        match apply_filter(program) {
            Ok(()) => {}
            Err(Error::Seccomp(error)) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

fn allowed() -> Result<BTreeMap<i64, Vec<SeccompRule>>, Error> {
    let by_number = ALLOWED.iter().chain(ALLOWED_OLD).map(|call| (*call, Vec::new()));
    let mut allowed: BTreeMap<_, _> = by_number.collect();
    // A new thread, no new process.
    allowed.insert(libc::SYS_clone, vec![all([masked(0, libc::CLONE_THREAD, libc::CLONE_THREAD)?])?]);
    // What was written is never run: memory is writable or executable, and stays what it was made as.
    let mmap = [all([masked(2, libc::PROT_WRITE, 0)?])?, all([masked(2, libc::PROT_EXEC, 0)?])?];
    allowed.insert(libc::SYS_mmap, mmap.to_vec());
    allowed.insert(libc::SYS_mprotect, vec![all([masked(2, libc::PROT_EXEC, 0)?])?]);
    // Names of threads, of memory, and a look; never "dumpable again".
    let named = [libc::PR_SET_NAME, libc::PR_GET_NAME, libc::PR_GET_DUMPABLE, libc::PR_SET_VMA];
    allowed.insert(libc::SYS_prctl, each(0, named)?);
    // Our own limits.
    allowed.insert(libc::SYS_prlimit64, each(0, [0])?);
    let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    allowed.insert(libc::SYS_socket, each(0, families)?);
    // Is it a terminal, how wide, how much is there to read, do not block.
    let asked = [libc::TCGETS, libc::TIOCGWINSZ, libc::FIONREAD, libc::FIONBIO];
    let asked = asked.into_iter().map(|request| all([equal(1, request as u32)?]));
    allowed.insert(libc::SYS_ioctl, asked.collect::<Result<_, Error>>()?);
    Ok(allowed)
}

fn all<const N: usize>(conditions: [SeccompCondition; N]) -> Result<SeccompRule, Error> {
    Ok(SeccompRule::new(conditions.to_vec())?)
}

fn each<const N: usize>(argument: u8, values: [i32; N]) -> Result<Vec<SeccompRule>, Error> {
    values.into_iter().map(|value| all([equal(argument, value.cast_unsigned())?])).collect()
}

fn equal(argument: u8, value: u32) -> Result<SeccompCondition, Error> {
    Ok(SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, u64::from(value))?)
}

/// The bits of `mask` in an argument are those of `value`.
fn masked(argument: u8, mask: i32, value: i32) -> Result<SeccompCondition, Error> {
    let bits = |flags: i32| u64::from(flags.cast_unsigned());
    let looked_at = SeccompCmpOp::MaskedEq(bits(mask));
    Ok(SeccompCondition::new(argument, SeccompCmpArgLen::Dword, looked_at, bits(value))?)
}
