//! The chunked coding (RFC 9112 section 7.1), decoded strictly and a few bytes at a time.

use super::headers::{Field, HeadScanner, Name};
use super::limits;

/// Why a chunked body is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyError {
    /// The chunk-size is not `1*HEXDIG`, or does not fit 63 bits.
    Size,
    /// A chunk extension is malformed.
    Extension,
    /// A chunk-size line longer than `limits::CHUNK_LINE`.
    LineTooLong,
    /// Chunk data is not followed by CR LF.
    DataEnd,
    /// A trailer field is malformed, or would frame the message or control the connection.
    Trailer,
    /// A trailer section larger than `limits::TRAILERS`, or with more than 64 fields.
    TrailersTooLarge,
}

impl BodyError {
    /// The status of the refusal when a request has this body.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            // RFC 9112 section 7.1.1 wants a limit on chunk extensions and a 4xx beyond it.
            BodyError::LineTooLong => 413,
            BodyError::TrailersTooLarge => 431,
            _ => 400,
        }
    }

    /// One clause for an error text.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            BodyError::Size => "a chunk size is malformed",
            BodyError::Extension => "a chunk extension is malformed",
            BodyError::LineTooLong => "a chunk-size line is longer than 1 KiB",
            BodyError::DataEnd => "chunk data is not followed by CR LF",
            BodyError::Trailer => "a trailer field is malformed or may only stand in a head",
            BodyError::TrailersTooLarge => {
                "the trailer section is larger than 16 KiB or has more than 64 fields"
            }
        }
    }
}

/// Fields that a trailer section may have.
pub const TRAILER_FIELDS: usize = 64;

/// What the next bytes of a chunked body are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// More input is needed; what was not consumed must be given again with more behind it.
    More,
    /// The `usize` bytes that follow the consumed ones are data, to be taken off by the caller.
    Data(usize),
    /// The body ended; the last `usize` consumed bytes are the trailer section with its empty line.
    End(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    Data(u64),
    DataEnd,
    Trailers,
    Done,
}

/// The state between two reads of one chunked body.
#[derive(Debug)]
pub struct Chunked {
    state: State,
}

impl Default for Chunked {
    fn default() -> Chunked {
        Chunked { state: State::Size }
    }
}

impl Chunked {
    /// Consumes framing up to the next data or the end: `(consumed, what follows)`.
    pub fn step(&mut self, input: &[u8]) -> Result<(usize, Event), BodyError> {
        let mut consumed = 0;
        loop {
            let rest = &input[consumed..];
            match self.state {
                State::Size => {
                    let Some(line) = size_line(rest)? else {
                        return Ok((consumed, Event::More));
                    };
                    let size = chunk_size(line)?;
                    consumed += line.len() + 2;
                    self.state = if size == 0 {
                        State::Trailers
                    } else {
                        State::Data(size)
                    };
                }
                State::Data(left) => {
                    let here = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    if here == 0 {
                        return Ok((consumed, Event::More));
                    }
                    let left = left - here as u64;
                    self.state = if left == 0 {
                        State::DataEnd
                    } else {
                        State::Data(left)
                    };
                    return Ok((consumed, Event::Data(here)));
                }
                State::DataEnd => match rest {
                    [b'\r', b'\n', ..] => {
                        consumed += 2;
                        self.state = State::Size;
                    }
                    [] | [b'\r'] => return Ok((consumed, Event::More)),
                    _ => return Err(BodyError::DataEnd),
                },
                State::Trailers => {
                    let Some(section) = trailer_section(rest)? else {
                        return Ok((consumed, Event::More));
                    };
                    self.state = State::Done;
                    return Ok((consumed + section, Event::End(section)));
                }
                State::Done => return Ok((consumed, Event::End(0))),
            }
        }
    }

    /// How many more bytes of the chunk at hand are data for sure.
    #[must_use]
    pub fn data_ahead(&self) -> u64 {
        if let State::Data(left) = self.state {
            left
        } else {
            0
        }
    }
}

/// The chunk-size line without its CR LF.
fn size_line(input: &[u8]) -> Result<Option<&[u8]>, BodyError> {
    let window = &input[..input.len().min(limits::CHUNK_LINE)];
    // Refuse what can never become a size at its first byte, not when the line is whole.
    if let Some(first) = window.first()
        && !first.is_ascii_hexdigit()
    {
        return Err(BodyError::Size);
    }
    match window.iter().position(|&b| b == b'\r' || b == b'\n') {
        Some(at) if window[at] == b'\n' => Err(BodyError::Extension),
        Some(at) => match window.get(at + 1) {
            Some(b'\n') => Ok(Some(&window[..at])),
            Some(_) => Err(BodyError::Extension),
            None if input.len() >= limits::CHUNK_LINE => Err(BodyError::LineTooLong),
            None => Ok(None),
        },
        None if input.len() >= limits::CHUNK_LINE => Err(BodyError::LineTooLong),
        None => Ok(None),
    }
}

