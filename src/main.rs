//! `broker-exec`: arguments, run, exit status; nothing else.

#[cfg(not(target_os = "linux"))]
mod unsupported;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    use broker_exec::cli::{self, Invocation};
    match cli::parse(std::env::args_os().skip(1)) {
        Ok(Invocation::Print(text)) => {
            print!("{text}");
            std::process::ExitCode::SUCCESS
        }
        Ok(_) => std::process::ExitCode::from(125),
        Err(err) => {
            eprintln!("broker-exec: {err}");
            std::process::ExitCode::from(err.exit_status())
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    unsupported::main()
}
