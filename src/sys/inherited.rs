//! What our caller handed us: descriptors known by number, and the environment block.
//!
//! Both may hold a secret, and both stay where they are unless they are removed: a descriptor is
//! inherited by the command, the block is what `/proc/self/environ` shows.

use std::ffi::{CStr, OsStr, c_char};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

use super::memory::Locked;

unsafe extern "C" {
    // environ(7); the libc crate does not export it for Linux.
    static mut environ: *const *const c_char;
}

/// Takes an inherited descriptor over: it is closed when the returned value is dropped.
///
/// Must be called once per number, for a descriptor that was open when the process began: the
/// caller of the process meant it for us. Standard input is moved away and `/dev/null` takes its
/// place, as for a pipe that has been read to its end: number 0 must not fall to the next
/// descriptor that is opened.
pub fn claim(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD only asks whether the number is open.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    if number != libc::STDIN_FILENO {
        // SAFETY: it is open, and by this function's contract nobody else in the process owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(number) };
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
        return Ok(fd);
    }
    let moved = rustix::io::fcntl_dupfd_cloexec(io::stdin(), libc::STDERR_FILENO + 1)?;
    let null = File::open("/dev/null")?;
    // SAFETY: both are open. Standard input is nobody's to own: std names it by its number too.
    if unsafe { libc::dup2(null.as_raw_fd(), libc::STDIN_FILENO) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(moved)
}

/// The value of an environment variable, copied straight into protected memory.
///
/// `std::env::var_os` would leave a copy on the heap.
pub fn copy_env(name: &OsStr) -> io::Result<Option<Locked>> {
    let mut found = Ok(None);
    each_value(name, |start, len| {
        // SAFETY: `each_value` gives the start and length of a string of the environment, and
        // nobody changes the environment meanwhile (see there).
        let value = unsafe { std::slice::from_raw_parts(start.cast_const(), len) };
        found = Locked::new(len).map(|mut copy| {
            copy.as_mut_slice().copy_from_slice(value);
            Some(copy)
        });
        // As getenv(3): the first one counts.
        false
    });
    found
}

/// Overwrites the value of an environment variable with zeros where it stands, in every entry of
/// that name. The variable is set to nothing then; it is not removed.
///
/// The entries that were there when the process began are what `/proc/self/environ` shows, to root
/// for one. Removing a variable leaves its bytes there.
pub fn wipe_env(name: &OsStr) {
    each_value(name, |start, len| {
        for offset in 0..len {
            // SAFETY: within a string of the environment, which the system allows a process to
            // modify (environ(7)); volatile, so that it is not optimised away. Every prefix of
            // this loop leaves a terminated string, so that a reader at the same time sees a
            // shortened value and never runs off its end.
            unsafe { start.add(offset).write_volatile(0) };
        }
        true
    });
}

/// Calls `visit` with the start and length of the value of each entry of that name, until it
/// returns false.
///
/// Meant for start-up, before there is a second thread: what is read here must not be changed by
/// setenv(3) at the same time, and Rust's own lock around the environment is not to be had.
fn each_value(name: &OsStr, mut visit: impl FnMut(*mut u8, usize) -> bool) {
    // SAFETY: environ is null or a null-terminated array of pointers to strings; it is read by
    // value here, and the walk below ends at the null.
    let mut entry = unsafe { environ };
    while !entry.is_null() {
        // SAFETY: not past the terminating null, which ends the loop.
        let text = unsafe { *entry };
        if text.is_null() {
            return;
        }
        // SAFETY: each entry is a terminated string that lives as long as the environment does.
        let bytes = unsafe { CStr::from_ptr(text) }.to_bytes();
        if let Some(value) = bytes
            .strip_prefix(name.as_bytes())
            .and_then(|rest| rest.strip_prefix(b"="))
        {
            let offset = bytes.len() - value.len();
            let len = value.len();
            // SAFETY: `offset` is within the string. The pointer comes from the environment
            // itself, not from the shared borrow that ends here.
            let start = unsafe { text.cast_mut().cast::<u8>().add(offset) };
            if !visit(start, len) {
                return;
            }
        }
        // SAFETY: the array has at least its terminating null after this entry.
        entry = unsafe { entry.add(1) };
    }
}
