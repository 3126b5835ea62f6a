//! The command: how it is started, signalled and waited for.
//!
//! It must behave as if it had been started without us: same stdio, terminal, job control, signals,
//! limits and exit status. So it is never put into a process group, session or terminal of its own,
//! no PR_SET_PDEATHSIG is set (it fires when the *thread* that started the command ends, prctl(2)),
//! and we are no subreaper for what it leaves behind.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::error::Result;
use crate::sys::process::{self, Change};

mod exit;
mod family;
mod place;
pub mod relay;
mod search;
mod spawn;
mod suspend;
mod user;

pub use exit::exit_like;
pub(crate) use place::free_number;
pub use user::User;

/// The command to run. Everything that is not set here is inherited.
pub struct Command {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    current_dir: Option<PathBuf>,
    stdio: Vec<(u8, OwnedFd)>,
    user: Option<User>,
}

impl Command {
    /// A command found through `PATH` (the command's own, when it is changed here).
    pub fn new(program: impl Into<OsString>) -> Command {
        Command {
            program: program.into(),
            args: Vec::new(),
            env: std::env::vars_os().collect(),
            current_dir: None,
            stdio: Vec::new(),
            user: None,
        }
    }
    /// Appends an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Command {
        self.args.push(arg.into());
        self
    }
    /// Sets a variable of the command's environment.
    #[must_use]
    pub fn env(self, name: impl Into<OsString>, value: impl Into<OsString>) -> Command {
        let name = name.into();
        let mut command = self.env_remove(&name);
        command.env.push((name, value.into()));
        command
    }
    /// Keeps a variable out of the command's environment.
    #[must_use]
    pub fn env_remove(mut self, name: impl Into<OsString>) -> Command {
        let name = name.into();
        self.env.retain(|(known, _)| *known != name);
        self
    }
    /// The command's working directory. A relative program path is looked up from there.
    #[must_use]
    pub fn current_dir(mut self, dir: impl Into<PathBuf>) -> Command {
        self.current_dir = Some(dir.into());
        self
    }
    /// The command's standard input, output or error (`number` 0, 1 or 2).
    #[must_use]
    pub fn stdio(mut self, number: u8, fd: OwnedFd) -> Command {
        self.stdio.retain(|(known, _)| *known != number);
        self.stdio.push((number, fd));
        self
    }
    /// The user that the command runs as. Its environment stays as it is.
    #[must_use]
    pub fn user(mut self, user: User) -> Command {
        self.user = Some(user);
        self
    }
    /// The user that was set.
    pub(crate) fn other_user(&self) -> Option<&User> {
        self.user.as_ref()
    }
    /// Its arguments, the program's name first, and its environment.
    pub(crate) fn words(&self) -> (impl Iterator<Item = &OsStr>, &[(OsString, OsString)]) {
        let args = std::iter::once(&self.program).chain(&self.args);
        (args.map(OsString::as_os_str), &self.env)
    }
}

/// Arguments and environment are the command's business: they may hold what no log should.
impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command")
            .field("program", &self.program)
            .finish_non_exhaustive()
    }
}

/// How the command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this status.
    Code(u8),
    /// It was killed by this signal.
    Signal(i32),
}

/// A started command.
#[derive(Debug)]
pub struct Child {
    id: i32,
    /// Set once it has been waited for: from then on the id may be somebody else's.
    exit: Option<Exit>,
}

impl Child {
    /// Starts the command with `control` at descriptor `number`.
    pub(crate) fn spawn(
        command: Command,
        control: BorrowedFd<'_>,
        number: RawFd,
        allow_new_privs: bool,
    ) -> Result<Child> {
        let id = spawn::spawn(command, control, number, allow_new_privs)?;
        Ok(Child { id, exit: None })
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> i32 {
        self.id
    }

    /// Sends a signal to the command, unless it has been waited for already.
    ///
    /// # Errors
    /// What kill(2) refuses: no such signal (EINVAL), a command of another user (EPERM).
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        match self.exit {
            Some(_) => Ok(()),
            None => process::kill(self.id, signal),
        }
    }

    /// Waits for the command to end.
    ///
    /// # Errors
    /// ECHILD where this process ignores SIGCHLD: then the system keeps no status (wait(2)).
    pub fn wait(&mut self) -> io::Result<Exit> {
        match self.exit {
            Some(exit) => Ok(exit),
            None => loop {
                let change = process::wait(self.id)?;
                if let Some(exit) = self.note(change) {
                    return Ok(exit);
                }
            },
        }
    }

    /// `wait` for at most this long: `None` when it still runs.
    ///
    /// # Errors
    /// As for [`Child::wait`], and when the system has no descriptor left to wait with.
    pub fn wait_timeout(&mut self, limit: Duration) -> io::Result<Option<Exit>> {
        if let Some(exit) = self.try_wait()? {
            return Ok(Some(exit));
        }
        let Some(pid) = Pid::from_raw(self.id) else {
            return Ok(None);
        };
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        let deadline = Instant::now().checked_add(limit);
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            // A limit past what the clock can tell is none.
            let left = left.and_then(|left| Timespec::try_from(left).ok());
            let mut ended = [PollFd::new(&pidfd, PollFlags::IN)];
            match poll(&mut ended, left.as_ref()) {
                Ok(0) => return self.try_wait(),
                Ok(_) => return self.wait().map(Some),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn try_wait(&mut self) -> io::Result<Option<Exit>> {
        if self.exit.is_none()
            && let Some(change) = process::try_wait(self.id)?
        {
            self.note(change);
        }
        Ok(self.exit)
    }

    /// What has happened to the command and was not reported yet, stops included. `None` also once
    /// it has ended.
    fn next_change(&mut self) -> io::Result<Option<Change>> {
        if self.exit.is_some() {
            return Ok(None);
        }
        let change = process::try_wait_any_change(self.id)?;
        change.inspect(|&change| {
            self.note(change);
        });
        Ok(change)
    }

    /// Keeps the end of the command, if this change is one.
    fn note(&mut self, change: Change) -> Option<Exit> {
        match change {
            Change::Exited(code) => self.exit = Some(Exit::Code(code)),
            Change::Killed(signal) => self.exit = Some(Exit::Signal(signal)),
            Change::Stopped(_) | Change::Continued => {}
        }
        self.exit
    }
}
