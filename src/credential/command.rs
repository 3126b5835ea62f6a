//! A key that a command prints.
//!
//! The command stays in our process group: it may ask for a passphrase on the terminal. Its
//! standard error is ours, so that the user sees why it failed.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::read::{CAPACITY, Deadline, Raw};

/// Runs `/bin/sh -c command`, without the variables of `hidden`, and reads its standard output.
///
/// The hidden variables must have been wiped from our environment: the standard library copies
/// every variable to the heap when one of them is left out.
pub fn read(command: &OsStr, hidden: &[OsString], deadline: &Deadline) -> Result<Raw, String> {
    let mut shell = Command::new("/bin/sh");
    shell
        .arg("-c")
        .arg(command)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    for name in hidden {
        shell.env_remove(name);
    }
    let child = shell
        .spawn()
        .map_err(|err| format!("cannot be started: /bin/sh: {err}"))?;
    let mut child = Killed(child);
    let mut raw = Raw::new(CAPACITY)?;
    if let Some(stdout) = child.0.stdout.take() {
        raw.fill(&stdout, deadline)?;
        if raw.is_full() {
            // `key` says what is wrong with it; the command is not waited for.
            return Ok(raw);
        }
    }
    let status = child.wait(deadline)?;
    if status.success() {
        Ok(raw)
    } else {
        Err(describe(status))
    }
}

/// A child that does not outlive its reading.
struct Killed(Child);

impl Killed {
    fn wait(&mut self, deadline: &Deadline) -> Result<ExitStatus, String> {
        match pidfd_open(Pid::from_child(&self.0), PidfdFlags::empty()) {
            Ok(process) => deadline.wait(&process)?,
            // Before Linux 5.3, or filtered: its output has ended, so it is all but gone.
            Err(_) => {
                while self.0.try_wait().map_err(not_waited)?.is_none() {
                    if deadline.is_over() {
                        return Err(deadline.passed());
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        }
        self.0.wait().map_err(not_waited)
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        // Both do nothing to a child that has been waited for. A failure leaves nothing to be done.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn not_waited(err: io::Error) -> String {
    match err.raw_os_error() {
        Some(libc::ECHILD) => "has no exit status to be seen: SIGCHLD is ignored here".to_owned(),
        _ => format!("cannot be waited for: {err}"),
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("failed with exit status {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "failed".to_owned(),
    }
}
