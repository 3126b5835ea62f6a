//! fork and execve, with the child's side in between.
//!
//! Other threads may hold any lock when we fork, so the child may call only what is
//! async-signal-safe (signal-safety(7)): it allocates nothing, and everything that it needs is laid
//! out before. What goes wrong in the child comes back over a close-on-exec pipe; end of file
//! there means that the program runs.

use std::ffi::{CStr, CString, c_char};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr;

use rustix::process::{Resource, Rlimit};
use rustix::thread::CapabilitySet;

use super::ids::Ids;
use super::signal;

/// Everything about the program to execute and the process that it runs in.
#[derive(Debug)]
pub struct Plan {
    /// The files to try in turn, as execvp(3) does.
    pub candidates: Vec<CString>,
    /// The argument vector, `argv[0]` included.
    pub args: Vec<CString>,
    /// The environment, as `NAME=value`.
    pub env: Vec<CString>,
    /// A variable that gets the new process's id as its value.
    pub pid_variable: Option<CString>,
    /// The directory to change to.
    pub directory: Option<CString>,
    /// Descriptors to place, each with its number. No descriptor's own number may be another's
    /// place, and none may stand at a number to close: `clear_of` in child/place.rs sees to it.
    pub descriptors: Vec<(OwnedFd, RawFd)>,
    /// Numbers to close.
    pub close: Vec<RawFd>,
    /// The pipe for the child's error: the read end, and the write end, which keeps the same rule.
    pub error_pipe: (OwnedFd, OwnedFd),
    /// The signal mask.
    pub mask: signal::Set,
    /// Signals to ignore (true) or to give their default action.
    pub ignored: Vec<(libc::c_int, bool)>,
    /// Limits that are not as our caller had them.
    pub limits: Vec<(Resource, Rlimit)>,
    /// The user to become.
    pub user: Option<Ids>,
    /// Whether set-user-ID programs and the like gain nothing (PR_SET_NO_NEW_PRIVS).
    pub no_new_privs: bool,
}

/// What the child was doing when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Starting at all: the pipe, the fork.
    Fork,
    /// Giving up the right to read other processes' memory.
    Capability,
    /// Setting PR_SET_NO_NEW_PRIVS.
    NoNewPrivs,
    /// Restoring a limit.
    Limit,
    /// Placing a descriptor.
    Descriptor,
    /// Changing the directory.
    Directory,
    /// Becoming the user.
    User,
    /// Executing the program.
    Execute,
}

const CHILD_STEPS: [Step; 7] = [
    Step::Capability,
    Step::NoNewPrivs,
    Step::Limit,
    Step::Descriptor,
    Step::Directory,
    Step::User,
    Step::Execute,
];

/// The step that failed and what the system said.
#[derive(Debug)]
pub struct Failure {
    /// Where.
    pub step: Step,
    /// Why.
    pub error: io::Error,
}

/// Starts the program. Returns its process id once it runs.
pub fn start(plan: Plan) -> Result<libc::pid_t, Failure> {
    let mut vectors = Vectors::of(&plan);
    // No signal may be delivered to the child before its dispositions are right.
    let before = signal::block(&signal::Set::full());
    // SAFETY: in the child, `run` calls only async-signal-safe functions and never returns.
    let child = unsafe { libc::fork() };
    if child == 0 {
        run(&plan, &mut vectors);
    }
    let forked = if child < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(child)
    };
    signal::set_mask(&before);
    let child = forked.map_err(|error| Failure {
        step: Step::Fork,
        error,
    })?;

    let (reader, writer) = plan.error_pipe;
    drop(writer);
    let mut report = Vec::new();
    // A report is shorter than PIPE_BUF: it arrives whole or, if the child was killed, not at all.
    let read = File::from(reader)
        .take(REPORT as u64)
        .read_to_end(&mut report);
    match (read, <[u8; REPORT]>::try_from(report)) {
        (Ok(_), Ok(report)) => {
            // The child is about to exit. Where SIGCHLD is ignored it reaps itself (ECHILD).
            let _ = super::process::wait(child);
            Err(Failure::from_report(report))
        }
        (Ok(_), Err(_)) => Ok(child),
        (Err(error), _) => Err(Failure {
            step: Step::Fork,
            error,
        }),
    }
}

