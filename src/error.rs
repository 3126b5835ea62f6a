//! What can go wrong before the command runs, with the exit status that a caller sees.
//!
//! No variant may ever carry a byte of a credential: sources are named, contents are not.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};

/// The result of everything that happens before the command runs.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure of our own. Its text names what was wrong and what to do about it.
#[derive(Debug)]
pub enum Error {
    /// The command line is wrong. The text names the option.
    Usage(String),
    /// A credential could not be had or cannot be used. The text names the source, never the content.
    Credential(String),
    /// A protection could not be put in place, so nothing was started.
    Protection(String),
    /// The system refused something that we need.
    System(String, io::Error),
    /// The command does not exist (or its interpreter does not).
    NotFound(OsString),
    /// The command exists and cannot be executed.
    NotExecutable(OsString, io::Error),
}

impl Error {
    /// The exit status that tells a caller whose failure it was, as env(1) and timeout(1) have it.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            Error::Usage(_) | Error::Credential(_) | Error::Protection(_) | Error::System(..) => {
                125
            }
            Error::NotExecutable(..) => 126,
            Error::NotFound(_) => 127,
        }
    }

    /// Shorthand for a refused system call: `doing` completes "cannot ...".
    pub(crate) fn system(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let doing = doing.into();
        move |err| Error::System(doing, err)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Usage(text) | Error::Credential(text) | Error::Protection(text) => {
                f.write_str(text)
            }
            Error::System(doing, err) => write!(f, "cannot {doing}: {err}"),
            Error::NotFound(name) => write!(f, "{}: not found", name.display()),
            Error::NotExecutable(name, err) => {
                write!(f, "{}: cannot be executed: {err}", name.display())
            }
        }
    }
}

impl std::error::Error for Error {}

/// Says something on standard error, our name before it; that nobody listens is no reason to fail.
pub fn say(text: &str) {
    let _ = writeln!(io::stderr(), "broker-exec: {text}");
}
