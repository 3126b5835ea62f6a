//! From a `Command` to a running process: everything is laid out here, before the fork.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;

use rustix::pipe::{PipeFlags, pipe_with};

use super::place::clear_of;
use super::{Command, User, relay, search};
use crate::error::{Error, Result};
use crate::sys::exec::{self, Failure, Plan, Step};
use crate::sys::{caller, process};

/// Starts the command with `control` at `number`. Returns its process id.
pub(super) fn spawn(
    command: Command,
    control: BorrowedFd<'_>,
    number: RawFd,
    allow_new_privs: bool,
) -> Result<i32> {
    let program = command.program.clone();
    let directory = command.current_dir.clone();
    let user = command.user.as_ref().map(ToString::to_string);
    let plan = plan(command, control, number, allow_new_privs)?;
    exec::start(plan).map_err(|Failure { step, error }| match step {
        Step::Fork => Error::System("start the command".to_owned(), error),
        Step::Capability => Error::Protection(format!(
            "cannot take CAP_SYS_PTRACE from the command, which could read the credential with it: {error}"
        )),
        Step::NoNewPrivs => Error::Protection(format!(
            "cannot set no_new_privs for the command (--allow-new-privs does without): {error}"
        )),
        Step::Limit => Error::System("restore the command's resource limits".to_owned(), error),
        Step::Descriptor => Error::System(format!("place the control descriptor at {number}"), error),
        Step::Directory => Error::System(
            format!("change to the directory {}", directory.unwrap_or_default().display()),
            error,
        ),
        Step::User => Error::Protection(format!(
            "cannot run the command as {}: {error}",
            user.unwrap_or_default()
        )),
        Step::Execute => not_executed(program, error),
    })
}

fn not_executed(program: OsString, error: io::Error) -> Error {
    match error.raw_os_error() {
        Some(libc::ENOENT) => Error::NotFound(program),
        // A search that met only entries of PATH that are no directories found nothing.
        Some(libc::ENOTDIR) if search::is_searched(&program) => Error::NotFound(program),
        _ => Error::NotExecutable(program, error),
    }
}

fn plan(
    command: Command,
    control: BorrowedFd<'_>,
    number: RawFd,
    allow_new_privs: bool,
) -> Result<Plan> {
    let Command {
        program,
        args,
        mut env,
        current_dir,
        stdio,
        user,
    } = command;
    let path = env.iter().find(|(name, _)| name == "PATH");
    let candidates = search::candidates(&program, path.map(|(_, value)| value.as_os_str()));
    if candidates.is_empty() {
        return Err(Error::NotFound(program));
    }
    let candidates = candidates
        .into_iter()
        .map(c_string)
        .collect::<Result<_>>()?;

    let pid_variable = takes_our_place(&mut env);
    let env = env.into_iter().map(variable).collect::<Result<_>>()?;
    let args = std::iter::once(program)
        .chain(args)
        .map(c_string)
        .collect::<Result<_>>()?;
    let directory = current_dir
        .map(|dir| c_string(dir.into_os_string()))
        .transpose()?;

    let copy = |fd: OwnedFd| {
        clear_of(number, fd).map_err(Error::system("copy a descriptor for the command"))
    };
    let mut descriptors = Vec::new();
    let mut close: Vec<RawFd> = (0..3)
        .filter(|&number| caller::stdio_closed(number))
        .map(RawFd::from)
        .collect();
    for (standard, fd) in stdio {
        if standard > 2 {
            return Err(Error::Usage(format!(
                "descriptor {standard} is not a standard one (0, 1 or 2)"
            )));
        }
        close.retain(|&number| number != RawFd::from(standard));
        descriptors.push((copy(fd)?, RawFd::from(standard)));
    }
    let control = control
        .try_clone_to_owned()
        .map_err(Error::system("copy the control descriptor"))?;
    descriptors.push((copy(control)?, number));
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)
        .map_err(|errno| Error::System("open a pipe".to_owned(), errno.into()))?;
    let error_pipe = (reader, copy(writer)?);

    let mut ignored = vec![(libc::SIGPIPE, caller::sigpipe_ignored())];
    if caller::sigchld_ignored() {
        ignored.push((libc::SIGCHLD, true));
    }
    Ok(Plan {
        candidates,
        args,
        env,
        pid_variable,
        directory,
        descriptors,
        close,
        error_pipe,
        mask: relay::callers_mask(),
        ignored,
        limits: process::callers_limits(),
        user: user.map(User::into_ids),
        no_new_privs: !allow_new_privs,
    })
}

/// Takes `LISTEN_PID` out of the environment when it names us: sockets that were meant for this
/// process are meant for the command (sd_listen_fds(3)), so it is set to the command's id.
fn takes_our_place(env: &mut Vec<(OsString, OsString)>) -> Option<CString> {
    let ours = OsString::from(std::process::id().to_string());
    let named = env
        .iter()
        .any(|(name, value)| name == "LISTEN_PID" && *value == ours);
    // The pidfd's inode in LISTEN_PIDFDID is ours as well. It is optional; a wrong one is refused.
    env.retain(|(name, _)| !named || (name != "LISTEN_PID" && name != "LISTEN_PIDFDID"));
    named.then(|| c"LISTEN_PID".to_owned())
}

