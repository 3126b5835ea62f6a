//! Reads a key to the end of its source, into protected memory from the first byte on, and checks
//! that it can be one.
//!
//! No `Read` adapter, no `Vec`: each would leave a copy behind. No text made here has content of
//! the key.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::sys::memory::Locked;

/// The longest key, without its newline.
pub const MAX_KEY: usize = 64 * 1024;

/// Room for the longest key, its newline (`\r\n`) and one byte that shows that it is too long.
pub const CAPACITY: usize = MAX_KEY + 3;

/// What a source gave, not yet checked.
pub struct Raw {
    buffer: Locked,
    len: usize,
}

impl Raw {
    /// An empty buffer of this capacity.
    pub fn new(capacity: usize) -> Result<Raw, String> {
        let buffer = Locked::new(capacity.min(CAPACITY)).map_err(no_memory)?;
        Ok(Raw { buffer, len: 0 })
    }

    /// A value that is complete.
    pub fn complete(buffer: Locked) -> Raw {
        let len = buffer.as_slice().len();
        Raw { buffer, len }
    }

    /// Reads to the end of the stream, or until the buffer is full.
    pub fn fill(&mut self, fd: impl AsFd, deadline: &Deadline) -> Result<(), String> {
        while self.len < self.buffer.as_slice().len() {
            // Also before the first read: a FIFO opened without blocking reads as ended until its
            // writer comes, but polls as not ready.
            deadline.wait(&fd)?;
            match rustix::io::read(&fd, &mut self.buffer.as_mut_slice()[self.len..]) {
                Ok(0) => break,
                Ok(count) => self.len += count,
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(err) => return Err(format!("cannot be read: {err}")),
            }
        }
        Ok(())
    }

    /// Whether there was more than the buffer holds, or may have been.
    pub fn is_full(&self) -> bool {
        self.len == self.buffer.as_slice().len()
    }

    /// The key: one trailing newline removed, and everything refused that can't be part of a key.
    pub fn key(&self) -> Result<&[u8], String> {
        let bytes = &self.buffer.as_slice()[..self.len];
        let key = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let key = if key.len() < bytes.len() {
            key.strip_suffix(b"\r").unwrap_or(key)
        } else {
            key
        };
        if key.is_empty() {
            return Err("is empty".to_owned());
        }
        if key.len() > MAX_KEY {
            return Err("is larger than 64 KiB".to_owned());
        }
        match key.iter().position(u8::is_ascii_control) {
            None => Ok(key),
            Some(offset) => {
                let what = match key[offset] {
                    0 => "a NUL byte",
                    b'\r' | b'\n' => "a line break",
                    _ => "a control character",
                };
                Err(format!(
                    "holds {what} (at offset {offset}), which can't be part of a key"
                ))
            }
        }
    }
}

/// The moment by which a source must have given all that it has.
pub struct Deadline {
    limit: Duration,
    end: Option<Instant>,
}

impl Deadline {
    /// From now on.
    pub fn after(limit: Duration) -> Deadline {
        // A limit beyond what the clock can express is none.
        Deadline {
            limit,
            end: Instant::now().checked_add(limit),
        }
    }

    /// Waits until reading `fd` would not block.
    pub fn wait(&self, fd: impl AsFd) -> Result<(), String> {
        loop {
            let rest = self
                .end
                .map(|end| end.saturating_duration_since(Instant::now()));
            let timeout = rest.and_then(|rest| Timespec::try_from(rest).ok());
            match poll(&mut [PollFd::new(&fd, PollFlags::IN)], timeout.as_ref()) {
                Ok(0) => return Err(self.passed()),
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(err) => return Err(format!("cannot be waited for: {err}")),
            }
        }
    }

    /// What to say when it has passed.
    pub fn passed(&self) -> String {
        format!("did not end within {:?}", self.limit)
    }

    /// Whether it has passed.
    pub fn is_over(&self) -> bool {
        self.end.is_some_and(|end| end <= Instant::now())
    }
}

/// What to say when there is no protected memory.
pub fn no_memory(err: std::io::Error) -> String {
    format!("no protected memory to hold it: {err}")
}
