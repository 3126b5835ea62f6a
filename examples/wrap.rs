//! The wrapper's conduct without the broker: a stand-in for `broker-exec` in the tests of it.
#![allow(dead_code, missing_docs)]

#[path = "../src/child/mod.rs"]
mod child;
#[path = "../src/error.rs"]
mod error;
#[path = "../src/sys/mod.rs"]
mod sys;

use std::os::fd::AsFd;

fn main() {
    let mut args = std::env::args_os().skip(1).peekable();
    if args.peek().is_some_and(|first| first == "--") {
        args.next();
    }
    match run(args) {
        Ok(exit) => child::exit_like(exit),
        Err(err) => {
            eprintln!("wrap: {err}");
            std::process::exit(err.exit_status().into());
        }
    }
}

fn run(mut args: impl Iterator<Item = std::ffi::OsString>) -> error::Result<child::Exit> {
    sys::process::harden().map_err(|err| error::Error::Protection(err.to_string()))?;
    std::mem::forget(child::relay::block());
    let program = args
        .next()
        .ok_or_else(|| error::Error::Usage("no command".to_owned()))?;
    let number = child::free_number(None)?;
    let mut command = child::Command::new(program).env("BROKER_EXEC_FD", number.to_string());
    for arg in args {
        command = command.arg(arg);
    }
    let (_ours, theirs) =
        std::os::unix::net::UnixStream::pair().map_err(error::Error::system("socketpair"))?;
    let mut child = child::Child::spawn(command, theirs.as_fd(), number, false)?;
    drop(theirs);
    child::relay::wait_relaying(&mut child).map_err(error::Error::system("wait"))
}
