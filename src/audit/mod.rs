//! The audit: one line of JSON per request and per event of a run.
//!
//! No line ever holds a secret, a header field, a body or a query. The audit never delays or ends
//! traffic by itself: a line that cannot be written is counted and said. A required audit turns that
//! round: what cannot be written is not done.
//!
//! The names of events and members are a contract; the manual page's section AUDIT LOG is their
//! documentation.

mod clock;
pub mod json;
mod request;
mod sink;

use std::ffi::OsStr;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::process::DumpableBehavior;

use crate::error::{Error, Result};
use crate::sys;
use clock::Stamp;
use json::Object;
pub use request::{Decision, Entry};
use sink::Sink;

/// The longest text of a line, in bytes, but for paths. All of them together stay below PIPE_BUF, so
/// that a pipe takes a line whole or not at all (pipe(7)).
const TEXT: usize = 512;
/// Warnings of a start that are written.
const WARNINGS: usize = 4;

/// Where an audit goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A file, appended to; created with mode 0600.
    File(PathBuf),
    /// A descriptor that this process was started with. Nothing else in the process may own it.
    Fd(RawFd),
}

impl Target {
    /// Parses the value of `--audit`.
    ///
    /// # Errors
    /// What would have been right.
    pub fn parse(text: &OsStr) -> std::result::Result<Target, &'static str> {
        let Some(number) = text.as_bytes().strip_prefix(b"fd:") else {
            return Ok(Target::File(text.into()));
        };
        let digits = number.iter().all(u8::is_ascii_digit);
        let number = std::str::from_utf8(number).ok().filter(|_| digits);
        match number.and_then(|number| number.parse().ok()) {
            Some(number) if number > 2 => Ok(Target::Fd(number)),
            Some(_) => {
                Err("0, 1 and 2 are the command's; give a copy from 3 up, such as fd:9 with 9>&2")
            }
            None => Err("fd: needs the number of an open descriptor, from 3 up"),
        }
    }
}

/// Why a message on the control channel was answered by 0xFF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It was no dial.
    Message,
    /// `--max-connections` streams are open.
    Limit,
    /// No descriptor or thread could be had.
    Resources,
    /// The audit is required and could not be written.
    Audit,
}

/// The protections that are in force when a command is started.
#[derive(Debug)]
pub struct Start<'a> {
    /// The name of the service.
    pub service: &'a str,
    /// Its origin.
    pub upstream: &'a str,
    /// Where the credential comes from, as messages have it.
    pub key: &'a str,
    /// PR_SET_NO_NEW_PRIVS in the command.
    pub no_new_privs: bool,
    /// How the credential is kept in memory.
    pub secret_memory: &'a str,
    /// What is done with a credential in a response.
    pub scrub: &'a str,
    /// What is weak about the set-up.
    pub warnings: &'a [String],
}

/// The audit of one run.
#[derive(Debug)]
pub struct Audit {
    sink: Sink,
    run: String,
    required: bool,
}

impl Audit {
    /// Opens an audit. The process is hardened first: one that runs with privileges that its caller
    /// lacks must open no file in the caller's name.
    ///
    /// Meant for start-up: a descriptor that is claimed must be one that the process was started
    /// with, not one that it has opened since.
    ///
    /// # Errors
    /// `Error::Protection` when the process can't be hardened, `Error::System` when the target can't
    /// be written to.
    pub fn open(target: &Target) -> Result<Audit> {
        sys::process::harden().map_err(|err| {
            Error::Protection(format!(
                "this process cannot be made unreadable to others: {err}"
            ))
        })?;
        let sink = match target {
            Target::File(path) => Sink::open(path).map_err(Error::system(format!(
                "open the audit file {}",
                path.to_string_lossy().escape_debug()
            ))),
            Target::Fd(number) => Sink::claim(*number)
                .map_err(Error::system(format!("write the audit to fd:{number}"))),
        }?;
        let mut id = [0; 8];
        let mut filled = 0;
        while filled < id.len() {
            filled +=
                rustix::rand::getrandom(&mut id[filled..], rustix::rand::GetRandomFlags::empty())
                    .map_err(|err| Error::System("get random bytes".into(), err.into()))?;
        }
        Ok(Audit {
            sink,
            run: format!("{:016x}", u64::from_ne_bytes(id)),
            required: false,
        })
    }

