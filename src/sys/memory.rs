//! Memory for secrets: out of reach of other processes where the kernel can do that, never in a
//! core file or a forked child, kept from swap, wiped before it is given back.
//!
//! Each piece is its own mapping between two guard pages. A page per secret keeps the cost of a
//! handful of secrets far below the usual RLIMIT_MEMLOCK, and an overrun of any other buffer
//! faults before it reaches a key.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::{self, NonNull};

use zeroize::Zeroize;

/// How well a piece of memory is protected, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// memfd_secret(2): not even root reads it, except by code in the kernel itself.
    MemfdSecret,
    /// mlock(2) and MADV_DONTDUMP: never in swap, never in a core file.
    Locked,
    /// MADV_DONTDUMP only: RLIMIT_MEMLOCK left no room for more.
    Unlocked,
}

impl Tier {
    /// The name that users see.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Tier::MemfdSecret => "memfd_secret",
            Tier::Locked => "mlock",
            Tier::Unlocked => "none",
        }
    }
}

/// The best tier that this host gives us now; `Unlocked` also when it gives no memory at all.
#[must_use]
pub fn best_tier() -> Tier {
    Locked::new(1).map_or(Tier::Unlocked, |memory| memory.tier())
}

/// Protected bytes, zero at first, wiped and unmapped on drop.
pub struct Locked {
    mapping: Mapping,
    len: usize,
    tier: Tier,
}

impl Locked {
    /// `len` bytes in the best tier that can be had.
    ///
    /// Fails when there is no memory, or when the kernel can't keep it from forked children.
    pub fn new(len: usize) -> io::Result<Locked> {
        match Mapping::secret(len) {
            Ok(mapping) => Locked::finish(mapping, len, Tier::MemfdSecret),
            // Whatever the reason (no such call, a seccomp filter, the quota): the next tier is
            // there for it, and `tier` tells.
            Err(_) => Locked::anonymous(len),
        }
    }

    fn anonymous(len: usize) -> io::Result<Locked> {
        let mapping = Mapping::anonymous(len)?;
        let tier = if mapping.lock() {
            Tier::Locked
        } else {
            Tier::Unlocked
        };
        mapping.advise_no_dump();
        Locked::finish(mapping, len, tier)
    }

    fn finish(mapping: Mapping, len: usize, tier: Tier) -> io::Result<Locked> {
        mapping.keep_from_forks()?;
        Ok(Locked { mapping, len, tier })
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the mapping is readable, at least `len` bytes long, initialised (the kernel gives
        // zeroed pages) and lives as long as `self`; writing needs `&mut self`.
        unsafe { std::slice::from_raw_parts(self.mapping.data.as_ptr(), self.len) }
    }

    /// The bytes, to be written.
    #[must_use]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`; it is writable too, and `&mut self` makes the borrow exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.mapping.data.as_ptr(), self.len) }
    }

    /// How it is protected.
    #[must_use]
    pub fn tier(&self) -> Tier {
        self.tier
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // The mapping is unmapped right after this, by its own drop.
        self.as_mut_slice().zeroize();
    }
}

impl fmt::Debug for Locked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Locked({} bytes, {})", self.len, self.tier.name())
    }
}

// SAFETY: the mapping belongs to this value alone and is not tied to a thread.
unsafe impl Send for Locked {}
// SAFETY: through a shared reference the bytes can only be read.
unsafe impl Sync for Locked {}

/// Whole pages of data between two guard pages, unmapped together on drop.
struct Mapping {
    data: NonNull<u8>,
    /// Bytes of data, a multiple of the page size. The guard pages come on top.
    size: usize,
    page: usize,
}

impl Mapping {
    fn anonymous(len: usize) -> io::Result<Mapping> {
        let mapping = Mapping::reserve(len)?;
        // SAFETY: the range is the data part of the reservation, which nobody else knows of.
        let done = unsafe {
            libc::mprotect(
                mapping.data.as_ptr().cast(),
                mapping.size,
                libc::PROT_READ | libc::PROT_WRITE,
            )
        };
        check(done)?;
        Ok(mapping)
    }

