//! `broker-exec`: arguments, run, exit status; nothing else.

#[cfg(not(target_os = "linux"))]
mod unsupported;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    use broker_exec::{child, error, run};
    match run::command_line(std::env::args_os().skip(1)) {
        Ok(Some(exit)) => child::exit_like(exit),
        Ok(None) => std::process::ExitCode::SUCCESS,
        Err(err) => {
            error::say(&err.to_string());
            std::process::ExitCode::from(err.exit_status())
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    unsupported::main()
}
