//! The response on its way down: checked head, body in a framing in which an early end shows.

use super::answer::{Delivery, Failure, Shape, write_head};
use super::buffer::{LARGE, SMALL};
use super::exchange::{Exchange, Stop};
use super::up::{push_chunk, push_last_chunk};
use super::wait;
use crate::http::body::{Chunked, Event};
use crate::http::headers::HeadScanner;
use crate::http::response::{self, Response};
use crate::http::{Framing, Version, limits};

/// How far the response has come.
#[derive(Debug, PartialEq)]
pub enum Answer {
    /// The final head has not arrived in full.
    Head,
    /// The body is on its way.
    Body(ResponseBody),
    /// All of it has been taken from the upstream.
    Done,
}

/// What of the response body is still to come from the upstream.
#[derive(Debug)]
pub struct ResponseBody {
    rest: Rest,
    /// Whether the command gets it in chunks.
    in_chunks: bool,
}

#[derive(Debug)]
enum Rest {
    Length(u64),
    Chunked(Chunked),
    Close,
}

impl PartialEq for ResponseBody {
    fn eq(&self, _: &ResponseBody) -> bool {
        // Only the stage is ever compared.
        true
    }
}

impl ResponseBody {
    /// Whether the end of the connection is the proper end of the body.
    pub fn ends_with_connection(&self) -> bool {
        matches!(self.rest, Rest::Close)
    }
}

