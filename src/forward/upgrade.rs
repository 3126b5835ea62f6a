//! After a 101 the stream carries another protocol: bytes both ways, each end kept apart.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use rustix::event::PollFlags;
use rustix::net::{Shutdown, shutdown};

use super::Forwarder;
use super::buffer::{Buffer, Buffers};
use super::clean::Cleaner;
use super::failure::Failure;
use super::frames::Frames;
use super::linger::LINGER;
use super::upstream::Upstream;
use super::wait::{self, Received, Woken, wait};

/// Bytes of the other protocol, each way.
#[derive(Debug, Default)]
pub struct Carried {
    pub up: u64,
    pub down: u64,
}

/// Relays until both directions have ended, one of the peers breaks, or nothing moves for too long.
pub fn relay(
    forwarder: &Forwarder,
    (client, upstream): (BorrowedFd<'_>, &mut Upstream),
    buffers: &mut Buffers,
    clean: &mut Cleaner,
    carried: &mut Carried,
) -> io::Result<()> {
    // What came behind the heads is the first of the new protocol.
    let mut up = Direction::from(std::mem::take(&mut buffers.from_client));
    let mut down = Direction::from(std::mem::take(&mut buffers.to_client));
    carried.up += up.buffer.len() as u64;
    let mut frames = Frames::default();
    let from = &mut buffers.from_upstream;
    carried.down += from.len() as u64;
    if clean.is_on() {
        frames
            .pass(from, &mut down.buffer, clean, false)
            .map_err(refused)?;
    } else {
        down.buffer.push(from.filled());
        from.consume(from.len());
    }
    // Set when the client has gone: how long its last words may take to go up.
    let mut farewell = None;
    while !(up.closed && down.closed) {
        let mut progress = false;
        if up.wants_more() {
            let received = wait::receive(client, up.buffer.spare(1), false)?;
            progress |= up.took(received);
            carried.up += up.buffer.len() as u64;
        }
        while !up.buffer.is_empty() {
            match upstream.send(up.buffer.filled())? {
                0 => break,
                n => up.buffer.consume(n),
            }
            progress = true;
        }
        if up.has_ended() && upstream.flush()? {
            upstream.finish_sending();
            up.closed = true;
            progress = true;
        }
        if down.wants_more() {
            if clean.is_on() {
                let received = upstream.receive(from.spare(1), false)?;
                match received {
                    Received::Data(n) => {
                        from.fill(n);
                        carried.down += n as u64;
                    }
                    Received::End => down.ended = true,
                    Received::Nothing => {}
                }
                if received != Received::Nothing {
                    progress = true;
                    frames
                        .pass(from, &mut down.buffer, clean, down.ended)
                        .map_err(refused)?;
                }
            } else {
                let received = upstream.receive(down.buffer.spare(1), false)?;
                progress |= down.took(received);
                carried.down += down.buffer.len() as u64;
            }
        }
        while !down.buffer.is_empty() {
            match wait::send(client, down.buffer.filled()) {
                Ok(0) => break,
                Ok(n) => down.buffer.consume(n),
                // Nobody reads any more; what was written before still goes up.
                Err(_) => down.give_up(),
            }
            progress = true;
        }
        if down.has_ended() {
            shutdown(client, Shutdown::Write)?;
            down.closed = true;
            progress = true;
        }
        if progress || (up.closed && down.closed) {
            continue;
        }
        let mut from_client = PollFlags::empty();
        from_client.set(PollFlags::IN, up.wants_more());
        from_client.set(PollFlags::OUT, !down.buffer.is_empty());
        let mut from_upstream = PollFlags::empty();
        from_upstream.set(PollFlags::IN, down.wants_more());
        from_upstream.set(
            PollFlags::OUT,
            !up.buffer.is_empty() || !upstream.is_flushed(),
        );
        let other = (!from_upstream.is_empty()).then(|| (upstream.as_fd(), from_upstream));
        let deadline = forwarder.limits.idle.map(|idle| Instant::now() + idle);
        let woken = match farewell {
            None => wait(client, from_client, other, deadline)?,
            Some(_) => wait(upstream.as_fd(), from_upstream, None, farewell)?,
        };
        match woken {
            Woken::Ready => {}
            // The hang-up may come together with bytes that were sent before it.
            Woken::Gone if farewell.is_none() && !up.closed => {
                down.give_up();
                farewell = Some(Instant::now() + LINGER);
            }
            Woken::Gone | Woken::Late => return Ok(()),
        }
    }
    Ok(())
}

/// The stream just ends: there is no place for a text in it.
fn refused(_: Failure) -> io::Error {
    io::ErrorKind::InvalidData.into()
}

/// Bytes one way.
struct Direction {
    buffer: Buffer,
    /// The sender has ended its direction.
    ended: bool,
    /// The receiver has been told.
    closed: bool,
}

impl Direction {
    fn from(buffer: Buffer) -> Direction {
        Direction {
            buffer,
            ended: false,
            closed: false,
        }
    }

    fn wants_more(&self) -> bool {
        !self.ended && self.buffer.is_empty()
    }

    fn has_ended(&self) -> bool {
        self.ended && self.buffer.is_empty() && !self.closed
    }

    /// The receiver has gone.
    fn give_up(&mut self) {
        self.buffer.consume(self.buffer.len());
        (self.ended, self.closed) = (true, true);
    }

    fn took(&mut self, received: Received) -> bool {
        match received {
            Received::Data(n) => self.buffer.fill(n),
            Received::End => self.ended = true,
            Received::Nothing => return false,
        }
        true
    }
}
