//! The end of a stream on which the client may still be sending.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::net::{Shutdown, shutdown};

use super::wait::{self, Received, Woken, wait};

/// How long, and how much, a client that we hang up on may still send before it reads our answer.
pub const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1024 * 1024;

/// Closes our direction and lets the client finish what it is sending: one that is cut off in
/// the middle of a write may never read the answer.
pub fn hang_up(client: BorrowedFd<'_>) {
    if shutdown(client, Shutdown::Write).is_err() {
        return;
    }
    let deadline = Instant::now() + LINGER;
    let mut read = 0;
    let mut sink = [0; 4096];
    while read < LINGER_BYTES {
        match wait::receive(client, &mut sink, false) {
            Ok(Received::Data(n)) => read += n,
            Ok(Received::Nothing) => match wait(client, PollFlags::IN, None, Some(deadline)) {
                Ok(Woken::Ready) => {}
                _ => return,
            },
            Ok(Received::End) | Err(_) => return,
        }
    }
}
