//! Becoming another user, for good, in a process that has just been forked.
//!
//! What is called in the child is async-signal-safe: single system calls for the one thread that it
//! has, and no allocation. libc's own functions would do it for every thread of the process.

use std::ffi::CStr;
use std::io;

use rustix::io::Errno;
use rustix::process::DumpableBehavior;
use rustix::process::{Gid, Uid};
use rustix::thread::{self as threads, CapabilitySet, CapabilitySets};

/// A user and groups that a process can have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids {
    /// The user.
    pub uid: Uid,
    /// The primary group.
    pub gid: Gid,
    /// The supplementary groups, each once.
    pub groups: Vec<Gid>,
}

impl Ids {
    /// Makes the calling thread, the only one of its process, this user's: real, effective and saved
    /// ids, groups, and, unless the user is root, no capability. All of it is read back.
    ///
    /// The process stays closed to others until it executes a program: until then it is a copy of ours.
    pub(super) fn assume(&self) -> rustix::io::Result<()> {
        threads::set_thread_groups(&self.groups)?;
        threads::set_thread_res_gid(self.gid, self.gid, self.gid)?;
        threads::set_thread_res_uid(self.uid, self.uid, self.uid)?;
        // A change of user leaves the inheritable set as it was, and with SECBIT_NO_SETUID_FIXUP all
        // of them (capabilities(7)).
        if !self.uid.is_root() {
            let none = CapabilitySets {
                effective: CapabilitySet::empty(),
                permitted: CapabilitySet::empty(),
                inheritable: CapabilitySet::empty(),
            };
            threads::set_capabilities(None, none)?;
            let left = threads::capabilities(None)?;
            if !(left.permitted | left.effective | left.inheritable).is_empty() {
                return Err(Errno::PERM);
            }
        }
        // It becomes what /proc/sys/fs/suid_dumpable says when the user changes (prctl(2)).
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
        if self.is_in_force() {
            Ok(())
        } else {
            Err(Errno::PERM)
        }
    }

    fn is_in_force(&self) -> bool {
        let (mut real, mut effective, mut saved) = (0, 0, 0);
        // SAFETY: three valid places to write to; the same for the groups. A count of 0 asks for the
        // number of groups and writes nothing.
        let (users, groups, count) = unsafe {
            let done = libc::getresuid(&raw mut real, &raw mut effective, &raw mut saved);
            let users = done == 0 && [real, effective, saved] == [self.uid.as_raw(); 3];
            let done = libc::getresgid(&raw mut real, &raw mut effective, &raw mut saved);
            let groups = done == 0 && [real, effective, saved] == [self.gid.as_raw(); 3];
            (users, groups, libc::getgroups(0, std::ptr::null_mut()))
        };
        users && groups && usize::try_from(count) == Ok(self.groups.len())
    }
}

/// Whether this process may become any user.
pub fn may_change() -> bool {
    let needed = CapabilitySet::SETUID | CapabilitySet::SETGID;
    threads::capabilities(None).is_ok_and(|sets| sets.effective.contains(needed))
}

/// Whether a process of this user could open the file for reading: the kernel itself is asked, by a
/// child that becomes that user.
pub fn can_read(ids: &Ids, path: &CStr) -> io::Result<bool> {
    // SAFETY: in the child only async-signal-safe functions are called, and it never returns: _exit
    // runs no code of the parent's.
    let child = unsafe { libc::fork() };
    if child < 0 {
        return Err(io::Error::last_os_error());
    }
    if child == 0 {
        let status = match ids.assume() {
            Err(_) => 2,
            Ok(()) => {
                let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
                // SAFETY: a terminated string that the caller owns.
                let fd = unsafe { libc::open(path.as_ptr(), flags) };
                i32::from(fd < 0)
            }
        };
        // SAFETY: as above.
        unsafe { libc::_exit(status) };
    }
    match super::process::wait(child)? {
        super::process::Change::Exited(0) => Ok(true),
        super::process::Change::Exited(1) => Ok(false),
        _ => Err(io::ErrorKind::PermissionDenied.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_readable_to_whom_the_kernel_says() {
        if !may_change() {
            eprintln!("SKIPPED a_file_is_readable_to_whom_the_kernel_says: we are not root");
            return;
        }
        let path = std::env::temp_dir().join(format!("ids-{}", std::process::id()));
        std::fs::write(&path, "x").unwrap();
        let name = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
        let ids = |uid, gid, groups: &[u32]| Ids {
            uid: Uid::from_raw(uid),
            gid: Gid::from_raw(gid),
            groups: groups.iter().copied().map(Gid::from_raw).collect(),
        };
        let nobody = ids(65534, 65534, &[65534]);
        let set = |mode, group| {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            std::os::unix::fs::chown(&path, None, Some(group)).unwrap();
        };
        set(0o604, 0);
        assert!(can_read(&nobody, &name).unwrap());
        set(0o600, 0);
        assert!(!can_read(&nobody, &name).unwrap());
        set(0o640, 4242);
        assert!(!can_read(&nobody, &name).unwrap());
        assert!(can_read(&ids(65534, 65534, &[65534, 4242]), &name).unwrap());
        assert!(can_read(&ids(0, 0, &[]), &name).unwrap());
        // A group may be shut out of what all others may read.
        set(0o604, 4242);
        assert!(!can_read(&ids(65534, 4242, &[]), &name).unwrap());
        std::fs::remove_file(&path).unwrap();
        assert!(!can_read(&nobody, &name).unwrap());
        // We are who we were.
        assert!(rustix::process::geteuid().is_root());
    }
}
