//! Starting a process without copying this one. Owns all `unsafe` code of this crate.
//!
//! A fork copies the page tables of a process that maps gigabytes of store; `clone(CLONE_VM | CLONE_VFORK)` borrows the
//! address space until the new program is loaded, which is what `posix_spawn` does. `posix_spawn` itself cannot set the
//! parent-death signal, without which a killed agent would leave its processes running. Hot path: once a program.
//!
//! The parent-death signal is sent when the *thread* that started the process ends: a `Spawner` belongs to a thread that
//! lives as long as its processes may.

use crate::forks::Forks;
use crate::orphans;
use libc::{c_char, c_int, c_void};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};
use std::ffi::{CStr, CString};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The descriptors at which a new process finds `Plan::extra`.
pub(crate) const EXTRA_FDS: [c_int; EXTRA] = [3, 4];
/// How many descriptors besides the standard ones a process can be given.
const EXTRA: usize = 2;
/// Enough for a dozen system calls.
const STACK: usize = 64 << 10;

/// What is to be started.
pub(crate) struct Plan<'a> {
    /// Path of the executable.
    pub path: &'a CStr,
    pub argv: &'a [CString],
    pub envp: &'a [&'a CStr],
    pub cwd: Option<&'a CStr>,
    pub stdin: BorrowedFd<'a>,
    pub stdout: BorrowedFd<'a>,
    pub stderr: BorrowedFd<'a>,
    /// Handed over as descriptors [`EXTRA_FDS`], in order; every other one is closed.
    pub extra: &'a [BorrowedFd<'a>],
    /// The only processors that it may run on; empty: as this process.
    pub processors: &'a [u32],
    /// It leads a session of its own, and with it a scheduling group of its own: processes that spin for one another must not share the
    /// share of one.
    pub session: bool,
}

/// Why nothing was started.
#[derive(Debug)]
pub(crate) enum SpawnError {
    /// The kernel gives no more processes or descriptors.
    System(io::Error),
    /// The working folder cannot be entered.
    Folder(io::Error),
    /// The executable cannot be loaded.
    Executable(io::Error),
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Code(i32),
    Signal(i32),
}

/// A running child. Its number stays its own until `wait` has returned.
#[derive(Debug)]
pub(crate) struct Process {
    pub pid: Pid,
    /// Readable once the process has ended.
    pub pidfd: OwnedFd,
    /// Whose child it is, where it is not this process's.
    pub keeper: Option<Forks>,
}

