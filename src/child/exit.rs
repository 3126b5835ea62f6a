//! Ending as the command ended.

use super::Exit;
use crate::sys::{process, signal};

/// Ends this process with the command's status, or by the signal that killed the command.
///
/// A shell that runs a loop stops on Ctrl-C only if the command *died* of SIGINT; `exit(130)` lets
/// it go on. No second core appears: this process is made undumpable first, or if that is refused
/// does not die by the signal at all. What is left is 128 plus the signal, which is also what
/// becomes of process 1 in a container, whom its own signals cannot kill (pid_namespaces(7)).
pub fn exit_like(exit: Exit) -> ! {
    let status = match exit {
        Exit::Code(code) => i32::from(code),
        Exit::Signal(number) => {
            if process::harden().is_ok() {
                signal::set_ignored(number, false);
                signal::unblock(&signal::Set::empty().with(number));
                signal::raise(number);
            }
            128 + number
        }
    };
    std::process::exit(status)
}