/// `chunk-size [ chunk-ext ]`
fn chunk_size(line: &[u8]) -> Result<u64, BodyError> {
    let digits = line
        .iter()
        .position(|b| !b.is_ascii_hexdigit())
        .unwrap_or(line.len());
    // Sixteen digits at most, so that no leading zeros make two parsers count differently.
    if digits == 0 || digits > 16 {
        return Err(BodyError::Size);
    }
    if !extensions_are_valid(&line[digits..]) {
        return Err(BodyError::Extension);
    }
    let text = std::str::from_utf8(&line[..digits]).map_err(|_| BodyError::Size)?;
    let size = u64::from_str_radix(text, 16).map_err(|_| BodyError::Size)?;
    if size > i64::MAX as u64 {
        Err(BodyError::Size)
    } else {
        Ok(size)
    }
}

/// `*( ";" token [ "=" ( token / quoted-string ) ] )`. The optional blanks of RFC 9112 section
/// 7.1.1 are refused: parsers disagree about them and no sender that is alive uses them.
fn extensions_are_valid(mut ext: &[u8]) -> bool {
    while let Some(rest) = ext.strip_prefix(b";") {
        let name = token_length(rest);
        if name == 0 {
            return false;
        }
        ext = &rest[name..];
        if let Some(value) = ext.strip_prefix(b"=") {
            let length = if value.first() == Some(&b'"') {
                quoted_length(value)
            } else {
                token_length(value)
            };
            if length == 0 {
                return false;
            }
            ext = &value[length..];
        }
    }
    ext.is_empty()
}

/// The length of the token (RFC 9110 section 5.6.2) that the bytes start with.
pub(super) fn token_length(bytes: &[u8]) -> usize {
    let is_tchar = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    bytes
        .iter()
        .position(|b| !is_tchar(b))
        .unwrap_or(bytes.len())
}

/// The length of the quoted-string that the bytes start with; 0 when it has no end.
fn quoted_length(bytes: &[u8]) -> usize {
    let mut escaped = false;
    for (at, &b) in bytes.iter().enumerate().skip(1) {
        match b {
            0x21..=0x7e | b' ' | b'\t' => {}
            _ => return 0,
        }
        match (escaped, b) {
            (true, _) => escaped = false,
            (false, b'\\') => escaped = true,
            (false, b'"') => return at + 1,
            _ => {}
        }
    }
    0
}

/// The length of a whole and valid trailer section with its empty line.
fn trailer_section(input: &[u8]) -> Result<Option<usize>, BodyError> {
    match input {
        [b'\r', b'\n', ..] => return Ok(Some(2)),
        [] | [b'\r'] => return Ok(None),
        _ => {}
    }
    let end = HeadScanner::default()
        .find_end(input)
        .map_err(|_| BodyError::Trailer)?;
    if end.unwrap_or(input.len()) > limits::TRAILERS {
        return Err(BodyError::TrailersTooLarge);
    }
    let Some(end) = end else { return Ok(None) };
    let mut fields = [httparse::EMPTY_HEADER; TRAILER_FIELDS];
    // RFC 9110 section 6.5.1 forbids fields that frame or control the connection; some parsers obey
    // them even here.
    let controls = |field: &Field<'_>| {
        matches!(
            Name::of(field.name),
            Name::ContentLength
                | Name::TransferEncoding
                | Name::Connection
                | Name::Upgrade
                | Name::HopByHop
        )
    };
    if trailers(&input[..end], &mut fields)?.iter().any(controls) {
        return Err(BodyError::Trailer);
    }
    Ok(Some(end))
}