impl Process {
    /// Waits for the end; the process's number stays its own.
    pub(crate) fn wait_unreaped(&self) -> io::Result<()> {
        self.wait_with(WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
            .map(|_| ())
    }

    /// Waits for the end and takes note of it.
    pub(crate) fn wait(&self) -> io::Result<End> {
        let end = self.wait_with(WaitIdOptions::EXITED)?;
        orphans::death(self.pid.as_raw_nonzero().get());
        Ok(end)
    }

    /// As `wait`, for a process that has ended, whosever child it is; `None`: nobody can tell.
    pub(crate) async fn end(&self) -> Option<End> {
        match &self.keeper {
            Some(keeper) => keeper.reap(self.pid).await,
            None => self.wait().ok(),
        }
    }

    /// The end as something that a runtime can wait for.
    ///
    /// # Errors
    /// No descriptor is left.
    #[allow(unsafe_code)]
    pub(crate) fn watch(&self) -> io::Result<AsyncFd<OwnedFd>> {
        let pidfd = self.pidfd.try_clone()?;
        // SAFETY: an `OwnedFd` is open and the same for as long as it lives, and `AsyncFd` owns it.
        Ok(unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE)? })
    }

    fn wait_with(&self, options: WaitIdOptions) -> io::Result<End> {
        loop {
            match waitid(WaitId::PidFd(self.pidfd.as_fd()), options) {
                Ok(Some(status)) => {
                    let signal = status.terminating_signal().map(End::Signal);
                    return Ok(signal.unwrap_or_else(|| End::Code(status.exit_status().unwrap_or(-1))));
                }
                Ok(None) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Starts processes from the thread that it lives on.
pub(crate) struct Spawner {
    stack: Vec<u128>,
    /// Processes die with this thread, so it must not be handed to another one.
    _thread: std::marker::PhantomData<*const ()>,
}

/// What the child sees; it lies in the parent's memory, which the child borrows.
struct Birth {
    path: *const c_char,
    argv: *const *const c_char,
    envp: *const *const c_char,
    cwd: *const c_char,
    /// Sources of descriptors 0 to 4; -1: none.
    fds: [c_int; 3 + EXTRA],
    /// Processors that it is bound to, if it is.
    bound: Option<libc::cpu_set_t>,
    session: bool,
    parent: c_int,
    /// 1: working folder, 2: executable, 3: anything before.
    step: AtomicI32,
    errno: AtomicI32,
}

impl Spawner {
    pub(crate) fn new() -> Self {
        Self {
            stack: vec![0; STACK / size_of::<u128>()],
            _thread: std::marker::PhantomData,
        }
    }

    /// Starts a process in a group of its own, with default signals and the parent-death signal `SIGKILL`. SIGUSR1 is ignored
    /// until the process asks for it: schedulers send it to everything in a job some time before its end.
    pub(crate) fn spawn(&mut self, plan: &Plan<'_>) -> Result<Process, SpawnError> {
        // A descriptor that has the number of one to be made would be overwritten before it is used.
        let beyond = |fd: &BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, 3 + EXTRA as c_int);
        let extra: Result<Vec<OwnedFd>, _> = plan.extra.iter().take(EXTRA).map(beyond).collect();
        let extra = extra.map_err(|e| SpawnError::System(e.into()))?;
        let source = |at: usize| extra.get(at).map_or(-1, AsRawFd::as_raw_fd);
        let argv = pointers(plan.argv.iter().map(CString::as_c_str));
        let envp = pointers(plan.envp.iter().copied());
        let birth = Birth {
            path: plan.path.as_ptr(),
            argv: argv.as_ptr(),
            envp: envp.as_ptr(),
            cwd: plan.cwd.map_or(std::ptr::null(), CStr::as_ptr),
            fds: [
                plan.stdin.as_raw_fd(),
                plan.stdout.as_raw_fd(),
                plan.stderr.as_raw_fd(),
                source(0),
                source(1),
            ],
            bound: cpu_set(plan.processors),
            session: plan.session,
            parent: c_int::try_from(std::process::id()).unwrap_or(0),
            step: AtomicI32::new(0),
            errno: AtomicI32::new(0),
        };
        let pid = orphans::birth(|| self.clone_with(&birth), |pid| pid.as_raw_nonzero().get());
        let pid = pid.map_err(SpawnError::System)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|e| SpawnError::System(e.into()))?;
        let keeper = None;
        let process = Process { pid, pidfd, keeper };
        let error = || io::Error::from_raw_os_error(birth.errno.load(Ordering::Relaxed));
        let failure = match birth.step.load(Ordering::Relaxed) {
            0 => return Ok(process),
            1 => SpawnError::Folder(error()),
            2 => SpawnError::Executable(error()),
            _ => SpawnError::System(error()),
        };
        let _ = process.wait(); // It ended at once; only its entry in the process table is left.
        Err(failure)
    }

    #[allow(unsafe_code)]
    fn clone_with(&mut self, birth: &Birth) -> io::Result<Pid> {
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        let arg = std::ptr::from_ref(birth).cast_mut().cast::<c_void>();
        // SAFETY: the stack is owned by `self`, 16-byte aligned and grows down from its end; with CLONE_VFORK this thread
        // sleeps until the child has executed or ended, so that `birth` and the stack outlive the child's use of them.
        // All signals are blocked around the call, so that no handler of ours runs in the child on shared memory.
        let pid = unsafe {
            let mut all: libc::sigset_t = std::mem::zeroed();
            let mut old: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut old);
            let top = self.stack.as_mut_ptr_range().end.cast::<c_void>();
            let pid = libc::clone(be_born, top, flags, arg);
            let error = io::Error::last_os_error();
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const old, std::ptr::null_mut());
            if pid < 0 {
                return Err(error);
            }
            pid
        };
        Pid::from_raw(pid).ok_or_else(|| io::Error::other("clone returned no process id"))
    }
}

