//! The command: how it is started, signalled and waited for.
//!
//! It must behave as if it had been started without us: same stdio, terminal, job control, signals,
//! limits and exit status.

use std::ffi::OsString;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;

use crate::error::Result;

/// The command to run. Everything that is not set here is inherited.
#[derive(Debug)]
pub struct Command {
    _todo: (),
}

impl Command {
    /// A command found through `PATH` (the command's own, when it is changed here).
    pub fn new(program: impl Into<OsString>) -> Command {
        let _ = program.into();
        todo!()
    }
    /// Appends an argument.
    #[must_use]
    pub fn arg(self, arg: impl Into<OsString>) -> Command {
        let _ = arg.into();
        todo!()
    }
    /// Sets a variable of the command's environment.
    #[must_use]
    pub fn env(self, name: impl Into<OsString>, value: impl Into<OsString>) -> Command {
        let _ = (name.into(), value.into());
        todo!()
    }
    /// Keeps a variable out of the command's environment.
    #[must_use]
    pub fn env_remove(self, name: impl Into<OsString>) -> Command {
        let _ = name.into();
        todo!()
    }
    /// The command's working directory.
    #[must_use]
    pub fn current_dir(self, dir: impl Into<PathBuf>) -> Command {
        let _ = dir.into();
        todo!()
    }
    /// The command's standard input, output and error.
    #[must_use]
    pub fn stdio(self, number: u8, fd: OwnedFd) -> Command {
        let _ = (number, fd);
        todo!()
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

/// A number for the control descriptor: `wanted` if it is free, else 3, 4-9, or the lowest free.
///
/// Free means closed, or ours to close at exec (close-on-exec).
pub(crate) fn free_number(wanted: Option<RawFd>) -> Result<RawFd> {
    let _ = wanted;
    todo!()
}

/// A started command.
#[derive(Debug)]
pub struct Child {
    _todo: (),
}

impl Child {
    /// Starts the command with `control` at descriptor `number`.
    pub(crate) fn spawn(
        command: Command,
        control: BorrowedFd<'_>,
        number: RawFd,
        allow_new_privs: bool,
    ) -> Result<Child> {
        let _ = (command, control, number, allow_new_privs);
        todo!()
    }
    /// The process id.
    #[must_use]
    pub fn id(&self) -> i32 {
        todo!()
    }
    /// Sends a signal to the command, unless it has been waited for already.
    pub fn signal(&self, signal: i32) -> std::io::Result<()> {
        let _ = signal;
        todo!()
    }
    /// Waits for the command to end.
    pub fn wait(&mut self) -> std::io::Result<Exit> {
        todo!()
    }
    /// `wait` for at most this long: `None` when it still runs.
    pub fn wait_timeout(&mut self, limit: std::time::Duration) -> std::io::Result<Option<Exit>> {
        let _ = limit;
        todo!()
    }
}