impl Exchange<'_> {
    /// Takes what has arrived from the upstream as far as it goes.
    pub(super) fn take_answer(&mut self) -> Result<(), Stop> {
        while self.answer == Answer::Head {
            let found = response::find_end(&mut self.scanner, self.buffers.from_upstream.filled());
            let Some(end) = found.map_err(|e| Stop::Answer(Failure::Response(e)))? else {
                return Ok(());
            };
            self.take_head(end)?;
        }
        self.take_response_body()
    }

    fn take_head(&mut self, end: usize) -> Result<(), Stop> {
        let mut slots = response::slots();
        let head = &self.buffers.from_upstream.filled()[..end];
        let response = response::parse(head, &mut slots, self.terms.asked)
            .map_err(|e| Stop::Answer(Failure::Response(e)))?;
        let interim = response.status < 200 && response.status != 101;
        if interim {
            self.interim += 1;
            if self.interim > limits::INTERIM {
                return Err(Stop::Answer(Failure::TooManyInterim));
            }
            // HTTP/1.0 has no interim responses, and a 100 is for who asked for it.
            if self.terms.version == Version::V11
                && (response.status != 100 || self.terms.expect_continue)
            {
                let shape = Shape {
                    version: Version::V11,
                    delivery: Delivery::Framed(Framing::None),
                    keep_alive: true,
                };
                write_head(&mut self.buffers.to_client, &response, shape);
            }
            self.scanner = HeadScanner::default();
            self.buffers.from_upstream.consume(end);
            return Ok(());
        }
        // The request body may still be on its way. It goes on to the upstream for as long as the
        // response does, but where the next request starts is no longer certain.
        self.keep_alive = self.terms.keep_alive && self.body.is_done() && self.deaf.is_none();
        let (delivery, body) = deliver(&response, self.terms.asked.head, self.terms.version);
        if delivery == Delivery::Framed(Framing::Close) {
            self.keep_alive = false;
        }
        self.status = response.status;
        // A 205 that does not say that it is empty may be followed by anything.
        self.reusable =
            response.keep_alive && !(response.status == 205 && response.framing != Framing::None);
        let shape = Shape {
            version: self.terms.version,
            delivery,
            keep_alive: self.keep_alive,
        };
        write_head(&mut self.buffers.to_client, &response, shape);
        self.buffers.from_upstream.consume(end);
        self.answer = body.map_or(Answer::Done, Answer::Body);
        if self.status == 101 {
            return Err(Stop::Upgraded);
        }
        Ok(())
    }

    fn take_response_body(&mut self) -> Result<(), Stop> {
        let Answer::Body(body) = &mut self.answer else {
            return Ok(());
        };
        let (from, to) = (&mut self.buffers.from_upstream, &mut self.buffers.to_client);
        match &mut body.rest {
            Rest::Length(left) => {
                // The first bytes go out with the head; the rest needs no copy (push_down).
                let n = from.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                if !to.is_empty() && n <= SMALL {
                    to.push(&from.filled()[..n]);
                    from.consume(n);
                    *left -= n as u64;
                }
                if *left == 0 {
                    self.answer = Answer::Done;
                }
            }
            Rest::Close => {
                if !from.is_empty() {
                    if body.in_chunks {
                        push_chunk(to, from.filled());
                    } else {
                        to.push(from.filled());
                    }
                    from.consume(from.len());
                }
            }
            Rest::Chunked(chunked) => loop {
                let (consumed, event) = chunked
                    .step(from.filled())
                    .map_err(|e| Stop::Answer(Failure::ResponseBody(e)))?;
                match event {
                    Event::More => {
                        from.consume(consumed);
                        break;
                    }
                    Event::Data(n) => {
                        from.consume(consumed);
                        let data = &from.filled()[..n];
                        if body.in_chunks {
                            push_chunk(to, data);
                        } else {
                            to.push(data);
                        }
                        from.consume(n);
                    }
                    Event::End(n) => {
                        if body.in_chunks {
                            let section = &from.filled()[consumed - n..consumed];
                            push_last_chunk(to, section, |_| true).map_err(|_| Stop::Abort)?;
                        }
                        from.consume(consumed);
                        self.answer = Answer::Done;
                        break;
                    }
                }
            },
        }
        Ok(())
    }

    /// The body ended with the connection, properly.
    pub(super) fn finish_answer(&mut self) {
        if let Answer::Body(ResponseBody {
            in_chunks: true, ..
        }) = self.answer
        {
            self.buffers.to_client.push(b"0\r\n\r\n");
        }
        self.answer = Answer::Done;
    }

    /// Whether all that was taken from the upstream has been sent down.
    pub(super) fn is_delivered(&self) -> bool {
        self.buffers.to_client.is_empty() && self.direct() == 0
    }

    /// Body bytes that lie in the upstream's buffer as the client is to get them.
    fn direct(&self) -> usize {
        match &self.answer {
            Answer::Body(ResponseBody {
                rest: Rest::Length(left),
                ..
            }) => self
                .buffers
                .from_upstream
                .len()
                .min(usize::try_from(*left).unwrap_or(usize::MAX)),
            _ => 0,
        }
    }

    /// Sends what can be sent down without blocking; true when anything was.
    pub(super) fn push_down(&mut self) -> Result<bool, Stop> {
        let mut progress = false;
        while !self.is_delivered() {
            let direct = self.direct();
            let bytes = if self.buffers.to_client.is_empty() {
                &self.buffers.from_upstream.filled()[..direct]
            } else {
                self.buffers.to_client.filled()
            };
            match wait::send(self.client, bytes) {
                Ok(0) => break,
                Ok(n) if self.buffers.to_client.is_empty() => {
                    self.buffers.from_upstream.consume(n);
                    if let Answer::Body(ResponseBody {
                        rest: Rest::Length(left),
                        ..
                    }) = &mut self.answer
                    {
                        *left -= n as u64;
                        if *left == 0 {
                            self.answer = Answer::Done;
                        }
                    }
                }
                Ok(n) => self.buffers.to_client.consume(n),
                Err(_) => return Err(Stop::Gone),
            }
            progress = true;
            // Of a final response, or of an interim one that is not out yet.
            self.begun = self.status != 0 || !self.buffers.to_client.is_empty();
        }
        self.buffers.to_client.release(LARGE);
        Ok(progress)
    }
}

/// How a final response's body goes to the command, and what is to be taken from the upstream.
fn deliver(
    response: &Response<'_, '_>,
    head: bool,
    version: Version,
) -> (Delivery, Option<ResponseBody>) {
    if response.status == 101 {
        return (Delivery::Framed(Framing::None), None);
    }
    if response.status == 205 {
        return (Delivery::Framed(Framing::Length(0)), None);
    }
    let chunked = Framing::Chunked;
    let (framing, rest) = match response.framing {
        Framing::None if head || response.status == 304 => return (Delivery::Bodiless, None),
        Framing::None => return (Delivery::Framed(Framing::None), None),
        Framing::Length(0) => return (Delivery::Framed(Framing::Length(0)), None),
        Framing::Length(n) => (Framing::Length(n), Rest::Length(n)),
        Framing::Chunked => (chunked, Rest::Chunked(Chunked::default())),
        // In chunks an early end shows, which the end of the connection would hide.
        Framing::Close => (chunked, Rest::Close),
    };
    // HTTP/1.0 knows no chunks (RFC 9112 section 7.1).
    let framing = if framing == chunked && version == Version::V10 {
        Framing::Close
    } else {
        framing
    };
    (
        Delivery::Framed(framing),
        Some(ResponseBody {
            rest,
            in_chunks: framing == chunked,
        }),
    )
}
