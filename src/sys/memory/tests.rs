//! Looks at the pages as the kernel and a forked child see them.

use std::fs;
use std::io::{PipeReader, PipeWriter};

use super::*;

#[test]
fn every_tier_is_zeroed_writable_and_of_the_length_asked_for() {
    for len in [0, 1, 32, 4096, 4097, 100_000] {
        for mut memory in [Locked::new(len).unwrap(), Locked::anonymous(len).unwrap()] {
            assert_eq!(memory.as_slice(), vec![0; len]);
            memory.as_mut_slice().fill(b'x');
            assert_eq!(memory.as_slice(), vec![b'x'; len]);
        }
    }
}

#[test]
fn an_impossible_length_is_an_error() {
    assert!(Locked::new(usize::MAX).is_err());
    assert!(Locked::new(isize::MAX as usize - 1).is_err());
}

#[test]
fn the_kernel_knows_the_pages_as_locked_undumped_and_unforked() {
    for memory in [Locked::new(32).unwrap(), Locked::anonymous(32).unwrap()] {
        let flags = flags_of(memory.as_slice().as_ptr() as usize);
        let has = |flag: &str| flags.split_ascii_whitespace().any(|word| word == flag);
        assert!(has("dd"), "{memory:?} may be dumped: {flags}");
        assert!(has("dc"), "{memory:?} is copied on fork: {flags}");
        assert_eq!(
            has("lo"),
            memory.tier() != Tier::Unlocked,
            "{memory:?}: {flags}"
        );
    }
}

#[test]
fn a_forked_child_does_not_have_the_pages() {
    for memory in [Locked::new(32).unwrap(), Locked::anonymous(32).unwrap()] {
        let (_reader, writer) = io::pipe().unwrap();
        let address = memory.as_slice().as_ptr();
        assert!(is_readable(&writer, address));
        assert_eq!(
            in_child(|| i32::from(is_readable(&writer, address))),
            0,
            "{memory:?}"
        );
    }
}

#[test]
fn the_pages_are_gone_after_drop() {
    let (_reader, writer) = io::pipe().unwrap();
    // In a child, where no other thread can map something else at the address.
    let status = in_child(|| {
        for memory in [Locked::new(32), Locked::anonymous(32)] {
            let Ok(memory) = memory else { return 1 };
            let address = memory.as_slice().as_ptr();
            if !is_readable(&writer, address) {
                return 2;
            }
            drop(memory);
            if is_readable(&writer, address) {
                return 3;
            }
        }
        0
    });
    assert_eq!(status, 0);
}

#[test]
fn guard_pages_stand_on_both_sides() {
    let (_reader, writer) = io::pipe().unwrap();
    for memory in [Locked::new(1).unwrap(), Locked::anonymous(1).unwrap()] {
        let data = memory.mapping.data.as_ptr();
        assert!(is_readable(&writer, data));
        assert!(!is_readable(&writer, data.wrapping_sub(1)), "{memory:?}");
        assert!(
            !is_readable(&writer, data.wrapping_add(memory.mapping.size)),
            "{memory:?}"
        );
    }
}

#[test]
fn neither_descriptors_nor_the_quota_leak() {
    let tier = best_tier();
    for _ in 0..3000 {
        // A leaked descriptor or locked page would end in a lower tier.
        assert_eq!(Locked::new(1).unwrap().tier(), tier);
    }
}

#[test]
fn without_a_quota_the_tier_says_so() {
    let status = in_child(|| {
        let none = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: both calls change this child process only. The raw call, because the
        // library's would look for the threads that the child does not have.
        unsafe {
            if libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const none) != 0 {
                return 100;
            }
            if libc::geteuid() == 0 && libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) != 0
            {
                return 101;
            }
        }
        match Locked::new(1).map(|memory| memory.tier()) {
            Ok(Tier::Unlocked) => 0,
            Ok(_) => 1,
            Err(_) => 2,
        }
    });
    assert_eq!(status, 0);
}

#[test]
fn debug_shows_no_content() {
    let mut memory = Locked::new(6).unwrap();
    memory.as_mut_slice().copy_from_slice(b"s3cret");
    assert!(format!("{memory:?}").starts_with("Locked(6 bytes, "));
}

/// Whether the kernel can read a byte there, without faulting ourselves.
fn is_readable(pipe: &PipeWriter, address: *const u8) -> bool {
    // SAFETY: write(2) checks the address and fails with EFAULT.
    unsafe { libc::write(pipe.as_raw_fd(), address.cast(), 1) == 1 }
}

/// Runs `child` in a forked child and gives its exit status.
fn in_child(child: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child makes system calls only, which are safe after a fork of a process with
    // threads, and never returns from here.
    match unsafe { libc::fork() } {
        -1 => panic!("fork: {}", io::Error::last_os_error()),
        // SAFETY: ends the child without running anything of the parent's.
        0 => unsafe { libc::_exit(child()) },
        pid => {
            let mut status = 0;
            // SAFETY: our own child, waited for once.
            let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
            assert_eq!(waited, pid);
            assert!(libc::WIFEXITED(status), "the child died: {status:#x}");
            libc::WEXITSTATUS(status)
        }
    }
}

/// The `VmFlags` of the mapping that holds the address, proc_pid_smaps(5).
fn flags_of(address: usize) -> String {
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
    let mut inside = false;
    for line in smaps.lines() {
        let range = line
            .split_once(' ')
            .and_then(|(range, _)| range.split_once('-'));
        let bounds = range.and_then(|(low, high)| Some((parse(low)?, parse(high)?)));
        if let Some((low, high)) = bounds {
            inside = (low..high).contains(&address);
        } else if inside && let Some(flags) = line.strip_prefix("VmFlags:") {
            return flags.to_owned();
        }
    }
    panic!("no mapping at {address:#x}");
}

fn parse(hexadecimal: &str) -> Option<usize> {
    usize::from_str_radix(hexadecimal, 16).ok()
}

#[test]
fn a_secret_can_be_read_into_and_written_from() {
    // Key material goes straight from a source into the pages, and from them into a request.
    let (reader, writer): (PipeReader, PipeWriter) = io::pipe().unwrap();
    let mut memory = Locked::new(6).unwrap();
    assert_eq!(rustix::io::write(&writer, b"s3cret").unwrap(), 6);
    assert_eq!(rustix::io::read(&reader, memory.as_mut_slice()).unwrap(), 6);
    assert_eq!(rustix::io::write(&writer, memory.as_slice()).unwrap(), 6);
    let mut back = [0; 6];
    assert_eq!(rustix::io::read(&reader, &mut back).unwrap(), 6);
    assert_eq!(&back, b"s3cret");
}