fn variable((mut name, value): (OsString, OsString)) -> Result<CString> {
    if name.is_empty() {
        return Err(Error::Usage(
            "a variable of the environment has no name".to_owned(),
        ));
    }
    name.push(OsStr::new("="));
    name.push(value);
    c_string(name)
}

fn c_string(text: OsString) -> Result<CString> {
    // The text may be a whole variable of the environment: it is not repeated in the error.
    CString::new(text.into_vec()).map_err(|_| {
        Error::Usage(
            "an argument, directory or variable for the command contains a NUL byte".to_owned(),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Child, Exit};
    use super::*;
    use std::fs::File;
    use std::os::fd::{AsFd, AsRawFd};
    use std::time::Duration;

    fn run(command: Command, number: RawFd) -> Result<Exit> {
        let control = File::open("/proc/self/status").unwrap();
        Child::spawn(command, control.as_fd(), number, false).map(|mut child| child.wait().unwrap())
    }

    fn shell(script: &str) -> Command {
        Command::new("sh").arg("-c").arg(script)
    }

    #[test]
    fn the_control_descriptor_stands_at_its_number_and_nowhere_else() {
        let script = "for fd in /proc/self/fd/*; do
            case $(readlink $fd) in */status) echo ${fd##*/};; esac; done";
        let script = format!("test \"$({script})\" = 77");
        assert_eq!(run(shell(&script), 77).unwrap(), Exit::Code(0));
    }

    #[test]
    fn the_control_descriptor_may_stand_at_its_number_already() {
        let control = File::open("/proc/self/status").unwrap();
        let number = control.as_raw_fd();
        let command = shell(&format!("test -e /proc/self/fd/{number}"));
        let mut child = Child::spawn(command, control.as_fd(), number, false).unwrap();
        assert_eq!(child.wait().unwrap(), Exit::Code(0));
    }

    #[test]
    fn the_environment_and_the_directory_are_as_set() {
        let command = shell("test \"$KIND\" = new && test -z \"$HOME\" && test $(pwd -P) = /proc")
            .env("KIND", "old")
            .env("KIND", "new")
            .env_remove("HOME")
            .current_dir("/proc");
        assert_eq!(run(command, 78).unwrap(), Exit::Code(0));
    }

    #[test]
    fn standard_descriptors_can_be_replaced_even_by_each_other() {
        let (reader, writer) = std::io::pipe().unwrap();
        let null = File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
            .unwrap();
        let command = shell("echo out; echo err >&2")
            .stdio(0, null.try_clone().unwrap().into())
            .stdio(2, null.into())
            .stdio(1, writer.into());
        assert_eq!(run(command, 79).unwrap(), Exit::Code(0));
        assert_eq!(std::io::read_to_string(reader).unwrap(), "out\n");
    }

    #[test]
    fn a_missing_directory_is_our_failure_and_not_the_command_s() {
        let refused = run(shell("true").current_dir("/nowhere"), 80).unwrap_err();
        assert_eq!(refused.exit_status(), 125);
        assert!(refused.to_string().contains("/nowhere"));
    }

    #[test]
    fn waiting_can_be_given_up_and_taken_up_again() {
        let (reader, writer) = std::io::pipe().unwrap();
        let command = Command::new("cat")
            .stdio(0, reader.into())
            .stdio(1, File::open("/dev/null").unwrap().into());
        let control = File::open("/dev/null").unwrap();
        let mut child = Child::spawn(command, control.as_fd(), 81, false).unwrap();
        assert_eq!(child.wait_timeout(Duration::from_millis(1)).unwrap(), None);
        drop(writer);
        assert_eq!(
            child.wait_timeout(Duration::from_secs(60)).unwrap(),
            Some(Exit::Code(0))
        );
        assert_eq!(child.wait().unwrap(), Exit::Code(0));
        child.signal(libc::SIGKILL).unwrap();
    }

    #[test]
    fn a_signal_reaches_the_command() {
        let control = File::open("/dev/null").unwrap();
        let command = Command::new("sleep").arg("60");
        let mut child = Child::spawn(command, control.as_fd(), 82, false).unwrap();
        child.signal(libc::SIGTERM).unwrap();
        assert_eq!(child.wait().unwrap(), Exit::Signal(libc::SIGTERM));
    }

    #[test]
    fn bytes_that_no_program_can_be_given_are_refused() {
        for command in [
            shell("a\0b"),
            shell("").env("A", "b\0"),
            shell("").env("", "x"),
        ] {
            assert!(matches!(run(command, 83), Err(Error::Usage(_))));
        }
        assert!(matches!(run(Command::new(""), 83), Err(Error::NotFound(_))));
    }
}
