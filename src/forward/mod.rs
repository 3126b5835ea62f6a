//! One stream: request after request until the client has had enough.
//!
//! Whatever goes wrong, nothing is sent without the credential's rules having been applied, and a
//! response that is cut short never looks complete.

mod account;
mod answer;
mod body;
mod buffer;
mod clean;
pub mod crew;
mod dial;
mod down;
mod exchange;
mod failure;
mod frames;
mod inject;
mod linger;
mod proxy;
mod scrub;
mod tls;
mod up;
mod upgrade;
mod upstream;
mod wait;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use crate::audit::{Audit, Entry};
use crate::credential::Loaded;
use crate::error::{Error, Result, say};
use crate::http::Version;
use crate::http::headers::HeadScanner;
use crate::http::request;
use crate::http::response::Asked;
use crate::service::Service;
use account::Accounts;
use buffer::Buffers;
pub use clean::Scrub;
use clean::{Cleaner, Cleaners};
use crew::Serve;
use down::{Downward, Terms};
use exchange::{Exchange, Outcome, connect};
use failure::{Failure, Stop};
use up::Upward;
use upstream::{Pool, Upstream};
use wait::{Received, Woken, wait};

/// How long a request head may take from its first byte on.
const REQUEST_HEAD: Duration = Duration::from_secs(30);

/// The deadlines of an exchange.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From a dial of the upstream to the end of the TLS handshake.
    pub connect: Duration,
    /// From the last byte of the request that the upstream took to the end of the response head.
    pub response_header: Duration,
    /// Without a byte either way, if that has a limit.
    pub idle: Option<Duration>,
}

/// Forwards the requests of any number of streams to one service.
#[derive(Debug)]
pub struct Forwarder {
    service: Service,
    pool: Pool,
    limits: Limits,
    cleaners: Cleaners,
    narrate: bool,
    accounts: Option<Accounts>,
}

impl Forwarder {
    /// Prepares everything that can fail before the first request; connects to nothing yet.
    pub fn new(
        service: Service,
        roots: &[PathBuf],
        limits: Limits,
        scrub: Scrub,
        narrate: bool,
    ) -> Result<Forwarder> {
        let pool = Pool::new(&service.origin, roots, limits.connect)?;
        let forwarder = Forwarder {
            service,
            pool,
            limits,
            cleaners: Cleaners::new(scrub),
            narrate,
            accounts: None,
        };
        // A key that cannot be looked for is refused before the command starts.
        let loaded = forwarder.service.credential().map_err(Error::Credential)?;
        let checked = forwarder.cleaners.check(&loaded, &forwarder.service);
        checked.map_err(Error::Credential)?;
        Ok(forwarder)
    }

    /// The credential as it is now, and what cleans the response to a request that carries it.
    fn credential(&self) -> std::result::Result<(Arc<Loaded>, Cleaner), String> {
        let loaded = self.service.credential()?;
        let cleaner = self.cleaners.of(&loaded, &self.service.place);
        let cleaner = cleaner.map_err(|e| format!("{}: {e}", self.service.source()))?;
        Ok((loaded, cleaner))
    }

    /// Has every request accounted for. `key` is the serial of the key as the audit knows it.
    pub fn audit(&mut self, audit: Arc<Audit>, key: u64) {
        self.accounts = Some(Accounts::new(audit, key));
    }

    /// Has the next connections to the upstream be these, in order.
    #[cfg(fuzzing)]
    pub fn connect_to(&self, sockets: Vec<OwnedFd>) {
        self.pool.give(sockets);
    }
}

impl Serve for Forwarder {
    fn serve(&self, number: u64, stream: &OwnedFd) {
        let mut connection = Connection {
            forwarder: self,
            number,
            requests: 0,
            entry: None,
            client: stream.as_fd(),
            buffers: Buffers::default(),
            upstream: None,
            ticks: false,
        };
        connection.run();
        connection.park();
    }

    fn rest(&self) {
        self.pool.clear();
    }
}

/// One stream and the connection to the upstream that serves it.
struct Connection<'f> {
    forwarder: &'f Forwarder,
    number: u64,
    requests: u64,
    /// The audit's account of the request that is being served.
    entry: Option<Entry<'f>>,
    client: BorrowedFd<'f>,
    buffers: Buffers,
    upstream: Option<Upstream>,
    /// Whether a read from the client may block: it then ends with the next `TICK`. A stream that
    /// never carries a request is spared the system call that this takes.
    ticks: bool,
}

/// What becomes of a stream after an exchange.
enum Next {
    Request,
    /// Everything was said; what the client still sends is of no interest.
    HangUp,
    /// The client has gone, or must see an incomplete message.
    Drop,
}