/// The length of the child's report: the step, the error number.
const REPORT: usize = 8;

impl Failure {
    fn from_report(report: [u8; REPORT]) -> Failure {
        let [a, b, c, d, e, f, g, h] = report;
        let step = u32::from_ne_bytes([a, b, c, d]);
        let step = CHILD_STEPS.into_iter().find(|&known| known as u32 == step);
        Failure {
            step: step.unwrap_or(Step::Fork),
            error: io::Error::from_raw_os_error(i32::from_ne_bytes([e, f, g, h])),
        }
    }
}

/// The pointer arrays that execve(2) takes. They borrow from the plan, which outlives them in `start`.
struct Vectors {
    args: Vec<*const c_char>,
    /// The same for `/bin/sh`, with a place left at index 1 for the script.
    shell_args: Vec<*const c_char>,
    env: Vec<*const c_char>,
    /// The variable with the process id, and the room for its digits.
    pid_variable: Vec<u8>,
}

const SHELL: &CStr = c"/bin/sh";
/// Digits of the largest pid_t, and the NUL.
const PID_ROOM: usize = 11;

impl Vectors {
    fn of(plan: &Plan) -> Vectors {
        let pointers = |strings: &[CString]| -> Vec<*const c_char> {
            strings.iter().map(|string| string.as_ptr()).collect()
        };
        let mut args = pointers(&plan.args);
        let mut shell_args = vec![SHELL.as_ptr(), ptr::null()];
        shell_args.extend(args.iter().skip(1));
        let mut env = pointers(&plan.env);
        let mut pid_variable = Vec::new();
        if let Some(name) = &plan.pid_variable {
            pid_variable.extend(name.to_bytes());
            pid_variable.push(b'=');
            pid_variable.extend([0; PID_ROOM]);
            // The vector is not touched again until the child writes digits into its tail.
            env.push(pid_variable.as_ptr().cast());
        }
        for vector in [&mut args, &mut shell_args, &mut env] {
            vector.push(ptr::null());
        }
        Vectors {
            args,
            shell_args,
            env,
            pid_variable,
        }
    }
}

/// The child's side: everything up to execve, or the report of what failed.
fn run(plan: &Plan, vectors: &mut Vectors) -> ! {
    let (step, errno) = match prepare(plan, vectors) {
        Err(failed) => failed,
        Ok(()) => (Step::Execute, execute(plan, vectors)),
    };
    let [a, b, c, d] = (step as u32).to_ne_bytes();
    let [e, f, g, h] = errno.to_ne_bytes();
    let report = [a, b, c, d, e, f, g, h];
    // SAFETY: the report is valid for its length. If nobody reads it there is nobody to tell.
    // _exit runs no code of the parent's (no exit handlers, no flushing of its buffers).
    unsafe {
        libc::write(
            plan.error_pipe.1.as_raw_fd(),
            report.as_ptr().cast(),
            report.len(),
        );
        libc::_exit(125)
    }
}

type Failed = (Step, libc::c_int);

fn prepare(plan: &Plan, vectors: &mut Vectors) -> Result<(), Failed> {
    let failed = |step| move |errno: rustix::io::Errno| (step, errno.raw_os_error());
    signal::reset_handlers();
    for &(number, ignored) in &plan.ignored {
        signal::set_ignored(number, ignored);
    }
    if plan.no_new_privs {
        rustix::thread::set_no_new_privs(true).map_err(failed(Step::NoNewPrivs))?;
    }
    drop_ptrace(plan.no_new_privs).map_err(failed(Step::Capability))?;
    for (resource, limit) in &plan.limits {
        rustix::process::setrlimit(*resource, *limit).map_err(failed(Step::Limit))?;
    }
    for (fd, number) in &plan.descriptors {
        // SAFETY: no pointers. What stood at `number` in this process is nobody's any more: the
        // child owns nothing but its own stack and is about to become another program.
        while unsafe { libc::dup2(fd.as_raw_fd(), *number) } < 0 {
            // EBUSY: a race with another thread's open(2), possible before the fork only; EINTR.
            match errno() {
                libc::EINTR | libc::EBUSY => {}
                other => return Err((Step::Descriptor, other)),
            }
        }
    }
    for &number in &plan.close {
        // SAFETY: as for dup2. A number that is closed already is what is wanted.
        unsafe { libc::close(number) };
    }
    if let Some(directory) = &plan.directory {
        // SAFETY: a NUL-terminated string that the plan owns.
        if unsafe { libc::chdir(directory.as_ptr()) } < 0 {
            return Err((Step::Directory, errno()));
        }
    }
    // Last, for it takes away the right to all of the above.
    if let Some(user) = &plan.user {
        user.assume().map_err(failed(Step::User))?;
    }
    if plan.pid_variable.is_some() {
        write_pid(&mut vectors.pid_variable);
    }
    Ok(())
}

