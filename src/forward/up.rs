//! The request on its way up: head and body, in the one framing that we chose.

use std::io;

use super::buffer::{Buffer, Buffers, SMALL};
use super::failure::Failure;
use super::inject::trailer_passes;
use super::upstream::Upstream;
use crate::http::Framing;
use crate::http::body::{self, Chunked, Event, TRAILER_FIELDS};
use crate::http::headers::{Field, may_trail};
use crate::service::Place;

/// What of the request body is still to come from the client.
#[derive(Debug)]
enum RequestBody {
    /// Nothing.
    Done,
    /// This many bytes.
    Length(u64),
    /// The rest of a chunked body.
    Chunked(Chunked),
}

impl RequestBody {
    fn new(framing: Framing) -> RequestBody {
        match framing {
            Framing::None | Framing::Close | Framing::Length(0) => RequestBody::Done,
            Framing::Length(n) => RequestBody::Length(n),
            Framing::Chunked => RequestBody::Chunked(Chunked::default()),
        }
    }

    fn is_done(&self) -> bool {
        matches!(self, RequestBody::Done)
    }

    /// Whether bytes that have arrived can be sent. Chunked framing is taken off as it arrives, so
    /// what is left of it there is incomplete.
    fn can_go_on(&self, from_client: &Buffer) -> bool {
        matches!(self, RequestBody::Length(_)) && !from_client.is_empty()
    }
}

/// One request on its way up.
#[derive(Debug)]
pub struct Upward<'s> {
    place: &'s Place,
    body: RequestBody,
    /// How much of `to_upstream` has been sent; it is kept while the request may be sent again.
    sent: usize,
    /// The method is idempotent (RFC 9110 section 9.2.2) and there is no body, or none of the body
    /// has been sent: all of the request is still at hand.
    replayable: bool,
    /// Whether any of the request may have left: `sent` starts anew behind the head.
    left: bool,
    /// Why the upstream takes no more of the request.
    deaf: Option<io::Error>,
    /// Bytes of the body that were taken from the client, without any framing.
    carried: u64,
}

