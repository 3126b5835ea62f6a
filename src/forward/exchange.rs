//! One request and its response, both directions at once on one thread.
//!
//! Each round does what can be done without blocking; only when nothing can, the thread sleeps on
//! both peers with the nearest deadline. The usual small request needs no poll at all: while the
//! answer is the only thing awaited, the read itself waits for it.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use rustix::event::PollFlags;

use super::answer::Failure;
use super::buffer::Buffer;
use super::down::Answer;
use super::up::RequestBody;
use super::upstream::{ConnectError, Upstream};
use super::wait::{Received, TICK, Woken, wait};
use super::{Forwarder, dial::DialError, tls::TlsError};
use crate::http::Version;
use crate::http::headers::HeadScanner;
use crate::http::response::Asked;

/// Why an exchange ends before its response is complete.
#[derive(Debug)]
pub enum Stop {
    /// Nothing of a response has been sent: we answer ourselves, then close.
    Answer(Failure),
    /// A response has begun: the stream is closed so that the client sees an incomplete message.
    Abort,
    /// The client has gone.
    Gone,
    /// The response was 101: the streams carry another protocol from now on.
    Upgraded,
}

/// What of the request decides how it is exchanged.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    pub asked: Asked,
    pub version: Version,
    /// The client would send another request on this stream.
    pub keep_alive: bool,
    /// The client waits for 100 (Continue).
    pub expect_continue: bool,
    /// The method is idempotent (RFC 9110 section 9.2.2) and there is no body: the request may be
    /// sent again when a connection that was idle turns out to be dead.
    pub replayable: bool,
}

/// The buffers of one stream, kept from request to request.
#[derive(Debug, Default)]
pub struct Buffers {
    pub from_client: Buffer,
    pub to_client: Buffer,
    pub to_upstream: Buffer,
    pub from_upstream: Buffer,
}

/// One exchange in progress.
pub struct Exchange<'c> {
    pub(super) forwarder: &'c Forwarder,
    pub(super) client: BorrowedFd<'c>,
    pub(super) buffers: &'c mut Buffers,
    pub(super) upstream: &'c mut Upstream,
    pub(super) terms: Terms,
    pub(super) body: RequestBody,
    pub(super) answer: Answer,
    pub(super) scanner: HeadScanner,
    /// How much of `to_upstream` has been sent; it is kept while the request may be sent again.
    pub(super) sent: usize,
    pub(super) interim: usize,
    /// Whether any of the request may have left: `sent` starts anew behind the head.
    pub(super) left: bool,
    /// The upstream takes no more of the request.
    pub(super) deaf: Option<io::Error>,
    /// The status of the final response, once it is known.
    pub(super) status: u16,
    /// Whether the client may have seen some of what is not an answer of ours.
    pub(super) begun: bool,
    /// Whether the stream stays open afterwards.
    pub(super) keep_alive: bool,
    /// Whether the upstream's connection may carry another request.
    pub(super) reusable: bool,
    retried: bool,
    /// When the upstream last took a byte of the request.
    last_sent: Instant,
    last_progress: Instant,
}

