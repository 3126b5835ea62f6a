//! Takes the credential out of what comes back. Pure: bytes in, bytes out, in place and of the same
//! length.
//!
//! A key is found as it is, in hexadecimal and in base64, each of them in any mix of plain and escaped
//! characters (percent, JSON, HTML, quoted-printable), wherever the pieces of a stream are cut. What
//! may be the beginning of a match is held back until that is decided, and nothing else is. A pause
//! decides nothing: who sends the key byte by byte gets no byte of it through (see `Stream::hold` for
//! the four bits that this costs).
//!
//! No copy of the key is kept here: forms are computed while they are compared. What is kept beside
//! the `Secret` itself are hashed bits of the beginnings of the forms, and which bytes they begin
//! with; both are wiped.

mod escape;
mod filter;
mod form;

use std::sync::Arc;

use zeroize::Zeroize;

use crate::credential::Loaded;
use crate::service::Place;
use escape::Spellings;
use filter::{Filter, wraps};
use form::{ENTRIES, FILTERED, Form, Value};

/// The shortest key that is looked for: a shorter one would be found by chance.
pub const SHORTEST: usize = 8;
/// How much of the key a text that is cut by its end must tell to be masked.
const CUT: usize = 8;
/// What the first base64 digit and a line break behind it can take at most.
const EDGE: usize = escape::LONGEST + 4;
/// The entries that the filter looks for, as bits.
const FILTERED_ENTRIES: u8 = (1 << FILTERED) - 1;
/// What stands in the place of a match.
const MASK: u8 = b'*';

/// Finds one key. Made once for each.
pub struct Scrubber {
    loaded: Arc<Loaded>,
    /// What of the key is secret.
    secret: std::ops::Range<usize>,
    filter: Filter,
    /// Which entries of `ENTRIES` a byte may begin, as bits.
    first: Vec<u8>,
}

impl std::fmt::Debug for Scrubber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scrubber(..)")
    }
}

impl Drop for Scrubber {
    fn drop(&mut self) {
        self.first.zeroize();
    }
}

impl Scrubber {
    /// Whether there can be a scrubber for this credential; much cheaper than to make one.
    ///
    /// # Errors
    /// A text when the key is shorter than `SHORTEST`.
    pub fn check(loaded: &Loaded, place: &Place) -> Result<(), String> {
        if secret(loaded.key.expose(), place).len() < SHORTEST {
            return Err(format!(
                "the key is shorter than {SHORTEST} bytes, too short to be told from other text in \
                 responses; --scrub=off sends it all the same and looks for nothing"
            ));
        }
        Ok(())
    }

    /// # Errors
    /// As for `check`.
    pub fn new(loaded: Arc<Loaded>, place: &Place) -> Result<Scrubber, String> {
        Scrubber::check(&loaded, place)?;
        let secret = secret(loaded.key.expose(), place);
        let key = &loaded.key.expose()[secret.clone()];
        let mut first = vec![0; 256];
        for (bit, (form, n)) in ENTRIES.iter().enumerate() {
            for spelling in Spellings::of(*form, key, *n).iter() {
                first[usize::from(spelling.bytes()[0])] |= 1 << bit;
            }
        }
        let filter = Filter::new(key);
        Ok(Scrubber {
            loaded,
            secret,
            filter,
            first,
        })
    }

    /// Whether this is the scrubber for that credential.
    pub fn is_for(&self, loaded: &Arc<Loaded>) -> bool {
        Arc::ptr_eq(&self.loaded, loaded)
    }

    /// Masks what is found in a whole text; the number of matches.
    pub fn scrub(&self, text: &mut [u8]) -> u64 {
        let mut stream = Stream::default();
        stream.scrub(self, text, true);
        stream.found
    }

    fn key(&self) -> &[u8] {
        &self.loaded.key.expose()[self.secret.clone()]
    }
}

/// Of `user:password` the password, and the user if there is no password: that is how some services
/// take their keys.
fn secret(key: &[u8], place: &Place) -> std::ops::Range<usize> {
    let colon = key.iter().position(|&b| b == b':');
    match (place, colon) {
        (Place::Basic(None), Some(colon)) if colon + 1 < key.len() => colon + 1..key.len(),
        (Place::Basic(None), Some(colon)) => 0..colon,
        _ => 0..key.len(),
    }
}

/// The state between the pieces of one stream.
#[derive(Debug, Default)]
pub struct Stream {
    /// Matches that have begun.
    live: Vec<Thread>,
    /// The same, while they are looked at.
    work: Vec<Thread>,
    /// What is to be masked once it is released, in order of its end.
    masks: Vec<(usize, usize)>,
    /// How much of the next piece has been seen: what was not released.
    held: usize,
    /// How many matches there were.
    pub found: u64,
}

/// The beginning of a match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Thread {
    form: Form,
    start: usize,
    /// Where the next character is to come.
    at: usize,
    /// Which character of the form that is.
    n: usize,
    /// A line break stands before it.
    wrapped: bool,
}

impl Stream {
    /// Masks what is found in `data`, and tells how many bytes at its front may be released. The
    /// next piece begins with the others; with `end`, there are no others.
    ///
    /// A match that is cut off by the end is masked, too, if it tells 8 bytes of the key.
    pub fn scrub(&mut self, scrubber: &Scrubber, data: &mut [u8], end: bool) -> usize {
        let begun = std::mem::take(&mut self.live);
        for thread in begun {
            self.follow(scrubber, data, end, thread);
        }
        self.search(scrubber, data, end);
        if end {
            self.cut_off(scrubber.key(), data.len());
        }
        let released = self
            .live
            .iter()
            .map(|thread| thread.start)
            .min()
            .unwrap_or(data.len());
        self.release(data, released);
        released
    }