impl Connection<'_> {
    fn run(&mut self) {
        loop {
            let next = match self.read_head() {
                Ok(Some(end)) => self.exchange(end),
                Ok(None) => Next::Drop,
                Err(failure) => {
                    self.begin();
                    self.refuse(&failure, Version::V11, false)
                }
            };
            if let Some(entry) = self.entry.take() {
                entry.finish();
            }
            match next {
                Next::Request => {}
                Next::HangUp => return linger::hang_up(self.client),
                Next::Drop => return,
            }
        }
    }

    /// Waits for a whole request head: its length, or `None` when the client sends no more.
    fn read_head(&mut self) -> std::result::Result<Option<usize>, Failure> {
        let mut scanner = HeadScanner::default();
        let mut deadline = None;
        loop {
            let buffer = &mut self.buffers.from_client;
            if let Some(end) =
                request::find_end(&mut scanner, buffer.filled()).map_err(Failure::Request)?
            {
                return Ok(Some(end));
            }
            if deadline.is_none() && !buffer.is_empty() {
                deadline = Some(Instant::now() + REQUEST_HEAD);
            }
            match wait::receive(self.client, buffer.spare(1), self.ticks) {
                Ok(Received::Data(n)) => {
                    buffer.fill(n);
                    // Whoever dribbles never lets us wait, which is where time is looked at.
                    if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                        return Err(Failure::RequestTimeout);
                    }
                    continue;
                }
                Ok(Received::Nothing) => {}
                Ok(Received::End) if buffer.is_empty() => return Ok(None),
                Ok(Received::End) => return Err(Failure::RequestIncomplete),
                Err(_) => return Ok(None),
            }
            let between_requests = buffer.is_empty();
            if between_requests {
                self.rest();
            }
            let idle = self.forwarder.limits.idle.map(|idle| Instant::now() + idle);
            match wait(self.client, PollFlags::IN, None, deadline.or(idle)) {
                // A hang-up still lets what was sent before be read.
                Ok(Woken::Ready | Woken::Gone) => {}
                Ok(Woken::Late) if between_requests => return Ok(None),
                Ok(Woken::Late) => return Err(Failure::RequestTimeout),
                Err(_) => return Ok(None),
            }
        }
    }

    // Not inlined: its frame, with room for all the fields of a head, is no part of an idle stack.
    #[inline(never)]
    /// Forwards the request whose head is the first `end` bytes of the buffer.
    fn exchange(&mut self, end: usize) -> Next {
        let started = Instant::now();
        let forwarder = self.forwarder;
        self.ticks = self.ticks || wait::prepare(self.client).is_ok();
        self.begin();
        let prepared = prepare(forwarder, &mut self.buffers, end, self.entry.as_mut());
        let prepared = prepared.and_then(|(terms, cleaner, up)| {
            let fail = |text| (Failure::Audit(text), terms.version, terms.asked.head);
            let recorded = self.entry.as_ref().map_or(Ok(()), Entry::intend);
            recorded.map(|()| (terms, cleaner, up)).map_err(fail)
        });
        let (terms, cleaner, up) = match prepared {
            Ok(prepared) => prepared,
            Err((failure, version, head)) => {
                self.buffers.to_upstream.wipe();
                return self.refuse(&failure, version, head);
            }
        };
        let upstream = match self.upstream() {
            Ok(upstream) => self.upstream.insert(upstream),
            Err(stop) => {
                self.buffers.to_upstream.wipe();
                return match stop {
                    Stop::Answer(failure) => self.refuse(&failure, terms.version, terms.asked.head),
                    _ => Next::Drop,
                };
            }
        };
        let mut exchange = Exchange {
            client: self.client,
            pool: &forwarder.pool,
            limits: forwarder.limits,
            buffers: &mut self.buffers,
            upstream,
            up,
            down: Downward::new(terms, cleaner),
            cause: None,
        };
        let outcome = exchange.run();
        if let Some(entry) = &mut self.entry {
            account::settled(entry, &exchange, &outcome);
        }
        let (keep_alive, status) = (exchange.down.keep_alive(), exchange.down.status());
        if forwarder.narrate {
            let status = status.map_or("no response".into(), |status| status.to_string());
            let elapsed = started.elapsed().as_millis();
            let outcome = Outcome(&outcome, exchange.down.found());
            say(&format!("{status} in {elapsed} ms: {outcome}"));
        }
        let mut cleaner = exchange.down.take_cleaner();
        match outcome {
            Ok(clean) => {
                if clean {
                    upstream.reused = true;
                } else {
                    self.drop_upstream();
                }
                if keep_alive {
                    Next::Request
                } else {
                    Next::HangUp
                }
            }
            Err(Stop::Answer(failure)) => {
                self.drop_upstream();
                self.buffers.to_client.consume(self.buffers.to_client.len());
                self.refuse(&failure, terms.version, terms.asked.head)
            }
            Err(Stop::Upgraded) => {
                // The peers' own endings are the only news here.
                let mut carried = upgrade::Carried::default();
                let buffers = &mut self.buffers;
                let peers = (self.client, upstream);
                let _ = upgrade::relay(forwarder, peers, buffers, &mut cleaner, &mut carried);
                if let Some(entry) = &mut self.entry {
                    entry.measured.scrubbed = cleaner.found();
                    (entry.measured.up, entry.measured.down) = (carried.up, carried.down);
                }
                self.drop_upstream();
                Next::Drop
            }
            Err(Stop::Abort | Stop::Gone) => {
                self.drop_upstream();
                Next::Drop
            }
        }
    }

    /// One more request.
    fn begin(&mut self) {
        self.requests += 1;
        let accounts = self.forwarder.accounts.as_ref();
        self.entry = accounts
            .map(|accounts| accounts.begin(&self.forwarder.service, self.number, self.requests));
    }

    /// A connection to the upstream: our own from the last request, an idle one, or a new one.
    fn upstream(&mut self) -> std::result::Result<Upstream, Stop> {
        if let Some(mut upstream) = self.upstream.take()
            && upstream.is_quiet()
        {
            return Ok(upstream);
        }
        match self.forwarder.pool.take() {
            Some(upstream) => Ok(upstream),
            None => connect(&self.forwarder.pool, self.client),
        }
    }

    fn drop_upstream(&mut self) {
        self.upstream = None;
        self.buffers
            .from_upstream
            .consume(self.buffers.from_upstream.len());
    }

    /// Answers a request ourselves and ends the stream.
    fn refuse(&mut self, failure: &Failure, version: Version, head_only: bool) -> Next {
        if self.forwarder.narrate {
            let (status, kind, detail) = failure.describe();
            say(&format!("{status} ({kind}): {detail}"));
        }
        if let Some(entry) = &mut self.entry {
            account::answered(entry, failure);
        }
        failure.write(&mut self.buffers.to_client, version, head_only);
        let deadline = Instant::now() + self.forwarder.limits.idle.unwrap_or(REQUEST_HEAD);
        while !self.buffers.to_client.is_empty() {
            match wait::send(self.client, self.buffers.to_client.filled()) {
                Ok(0) => match wait(self.client, PollFlags::OUT, None, Some(deadline)) {
                    Ok(Woken::Ready) => {}
                    _ => return Next::Drop,
                },
                Ok(n) => self.buffers.to_client.consume(n),
                Err(_) => return Next::Drop,
            }
        }
        Next::HangUp
    }

    /// Gives back what an idle stream does not need.
    fn rest(&mut self) {
        self.park();
        self.buffers = Buffers::default();
        crate::sys::stack::trim();
    }

    /// Lends the connection to whoever needs one.
    fn park(&mut self) {
        if let Some(upstream) = self.upstream.take().filter(|u| u.reused) {
            self.forwarder.pool.put(upstream);
        }
    }
}

