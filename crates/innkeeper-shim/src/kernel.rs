//! The system calls for which the standard library has no function: installing a system call filter, reading those of
//! another process, setting the host name, starting a process in a cgroup, and entering a namespace (`seccomp(2)`,
//! `ptrace(2)`, `sethostname(2)`, `clone3(2)`, `setns(2)`).
//!
//! The only file of the workspace with `unsafe`. The program has no dependencies, and no safe library installs a given filter
//! without setting `no_new_privs`.

#![expect(
    unsafe_code,
    reason = "prctl and ptrace, which no safe library offers for filters; clone3, sethostname and setns, without a dependency"
)]

use std::ffi::{OsStr, c_char, c_int, c_long, c_ulong, c_void};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::ptr;

/// The maximum length of a filter (`BPF_MAXINSNS`).
pub(crate) const MAX_INSTRUCTIONS: usize = 4096;

/// A filter: instructions of BPF in the kernel's layout (`struct sock_filter`).
pub(crate) type Filter = Vec<u64>;

// `linux/prctl.h`, `linux/seccomp.h` and `linux/ptrace.h`: the same on every architecture.
const PR_SET_SECCOMP: c_int = 22;
const SECCOMP_MODE_FILTER: c_ulong = 2;
const PTRACE_DETACH: c_int = 17;
const PTRACE_SEIZE: c_int = 0x4206;
const PTRACE_INTERRUPT: c_int = 0x4207;
const PTRACE_SECCOMP_GET_FILTER: c_int = 0x420c;
const PTRACE_SECCOMP_GET_METADATA: c_int = 0x420d;

// `asm-generic/unistd.h`, `linux/sched.h` and `asm-generic/signal.h`: the same on the architectures that Rust supports.
const SYS_CLONE3: c_long = 435;
const CLONE_PARENT: u64 = 1 << 15;
const CLONE_INTO_CGROUP: u64 = 1 << 33;
const SIGCHLD: u64 = 17;

unsafe extern "C" {
    fn prctl(option: c_int, ...) -> c_int;
    fn ptrace(request: c_int, ...) -> c_long;
    fn sethostname(name: *const c_char, length: usize) -> c_int;
    fn syscall(number: c_long, ...) -> c_long;
    fn fork() -> c_int;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn setns(file: c_int, kind: c_int) -> c_int;
}

/// `struct sock_fprog`.
#[repr(C)]
struct Program {
    length: u16,
    instructions: *const u64,
}

/// `struct seccomp_metadata`.
#[repr(C)]
struct Metadata {
    index: u64,
    flags: u64,
}

/// `struct clone_args`, as far as Linux 5.7 has it.
#[repr(C)]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// The result of a fork.
pub(crate) enum Forked {
    /// This process is the new one.
    Child,
    /// This process is the parent.
    Parent(Child),
}

/// A process that this one has forked.
pub(crate) struct Child(c_int);

impl Child {
    /// Waits until the process has ended.
    pub(crate) fn wait(self) -> io::Result<ExitStatus> {
        let mut status = 0;
        loop {
            // SAFETY: the kernel writes one `int`.
            let result = unsafe { waitpid(self.0, &raw mut status, 0) };
            match check(result.into()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map(|_| ExitStatus::from_raw(status)),
            }
        }
    }
}

/// The parent of a forked process.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parent {
    /// The process that forks.
    This,
    /// Its own parent, which has to wait for both then.
    Own,
}

/// Forks this process, which must have one thread. The child starts in `cgroup`, the directory of a cgroup of version 2.
///
/// Fails with ENOSYS before Linux 5.7, and in containers that forbid `clone3(2)`.
pub(crate) fn fork_into(cgroup: &File, parent: Parent) -> io::Result<Forked> {
    let (flags, exit_signal) = match parent {
        Parent::This => (CLONE_INTO_CGROUP, SIGCHLD),
        // It sends the same signal as this process.
        Parent::Own => (CLONE_INTO_CGROUP | CLONE_PARENT, 0),
    };
    let arguments = CloneArguments {
        flags,
        exit_signal,
        cgroup: u64::try_from(cgroup.as_raw_fd()).map_err(io::Error::other)?,
        ..CloneArguments::default()
    };
    // SAFETY: without CLONE_VM, this is a fork: the child has its own copy of the memory, and of the only thread. The kernel
    // reads the arguments.
    forked(unsafe {
        syscall(
            SYS_CLONE3,
            &raw const arguments,
            size_of::<CloneArguments>(),
        )
    })
}