fn pointers<'a>(strings: impl Iterator<Item = &'a CStr>) -> Vec<*const c_char> {
    strings.map(CStr::as_ptr).chain([std::ptr::null()]).collect()
}

/// `processors` as the kernel takes them; `None` for none. Numbers beyond what the set can hold are left out.
#[allow(unsafe_code)]
fn cpu_set(processors: &[u32]) -> Option<libc::cpu_set_t> {
    if processors.is_empty() {
        return None;
    }
    // SAFETY: a set of all zeros is the empty set, and only bits within it are set.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        let fitting = processors.iter().map(|&p| p as usize);
        for processor in fitting.filter(|&p| p < libc::CPU_SETSIZE as usize) {
            libc::CPU_SET(processor, &mut set);
        }
        Some(set)
    }
}

/// The child, between clone and exec: system calls only, no allocation, no lock, no panic.
#[allow(unsafe_code)]
extern "C" fn be_born(arg: *mut c_void) -> c_int {
    // SAFETY: `arg` is the `Birth` of `clone_with`, alive while the parent's thread sleeps. Every pointer in it was made
    // from a live `CStr` or a null-terminated array of them. Only async-signal-safe functions are called.
    unsafe {
        let birth = &*arg.cast::<Birth>();
        let fail = |step: c_int| -> ! {
            birth.errno.store(*libc::__errno_location(), Ordering::Relaxed);
            birth.step.store(step, Ordering::Relaxed);
            libc::_exit(127)
        };
        let default: libc::sigaction = std::mem::zeroed(); // All zero is SIG_DFL without flags.
        for signal in 1..32 {
            libc::sigaction(signal, &raw const default, std::ptr::null_mut());
        }
        libc::signal(libc::SIGUSR1, libc::SIG_IGN);
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
            fail(3);
        }
        // Both make it the leader of a process group of its own.
        let led = if birth.session {
            libc::setsid()
        } else {
            libc::setpgid(0, 0)
        };
        if led < 0 {
            fail(3);
        }
        if libc::getppid() != birth.parent {
            libc::_exit(127); // The parent died before it could be noticed.
        }
        for (target, source) in (0..).zip(birth.fds) {
            let moved = if source < 0 {
                0
            } else if source == target {
                libc::fcntl(source, libc::F_SETFD, 0)
            } else {
                libc::dup2(source, target)
            };
            if moved < 0 {
                fail(3);
            }
        }
        let mut first = 3;
        while first < birth.fds.len() && birth.fds[first] >= 0 {
            first += 1;
        }
        // Ours are close-on-exec already; this catches what others left in our process. Old kernels lack it.
        libc::syscall(
            libc::SYS_close_range,
            first as libc::c_uint,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        );
        if let Some(set) = &birth.bound {
            if libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), std::ptr::from_ref(set)) != 0 {
                fail(3);
            }
        }
        if !birth.cwd.is_null() && libc::chdir(birth.cwd) != 0 {
            fail(1);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        libc::execve(birth.path, birth.argv, birth.envp);
        fail(2)
    }
}

/// What a scheduler says to all processes of a job shall not end this one.
#[allow(unsafe_code)]
pub(crate) fn ignore_schedulers() {
    for signal in [libc::SIGUSR1, libc::SIGTERM] {
        // SAFETY: ignoring a signal runs no code of ours.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}, {}", signal_name(*signal)),
        }
    }
}

/// The name of a signal.
pub(crate) fn signal_name(signal: i32) -> &'static str {
    match signal {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGUSR1 => "SIGUSR1",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGUSR2 => "SIGUSR2",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGALRM => "SIGALRM",
        libc::SIGTERM => "SIGTERM",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGXFSZ => "SIGXFSZ",
        libc::SIGSYS => "SIGSYS",
        _ => "see `man 7 signal`",
    }
}