/// Checks the request and writes its head, with the credential, into `to_upstream`.
fn prepare<'s>(
    forwarder: &'s Forwarder,
    buffers: &mut Buffers,
    end: usize,
    entry: Option<&mut Entry<'_>>,
) -> std::result::Result<(Terms, Cleaner, Upward<'s>), (Failure, Version, bool)> {
    let Forwarder { service, .. } = forwarder;
    let mut slots = request::slots();
    let head = &buffers.from_client.filled()[..end];
    let parsed = request::parse(head, &mut slots);
    if let Some(entry) = entry {
        match &parsed {
            Ok(request) => entry.names(request.method, &service.origin.prefix, request.target),
            Err(_) => entry.names_refused(&service.origin.prefix, head),
        }
    }
    let request =
        parsed.map_err(|e| (Failure::Request(e), request::claimed_version(head), false))?;
    let terms = Terms {
        asked: Asked {
            head: request.method == "HEAD",
            websocket: request.websocket,
        },
        version: request.version,
        keep_alive: request.keep_alive,
        expect_continue: request.expect_continue,
    };
    let fail = |failure| (failure, terms.version, terms.asked.head);
    if !service.origin.prefix.is_empty() && inject::escapes_prefix(&request) {
        return Err(fail(Failure::DotSegment));
    }
    let (credential, cleaner) = forwarder
        .credential()
        .map_err(|text| fail(Failure::Credential(text)))?;
    if let Some(accounts) = &forwarder.accounts {
        accounts.notice(service, &credential);
    }
    inject::write_head(
        &mut buffers.to_upstream,
        &request,
        service,
        credential.rendered.expose(),
        cleaner.is_on(),
    );
    if forwarder.narrate {
        let path = request.target.split('?').next().unwrap_or_default();
        say(&format!("{} {path}", request.method));
    }
    let idempotent = matches!(
        request.method,
        "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE"
    );
    let framing = request.framing;
    buffers.from_client.consume(end);
    let up = Upward::new(&service.place, framing, idempotent, buffers).map_err(fail)?;
    Ok((terms, cleaner, up))
}
