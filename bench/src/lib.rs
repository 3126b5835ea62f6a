//! What the benchmark's programs share: the bytes of a large body, known to both sides, so that a wrong byte
//! is an error and never a number.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// Length after which the bytes repeat: a prime, so that no buffer size hides a lost or doubled piece.
const PERIOD: usize = 65_521;
/// Periods kept in memory, so that one write can carry a few hundred kilobytes.
const COPIES: usize = 5;

/// An endless body of known bytes.
#[derive(Debug)]
pub struct Pattern(Vec<u8>);

impl Pattern {
    /// Makes the bytes.
    #[must_use]
    pub fn new() -> Self {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let once: Vec<u8> = (0..PERIOD)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_le_bytes()[3]
            })
            .collect();
        Self(once.repeat(COPIES))
    }

    /// The bytes that follow `offset`: at least 256 KiB of them, at most `limit`.
    #[must_use]
    pub fn at(&self, offset: u64, limit: u64) -> &[u8] {
        let start = (offset % PERIOD as u64) as usize;
        let length = usize::try_from(limit).unwrap_or(usize::MAX);
        &self.0[start..start + length.min(self.0.len() - start)]
    }

    /// Whether `bytes` are what the body has at `offset`.
    #[must_use]
    pub fn holds(&self, mut offset: u64, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let expected = self.at(offset, bytes.len() as u64);
            let (now, rest) = bytes.split_at(expected.len());
            if now != expected {
                return false;
            }
            offset += now.len() as u64;
            bytes = rest;
        }
        true
    }

    /// Writes the first `length` bytes to a new file.
    ///
    /// # Errors
    /// What creating and writing the file gives.
    pub fn fill(&self, path: &Path, length: u64) -> io::Result<()> {
        let mut file = File::create(path)?;
        let mut offset = 0;
        while offset < length {
            let piece = self.at(offset, length - offset);
            file.write_all(piece)?;
            offset += piece.len() as u64;
        }
        Ok(())
    }
}

impl Default for Pattern {
    fn default() -> Self {
        Self::new()
    }
}

/// The head of an HTTP/1.x message: its first line, the length of the head, the length of the body.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// Request line or status line, without its CRLF.
    pub line: &'a str,
    /// Bytes up to and including the empty line.
    pub length: usize,
    /// `Content-Length`; the benchmark uses no other framing.
    pub body: u64,
}

/// Reads a head from the start of `bytes`; `None` while it is incomplete.
///
/// # Errors
/// A head that isn't text, or that isn't framed by exactly one `Content-Length`.
pub fn head(bytes: &[u8]) -> Result<Option<Head<'_>>, String> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| "head is not text".to_owned())?;
    let mut lines = text.split("\r\n");
    let line = lines.next().unwrap_or_default();
    let mut body = None;
    for field in lines {
        let (name, value) = field.split_once(':').ok_or("field without a colon")?;
        if name.eq_ignore_ascii_case("content-length") {
            let length = value
                .trim()
                .parse()
                .map_err(|_| format!("bad length {value:?}"))?;
            if body.replace(length).is_some() {
                return Err("two Content-Length fields".into());
            }
        }
    }
    let body = body.ok_or_else(|| format!("no Content-Length after {line:?}"))?;
    Ok(Some(Head {
        line,
        length: end + 4,
        body,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_byte_anywhere_is_noticed() {
        let pattern = Pattern::new();
        let mut bytes = Vec::new();
        while bytes.len() < 1_000_000 {
            bytes.extend_from_slice(
                pattern.at(77 + bytes.len() as u64, 1_000_000 - bytes.len() as u64),
            );
        }
        assert!(pattern.holds(77, &bytes));
        assert!(!pattern.holds(78, &bytes));
        for place in [0, 65_521, 999_999] {
            bytes[place] ^= 1;
            assert!(!pattern.holds(77, &bytes));
            bytes[place] ^= 1;
        }
    }

    #[test]
    fn a_head_needs_exactly_one_length() {
        let parsed = head(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc")
            .unwrap()
            .unwrap();
        assert_eq!(
            (parsed.line, parsed.length, parsed.body),
            ("HTTP/1.1 200 OK", 38, 3)
        );
        assert!(
            head(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n")
                .unwrap()
                .is_none()
        );
        assert!(head(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(
            head(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n").is_err()
        );
    }
}
