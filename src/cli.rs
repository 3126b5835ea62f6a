//! The one flag table: parsing, `--help` and completions come from it, and a test holds the man page to it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::Result;

/// What a command line asks for.
#[derive(Debug)]
pub enum Invocation {
    /// Run a command under the broker.
    Run(Box<Options>),
    /// Print this text on standard output and exit with status 0.
    Print(String),
}

/// The options of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// `--upstream`
    pub upstream: Option<String>,
    /// `--key`
    pub key: Option<OsString>,
    /// `--inject`
    pub inject: Option<String>,
    /// `--service`
    pub service: Option<String>,
    /// `--env`, in order
    pub env: Vec<(OsString, OsString)>,
    /// `--fd`
    pub fd: Option<i32>,
    /// `--connect-timeout`
    pub connect_timeout: Duration,
    /// `--response-header-timeout`
    pub response_header_timeout: Duration,
    /// `--idle-timeout`
    pub idle_timeout: Option<Duration>,
    /// `--allow-new-privs`
    pub allow_new_privs: bool,
    /// `--max-connections`
    pub max_connections: usize,
    /// `--cacert`, repeatable
    pub cacert: Vec<PathBuf>,
    /// -1 quiet, 0 normal, 1 verbose
    pub verbosity: i8,
    /// The command and its arguments, never empty
    pub command: Vec<OsString>,
}

/// Parses the arguments that follow the program's name.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Invocation> {
    let _ = args.into_iter();
    todo!()
}