/// Gives up CAP_SYS_PTRACE, with which the program could read its parent in spite of
/// PR_SET_DUMPABLE (ptrace(2), "Ptrace access mode checking").
///
/// It goes from every set and from the bounding set, out of which a root user's execve refills the
/// others (capabilities(7)). Where the bounding set may not be changed (no CAP_SETPCAP),
/// no_new_privs does as well: execve then never adds to the permitted set.
fn drop_ptrace(no_new_privs: bool) -> rustix::io::Result<()> {
    use rustix::thread as caps;
    const PTRACE: CapabilitySet = CapabilitySet::SYS_PTRACE;
    let mut sets = caps::capabilities(None)?;
    let root = rustix::process::getuid().is_root() || rustix::process::geteuid().is_root();
    let held = sets.permitted.union(sets.inheritable).contains(PTRACE);
    if !held && !root {
        return Ok(());
    }
    if caps::capability_is_in_bounding_set(PTRACE)?
        && let Err(errno) = caps::remove_capability_from_bounding_set(PTRACE)
        && !no_new_privs
    {
        return Err(errno);
    }
    // Lowering the others takes it out of the ambient set too (capabilities(7)).
    sets.effective.remove(PTRACE);
    sets.permitted.remove(PTRACE);
    sets.inheritable.remove(PTRACE);
    caps::set_capabilities(None, sets)?;
    let left = caps::capabilities(None)?;
    if left
        .permitted
        .union(left.effective)
        .union(left.inheritable)
        .contains(PTRACE)
    {
        return Err(rustix::io::Errno::PERM);
    }
    Ok(())
}

/// Writes this process's id behind the `=` of the variable, without allocating.
fn write_pid(variable: &mut [u8]) {
    let mut id = rustix::process::getpid()
        .as_raw_nonzero()
        .get()
        .unsigned_abs();
    let Some(room) = variable.len().checked_sub(PID_ROOM) else {
        return;
    };
    let mut digits = [0u8; PID_ROOM];
    let mut count = 0;
    for digit in &mut digits {
        *digit = b'0' + (id % 10) as u8;
        count += 1;
        id /= 10;
        if id == 0 {
            break;
        }
    }
    for (place, digit) in variable
        .iter_mut()
        .skip(room)
        .zip(digits.iter().take(count).rev())
    {
        *place = *digit;
    }
}

/// Tries the candidates as execvp(3) does. Returns why none of them could be executed.
fn execute(plan: &Plan, vectors: &mut Vectors) -> libc::c_int {
    signal::set_mask(&plan.mask);
    let env = vectors.env.as_ptr();
    let mut denied = false;
    let mut last = libc::ENOENT;
    for candidate in &plan.candidates {
        // SAFETY: the strings belong to the plan and both arrays end in a null pointer.
        unsafe { libc::execve(candidate.as_ptr(), vectors.args.as_ptr(), env) };
        match errno() {
            libc::EACCES => denied = true,
            // Not there, or in a directory of a network that is not there.
            missing @ (libc::ENOENT
            | libc::ENOTDIR
            | libc::ESTALE
            | libc::ENODEV
            | libc::ETIMEDOUT) => {
                last = missing;
            }
            libc::ENOEXEC => {
                // No `#!`: a script for the shell (execvp(3)).
                if let Some(script) = vectors.shell_args.get_mut(1) {
                    *script = candidate.as_ptr();
                }
                // SAFETY: as above.
                unsafe { libc::execve(SHELL.as_ptr(), vectors.shell_args.as_ptr(), env) };
                return libc::ENOEXEC;
            }
            other => return other,
        }
    }
    if denied { libc::EACCES } else { last }
}

fn errno() -> libc::c_int {
    // Reads errno; no allocation.
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}
