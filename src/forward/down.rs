//! The response on its way down: checked head, body in a framing in which an early end shows.

use std::os::fd::BorrowedFd;
use std::time::Instant;

use super::answer::{Delivery, STATUS, Shape, write_head};
use super::body::{ResponseBody, Rest, deliver};
use super::buffer::{Buffer, Buffers, LARGE, SMALL};
use super::clean::{Cleaner, is_coded};
use super::failure::{Failure, Stop};
use super::up::{at_most, push_chunk, push_last_chunk};
use super::wait;
use crate::http::body::Event;
use crate::http::headers::{Field, HeadScanner};
use crate::http::response::{self, Asked, Response};
use crate::http::{Framing, Version, limits};

/// What of the request decides how its response goes down.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    pub asked: Asked,
    pub version: Version,
    /// The client would send another request on this stream.
    pub keep_alive: bool,
    /// The client waits for 100 (Continue).
    pub expect_continue: bool,
}

/// One response on its way down.
#[derive(Debug)]
pub struct Downward {
    terms: Terms,
    clean: Cleaner,
    stage: Stage,
    scanner: HeadScanner,
    interim: usize,
    /// The status of the final response, once it is known.
    status: Option<u16>,
    /// Whether the client may have seen some of what is not an answer of ours.
    begun: bool,
    keep_alive: bool,
    reusable: bool,
    /// When the final head was there.
    first: Option<Instant>,
    /// Bytes of the body that were taken from the upstream, without any framing.
    carried: u64,
}

/// How far the response has come.
#[derive(Debug)]
enum Stage {
    /// The final head has not arrived in full.
    Head,
    /// The body is on its way.
    Body(ResponseBody),
    /// All of it has been taken from the upstream.
    Done,
}

/// What the end of the upstream's connection means for a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// There was not a byte of it.
    Unanswered,
    /// It ends in the middle of its head.
    InHead,
    /// It ends in the middle of its body.
    InBody,
    /// That is how it ends.
    Proper,
}

impl Downward {
    pub fn new(terms: Terms, clean: Cleaner) -> Downward {
        Downward {
            terms,
            clean,
            stage: Stage::Head,
            scanner: HeadScanner::default(),
            interim: 0,
            status: None,
            begun: false,
            keep_alive: false,
            reusable: false,
            first: None,
            carried: 0,
        }
    }

    /// How often the credential was found in the response.
    pub fn found(&self) -> u64 {
        self.clean.found()
    }

    /// The cleaning of what follows an upgrade.
    pub fn take_cleaner(&mut self) -> Cleaner {
        std::mem::take(&mut self.clean)
    }

    /// When the final head was there, for the audit.
    pub fn first(&self) -> Option<Instant> {
        self.first
    }

    /// How much of the body has gone down, for the audit.
    pub fn carried(&self) -> u64 {
        self.carried
    }

    /// The status of the final response, once its head has been taken.
    pub fn status(&self) -> Option<u16> {
        self.status
    }

    /// Whether an answer of our own would come too late.
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// Whether the final head is still awaited.
    pub fn awaits_head(&self) -> bool {
        matches!(self.stage, Stage::Head)
    }

    /// Whether the client may be waiting for a 100 (Continue) that the upstream owes it.
    pub fn awaits_continue(&self) -> bool {
        self.awaits_head() && self.terms.expect_continue && self.interim == 0
    }

    /// Whether what has arrived is a part of something: of a head, a chunk-size line or a trailer.
    pub fn is_partial(&self, buffers: &Buffers) -> bool {
        !buffers.from_upstream.is_empty() || (self.awaits_head() && self.interim > 0)
    }

    /// Whether the client's stream stays open afterwards.
    pub fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// Whether the upstream's connection may carry another request, as far as this one says.
    pub fn is_reusable(&self) -> bool {
        self.reusable
    }

    /// Whether all of the response has gone to the client.
    pub fn is_complete(&self, buffers: &Buffers) -> bool {
        matches!(self.stage, Stage::Done) && self.is_delivered(buffers)
    }

    /// Whether there is room for more of the response.
    pub fn wants_upstream(&self, buffers: &Buffers) -> bool {
        !matches!(self.stage, Stage::Done) && self.is_delivered(buffers)
    }

    /// Whether all that was taken from the upstream has been sent.
    pub fn is_delivered(&self, buffers: &Buffers) -> bool {
        buffers.to_client.is_empty() && self.direct(buffers) == 0
    }

