//! The number that the control descriptor gets in the command, and the way there.
//!
//! A caller's own descriptors pass through, so a number is only ours when the command would
//! otherwise find it closed: make's jobserver holds 3 and 4, systemd passes sockets from 3 up.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use rustix::process::{Resource, getrlimit};

use crate::error::{Error, Result};
use crate::sys::fd;

/// A number for the control descriptor: `wanted` if it is free, else 3, 4-9, or the lowest free.
///
/// Free means closed, or ours to close at exec (close-on-exec). Numbers up to 9 come first because
/// a shell can name no higher one in a redirection (POSIX, Shell Command Language 2.7).
pub(crate) fn free_number(wanted: Option<RawFd>) -> Result<RawFd> {
    let end = limit();
    let Some(wanted) = wanted else {
        return (3..end)
            .find(|&number| fd::is_free_after_exec(number))
            .ok_or_else(|| {
                Error::System(
                    "find a number for the control descriptor".to_owned(),
                    io::Error::from_raw_os_error(libc::EMFILE),
                )
            });
    };
    if wanted < 3 {
        return Err(Error::Usage(format!(
            "--fd {wanted}: 0, 1 and 2 are the command's standard descriptors; choose 3 or higher"
        )));
    }
    if wanted >= end {
        return Err(Error::Usage(format!(
            "--fd {wanted}: the limit on open descriptors is {end}; choose a lower number or raise it (ulimit -n)"
        )));
    }
    if !fd::is_free_after_exec(wanted) {
        return Err(Error::Usage(format!(
            "--fd {wanted}: the caller has this descriptor open and the command inherits it; \
             choose another number or leave the option out"
        )));
    }
    Ok(wanted)
}

/// The first number that cannot be opened.
fn limit() -> RawFd {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    RawFd::try_from(limit).unwrap_or(RawFd::MAX)
}

/// The descriptor itself, or a copy of it, at a number that no descriptor is about to be placed on:
/// not 0-2 and not `number`.
pub(super) fn clear_of(number: RawFd, fd: OwnedFd) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() > 2 && fd.as_raw_fd() != number {
        return Ok(fd);
    }
    let copy = fd::duplicate(fd.as_fd(), 3)?;
    if copy.as_raw_fd() != number {
        return Ok(copy);
    }
    // `copy` holds `number` open meanwhile, so this one is elsewhere.
    fd::duplicate(fd.as_fd(), 3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    fn null() -> OwnedFd {
        File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn a_close_on_exec_descriptor_of_ours_leaves_its_number_free() {
        let ours = null();
        let number = ours.as_raw_fd();
        assert_eq!(free_number(Some(number)).unwrap(), number);
    }

    #[test]
    fn an_inherited_descriptor_keeps_its_number() {
        let inherited = null();
        rustix::io::fcntl_setfd(&inherited, rustix::io::FdFlags::empty()).unwrap();
        let number = inherited.as_raw_fd();
        let refused = free_number(Some(number)).unwrap_err();
        assert!(matches!(&refused, Error::Usage(text) if text.contains(&format!("--fd {number}"))));
        assert_ne!(free_number(None).unwrap(), number);
    }

    #[test]
    fn standard_descriptors_and_numbers_past_the_limit_are_refused() {
        for wanted in [-1, 0, 1, 2, RawFd::MAX] {
            let refused = free_number(Some(wanted)).unwrap_err();
            assert!(
                matches!(&refused, Error::Usage(text) if text.starts_with(&format!("--fd {wanted}:")))
            );
        }
    }

    #[test]
    fn a_descriptor_moves_out_of_the_way() {
        let fd = null();
        let number = fd.as_raw_fd();
        let moved = clear_of(number, fd).unwrap();
        assert!(moved.as_raw_fd() > 2 && moved.as_raw_fd() != number);
        let before = moved.as_raw_fd();
        assert_eq!(clear_of(number, moved).unwrap().as_raw_fd(), before);
    }
}