impl<'s> Upward<'s> {
    /// Starts with the head in `to_upstream`, and puts what has arrived of the body behind it, so
    /// that a small request is one write.
    pub fn new(
        place: &'s Place,
        framing: Framing,
        idempotent: bool,
        buffers: &mut Buffers,
    ) -> Result<Upward<'s>, Failure> {
        let body = RequestBody::new(framing);
        let replayable = idempotent && body.is_done();
        let mut up = Upward {
            place,
            body,
            sent: 0,
            replayable,
            left: false,
            deaf: None,
            carried: 0,
        };
        match &mut up.body {
            RequestBody::Done => {}
            RequestBody::Length(left) => {
                let from = &mut buffers.from_client;
                let n = at_most(from.len(), *left).min(SMALL);
                buffers.to_upstream.push(&from.filled()[..n]);
                from.consume(n);
                *left -= n as u64;
                up.carried += n as u64;
                if *left == 0 {
                    up.body = RequestBody::Done;
                }
            }
            RequestBody::Chunked(_) => up.take_chunks(buffers)?,
        }
        Ok(up)
    }

    /// Whether the upstream got all of the request.
    pub fn is_delivered(&self) -> bool {
        self.body.is_done() && self.deaf.is_none()
    }

    /// How much of the body has gone up, for the audit.
    pub fn carried(&self) -> u64 {
        self.carried
    }

    /// Whether bytes of the request wait for the upstream to take them.
    pub fn has_unsent(&self, buffers: &Buffers, upstream: &Upstream) -> bool {
        self.deaf.is_none()
            && (self.sent < buffers.to_upstream.len()
                || !upstream.is_flushed()
                || self.body.can_go_on(&buffers.from_client))
    }

    /// Whether more of the request must come from the client before anything can go up.
    pub fn wants_client(&self, buffers: &Buffers, upstream: &Upstream) -> bool {
        !self.body.is_done() && self.deaf.is_none() && !self.has_unsent(buffers, upstream)
    }

    /// Whether the request may go out again on another connection: when nothing of it left, or when
    /// it may be repeated and all of it is at hand.
    pub fn may_go_again(&self) -> bool {
        self.replayable || (self.deaf.is_some() && !self.left)
    }

    /// Starts over, on another connection.
    pub fn go_again(&mut self) {
        self.sent = 0;
        self.deaf = None;
    }

    /// The upstream has begun to answer: the request will not go again, so `push` may wipe its head.
    pub fn answered(&mut self) {
        self.replayable = false;
    }

    /// What the upstream's refusal to take more was.
    pub fn take_error(&mut self) -> Option<io::Error> {
        self.deaf.take()
    }

    /// Moves chunks from the client's buffer to the upstream's, with framing of our own.
    fn take_chunks(&mut self, buffers: &mut Buffers) -> Result<(), Failure> {
        let RequestBody::Chunked(chunked) = &mut self.body else {
            return Ok(());
        };
        let (from, to) = (&mut buffers.from_client, &mut buffers.to_upstream);
        loop {
            let (consumed, event) = chunked.step(from.filled()).map_err(Failure::Body)?;
            match event {
                Event::More => {
                    from.consume(consumed);
                    return Ok(());
                }
                Event::Data(n) => {
                    from.consume(consumed);
                    push_chunk(to, &from.filled()[..n]);
                    from.consume(n);
                    self.carried += n as u64;
                }
                Event::End(n) => {
                    let section = &from.filled()[consumed - n..consumed];
                    let passes = |field: &Field<'_>| trailer_passes(field.name, self.place);
                    push_last_chunk(to, section, passes).map_err(Failure::Body)?;
                    from.consume(consumed);
                    self.body = RequestBody::Done;
                    return Ok(());
                }
            }
        }
    }

    /// Sends what can be sent without blocking; true when anything was.
    pub fn push(
        &mut self,
        buffers: &mut Buffers,
        upstream: &mut Upstream,
    ) -> Result<bool, Failure> {
        let mut progress = false;
        while self.deaf.is_none() {
            let sent = if self.sent < buffers.to_upstream.len() {
                let sent = upstream.send(&buffers.to_upstream.filled()[self.sent..]);
                self.sent += *sent.as_ref().unwrap_or(&0);
                sent
            } else if !upstream.is_flushed() {
                upstream.flush().map(usize::from)
            } else if self.body.is_done() && self.replayable {
                break;
            } else {
                // What has been sent is wiped: it may have been the head.
                buffers.to_upstream.wipe();
                self.sent = 0;
                self.replayable = false;
                match &mut self.body {
                    RequestBody::Length(left) if !buffers.from_client.is_empty() => {
                        let n = at_most(buffers.from_client.len(), *left);
                        let sent = upstream.send(&buffers.from_client.filled()[..n]);
                        let n = *sent.as_ref().unwrap_or(&0);
                        buffers.from_client.consume(n);
                        *left -= n as u64;
                        self.carried += n as u64;
                        if *left == 0 {
                            self.body = RequestBody::Done;
                        }
                        sent
                    }
                    RequestBody::Chunked(_) => {
                        self.take_chunks(buffers)?;
                        Ok(buffers.to_upstream.len())
                    }
                    _ => break,
                }
            };
            match sent {
                Ok(0) => break,
                Ok(_) => self.left = true,
                Err(e) => {
                    // One TLS record may have left before the next could not.
                    self.left |= upstream.is_tls();
                    self.deaf = Some(e);
                }
            }
            progress = true;
        }
        Ok(progress)
    }
}

/// The smaller of a buffer's length and what is left of a body.
pub(super) fn at_most(len: usize, left: u64) -> usize {
    len.min(usize::try_from(left).unwrap_or(usize::MAX))
}

/// Appends one chunk.
pub(super) fn push_chunk(to: &mut Buffer, data: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut line = [0u8; 18];
    let mut at = 16;
    let mut size = data.len();
    line[16..].copy_from_slice(b"\r\n");
    while size > 0 {
        at -= 1;
        line[at] = HEX[size & 15];
        size >>= 4;
    }
    to.push(&line[at..]);
    to.push(data);
    to.push(b"\r\n");
}

/// Appends the last chunk with those trailers that may pass.
pub(super) fn push_last_chunk(
    to: &mut Buffer,
    section: &[u8],
    passes: impl Fn(&Field<'_>) -> bool,
) -> Result<(), body::BodyError> {
    to.push(b"0\r\n");
    if section.len() > 2 {
        let mut fields = [httparse::EMPTY_HEADER; TRAILER_FIELDS];
        for field in body::trailers(section, &mut fields)? {
            if may_trail(field.name) && passes(field) {
                to.push(field.name.as_bytes());
                to.push(b": ");
                to.push(field.value);
                to.push(b"\r\n");
            }
        }
    }
    to.push(b"\r\n");
    Ok(())
}
