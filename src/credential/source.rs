//! `file:PATH`, `fd:N`, `env:NAME`, `exec:COMMAND`.
//!
//! What was given is never echoed unless it is known not to be a secret: people paste the key
//! itself here, and commands with a password in them.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::error::{Error, Result};

/// Where a credential comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum Source {
    /// A file, read again when it changes.
    File(PathBuf),
    /// A descriptor that this process was started with, read to its end and closed. Nothing else in
    /// the process may own it.
    Fd(i32),
    /// A variable of our environment, kept from the command's.
    Env(OsString),
    /// The standard output of `/bin/sh -c`.
    Exec(OsString),
}

impl Source {
    /// Parses the value of `--key`.
    ///
    /// # Errors
    /// `Error::Usage`, whose text has nothing of the value in it.
    pub fn parse(text: &OsStr) -> Result<Source> {
        let bytes = text.as_bytes();
        let after = |prefix: &str| bytes.strip_prefix(prefix.as_bytes()).map(OsStr::from_bytes);
        if let Some(path) = after("file:") {
            if path.is_empty() {
                return Err(usage("file: needs the path of a file"));
            }
            Ok(Source::File(path.into()))
        } else if let Some(number) = after("fd:") {
            parse_fd(number)
        } else if let Some(name) = after("env:") {
            if name.is_empty() || name.as_bytes().contains(&b'=') {
                return Err(usage("env: needs the name of a variable"));
            }
            Ok(Source::Env(name.into()))
        } else if let Some(command) = after("exec:") {
            if command.as_bytes().trim_ascii().is_empty() {
                return Err(usage("exec: needs a command"));
            }
            Ok(Source::Exec(command.into()))
        } else {
            Err(usage(
                "a source is one of file:PATH, fd:N, env:NAME, exec:COMMAND. The key itself can't be given as an \
                 argument: every process of this machine could read it there",
            ))
        }
    }

    /// The variable that must not reach the command's environment.
    #[must_use]
    pub fn env_name(&self) -> Option<&OsStr> {
        match self {
            Source::Env(name) => Some(name),
            _ => None,
        }
    }

    /// The regular file that this source stands for now, before it is read.
    pub(super) fn regular_file(&self) -> Option<PathBuf> {
        let path = match self {
            Source::File(path) => path.clone(),
            Source::Fd(number) => {
                let link = format!("/proc/self/fd/{number}");
                // Of a file without a name, which nobody can open by one, the link leads nowhere.
                std::fs::metadata(&link)
                    .ok()
                    .filter(|file| file.is_file())?;
                std::fs::read_link(link).ok()?
            }
            Source::Env(_) | Source::Exec(_) => return None,
        };
        let is_file = std::fs::metadata(&path).is_ok_and(|file| file.is_file());
        is_file.then_some(path)
    }
}

fn parse_fd(text: &OsStr) -> Result<Source> {
    // Digits only: `parse` would take "+5".
    let number = text
        .to_str()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse::<i32>().ok())
        .ok_or_else(|| usage("fd: needs the number of an open descriptor"))?;
    if number == 1 || number == 2 {
        return Err(usage(
            "a key can't be read from standard output or standard error; use fd:0 or fd:3 and up",
        ));
    }
    Ok(Source::Fd(number))
}

fn usage(problem: &str) -> Error {
    Error::Usage(format!("--key: {problem}"))
}

/// For messages, so it may end up on a terminal or in a response: control characters are escaped,
/// and of a command nothing is shown.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::File(path) => write!(f, "file:{}", Escaped(path.as_os_str())),
            Source::Fd(number) => write!(f, "fd:{number}"),
            Source::Env(name) => write!(f, "env:{}", Escaped(name)),
            Source::Exec(_) => f.write_str("exec: command"),
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({self})")
    }
}

struct Escaped<'a>(&'a OsStr);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.to_string_lossy().chars() {
            if character.is_control() {
                write!(f, "{}", character.escape_default())?;
            } else {
                fmt::Write::write_char(f, character)?;
            }
        }
        Ok(())
    }
}