    /// Looks for matches that begin in what is new.
    fn search(&mut self, scrubber: &Scrubber, data: &[u8], end: bool) {
        let filter = &scrubber.filter;
        let mut tried = self.held;
        let mut at = self.held;
        // What the last look needs.
        let looks = data.len().saturating_sub(filter.second + 3);
        while at < looks {
            if filter.hits(data, at) {
                let first = tried.max((at + 1).saturating_sub(filter.stride));
                let before = (self.masks.len(), self.live.len());
                self.try_all(scrubber, data, end, first..at + 1, FILTERED_ENTRIES);
                // The filter does not look for the digit that a base64 text may begin with.
                if before != (self.masks.len(), self.live.len()) {
                    let lower = self.held.max(first.saturating_sub(EDGE));
                    self.try_all(scrubber, data, end, lower..at + 1, !FILTERED_ENTRIES);
                }
                tried = at + 1;
            }
            at += filter.stride;
        }
        let first = tried.max((at + 1).saturating_sub(filter.stride));
        self.try_all(scrubber, data, end, first..data.len(), FILTERED_ENTRIES);
        let lower = self.held.max(first.saturating_sub(EDGE));
        self.try_all(scrubber, data, end, lower..data.len(), !FILTERED_ENTRIES);
    }

    #[inline(never)]
    fn try_all(
        &mut self,
        scrubber: &Scrubber,
        data: &[u8],
        end: bool,
        starts: std::ops::Range<usize>,
        among: u8,
    ) {
        for start in starts {
            let mut entries = scrubber.first[usize::from(data[start])] & among;
            while entries != 0 {
                let (form, n) = ENTRIES[entries.trailing_zeros() as usize];
                entries &= entries - 1;
                let thread = Thread {
                    form,
                    start,
                    at: start,
                    n,
                    wrapped: false,
                };
                self.follow(scrubber, data, end, thread);
            }
        }
    }

    /// Follows the beginning of a match as far as the data goes.
    fn follow(&mut self, scrubber: &Scrubber, data: &[u8], end: bool, thread: Thread) {
        self.step(scrubber.key(), data, end, thread);
        while let Some(thread) = self.work.pop() {
            self.step(scrubber.key(), data, end, thread);
        }
    }

    fn step(&mut self, key: &[u8], data: &[u8], end: bool, thread: Thread) {
        let input = &data[thread.at..];
        let Some(&byte) = input.first() else {
            return self.hold(thread);
        };
        let plain = Value {
            code: byte.into(),
            character: false,
        };
        self.accept(key, thread, plain, 1);
        if escape::introduces(byte) || byte == b'+' {
            match escape::read(input, end) {
                Some((value, len)) => self.accept(key, thread, value, len),
                // Longer input may make an escape of it, if it is the right one.
                None if input.len() < escape::LONGEST
                    && Spellings::may_be(input, thread.form, key, thread.n) =>
                {
                    self.hold(thread);
                }
                None => {}
            }
        }
        if thread.wrapped || thread.n == thread.form.len(key) || thread.at == thread.start {
            return;
        }
        for wrap in wraps(thread.form, thread.n) {
            if input.starts_with(wrap) {
                self.work.push(Thread {
                    at: thread.at + wrap.len(),
                    wrapped: true,
                    ..thread
                });
            } else if wrap.starts_with(input) {
                self.hold(thread);
            }
        }
    }

    /// Goes on behind a character if it is the right one.
    fn accept(&mut self, key: &[u8], thread: Thread, value: Value, len: usize) {
        let form = thread.form;
        let whole = form.len(key);
        for counts in form.accepts(key, thread.n, value) {
            if counts == 0 {
                continue;
            }
            let mut next = Thread {
                at: thread.at + len,
                n: thread.n + counts,
                wrapped: false,
                ..thread
            };
            if next.n >= whole {
                // What is held is looked at again: it may come to the same end twice.
                let mask = (thread.start, next.at);
                if !self.masks.contains(&mask) {
                    self.masks.push(mask);
                    self.found += u64::from(next.n == whole);
                }
                if next.n > whole || !form.has_tail(key) {
                    continue;
                }
                // The match is complete: only the tail is still to be seen.
                next.start = next.at;
            }
            self.work.push(next);
        }
    }

    fn hold(&mut self, thread: Thread) {
        // The digit that a base64 text shares with what stands before the key tells four bits at
        // most, and a third of all texts end like one: it is masked with a match, not waited for.
        let shared = matches!(thread.form, Form::Base64(1 | 2));
        if shared && (thread.n == 0 || (thread.n == 1 && thread.at > thread.start)) {
            return;
        }
        if !self.live.contains(&thread) {
            self.live.push(thread);
        }
    }

    /// The end: no match that has begun will be whole.
    fn cut_off(&mut self, key: &[u8], len: usize) {
        for thread in std::mem::take(&mut self.live) {
            if thread.n < thread.form.len(key) && thread.form.told(thread.n) >= CUT {
                self.masks.push((thread.start, len));
                self.found += 1;
            }
        }
    }

    /// Masks what goes out, and counts from its end on.
    fn release(&mut self, data: &mut [u8], released: usize) {
        self.masks.retain_mut(|(start, end)| {
            if *start < released {
                data[*start..(*end).min(released)].fill(MASK);
            }
            *start = start.saturating_sub(released);
            *end = end.saturating_sub(released);
            *end > 0
        });
        for thread in &mut self.live {
            thread.start -= released;
            thread.at -= released;
        }
        self.held = data.len() - released;
    }
}

#[cfg(test)]
mod tests;
