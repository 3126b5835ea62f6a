//! Signals on their way to the command, while somebody waits for it.
//!
//! A signal that somebody sends to us is meant for the command and is passed on once. A key on the
//! terminal has reached the command already, since it shares our process group: passing that on
//! would deliver it twice. No handler is installed: the signals are blocked and waited for, so we
//! neither die before the command nor interrupt it. Signals that report a fault of our own code
//! (SIGSEGV and its like) keep their effect.
//!
//! The library by itself never calls this: signals belong to the program. A signal that arrives
//! between `block` and the start of the command waits, and is passed on then.

use std::io;
use std::marker::PhantomData;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Child, Exit, family, suspend};
use crate::sys::process::Change;
use crate::sys::signal::{self, Arrival, Set};

/// The mask from before `block`, for commands that are started while it is in force.
static CALLERS_MASK: Mutex<Option<Set>> = Mutex::new(None);

/// Keeps signals waiting until it is dropped.
#[derive(Debug)]
pub struct Guard {
    before: Set,
    outermost: bool,
    sigchld_ignored: bool,
    /// A mask belongs to the thread that set it.
    not_send: PhantomData<*const ()>,
}

/// Holds back every signal that can be passed on, in this thread and those that it starts from now
/// on: to be called before other threads exist, or they would take the signals.
///
/// A command that is started meanwhile gets the mask from before. SIGCHLD is no longer ignored if
/// our caller had it so: without it nobody could tell how the command ended (wait(2)). Keep the
/// guard until [`super::exit_like`]; dropping it lets what is pending have its effect on us.
#[must_use]
pub fn block() -> Guard {
    let before = signal::block(&watched());
    let sigchld_ignored = signal::is_ignored(libc::SIGCHLD);
    if sigchld_ignored {
        signal::set_ignored(libc::SIGCHLD, false);
    }
    let mut callers = stored_mask();
    let outermost = callers.is_none();
    callers.get_or_insert(before);
    Guard {
        before,
        outermost,
        sigchld_ignored,
        not_send: PhantomData,
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.outermost {
            *stored_mask() = None;
        }
        if self.sigchld_ignored {
            signal::set_ignored(libc::SIGCHLD, true);
        }
        signal::set_mask(&self.before);
    }
}

/// The signal mask that a command gets: the one from before `block`, else this thread's.
pub(super) fn callers_mask() -> Set {
    stored_mask().unwrap_or_else(|| signal::block(&Set::empty()))
}

fn stored_mask() -> MutexGuard<'static, Option<Set>> {
    // The value is replaced in one step, so it is whole whatever happened to another holder.
    CALLERS_MASK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for the command and passes signals on to it meanwhile. When the command is stopped, so are
/// we, so that a shell sees its job stopped and can continue both.
///
/// # Errors
/// As for [`Child::wait`].
pub fn wait_relaying(child: &mut Child) -> io::Result<Exit> {
    let _guard = block();
    let watched = watched();
    loop {
        while let Some(change) = child.next_change()? {
            if let Change::Stopped(signal) = change {
                suspend::with(child, signal)?;
            }
        }
        if let Some(exit) = child.exit {
            return Ok(exit);
        }
        let arrival = signal::wait(&watched)?;
        if arrival.signal() != libc::SIGCHLD && is_for(child, &arrival) {
            // Refused when the command has become another user, as a bare kill(2) would be.
            let _ = arrival.pass_to(child.id());
        }
    }
}

/// Everything that can be passed on, and SIGCHLD.
fn watched() -> Set {
    (1..=libc::SIGRTMAX())
        .filter(|signal| {
            !matches!(
                *signal,
                libc::SIGSEGV
                    | libc::SIGBUS
                    | libc::SIGFPE
                    | libc::SIGILL
                    | libc::SIGABRT
                    | libc::SIGTRAP
                    | libc::SIGSYS
                    | libc::SIGKILL
                    | libc::SIGSTOP
            )
        })
        .fold(Set::empty(), Set::with)
}

fn is_for(child: &Child, arrival: &Arrival) -> bool {
    if arrival.is_from_kernel() {
        return match arrival.signal() {
            // From the terminal, to the whole foreground process group.
            libc::SIGINT
            | libc::SIGQUIT
            | libc::SIGTSTP
            | libc::SIGTTIN
            | libc::SIGTTOU
            | libc::SIGWINCH => false,
            // A terminal that hangs up tells the session's leader and nobody else (tty_ioctl(4),
            // credentials(7)). Any other process gets these with its group, as the command does.
            libc::SIGHUP | libc::SIGCONT => leads_session(),
            // A timer or limit that was set for the program we were executed in place of, such as
            // `alarm 5; exec broker-exec ...`: timers are not inherited by a child (fork(2)).
            _ => true,
        };
    }
    match arrival.sender() {
        // Our own, such as the SIGPIPE that a write(2) of this thread raised.
        Some(sender) if sender == own_id() => false,
        // The command stops or signals its whole process group: it means its own processes.
        Some(sender) => !family::descends(sender, child.id()),
        None => true,
    }
}

fn leads_session() -> bool {
    rustix::process::getsid(None).is_ok_and(|leader| leader == rustix::process::getpid())
}

fn own_id() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_our_own_and_what_cannot_be_caught_are_left_alone() {
        let watched = watched();
        for signal in [
            libc::SIGSEGV,
            libc::SIGABRT,
            libc::SIGSYS,
            libc::SIGKILL,
            libc::SIGSTOP,
        ] {
            assert!(!watched.contains(signal), "{signal}");
        }
        for signal in [
            libc::SIGHUP,
            libc::SIGINT,
            libc::SIGTERM,
            libc::SIGCHLD,
            libc::SIGWINCH,
            libc::SIGRTMIN(),
            libc::SIGRTMAX(),
        ] {
            assert!(watched.contains(signal), "{signal}");
        }
    }

    #[test]
    fn blocking_twice_keeps_the_mask_of_the_caller() {
        let outer = block();
        let inner = block();
        assert!(!callers_mask().contains(libc::SIGTERM));
        drop(inner);
        assert!(!callers_mask().contains(libc::SIGTERM));
        assert!(signal::block(&Set::empty()).contains(libc::SIGTERM));
        drop(outer);
        assert!(!signal::block(&Set::empty()).contains(libc::SIGTERM));
    }
}