/// The fields of a trailer section.
pub fn trailers<'h, 'b>(
    section: &'b [u8],
    fields: &'h mut [Field<'b>; TRAILER_FIELDS],
) -> Result<&'h [Field<'b>], BodyError> {
    match httparse::parse_headers(section, fields) {
        Ok(httparse::Status::Complete((n, fields))) if n == section.len() => Ok(fields),
        Err(httparse::Error::TooManyHeaders) => Err(BodyError::TrailersTooLarge),
        _ => Err(BodyError::Trailer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Data, and the trailer section.
    type Decoded = (Vec<u8>, Vec<u8>);

    /// Decodes as a connection would, with at most `step` new bytes at a time.
    fn decode(input: &[u8], step: usize) -> Result<Option<Decoded>, BodyError> {
        let mut chunked = Chunked::default();
        let (mut buf, mut data) = (Vec::new(), Vec::new());
        for piece in input.chunks(step) {
            buf.extend_from_slice(piece);
            loop {
                let (consumed, event) = chunked.step(&buf)?;
                match event {
                    Event::More => {
                        buf.drain(..consumed);
                        break;
                    }
                    Event::Data(n) => {
                        data.extend_from_slice(&buf[consumed..consumed + n]);
                        buf.drain(..consumed + n);
                    }
                    Event::End(n) => return Ok(Some((data, buf[consumed - n..consumed].to_vec()))),
                }
            }
        }
        Ok(None)
    }

    fn both(input: &str) -> Result<Option<Decoded>, BodyError> {
        let whole = decode(input.as_bytes(), usize::MAX);
        for step in [1, 2, 3, 7] {
            assert_eq!(whole, decode(input.as_bytes(), step), "{input:?} by {step}");
        }
        whole
    }

    #[test]
    fn data_and_trailers_come_out() {
        let ok = |d: &str, t: &str| Ok(Some((d.as_bytes().to_vec(), t.as_bytes().to_vec())));
        assert_eq!(both("5\r\nhello\r\n0\r\n\r\n"), ok("hello", "\r\n"));
        assert_eq!(
            both("A\r\n0123456789\r\n1\r\nx\r\n000\r\n\r\n"),
            ok("0123456789x", "\r\n")
        );
        assert_eq!(
            both("0\r\nA: b\r\nC: d\r\n\r\n"),
            ok("", "A: b\r\nC: d\r\n\r\n")
        );
        assert_eq!(
            both("1;a=b;c;d=\"e;\\\"\"\r\nx\r\n0;z\r\n\r\n"),
            ok("x", "\r\n")
        );
        assert_eq!(both("5\r\nhel"), Ok(None));
        assert_eq!(both("5\r\nhello\r\n0\r\n"), Ok(None));
    }

    #[test]
    fn malformed_chunks_are_refused() {
        use BodyError as E;
        for (input, error) in [
            ("+5\r\nhello\r\n", E::Size),
            (" 5\r\nhello\r\n", E::Size),
            ("\r\n5\r\nhello", E::Size),
            ("0x5\r\nhello\r\n", E::Extension),
            ("-1\r\n", E::Size),
            ("g\r\n", E::Size),
            ("8000000000000000\r\n", E::Size),
            ("00000000000000005\r\nhello\r\n", E::Size),
            ("5 \r\nhello\r\n", E::Extension),
            ("5\nhello\r\n", E::Extension),
            ("5\rhello\r\n", E::Extension),
            ("5;\r\nhello\r\n", E::Extension),
            ("5;a=\r\nhello\r\n", E::Extension),
            ("5;a=\"b\r\nhello\r\n", E::Extension),
            ("5;a\u{1}\r\nhello\r\n", E::Extension),
            ("5\r\nhello0\r\n\r\n", E::DataEnd),
            ("5\r\nhello\n0\r\n\r\n", E::DataEnd),
            ("5\r\nhello\r0\r\n\r\n", E::DataEnd),
            ("0\r\nA : b\r\n\r\n", E::Trailer),
            ("0\r\nA: b\n\r\n", E::Trailer),
            ("0\r\n A: b\r\n\r\n", E::Trailer),
            ("0\r\nnonsense\r\n\r\n", E::Trailer),
            ("0\r\nA: b\r\nContent-Length: 5\r\n\r\n", E::Trailer),
            ("0\r\ntransfer-encoding: x\r\n\r\n", E::Trailer),
            ("0\r\nConnection: close\r\n\r\n", E::Trailer),
        ] {
            assert_eq!(both(input), Err(error), "{input:?}");
        }
    }

    #[test]
    fn lines_and_trailers_are_bounded() {
        let line = format!("5;{}", "a".repeat(limits::CHUNK_LINE));
        assert_eq!(both(&line), Err(BodyError::LineTooLong));
        let trailer = format!("0\r\nA: {}", "b".repeat(limits::TRAILERS));
        assert_eq!(
            decode(trailer.as_bytes(), usize::MAX),
            Err(BodyError::TrailersTooLarge)
        );
        let many = format!("0\r\n{}\r\n", "A: b\r\n".repeat(TRAILER_FIELDS + 1));
        assert_eq!(both(&many), Err(BodyError::TrailersTooLarge));
    }
}
