//! The program on systems that lack what it stands on: descriptors passed over SOCK_SEQPACKET, a
//! process that nobody can read, memory that is never swapped.
//!
//! A runner can still ask, and is told the truth; nothing is ever run without the protections.

use std::ffi::OsStr;
use std::io::Write;
use std::process::ExitCode;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Answers questions, refuses everything else with our own exit status, 125.
pub fn main() -> ExitCode {
    let Some(text) = answer(std::env::args_os().nth(1).as_deref()) else {
        let system = std::env::consts::OS;
        eprintln!(
            "broker-exec: does not run on {system}: the protections of the credential need Linux"
        );
        return ExitCode::from(125);
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("broker-exec: cannot write to standard output: {err}");
            ExitCode::from(125)
        }
    }
}

/// What a question is answered with; everything else is no question.
pub fn answer(option: Option<&OsStr>) -> Option<String> {
    match option?.to_str()? {
        "--capabilities" => Some(format!(
            "{{\"name\":\"broker-exec\",\"version\":\"{VERSION}\",\"broker\":false}}\n"
        )),
        "-V" | "--version" => Some(format!("broker-exec {VERSION}\n")),
        "-h" | "--help" => Some(String::from(
            "Usage: broker-exec --capabilities | --version | --help\n\
             On this system broker-exec runs no command: it needs Linux.\n",
        )),
        _ => None,
    }
}
