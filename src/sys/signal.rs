//! Signal sets, masks and dispositions, and waiting for a signal instead of handling it.
//!
//! No handler is ever installed: a blocked signal stays pending until somebody waits for it, so no
//! code of ours runs in the middle of other code.

use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::ptr;

/// A set of signals.
#[derive(Clone, Copy)]
pub struct Set(libc::sigset_t);

impl Set {
    /// No signal.
    pub fn empty() -> Set {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigemptyset initialises the whole set and cannot fail for a valid pointer.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            Set(set.assume_init())
        }
    }

    /// Every signal that a program may block.
    pub fn full() -> Set {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigfillset initialises the whole set and cannot fail for a valid pointer.
        unsafe {
            libc::sigfillset(set.as_mut_ptr());
            Set(set.assume_init())
        }
    }

    /// This set and one more. A number that is no signal, or that libc keeps for itself, changes nothing.
    #[must_use]
    pub fn with(mut self, signal: libc::c_int) -> Set {
        // SAFETY: the set is initialised; a number out of range is refused with EINVAL.
        unsafe { libc::sigaddset(&raw mut self.0, signal) };
        self
    }

    /// Whether the signal is in the set.
    pub fn contains(&self, signal: libc::c_int) -> bool {
        // SAFETY: the set is initialised; a number out of range is answered with -1.
        unsafe { libc::sigismember(&raw const self.0, signal) == 1 }
    }
}

impl fmt::Debug for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries((1..=64).filter(|&signal| self.contains(signal)))
            .finish()
    }
}

/// Blocks these signals in the calling thread. Returns the mask that was in force.
pub fn block(set: &Set) -> Set {
    change_mask(libc::SIG_BLOCK, Some(set))
}

/// Unblocks these signals in the calling thread.
pub fn unblock(set: &Set) {
    change_mask(libc::SIG_UNBLOCK, Some(set));
}

/// Makes this the calling thread's mask. Async-signal-safe.
pub fn set_mask(set: &Set) {
    change_mask(libc::SIG_SETMASK, Some(set));
}

fn change_mask(how: libc::c_int, set: Option<&Set>) -> Set {
    let mut before = Set::empty();
    let new = set.map_or(ptr::null(), |set| &raw const set.0);
    // SAFETY: both sets are initialised and outlive the call, which copies them. It can only fail
    // for a wrong `how`, and all of ours are right.
    unsafe { libc::pthread_sigmask(how, new, &raw mut before.0) };
    before
}

/// Whether the process ignores this signal. Async-signal-safe.
pub fn is_ignored(signal: libc::c_int) -> bool {
    let mut now = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: a null new action only asks; zeroed is a valid `sigaction` (default, no flags), so
    // it may be read even if the call refused the number.
    unsafe {
        libc::sigaction(signal, ptr::null(), now.as_mut_ptr());
        now.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

/// Ignores a signal, or gives it its default action. Async-signal-safe.
pub fn set_ignored(signal: libc::c_int, ignored: bool) {
    // SAFETY: zeroed is a valid `sigaction`; no handler is installed, so no code of ours can run
    // in a signal's context. Numbers that cannot be changed are refused with EINVAL.
    unsafe {
        let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
        action.sa_sigaction = if ignored {
            libc::SIG_IGN
        } else {
            libc::SIG_DFL
        };
        libc::sigaction(signal, &raw const action, ptr::null_mut());
    }
}

/// Gives every signal that has a handler its default action, as execve would. Async-signal-safe.
pub fn reset_handlers() {
    for signal in 1..=64 {
        let mut now = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: as in `is_ignored`.
        let action = unsafe {
            libc::sigaction(signal, ptr::null(), now.as_mut_ptr());
            now.assume_init().sa_sigaction
        };
        if action != libc::SIG_DFL && action != libc::SIG_IGN {
            set_ignored(signal, false);
        }
    }
}

/// A signal that was waited for.
#[derive(Clone, Copy)]
pub struct Arrival {
    info: libc::siginfo_t,
}

impl Arrival {
    /// Its number.
    pub fn signal(&self) -> libc::c_int {
        self.info.si_signo
    }

    /// Whether the kernel itself sent it (a terminal, a timer, a limit), not a process.
    pub fn is_from_kernel(&self) -> bool {
        self.info.si_code > 0
    }

    /// The process that sent it, where the kernel says so.
    pub fn sender(&self) -> Option<libc::pid_t> {
        match self.info.si_code {
            libc::SI_USER | libc::SI_QUEUE | libc::SI_TKILL | libc::SI_MESGQ => {
                // SAFETY: for these codes the kernel fills in si_pid (sigaction(2)).
                Some(unsafe { self.info.si_pid() })
            }
            _ => None,
        }
    }

    /// Sends the same signal to a process, with the value that came with it (sigqueue(3)) if any.
    pub fn pass_to(&self, process: libc::pid_t) -> io::Result<()> {
        if self.info.si_code == libc::SI_QUEUE {
            // SAFETY: `info` is a siginfo that the kernel filled in; the call only reads it.
            let done = unsafe {
                libc::syscall(
                    libc::SYS_rt_sigqueueinfo,
                    process,
                    self.info.si_signo,
                    &raw const self.info,
                )
            };
            return if done == 0 {
                Ok(())
            } else {
                Err(io::Error::last_os_error())
            };
        }
        super::process::kill(process, self.info.si_signo)
    }
}

impl fmt::Debug for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arrival")
            .field("signal", &self.info.si_signo)
            .field("code", &self.info.si_code)
            .field("sender", &self.sender())
            .finish()
    }
}

/// Waits until one of these signals is pending and takes it. They must be blocked in every thread.
pub fn wait(set: &Set) -> io::Result<Arrival> {
    loop {
        let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
        // SAFETY: both pointers are valid; zeroed is a valid siginfo, so it may be read in any case.
        let (taken, info) = unsafe {
            let taken = libc::sigwaitinfo(&raw const set.0, info.as_mut_ptr());
            (taken, info.assume_init())
        };
        if taken > 0 {
            return Ok(Arrival { info });
        }
        let err = io::Error::last_os_error();
        // Being stopped and continued ends the wait with EINTR (signal(7)).
        if err.kind() != io::ErrorKind::Interrupted {
            return Err(err);
        }
    }
}

/// Takes a pending signal of the set, if there is one.
pub fn take_pending(set: &Set) -> bool {
    let now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointers are valid and a null info is allowed (sigwaitinfo(2)).
    unsafe { libc::sigtimedwait(&raw const set.0, ptr::null_mut(), &raw const now) > 0 }
}

/// Sends a signal to the calling thread.
pub fn raise(signal: libc::c_int) {
    // SAFETY: no pointers; what a signal may do to us is decided by its disposition, and we
    // install no handlers.
    unsafe { libc::raise(signal) };
}