    fn secret(len: usize) -> io::Result<Mapping> {
        let page = page_size()?;
        let size = whole_pages(len, page)?;
        let fd = memfd_secret()?;
        let length = libc::off_t::try_from(size).map_err(|_| io::ErrorKind::OutOfMemory)?;
        // SAFETY: only the descriptor is used, and it is open.
        check(unsafe { libc::ftruncate(fd.as_raw_fd(), length) })?;
        // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
        let mapped = unsafe {
            libc::mmap(
                ptr::null_mut(),
                size,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // Mapped first and moved then, because a refused MAP_FIXED may leave a hole in the
        // reservation, where another thread's mapping could land.
        let mapping = Mapping::reserve(len).inspect_err(|_| {
            // SAFETY: this is the mapping made above, and nobody has its address.
            unsafe { libc::munmap(mapped, size) };
        })?;
        // SAFETY: the source is the mapping made above; the target is the data part of our own
        // reservation, so that nothing else is replaced.
        let moved = unsafe {
            libc::mremap(
                mapped,
                size,
                size,
                libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
                mapping.data.as_ptr(),
            )
        };
        if moved == libc::MAP_FAILED {
            let err = io::Error::last_os_error();
            // Whether the target is still reserved is unknown: leak its address range rather than
            // unmap what may be another thread's by now.
            std::mem::forget(mapping);
            // SAFETY: a refused mremap leaves the source where it was, and nobody has its address.
            unsafe { libc::munmap(mapped, size) };
            return Err(err);
        }
        Ok(mapping)
    }

    /// Address space that can't be touched: room for the data, and a guard page on each side.
    fn reserve(len: usize) -> io::Result<Mapping> {
        let page = page_size()?;
        let size = whole_pages(len, page)?;
        let span = size
            .checked_add(2 * page)
            .ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                span,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: one page into a mapping of at least three.
        let data = unsafe { base.cast::<u8>().add(page) };
        let data = NonNull::new(data).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Mapping { data, size, page })
    }

    fn lock(&self) -> bool {
        // SAFETY: the range is ours and mapped; locking changes no content.
        unsafe { libc::mlock(self.data.as_ptr().cast(), self.size) == 0 }
    }

    fn advise_no_dump(&self) {
        // A refusal is let pass: a process that reads a secret has switched its core dumps off
        // before, and this only guards against somebody switching them on again.
        let _ = self.advise(libc::MADV_DONTDUMP);
    }

    /// A forked child (the command, before it executes) must not have the pages, not even as a copy.
    fn keep_from_forks(&self) -> io::Result<()> {
        // Refused for the shared pages of memfd_secret, and not needed beside MADV_DONTFORK: it is
        // for the case that something lifts that one again.
        let _ = self.advise(libc::MADV_WIPEONFORK);
        self.advise(libc::MADV_DONTFORK)
    }

    fn advise(&self, advice: libc::c_int) -> io::Result<()> {
        // SAFETY: the range is ours and mapped; none of the advice given here drops its content in
        // this process.
        check(unsafe { libc::madvise(self.data.as_ptr().cast(), self.size, advice) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the range that `reserve` mapped, and no borrow outlives its owner.
        unsafe {
            let base = self.data.as_ptr().sub(self.page);
            libc::munmap(base.cast(), self.size + 2 * self.page);
        }
    }
}

/// memfd_secret(2), close-on-exec. No libc has a wrapper for it.
fn memfd_secret() -> io::Result<OwnedFd> {
    // SAFETY: the call takes flags only (those of open(2) that make sense here).
    let fd = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = RawFd::try_from(fd).map_err(|_| io::ErrorKind::Unsupported)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn page_size() -> io::Result<usize> {
    // SAFETY: reads a constant of the system.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size)
        .ok()
        .filter(|size| size.is_power_of_two())
        .ok_or_else(|| io::ErrorKind::Unsupported.into())
}

fn whole_pages(len: usize, page: usize) -> io::Result<usize> {
    len.max(1)
        .checked_next_multiple_of(page)
        .filter(|size| isize::try_from(*size).is_ok())
        .ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests;
