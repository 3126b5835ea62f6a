//! What becomes of an upstream's bytes before the command gets them: heads, bodies in pieces, and what
//! is held back of them. With `--scrub=off` all of it passes as it is.

use std::sync::{Arc, Mutex, PoisonError};

use zeroize::Zeroize;

use super::buffer::Buffer;
use super::failure::Failure;
use super::scrub::{Scrubber, Stream};
use crate::credential::Loaded;
use crate::http::headers::Field;
use crate::service::{Place, Service};

/// What is done with a credential that comes back (`--scrub`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scrub {
    /// It is masked with `*`, byte for byte.
    #[default]
    Redact,
    /// The response is refused, or ends early if it has begun.
    Fail,
    /// Nothing: responses are not searched.
    Off,
}

impl Scrub {
    /// As the command line has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Scrub::Redact => "redact",
            Scrub::Fail => "fail",
            Scrub::Off => "off",
        }
    }
}

/// Makes the cleaners of responses, of which all with one credential share a scrubber.
#[derive(Debug)]
pub struct Cleaners {
    scrub: Scrub,
    /// For the credential that was used last.
    scrubber: Mutex<Option<Arc<Scrubber>>>,
}

impl Cleaners {
    pub fn new(scrub: Scrub) -> Cleaners {
        Cleaners {
            scrub,
            scrubber: Mutex::default(),
        }
    }

    /// Whether responses to requests with this credential can be cleaned, if they are to be.
    ///
    /// # Errors
    /// As for `of`. Nothing is made yet: that takes longer than all the rest of a start.
    pub fn check(&self, loaded: &Loaded, service: &Service) -> Result<(), String> {
        let checked = match self.scrub {
            Scrub::Off => Ok(()),
            Scrub::Redact | Scrub::Fail => Scrubber::check(loaded, &service.place),
        };
        checked.map_err(|e| format!("{}: {e}", service.source()))
    }

    /// A cleaner for the response to a request with this credential.
    ///
    /// # Errors
    /// A text when the credential is too short to be looked for.
    pub fn of(&self, loaded: &Arc<Loaded>, place: &Place) -> Result<Cleaner, String> {
        if self.scrub == Scrub::Off {
            return Ok(Cleaner::default());
        }
        let kept = || self.scrubber.lock().unwrap_or_else(PoisonError::into_inner);
        let current = kept()
            .as_ref()
            .filter(|scrubber| scrubber.is_for(loaded))
            .cloned();
        let scrubber = match current {
            Some(scrubber) => scrubber,
            // Made while nobody waits for the lock; who comes at the same time makes one, too.
            None => {
                let made = Scrubber::new(loaded.clone(), place)?;
                kept().insert(Arc::new(made)).clone()
            }
        };
        Ok(Cleaner {
            scrubber: Some(scrubber),
            fail: self.scrub == Scrub::Fail,
            ..Cleaner::default()
        })
    }
}

/// The cleaning of one response. The default lets everything pass.
#[derive(Debug, Default)]
pub struct Cleaner {
    scrubber: Option<Arc<Scrubber>>,
    fail: bool,
    stream: Stream,
    /// What is held back, for bodies that are not cleaned in place.
    held: Buffer,
    /// How much at the front of the buffer that is cleaned in place may go.
    cleared: usize,
    /// Matches in heads and whole texts.
    found: u64,
}

impl Cleaner {
    /// Whether responses are searched.
    pub fn is_on(&self) -> bool {
        self.scrubber.is_some()
    }

    /// How often the credential was found.
    pub fn found(&self) -> u64 {
        self.found + self.stream.found
    }

    /// Cleans what is a text of its own.
    pub fn whole(&mut self, text: &mut [u8]) -> Result<(), Failure> {
        if let Some(scrubber) = &self.scrubber {
            self.found += scrubber.scrub(text);
        }
        self.verdict()
    }

    /// Cleans the lines of a head or of a trailer section, the first `skip` bytes excepted. They stay
    /// lines, and fields.
    pub fn lines(&mut self, lines: &mut [u8], skip: usize) -> Result<(), Failure> {
        let Some(scrubber) = &self.scrubber else {
            return Ok(());
        };
        let lines = lines.get_mut(skip..).unwrap_or_default();
        let mut before = lines.to_vec();
        let found = scrubber.scrub(lines);
        if found > 0 {
            self.found += found;
            let mut name = skip == 0;
            let mut start = 0;
            for (at, &byte) in before.iter().enumerate() {
                match byte {
                    b'\r' | b'\n' => {
                        lines[at] = byte;
                        name = true;
                        start = at + 1;
                    }
                    b':' if name => {
                        lines[at..at + 2].copy_from_slice(b": ");
                        name = false;
                        // A length of stars would be none. It is of HEAD: nothing else has one here.
                        let end = before[at..].iter().position(|&b| b == b'\r');
                        let value = at..end.map_or(before.len(), |end| at + end);
                        if before[start..at].eq_ignore_ascii_case(b"content-length")
                            && lines[value.clone()] != before[value]
                        {
                            before.zeroize();
                            return Err(Failure::Echoed);
                        }
                    }
                    _ => {}
                }
            }
            before.zeroize();
        }
        self.verdict()
    }

    /// Cleans the next bytes of a body and hands on what may go, in one piece if there is any.
    pub fn pass(
        &mut self,
        data: &mut [u8],
        end: bool,
        mut emit: impl FnMut(&[u8]),
    ) -> Result<(), Failure> {
        let Some(scrubber) = &self.scrubber else {
            if !data.is_empty() {
                emit(data);
            }
            return Ok(());
        };
        if self.held.is_empty() {
            let released = self.stream.scrub(scrubber, data, end);
            self.verdict()?;
            self.held.push(&data[released..]);
            if released > 0 {
                emit(&data[..released]);
            }
        } else {
            self.held.push(data);
            let released = self.stream.scrub(scrubber, self.held.filled_mut(), end);
            self.verdict()?;
            if released > 0 {
                emit(&self.held.filled()[..released]);
            }
            self.held.consume(released);
        }
        Ok(())
    }

    /// Cleans a body where it lies: the first `n` bytes of the buffer are of it.
    pub fn in_place(&mut self, buffer: &mut Buffer, n: usize, end: bool) -> Result<(), Failure> {
        if let Some(scrubber) = &self.scrubber {
            let fresh = &mut buffer.filled_mut()[self.cleared..n];
            self.cleared += self.stream.scrub(scrubber, fresh, end);
        }
        self.verdict()
    }

    /// How many of the first `n` bytes may go.
    pub fn cleared(&self, n: usize) -> usize {
        if self.is_on() { n.min(self.cleared) } else { n }
    }

    /// So many of them went.
    pub fn went(&mut self, n: usize) {
        self.cleared = self.cleared.saturating_sub(n);
    }

    fn verdict(&self) -> Result<(), Failure> {
        if self.fail && self.found() > 0 {
            Err(Failure::Echoed)
        } else {
            Ok(())
        }
    }
}

/// Whether a body with these fields is coded, so that nothing can be found in it.
pub fn is_coded(fields: &[Field<'_>]) -> bool {
    fields
        .iter()
        .filter(|field| field.name.eq_ignore_ascii_case("content-encoding"))
        .flat_map(|field| field.value.split(|&b| b == b','))
        .map(<[u8]>::trim_ascii)
        .any(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity"))
}