    /// Takes what has arrived from the upstream as far as it goes. `request_done` says whether the
    /// client has sent, and the upstream got, all of the request.
    pub fn take(&mut self, buffers: &mut Buffers, request_done: bool) -> Result<(), Stop> {
        while matches!(self.stage, Stage::Head) {
            let found = response::find_end(&mut self.scanner, buffers.from_upstream.filled());
            let Some(end) = found.map_err(Failure::Response)? else {
                return Ok(());
            };
            self.take_head(buffers, end, request_done)?;
        }
        self.take_body(buffers)
    }

    fn take_head(
        &mut self,
        buffers: &mut Buffers,
        end: usize,
        request_done: bool,
    ) -> Result<(), Stop> {
        let mut slots = response::slots();
        let head = &buffers.from_upstream.filled()[..end];
        let response =
            response::parse(head, &mut slots, self.terms.asked).map_err(Failure::Response)?;
        let version = self.terms.version;
        if response.status < 200 && response.status != 101 {
            self.interim += 1;
            if self.interim > limits::INTERIM {
                return Err(Failure::TooManyInterim.into());
            }
            // HTTP/1.0 has no interim responses, and a 100 is for who asked for it.
            if version == Version::V11 && (response.status != 100 || self.terms.expect_continue) {
                let delivery = Delivery::Framed(Framing::None);
                let shape = Shape {
                    version,
                    delivery,
                    keep_alive: true,
                };
                put_head(&mut self.clean, &mut buffers.to_client, &response, shape)?;
            }
            self.scanner = HeadScanner::default();
            buffers.from_upstream.consume(end);
            return Ok(());
        }
        let extended = |f: &Field<'_>| f.name.eq_ignore_ascii_case("sec-websocket-extensions");
        if self.clean.is_on() && response.status == 101 && response.fields.iter().any(extended) {
            return Err(Failure::Extension.into());
        }
        let (delivery, body) = deliver(&response, self.terms.asked.head, version);
        if self.clean.is_on() && body.is_some() && is_coded(response.fields) {
            return Err(Failure::Coded.into());
        }
        // While the request body is on its way nobody can tell where the next request starts.
        self.keep_alive =
            self.terms.keep_alive && request_done && delivery != Delivery::Framed(Framing::Close);
        // A 205 that does not say that it is empty may be followed by anything.
        let trailing = response.status == 205 && response.framing != Framing::None;
        self.reusable = response.keep_alive && !trailing;
        self.status = Some(response.status);
        self.first = Some(Instant::now());
        let shape = Shape {
            version,
            delivery,
            keep_alive: self.keep_alive,
        };
        put_head(&mut self.clean, &mut buffers.to_client, &response, shape)?;
        self.stage = body.map_or(Stage::Done, Stage::Body);
        buffers.from_upstream.consume(end);
        if self.status == Some(101) {
            Err(Stop::Upgraded)
        } else {
            Ok(())
        }
    }

    fn take_body(&mut self, buffers: &mut Buffers) -> Result<(), Stop> {
        let Stage::Body(body) = &mut self.stage else {
            return Ok(());
        };
        let (from, to) = (&mut buffers.from_upstream, &mut buffers.to_client);
        let clean = &mut self.clean;
        let in_chunks = body.in_chunks;
        match &mut body.rest {
            Rest::Length(left) => {
                // The first bytes go out with the head; the rest needs no copy (push).
                let n = at_most(from.len(), *left);
                clean.in_place(from, n, n as u64 == *left)?;
                let n = clean.cleared(n);
                if !to.is_empty() && n <= SMALL {
                    to.push(&from.filled()[..n]);
                    from.consume(n);
                    clean.went(n);
                    *left -= n as u64;
                    self.carried += n as u64;
                }
                if *left == 0 {
                    self.stage = Stage::Done;
                }
            }
            Rest::Close if from.is_empty() => {}
            Rest::Close => {
                clean.pass(from.filled_mut(), false, |data| put(to, in_chunks, data))?;
                self.carried += from.len() as u64;
                from.consume(from.len());
            }
            Rest::Chunked(chunked) => loop {
                let step = chunked.step(from.filled());
                let (consumed, event) = step.map_err(Failure::ResponseBody)?;
                match event {
                    Event::More => {
                        from.consume(consumed);
                        break;
                    }
                    Event::Data(n) => {
                        from.consume(consumed);
                        let data = &mut from.filled_mut()[..n];
                        clean.pass(data, false, |data| put(to, in_chunks, data))?;
                        from.consume(n);
                        self.carried += n as u64;
                    }
                    Event::End(n) => {
                        clean.pass(&mut [], true, |data| put(to, in_chunks, data))?;
                        let trailers = to.len();
                        if in_chunks {
                            let section = &from.filled()[consumed - n..consumed];
                            push_last_chunk(to, section, |_| true)
                                .map_err(Failure::ResponseBody)?;
                            clean.lines(&mut to.filled_mut()[trailers..], "0\r".len())?;
                        }
                        from.consume(consumed);
                        self.stage = Stage::Done;
                        break;
                    }
                }
            },
        }
        Ok(())
    }

