//! Descriptors by number: which are open, which the command would inherit, and copies at other numbers.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// The descriptor flags (`FD_CLOEXEC`) of this number, `None` when it is not open.
pub fn flags(number: RawFd) -> Option<libc::c_int> {
    // SAFETY: F_GETFD takes no pointer and changes nothing, whatever the number is.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    (flags >= 0).then_some(flags)
}

/// Whether a program that we execute would find this number closed.
pub fn is_free_after_exec(number: RawFd) -> bool {
    flags(number).is_none_or(|flags| flags & libc::FD_CLOEXEC != 0)
}

/// Whether this number is open on `/dev/null` (character device 1:3, devices.txt of the kernel).
pub fn is_dev_null(number: RawFd) -> bool {
    // SAFETY: all-zero is a valid `stat`: it holds integers only.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` is valid for the write; an unopened number is answered with EBADF.
    let done = unsafe { libc::fstat(number, &raw mut stat) };
    done == 0 && stat.st_mode & libc::S_IFMT == libc::S_IFCHR && stat.st_rdev == libc::makedev(1, 3)
}

/// A close-on-exec copy of `fd` at the lowest free number from `lowest` up.
pub fn duplicate(fd: BorrowedFd<'_>, lowest: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC takes no pointer; `fd` is open for as long as it is borrowed.
    let copy = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, lowest) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened `copy` for us and nobody else knows the number.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    #[test]
    fn a_duplicate_is_close_on_exec_and_high_enough() {
        let null = File::open("/dev/null").unwrap();
        let copy = duplicate(null.as_fd(), 50).unwrap();
        assert!(copy.as_raw_fd() >= 50);
        assert_eq!(flags(copy.as_raw_fd()), Some(libc::FD_CLOEXEC));
        assert!(is_free_after_exec(copy.as_raw_fd()));
        assert!(is_dev_null(copy.as_raw_fd()));
    }

    #[test]
    fn a_number_that_is_not_open_has_no_flags() {
        assert_eq!(flags(1_000_000), None);
        assert_eq!(flags(-1), None);
        assert!(!is_dev_null(-1));
    }

    #[test]
    fn another_device_is_not_dev_null() {
        let zero = File::open("/dev/zero").unwrap();
        assert!(!is_dev_null(zero.as_raw_fd()));
    }
}