/// Forks this process, which must have one thread.
pub(crate) fn fork_here() -> io::Result<Forked> {
    // SAFETY: the child has its own copy of the memory, and of the only thread.
    forked(unsafe { fork() }.into())
}

fn forked(result: c_long) -> io::Result<Forked> {
    Ok(match check(result)? {
        0 => Forked::Child,
        pid => Forked::Parent(Child(c_int::try_from(pid).map_err(io::Error::other)?)),
    })
}

/// Moves this process, which must have one thread, to a namespace of any kind.
pub(crate) fn enter_namespace(namespace: &File) -> io::Result<()> {
    // SAFETY: the kernel reads the number of an open file. No memory is shared with other threads.
    let result = unsafe { setns(namespace.as_raw_fd(), 0) };
    check(result.into()).map(drop)
}

/// Adds a filter to those of this thread, without flags, as nspawn does. Requires CAP_SYS_ADMIN in the user namespace or
/// `no_new_privs`, which is not set here.
pub(crate) fn install(filter: &[u64]) -> io::Result<()> {
    let length = match u16::try_from(filter.len()) {
        Ok(length) if filter.len() <= MAX_INSTRUCTIONS => length,
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    };
    let program = Program {
        length,
        instructions: filter.as_ptr(),
    };
    let (none, pointer): (c_ulong, _) = (0, &raw const program);
    // SAFETY: the kernel reads `length` instructions, each of 8 bytes, and keeps no pointer.
    let result = unsafe { prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, pointer, none, none) };
    check(result.into()).map(drop)
}

/// Sets the host name of this process's UTS namespace. Requires CAP_SYS_ADMIN in the user namespace that owns it.
pub(crate) fn set_host_name(name: &OsStr) -> io::Result<()> {
    let bytes = name.as_bytes();
    // SAFETY: the kernel reads `bytes.len()` bytes, and keeps no pointer.
    let result = unsafe { sethostname(bytes.as_ptr().cast(), bytes.len()) };
    check(result.into()).map(drop)
}

/// Starts to trace a process, which goes on running. It is detached when this process ends.
pub(crate) fn seize(pid: u32) -> io::Result<()> {
    request(PTRACE_SEIZE, pid, 0, ptr::null_mut()).map(drop)
}

/// Stops a traced process. Returns before it has stopped: until then, the other requests fail with ESRCH.
pub(crate) fn interrupt(pid: u32) -> io::Result<()> {
    request(PTRACE_INTERRUPT, pid, 0, ptr::null_mut()).map(drop)
}

/// Lets a stopped process continue without being traced.
pub(crate) fn detach(pid: u32) -> io::Result<()> {
    request(PTRACE_DETACH, pid, 0, ptr::null_mut()).map(drop)
}

/// Returns a filter of a stopped process, the oldest first; `None` beyond the newest one.
///
/// Requires CAP_SYS_ADMIN of the host, and fails with EACCES if this process has a filter itself.
pub(crate) fn filter(pid: u32, index: usize) -> io::Result<Option<Filter>> {
    let length = match request(PTRACE_SECCOMP_GET_FILTER, pid, index, ptr::null_mut()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        length => usize::try_from(length?).map_err(io::Error::other)?,
    };
    if length > MAX_INSTRUCTIONS {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // A stopped process changes no filter, so the second length is the same. The space suffices in any case.
    let mut filter = vec![0; MAX_INSTRUCTIONS];
    let space = filter.as_mut_ptr().cast();
    let read = request(PTRACE_SECCOMP_GET_FILTER, pid, index, space)?;
    filter.truncate(usize::try_from(read).map_err(io::Error::other)?);
    Ok(Some(filter))
}

/// Returns the flags with which a filter of a stopped process was installed, as far as the kernel shows them.
pub(crate) fn flags(pid: u32, index: usize) -> io::Result<u64> {
    let mut metadata = Metadata {
        index: index as u64,
        flags: 0,
    };
    let space = (&raw mut metadata).cast();
    request(
        PTRACE_SECCOMP_GET_METADATA,
        pid,
        size_of::<Metadata>(),
        space,
    )?;
    Ok(metadata.flags)
}

/// `data` is null, or has space for the answer to `kind`.
fn request(kind: c_int, pid: u32, address: usize, data: *mut c_void) -> io::Result<c_long> {
    // SAFETY: the kernel writes at most MAX_INSTRUCTIONS instructions or one `Metadata` to `data`, which has that space. The
    // process is another one, so its memory is not this one's.
    check(unsafe {
        ptrace(
            kind,
            pid,
            ptr::without_provenance_mut::<c_void>(address),
            data,
        )
    })
}

fn check(result: c_long) -> io::Result<c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