    /// Makes it a condition: a request or dial whose line cannot be written is refused.
    #[must_use]
    pub fn required(mut self, required: bool) -> Audit {
        self.required = required;
        self
    }

    /// The beginning of every line.
    fn line(&self, event: &str) -> Object {
        let mut line = Object::open();
        line.plain("time", format_args!("{}", Stamp::now()));
        line.plain("run", format_args!("{}", self.run));
        line.plain("event", format_args!("{event}"));
        line
    }

    /// Writes a line; where the audit is required, a failure is one of the caller too.
    fn write(&self, line: Object) -> std::result::Result<(), String> {
        let written = self.sink.write(&line.into_line(), self.required);
        if self.required { written } else { Ok(()) }
    }

    /// The command is about to be started.
    ///
    /// # Errors
    /// `Error::Protection` where the audit is required and this cannot be written.
    pub(crate) fn start(&self, start: &Start<'_>) -> Result<()> {
        let dumpable = rustix::process::dumpable_behavior();
        let dumpable = dumpable != Ok(DumpableBehavior::NotDumpable);
        let mut protections = Object::open();
        protections.flag("dumpable", dumpable);
        protections.flag("no_new_privs", start.no_new_privs);
        // A command that would keep it is not started (child).
        protections.flag("ptrace_dropped", true);
        protections.text("secret_memory", &[start.secret_memory], TEXT);
        protections.text("scrub", &[start.scrub], TEXT);
        let mut line = self.line("start");
        line.text("version", &[env!("CARGO_PKG_VERSION")], TEXT);
        line.number("pid", u64::from(std::process::id()));
        line.text("service", &[start.service], TEXT);
        line.text("upstream", &[start.upstream], TEXT);
        line.text("key", &[start.key], TEXT);
        line.object("protections", &protections);
        let warnings = &start.warnings[..start.warnings.len().min(WARNINGS)];
        line.texts("warnings", warnings, TEXT / 2);
        line.flag("required", self.required);
        self.write(line).map_err(|why| {
            Error::Protection(format!(
                "--audit-required: the audit cannot be written, so nothing was started: {why}"
            ))
        })
    }

    /// The command runs.
    pub(crate) fn command(&self, pid: i32) {
        let mut line = self.line("command");
        line.number("pid", u64::try_from(pid).ok());
        let _ = self.write(line);
    }

    /// A dial is about to be answered with a stream.
    ///
    /// # Errors
    /// Where the audit is required and this cannot be written.
    pub(crate) fn dial(&self, conn: u64) -> std::result::Result<(), Refusal> {
        let mut line = self.line("dial");
        line.number("conn", conn);
        self.write(line).map_err(|_| Refusal::Audit)
    }

    /// A message on the control channel is answered by 0xFF.
    pub(crate) fn refusal(&self, why: Refusal) {
        let reason = match why {
            Refusal::Message => "message",
            Refusal::Limit => "limit",
            Refusal::Resources => "resources",
            Refusal::Audit => "audit",
        };
        let mut line = self.line("refusal");
        line.text("reason", &[reason], TEXT);
        let _ = self.write(line);
    }

    /// The source of a credential has another one than before.
    pub(crate) fn key_rotated(&self, service: &str, key: &str) {
        let mut line = self.line("key_rotated");
        line.text("service", &[service], TEXT);
        line.text("key", &[key], TEXT);
        let _ = self.write(line);
    }

    /// The command has ended, or could not be started, and so has the audit.
    pub(crate) fn exit(&self, status: Option<u8>, signal: Option<i32>, error: Option<&str>) {
        let mut line = self.line("exit");
        line.number("status", status.map(u64::from));
        line.number(
            "signal",
            signal.and_then(|signal| u64::try_from(signal).ok()),
        );
        match error {
            Some(error) => line.text("error", &[error], TEXT),
            None => line.null("error"),
        }
        let _ = self.write(line);
    }

    /// The run could not be started: the audit ends.
    pub(crate) fn fail(&self, error: &Error) {
        self.exit(Some(error.exit_status()), None, Some(&error.to_string()));
        self.finish();
    }

    /// Says on standard error how many lines were lost, if any were.
    pub(crate) fn finish(&self) {
        self.sink.finish();
    }
}
