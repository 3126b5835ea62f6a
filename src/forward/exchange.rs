//! One request and its response, both directions at once on one thread.
//!
//! Each round does what can be done without blocking; only when nothing can, the thread sleeps on
//! both peers with the nearest deadline. The usual small request needs no poll at all: while the
//! answer is the only thing awaited, the read itself waits for it.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use rustix::event::PollFlags;

use super::Limits;
use super::buffer::Buffers;
use super::dial::DialError;
use super::down::{Downward, Ending};
use super::failure::{Failure, Stop};
use super::tls::TlsError;
use super::up::Upward;
use super::upstream::{ConnectError, Pool, Upstream};
use super::wait::{self, Received, TICK, Woken, wait};

/// One exchange in progress.
#[derive(Debug)]
pub struct Exchange<'c> {
    pub client: BorrowedFd<'c>,
    pub pool: &'c Pool,
    pub limits: Limits,
    pub buffers: &'c mut Buffers,
    pub upstream: &'c mut Upstream,
    pub up: Upward<'c>,
    pub down: Downward,
    /// What cut a response short that had begun, where that was a failure of its own.
    pub cause: Option<Failure>,
}

impl Exchange<'_> {
    /// Runs the exchange to its end: whether it leaves the upstream's connection between two messages.
    /// The request's head is wiped, whatever the end is.
    pub fn run(&mut self) -> Result<bool, Stop> {
        let outcome = self.pump();
        let clean = self.leaves_upstream_clean();
        self.buffers.to_upstream.wipe();
        match outcome {
            Ok(()) => Ok(clean),
            Err(Stop::Answer(failure)) if self.down.has_begun() => {
                self.cause = Some(failure);
                Err(Stop::Abort)
            }
            Err(stop) => Err(stop),
        }
    }

    fn leaves_upstream_clean(&self) -> bool {
        // An answer may come before the upstream has taken all of the request; what it has not taken
        // would be the start of the next. And bytes behind a complete response were not asked for:
        // nothing on this connection can be trusted to answer the next request.
        self.down.is_reusable()
            && self.up.is_delivered()
            && !self.up.has_unsent(self.buffers, self.upstream)
            && self.buffers.from_upstream.is_empty()
    }

    fn pump(&mut self) -> Result<(), Stop> {
        let started = Instant::now();
        // When the upstream last took a byte of the request, and when anything last moved.
        let (mut sent, mut moved) = (started, started);
        let (mut retried, mut stirred) = (false, true);
        loop {
            let mut progress = self.up.push(self.buffers, self.upstream)?;
            if progress {
                sent = Instant::now();
            }
            if self.up.wants_client(self.buffers, self.upstream) {
                progress |= self.read_client()?;
            }
            if self.down.wants_upstream(self.buffers) {
                progress |= match self.read_upstream()? {
                    Read::Some => true,
                    Read::Nothing => false,
                    Read::End(error) => {
                        self.upstream_ended(error, retried)?;
                        if self.down.awaits_head() {
                            retried = true;
                            sent = Instant::now();
                        }
                        true
                    }
                };
            }
            progress |= self.down.push(self.buffers, self.client)?;
            if self.down.is_complete(self.buffers) {
                return Ok(());
            }
            stirred |= progress;
            if !progress {
                if std::mem::take(&mut stirred) {
                    moved = Instant::now();
                }
                self.sleep(sent, moved)?;
            }
        }
    }

    fn read_client(&mut self) -> Result<bool, Stop> {
        let buffer = &mut self.buffers.from_client;
        let want = buffer.next_read();
        match wait::receive(self.client, buffer.spare(want), false) {
            Ok(Received::Data(n)) => {
                buffer.fill(n);
                Ok(true)
            }
            Ok(Received::Nothing) => Ok(false),
            Ok(Received::End) => Err(Failure::RequestIncomplete.into()),
            Err(_) => Err(Stop::Gone),
        }
    }

    fn read_upstream(&mut self) -> Result<Read, Stop> {
        let request_sent = !self.up.has_unsent(self.buffers, self.upstream)
            && !self.up.wants_client(self.buffers, self.upstream);
        // An upstream that dribbles would always be read and never slept on, which is where
        // deadlines and the client are looked at. So is a deadline that the read could not keep.
        let dribbles = self.down.is_partial(self.buffers);
        let tight = |limit| limit < 2 * TICK;
        let block = request_sent
            && !dribbles
            && !tight(self.limits.response_header)
            && !self.limits.idle.is_some_and(tight);
        let buffer = &mut self.buffers.from_upstream;
        let want = buffer.next_read();
        match self.upstream.receive(buffer.spare(want), block) {
            Ok(Received::Data(n)) => {
                buffer.fill(n);
                self.up.answered();
                self.down.take(self.buffers, self.up.is_delivered())?;
                Ok(Read::Some)
            }
            Ok(Received::Nothing) => Ok(Read::Nothing),
            Ok(Received::End) => Ok(Read::End(None)),
            Err(e) => Ok(Read::End(Some(e))),
        }
    }

    /// The upstream sends no more; with an error, not even a proper end.
    fn upstream_ended(&mut self, error: Option<io::Error>, retried: bool) -> Result<(), Stop> {
        match self.down.end(self.buffers, error.is_none()) {
            Ending::Proper => Ok(()),
            Ending::InHead => Err(Failure::Terminated(" in full".into()).into()),
            Ending::InBody => {
                // What has arrived goes out; what is missing shows.
                let _ = self.down.push(self.buffers, self.client);
                Err(Stop::Abort)
            }
            // A connection that was idle may have been closed by the upstream just as we used it.
            Ending::Unanswered if self.upstream.reused && !retried && self.up.may_go_again() => {
                *self.upstream = connect(self.pool, self.client)?;
                self.up.go_again();
                Ok(())
            }
            Ending::Unanswered => {
                let why = error.or_else(|| self.up.take_error());
                Err(Failure::Terminated(why.map(|e| format!(": {e}")).unwrap_or_default()).into())
            }
        }
    }

    /// Waits until one of the peers is ready for what is left to do.
    fn sleep(&mut self, sent: Instant, moved: Instant) -> Result<(), Stop> {
        let wants_client = self.up.wants_client(self.buffers, self.upstream);
        let mut client = PollFlags::empty();
        client.set(PollFlags::IN, wants_client);
        client.set(PollFlags::OUT, !self.down.is_delivered(self.buffers));
        let mut upstream = PollFlags::empty();
        upstream.set(PollFlags::IN, self.down.wants_upstream(self.buffers));
        upstream.set(
            PollFlags::OUT,
            self.up.has_unsent(self.buffers, self.upstream),
        );
        // A peer that nothing is asked of is left out: its hang-up would wake us without end.
        let other = (!upstream.is_empty()).then(|| (self.upstream.as_fd(), upstream));
        // The clock of the head runs while it is the upstream's turn: to take the request, to answer
        // it, or to say that it wants the body.
        let head = self.down.awaits_head() && (!wants_client || self.down.awaits_continue());
        let head = head.then(|| sent + self.limits.response_header);
        let idle = self.limits.idle.map(|idle| moved + idle);
        let deadline = head.into_iter().chain(idle).min();
        match wait(self.client, client, other, deadline) {
            Ok(Woken::Ready) => Ok(()),
            Ok(Woken::Gone) => Err(Stop::Gone),
            Ok(Woken::Late) if head.is_some() && head == deadline => {
                Err(Failure::ResponseTimeout.into())
            }
            Ok(Woken::Late) => Err(Failure::Idle.into()),
            Err(_) => Err(Stop::Abort),
        }
    }
}

/// What a read from the upstream brought.
enum Read {
    Some,
    Nothing,
    End(Option<io::Error>),
}

/// A new connection to the upstream.
pub fn connect(pool: &Pool, client: BorrowedFd<'_>) -> Result<Upstream, Stop> {
    pool.connect(client).map_err(|e| match e {
        ConnectError::Dial(DialError::Gone) | ConnectError::Tls(TlsError::Gone) => Stop::Gone,
        e => Failure::Connect(e).into(),
    })
}

/// The end of an exchange and how often the response held the credential, for `--verbose`.
pub struct Outcome<'a>(pub &'a Result<bool, Stop>, pub u64);

impl std::fmt::Display for Outcome<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            Ok(_) => "done",
            Err(Stop::Answer(_)) => "answered by us",
            Err(Stop::Abort) => "cut short",
            Err(Stop::Gone) => "the client has gone",
            Err(Stop::Upgraded) => "upgraded",
        })?;
        match self.1 {
            0 => Ok(()),
            n => write!(f, ", the credential in it {n} times"),
        }
    }
}
