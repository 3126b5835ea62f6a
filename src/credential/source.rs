//! `file:PATH`, `fd:N`, `env:NAME`, `exec:COMMAND`.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use crate::error::Result;

/// Where a credential comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file, read again when it changes.
    File(PathBuf),
    /// An inherited descriptor, read to its end and closed.
    Fd(i32),
    /// A variable of our environment, kept from the command's.
    Env(OsString),
    /// The standard output of `/bin/sh -c`.
    Exec(OsString),
}

impl Source {
    /// Parses the value of `--key`.
    pub fn parse(text: &OsStr) -> Result<Source> {
        let _ = text;
        todo!()
    }
}