    /// The upstream sends no more, `properly` or not.
    pub fn end(&mut self, buffers: &mut Buffers, properly: bool) -> Ending {
        let held = self.release(buffers);
        match &self.stage {
            Stage::Head if self.interim == 0 && buffers.from_upstream.is_empty() => {
                Ending::Unanswered
            }
            Stage::Head => Ending::InHead,
            Stage::Body(ResponseBody {
                rest: Rest::Close,
                in_chunks,
            }) if properly && held.is_ok() => {
                if *in_chunks {
                    buffers.to_client.push(b"0\r\n\r\n");
                }
                self.stage = Stage::Done;
                Ending::Proper
            }
            Stage::Body(_) => Ending::InBody,
            Stage::Done => Ending::Proper,
        }
    }

    /// Lets go what was held back of a body when nothing follows.
    fn release(&mut self, buffers: &mut Buffers) -> Result<(), Failure> {
        let Stage::Body(ResponseBody { rest, in_chunks }) = &self.stage else {
            return Ok(());
        };
        let (from, to) = (&mut buffers.from_upstream, &mut buffers.to_client);
        match rest {
            Rest::Length(left) => self.clean.in_place(from, at_most(from.len(), *left), true),
            Rest::Chunked(_) | Rest::Close => self
                .clean
                .pass(&mut [], true, |data| put(to, *in_chunks, data)),
        }
    }

    /// Body bytes that lie in the upstream's buffer as the client is to get them.
    fn direct(&self, buffers: &Buffers) -> usize {
        match &self.stage {
            Stage::Body(ResponseBody {
                rest: Rest::Length(left),
                ..
            }) => self
                .clean
                .cleared(at_most(buffers.from_upstream.len(), *left)),
            _ => 0,
        }
    }

    /// Sends what can be sent without blocking; true when anything was.
    pub fn push(&mut self, buffers: &mut Buffers, client: BorrowedFd<'_>) -> Result<bool, Stop> {
        let mut progress = false;
        while !self.is_delivered(buffers) {
            let from_copy = !buffers.to_client.is_empty();
            let bytes = if from_copy {
                buffers.to_client.filled()
            } else {
                &buffers.from_upstream.filled()[..self.direct(buffers)]
            };
            match wait::send(client, bytes) {
                Ok(0) => break,
                Ok(n) if from_copy => buffers.to_client.consume(n),
                Ok(n) => {
                    buffers.from_upstream.consume(n);
                    self.clean.went(n);
                    if let Stage::Body(ResponseBody {
                        rest: Rest::Length(left),
                        ..
                    }) = &mut self.stage
                    {
                        *left -= n as u64;
                        self.carried += n as u64;
                        if *left == 0 {
                            self.stage = Stage::Done;
                        }
                    }
                }
                Err(_) => return Err(Stop::Gone),
            }
            progress = true;
            // Of a final response, or of an interim one that is not out yet.
            self.begun = self.status.is_some() || !buffers.to_client.is_empty();
        }
        buffers.to_client.release(LARGE);
        Ok(progress)
    }
}

/// Appends a head without the credential.
fn put_head(
    clean: &mut Cleaner,
    to: &mut Buffer,
    response: &Response<'_, '_>,
    shape: Shape,
) -> Result<(), Failure> {
    let start = to.len();
    let theirs = write_head(to, response, shape);
    clean.lines(&mut to.filled_mut()[start..theirs], STATUS)
}

/// Appends a piece of a body.
fn put(to: &mut Buffer, in_chunks: bool, data: &[u8]) {
    if in_chunks {
        push_chunk(to, data);
    } else {
        to.push(data);
    }
}