impl<'c> Exchange<'c> {
    /// Starts with a request head, and perhaps some of its body, in `to_upstream`.
    pub fn new(
        forwarder: &'c Forwarder,
        client: BorrowedFd<'c>,
        buffers: &'c mut Buffers,
        upstream: &'c mut Upstream,
        terms: Terms,
        body: RequestBody,
    ) -> Exchange<'c> {
        let now = Instant::now();
        Exchange {
            forwarder,
            client,
            buffers,
            upstream,
            terms,
            body,
            answer: Answer::Head,
            scanner: HeadScanner::default(),
            sent: 0,
            left: false,
            interim: 0,
            deaf: None,
            status: 0,
            begun: false,
            keep_alive: false,
            reusable: false,
            retried: false,
            last_sent: now,
            last_progress: now,
        }
    }

    /// Runs the exchange to its end.
    pub fn run(&mut self) -> Result<(), Stop> {
        let outcome = self.pump();
        // The head held the credential.
        self.buffers.to_upstream.wipe();
        if matches!(outcome, Err(Stop::Answer(_))) && self.begun {
            return Err(Stop::Abort);
        }
        outcome
    }

    fn pump(&mut self) -> Result<(), Stop> {
        self.take_body()?;
        loop {
            let mut progress = self.push_up()?;
            if progress {
                self.last_sent = Instant::now();
            }
            if self.wants_client() {
                progress |= self.read_client()?;
            }
            if self.wants_upstream() {
                progress |= self.read_upstream()?;
            }
            progress |= self.push_down()?;
            if self.answer == Answer::Done && self.is_delivered() {
                return Ok(());
            }
            if progress {
                self.last_progress = self.last_sent.max(self.last_progress);
            } else {
                self.sleep()?;
            }
        }
    }

    /// Whether more of the request body must come from the client before anything can go up.
    fn wants_client(&self) -> bool {
        !self.body.is_done()
            && self.deaf.is_none()
            && !self.has_unsent()
            && !self.body.can_go_on(&self.buffers.from_client)
    }

    /// Whether there is room for more of the response.
    fn wants_upstream(&self) -> bool {
        self.answer != Answer::Done && self.is_delivered()
    }

    /// Whether the answer is the only thing that is awaited.
    fn only_awaits_upstream(&self) -> bool {
        (self.body.is_done() || self.deaf.is_some()) && !self.has_unsent()
    }

    pub(super) fn has_unsent(&self) -> bool {
        self.deaf.is_none()
            && (self.sent < self.buffers.to_upstream.len() || !self.upstream.is_flushed())
    }

    fn read_client(&mut self) -> Result<bool, Stop> {
        let buffer = &mut self.buffers.from_client;
        let want = buffer.next_read();
        match super::wait::receive(self.client, buffer.spare(want), false) {
            Ok(Received::Data(n)) => {
                buffer.fill(n);
                Ok(true)
            }
            Ok(Received::Nothing) => Ok(false),
            Ok(Received::End) => Err(Stop::Answer(Failure::RequestIncomplete)),
            Err(_) => Err(Stop::Gone),
        }
    }

    fn read_upstream(&mut self) -> Result<bool, Stop> {
        // An upstream that dribbles a head or framing would always be read and never slept on, which
        // is where deadlines and the client are looked at.
        let begun = self.interim > 0 || !self.buffers.from_upstream.is_empty();
        let block = self.only_awaits_upstream()
            && !begun
            && self.forwarder.limits.response_header > 2 * TICK;
        let buffer = &mut self.buffers.from_upstream;
        let want = buffer.next_read();
        match self.upstream.receive(buffer.spare(want), block) {
            Ok(Received::Data(n)) => {
                buffer.fill(n);
                if block {
                    self.last_progress = Instant::now();
                }
                self.take_answer()?;
                Ok(true)
            }
            Ok(Received::Nothing) => Ok(false),
            Ok(Received::End) => self.upstream_ended(None),
            Err(e) => self.upstream_ended(Some(e)),
        }
    }

    /// The upstream sends no more; with an error, not even a proper end.
    fn upstream_ended(&mut self, error: Option<io::Error>) -> Result<bool, Stop> {
        match &mut self.answer {
            Answer::Head if self.interim == 0 && self.buffers.from_upstream.is_empty() => {
                self.send_again(error)
            }
            Answer::Head => Err(Stop::Answer(Failure::Terminated(" in full".into()))),
            Answer::Body(body) => {
                if error.is_some() || !body.ends_with_connection() {
                    // What has arrived goes out; what is missing shows.
                    let _ = self.push_down();
                    return Err(Stop::Abort);
                }
                self.finish_answer();
                Ok(true)
            }
            Answer::Done => Ok(false),
        }
    }

    /// A connection that was idle may have been closed by the upstream just as we used it. The
    /// request goes out again, once, on a new one: when it provably never left, or may be repeated.
    fn send_again(&mut self, error: Option<io::Error>) -> Result<bool, Stop> {
        let never_left = self.deaf.is_some() && !self.left;
        if self.retried || !self.upstream.reused || !(self.terms.replayable || never_left) {
            let why = error
                .or(self.deaf.take())
                .map(|e| format!(": {e}"))
                .unwrap_or_default();
            return Err(Stop::Answer(Failure::Terminated(why)));
        }
        self.retried = true;
        self.deaf = None;
        self.sent = 0;
        *self.upstream = connect(self.forwarder, self.client)?;
        self.last_sent = Instant::now();
        Ok(true)
    }

    /// Waits until one of the peers is ready for what is left to do.
    fn sleep(&mut self) -> Result<(), Stop> {
        let mut client = PollFlags::empty();
        client.set(PollFlags::IN, self.wants_client());
        client.set(PollFlags::OUT, !self.is_delivered());
        let mut upstream = PollFlags::empty();
        upstream.set(PollFlags::IN, self.wants_upstream());
        upstream.set(PollFlags::OUT, self.has_unsent());
        // A peer that nothing is asked of is left out: its hang-up would wake us without end.
        let other = (!upstream.is_empty()).then(|| (self.upstream.as_fd(), upstream));
        let limits = &self.forwarder.limits;
        let head = (self.answer == Answer::Head && !self.wants_client())
            .then(|| self.last_sent + limits.response_header);
        let idle = limits.idle.map(|idle| self.last_progress + idle);
        let deadline = match (head, idle) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        match wait(self.client, client, other, deadline) {
            Ok(Woken::Ready) => {
                self.last_progress = Instant::now();
                Ok(())
            }
            Ok(Woken::Gone) => Err(Stop::Gone),
            Ok(Woken::Late) if head.is_some_and(|head| head <= Instant::now()) => {
                Err(Stop::Answer(Failure::ResponseTimeout))
            }
            Ok(Woken::Late) => Err(Stop::Answer(Failure::Idle)),
            Err(_) => Err(Stop::Abort),
        }
    }
}

/// A new connection to the upstream.
pub fn connect(forwarder: &Forwarder, client: BorrowedFd<'_>) -> Result<Upstream, Stop> {
    forwarder.pool.connect(client).map_err(|e| match e {
        ConnectError::Dial(DialError::Gone) | ConnectError::Tls(TlsError::Gone) => Stop::Gone,
        e => Stop::Answer(Failure::Connect(e)),
    })
}
