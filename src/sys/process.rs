//! Our own process and its children: making ourselves unreadable, waiting, signalling.

use std::io;
use std::sync::OnceLock;

use rustix::process::{DumpableBehavior, Resource, Rlimit};

/// The core limit that our caller gave us, kept by `harden` for the command.
static CALLERS_CORE_LIMIT: OnceLock<Rlimit> = OnceLock::new();

/// Makes this process unreadable to others of the same user: no `/proc/PID/{mem,environ,fd}`, no
/// ptrace, no core file (PR_SET_DUMPABLE in prctl(2)). To be called before a secret is touched;
/// calling it again does no harm.
///
/// Only the soft core limit is lowered, so that a child can have its own back.
///
/// # Errors
/// `PermissionDenied` with a text when this program runs set-user-ID, set-group-ID or otherwise
/// with privileges that its caller lacks; else what the system refused.
pub fn harden() -> io::Result<()> {
    refuse_set_id()?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    if rustix::process::dumpable_behavior()? != DumpableBehavior::NotDumpable {
        return Err(io::Error::other("the process is still dumpable"));
    }
    let now = rustix::process::getrlimit(Resource::Core);
    let callers = *CALLERS_CORE_LIMIT.get_or_init(|| now);
    let lowered = Rlimit {
        current: Some(0),
        maximum: callers.maximum,
    };
    rustix::process::setrlimit(Resource::Core, lowered)?;
    Ok(())
}

fn refuse_set_id() -> io::Result<()> {
    // SAFETY: getauxval takes no pointer; an unknown entry reads as 0.
    let secure = unsafe { libc::getauxval(libc::AT_SECURE) } != 0;
    let users = rustix::process::getuid() != rustix::process::geteuid();
    let groups = rustix::process::getgid() != rustix::process::getegid();
    if secure || users || groups {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "this program must not be installed set-user-ID, set-group-ID or with file capabilities",
        ));
    }
    Ok(())
}

/// The limit on descriptors that our caller gave us, kept by `raise_nofile` for the command.
static CALLERS_NOFILE_LIMIT: OnceLock<Rlimit> = OnceLock::new();

/// Raises our soft limit on open descriptors to `wanted`, or as far as the hard limit allows. What
/// does not fit then is refused when it is needed.
pub fn raise_nofile(wanted: u64) {
    let now = rustix::process::getrlimit(Resource::Nofile);
    let wanted = now.maximum.map_or(wanted, |hard| wanted.min(hard));
    if now.current.is_some_and(|soft| soft < wanted) {
        CALLERS_NOFILE_LIMIT.get_or_init(|| now);
        let raised = Rlimit {
            current: Some(wanted),
            maximum: now.maximum,
        };
        let _ = rustix::process::setrlimit(Resource::Nofile, raised);
    }
}

/// The limits that the command should have back, because we have changed our own.
pub fn callers_limits() -> Vec<(Resource, Rlimit)> {
    let kept = [
        (Resource::Core, &CALLERS_CORE_LIMIT),
        (Resource::Nofile, &CALLERS_NOFILE_LIMIT),
    ];
    kept.into_iter()
        .filter_map(|(resource, limit)| Some((resource, *limit.get()?)))
        .collect()
}

/// What happened to a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It exited with this status and is gone.
    Exited(u8),
    /// It was killed by this signal and is gone.
    Killed(libc::c_int),
    /// It was stopped by this signal.
    Stopped(libc::c_int),
    /// It goes on after a stop.
    Continued,
}

/// Waits until the child has ended.
pub fn wait(child: libc::pid_t) -> io::Result<Change> {
    loop {
        // Without WUNTRACED only an end is reported.
        if let Some(change) = waitpid(child, 0)? {
            return Ok(change);
        }
    }
}

/// Whether the child has ended, without waiting.
pub fn try_wait(child: libc::pid_t) -> io::Result<Option<Change>> {
    waitpid(child, libc::WNOHANG)
}

/// The next change of the child's state that has not been reported yet, stops included.
pub fn try_wait_any_change(child: libc::pid_t) -> io::Result<Option<Change>> {
    waitpid(child, libc::WNOHANG | libc::WUNTRACED | libc::WCONTINUED)
}

fn waitpid(child: libc::pid_t, options: libc::c_int) -> io::Result<Option<Change>> {
    let mut status = 0;
    let waited = loop {
        // SAFETY: `status` is valid for the write; the child is named by its id, so nobody else's
        // child can be reaped.
        let waited = unsafe { libc::waitpid(child, &raw mut status, options) };
        if waited >= 0 {
            break waited;
        }
        let err = io::Error::last_os_error();
        if err.kind() != io::ErrorKind::Interrupted {
            return Err(err);
        }
    };
    if waited == 0 {
        return Ok(None);
    }
    Ok(if libc::WIFEXITED(status) {
        // WEXITSTATUS is the low eight bits (wait(2)).
        Some(Change::Exited((libc::WEXITSTATUS(status) & 0xff) as u8))
    } else if libc::WIFSIGNALED(status) {
        Some(Change::Killed(libc::WTERMSIG(status)))
    } else if libc::WIFSTOPPED(status) {
        Some(Change::Stopped(libc::WSTOPSIG(status)))
    } else if libc::WIFCONTINUED(status) {
        Some(Change::Continued)
    } else {
        None
    })
}

/// Sends a signal to one process. Only for a child that has not been waited for: until then its id
/// cannot belong to anybody else.
pub fn kill(process: libc::pid_t, signal: libc::c_int) -> io::Result<()> {
    if process <= 0 {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    // SAFETY: no pointers; the id is positive, so no group and not every process is meant.
    if unsafe { libc::kill(process, signal) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
