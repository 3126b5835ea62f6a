//! Waiting for two peers at once, with a deadline: the only place where a connection's thread blocks
//! for longer than `TICK`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

/// The receive timeout of our sockets. A read that is likely to be answered soon blocks for this
/// long without a poll (one system call instead of two); only then are deadlines and the client's
/// disconnect looked at.
pub const TICK: Duration = Duration::from_millis(50);

/// What ended a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// One of the descriptors is ready.
    Ready,
    /// The deadline passed.
    Late,
    /// The client closed its stream (or we are shutting down): nobody wants the answer.
    Gone,
}

/// Waits until `upstream` or the client is ready for what is asked of it.
///
/// The client's hang-up always ends the wait; its half-close does not (it may still read).
pub fn wait(
    client: BorrowedFd<'_>,
    client_flags: PollFlags,
    upstream: Option<(BorrowedFd<'_>, PollFlags)>,
    deadline: Option<Instant>,
) -> io::Result<Woken> {
    let client_fd = PollFd::from_borrowed_fd(client, client_flags);
    let (other, flags) = upstream.unwrap_or((client, PollFlags::empty()));
    let mut fds = [client_fd, PollFd::from_borrowed_fd(other, flags)];
    let fds = if upstream.is_some() {
        &mut fds[..]
    } else {
        &mut fds[..1]
    };
    loop {
        let timeout = match deadline {
            None => None,
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Ok(Woken::Late);
                }
                Some(Timespec {
                    tv_sec: left.as_secs().min(1 << 30) as i64,
                    tv_nsec: left.subsec_nanos().into(),
                })
            }
        };
        match poll(fds, timeout.as_ref()) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => {
                let hung_up = fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR);
                return Ok(if hung_up { Woken::Gone } else { Woken::Ready });
            }
            Err(e) => return Err(e.into()),
        }
    }
}

/// The outcome of one attempt to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// This many bytes, never 0.
    Data(usize),
    /// Nothing yet.
    Nothing,
    /// The peer will send no more.
    End,
}

/// Reads what is there; with `block`, waits for it for at most `TICK`.
pub fn receive(fd: BorrowedFd<'_>, buf: &mut [u8], block: bool) -> io::Result<Received> {
    let flags = if block {
        RecvFlags::empty()
    } else {
        RecvFlags::DONTWAIT
    };
    loop {
        match rustix::net::recv(fd, &mut *buf, flags) {
            Ok((0, _)) => return Ok(Received::End),
            Ok((n, _)) => return Ok(Received::Data(n)),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(Received::Nothing),
            Err(e) => return Err(e.into()),
        }
    }
}

/// Writes what fits without blocking; 0 when nothing does.
pub fn send(fd: BorrowedFd<'_>, buf: &[u8]) -> io::Result<usize> {
    loop {
        match rustix::net::send(fd, buf, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(n) => return Ok(n),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(0),
            Err(e) => return Err(e.into()),
        }
    }
}

/// Sets the receive timeout that `receive` relies on.
pub fn prepare(fd: impl AsFd) -> io::Result<()> {
    use rustix::net::sockopt::{Timeout, set_socket_timeout};
    set_socket_timeout(fd, Timeout::Recv, Some(TICK))?;
    Ok(())
}
