//! Ctrl-Z: when the command stops, we stop the same way, so that the shell sees the job stopped and
//! its `fg` or `bg` reaches both.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, getpgid, getpgrp};
use rustix::termios::{tcgetpgrp, tcsetpgrp};

use super::Child;
use crate::sys::process::Change;
use crate::sys::signal::{self, Set};

/// Stops this process as the command was stopped. Returns when both go on, or at once when the
/// stop is none of ours.
///
/// A stop signal and SIGCONT cancel each other while pending (signal(7), POSIX 2.4.1). So the stop
/// is first sent to ourselves while it is blocked, and a SIGCONT at any moment afterwards keeps us
/// from stopping after the command has gone on, when nobody would continue us.
pub(super) fn with(child: &mut Child, stopped_by: i32) -> io::Result<()> {
    let mut stop = stopped_by;
    let foreground = Foreground::of(child);
    while is_job_control(stop) {
        let only_stop = Set::empty().with(stop);
        let ignored = signal::is_ignored(stop);
        if ignored {
            // The command wanted this signal although its caller did not.
            signal::set_ignored(stop, false);
        }
        let before = signal::block(&only_stop);
        if stop != libc::SIGSTOP {
            signal::raise(stop);
        }
        let gone_on =
            matches!(child.next_change()?, Some(Change::Continued)) || child.exit.is_some();
        if gone_on {
            signal::take_pending(&only_stop);
        } else if stop == libc::SIGSTOP {
            signal::raise(stop);
        } else {
            // Here we stop, unless our process group is orphaned: then the kernel drops the stop,
            // because there is no shell to continue us.
            signal::unblock(&only_stop);
        }
        signal::set_mask(&before);
        if ignored {
            signal::set_ignored(stop, true);
        }
        if gone_on || !signal::take_pending(&Set::empty().with(libc::SIGCONT)) {
            return Ok(());
        }
        if let Some(foreground) = &foreground {
            foreground.give_back();
        }
        // A shell continues the whole process group. Who continued us alone means the command too.
        match child.next_change()? {
            None if child.exit.is_none() => return child.signal(libc::SIGCONT),
            // Stopped again at once, as a background job is that reads the terminal.
            Some(Change::Stopped(again)) => stop = again,
            _ => return Ok(()),
        }
    }
    Ok(())
}

/// Whether a stop by this signal is the job's and not only the command's. SIGSTOP may also be a
/// supervisor's, which stops and continues one process by its id: it counts only on a terminal.
fn is_job_control(signal: i32) -> bool {
    match signal {
        libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU => true,
        libc::SIGSTOP => has_terminal(),
        _ => false,
    }
}

/// Whether there is a controlling terminal.
fn has_terminal() -> bool {
    terminal().is_some()
}

/// The controlling terminal (tty(4)).
fn terminal() -> Option<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    open("/dev/tty", flags, Mode::empty()).ok()
}

/// The terminal's foreground that a command with a process group of its own, such as an interactive
/// shell, had taken. The shell above knows our group only, and gives the terminal to that.
struct Foreground {
    terminal: OwnedFd,
    commands: Pid,
}

impl Foreground {
    fn of(child: &Child) -> Option<Foreground> {
        let commands = getpgid(Some(Pid::from_raw(child.id())?)).ok()?;
        if commands == getpgrp() {
            return None;
        }
        let terminal = terminal()?;
        (tcgetpgrp(&terminal).ok()? == commands).then_some(Foreground { terminal, commands })
    }

    /// Passes the foreground on if it was given to us. It is never taken from anybody else.
    fn give_back(&self) {
        if tcgetpgrp(&self.terminal).is_ok_and(|now| now == getpgrp()) {
            // Fails when the command's group is gone, and then nobody wants it.
            let _ = tcsetpgrp(&self.terminal, self.commands);
        }
    }
}
