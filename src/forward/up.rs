//! The request on its way up: head and body, in the one framing that we chose.

use super::answer::Failure;
use super::buffer::{Buffer, SMALL};
use super::exchange::{Exchange, Stop};
use super::inject::trailer_passes;
use crate::http::Framing;
use crate::http::body::{self, Chunked, Event, TRAILER_FIELDS};
use crate::http::headers::{Field, may_trail};

/// What of the request body is still to come from the client.
#[derive(Debug)]
pub enum RequestBody {
    /// Nothing.
    Done,
    /// This many bytes.
    Length(u64),
    /// The rest of a chunked body.
    Chunked(Chunked),
}

impl RequestBody {
    pub fn new(framing: Framing) -> RequestBody {
        match framing {
            Framing::None | Framing::Close | Framing::Length(0) => RequestBody::Done,
            Framing::Length(n) => RequestBody::Length(n),
            Framing::Chunked => RequestBody::Chunked(Chunked::default()),
        }
    }

    pub fn is_done(&self) -> bool {
        matches!(self, RequestBody::Done)
    }

    /// Whether bytes that have arrived can be sent. Chunked framing is taken off as it arrives, so
    /// what is left of it there is incomplete.
    pub fn can_go_on(&self, from_client: &Buffer) -> bool {
        matches!(self, RequestBody::Length(_)) && !from_client.is_empty()
    }
}

impl Exchange<'_> {
    /// Puts what has arrived of the body behind the head, so that a small request is one write.
    pub(super) fn take_body(&mut self) -> Result<(), Stop> {
        match &mut self.body {
            RequestBody::Done => {}
            RequestBody::Length(left) => {
                let from = &mut self.buffers.from_client;
                let n = from
                    .len()
                    .min(usize::try_from(*left).unwrap_or(usize::MAX))
                    .min(SMALL);
                self.buffers.to_upstream.push(&from.filled()[..n]);
                from.consume(n);
                *left -= n as u64;
                if *left == 0 {
                    self.body = RequestBody::Done;
                }
            }
            RequestBody::Chunked(_) => self.take_chunks()?,
        }
        Ok(())
    }

    /// Moves chunks from the client's buffer to the upstream's, with framing of our own.
    fn take_chunks(&mut self) -> Result<(), Stop> {
        let RequestBody::Chunked(chunked) = &mut self.body else {
            return Ok(());
        };
        let (from, to) = (&mut self.buffers.from_client, &mut self.buffers.to_upstream);
        loop {
            let step = chunked.step(from.filled());
            let (consumed, event) = step.map_err(|e| Stop::Answer(Failure::Body(e)))?;
            match event {
                Event::More => {
                    from.consume(consumed);
                    return Ok(());
                }
                Event::Data(n) => {
                    from.consume(consumed);
                    push_chunk(to, &from.filled()[..n]);
                    from.consume(n);
                }
                Event::End(n) => {
                    let place = &self.forwarder.service.place;
                    let section = &from.filled()[consumed - n..consumed];
                    let not_the_place = |field: &Field<'_>| trailer_passes(field.name, place);
                    push_last_chunk(to, section, not_the_place)
                        .map_err(|e| Stop::Answer(Failure::Body(e)))?;
                    from.consume(consumed);
                    self.body = RequestBody::Done;
                    return Ok(());
                }
            }
        }
    }

    /// Sends what can be sent up without blocking; true when anything was.
    pub(super) fn push_up(&mut self) -> Result<bool, Stop> {
        let mut progress = false;
        while self.deaf.is_none() {
            if self.sent < self.buffers.to_upstream.len() {
                let rest = &self.buffers.to_upstream.filled()[self.sent..];
                match self.upstream.send(rest) {
                    Ok(0) => break,
                    Ok(n) => {
                        self.sent += n;
                        self.left = true;
                    }
                    Err(e) => {
                        // One record may have left before the next could not.
                        self.left |= self.upstream.is_tls();
                        self.deaf = Some(e);
                    }
                }
                progress = true;
                continue;
            }
            if !self.upstream.is_flushed() {
                match self.upstream.flush() {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(e) => self.deaf = Some(e),
                }
                progress = true;
                continue;
            }
            if self.body.is_done() {
                break;
            }
            // What has been sent is wiped: it may have been the head.
            self.buffers.to_upstream.wipe();
            self.sent = 0;
            self.terms.replayable = false;
            let from = &mut self.buffers.from_client;
            match &mut self.body {
                RequestBody::Length(left) if !from.is_empty() => {
                    let n = from.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    match self.upstream.send(&from.filled()[..n]) {
                        Ok(0) => break,
                        Ok(n) => {
                            from.consume(n);
                            *left -= n as u64;
                            if *left == 0 {
                                self.body = RequestBody::Done;
                            }
                        }
                        Err(e) => self.deaf = Some(e),
                    }
                    progress = true;
                }
                RequestBody::Chunked(_) => {
                    self.take_chunks()?;
                    if self.buffers.to_upstream.is_empty() {
                        break;
                    }
                }
                _ => break,
            }
        }
        Ok(progress)
    }
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
