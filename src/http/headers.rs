//! What heads of both kinds share: where one ends, and what its fields say about the connection.

use super::Framing;

/// A field of a head or of a trailer section.
pub type Field<'b> = httparse::Header<'b>;

/// Why the lines of a head are not acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineError {
    /// A line feed without a carriage return, or the other way round (RFC 9112 section 2.2).
    BareLineEnd,
    /// The head starts with an empty line or with white space.
    LeadingSpace,
    /// A line that starts with white space (RFC 9112 section 5.2, obs-fold).
    Folded,
    /// A NUL byte.
    Nul,
}

impl LineError {
    /// One clause for an error text.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            LineError::BareLineEnd => "a line does not end in CR LF",
            LineError::LeadingSpace => "the message starts with an empty line or white space",
            LineError::Folded => "a field line is folded (starts with white space)",
            LineError::Nul => "a NUL byte in the head",
        }
    }
}

/// Finds the end of a head, a few bytes at a time and never twice over the same bytes.
#[derive(Debug, Default)]
pub struct HeadScanner {
    scanned: usize,
    line_start: usize,
}

impl HeadScanner {
    /// Looks at what has arrived so far; `Some(n)` when the head is its first `n` bytes.
    pub fn find_end(&mut self, buf: &[u8]) -> Result<Option<usize>, LineError> {
        while let Some(&byte) = buf.get(self.scanned) {
            let at = self.scanned;
            let line_start = at == self.line_start;
            match byte {
                b'\n' => {
                    if line_start || buf[at - 1] != b'\r' {
                        return Err(LineError::BareLineEnd);
                    }
                    let empty = at - self.line_start == 1;
                    self.line_start = at + 1;
                    self.scanned = at + 1;
                    if empty {
                        return if at == 1 {
                            Err(LineError::LeadingSpace)
                        } else {
                            Ok(Some(at + 1))
                        };
                    }
                    continue;
                }
                0 => return Err(LineError::Nul),
                b' ' | b'\t' if line_start => {
                    return Err(if at == 0 {
                        LineError::LeadingSpace
                    } else {
                        LineError::Folded
                    });
                }
                _ => {}
            }
            if !line_start && buf[at - 1] == b'\r' {
                return Err(LineError::BareLineEnd);
            }
            self.scanned += 1;
        }
        Ok(None)
    }
}

/// The fields that concern a connection or a message's framing, told apart once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// Forwarded unless the connection nominates it.
    EndToEnd,
    /// `Host`
    Host,
    /// `Content-Length`
    ContentLength,
    /// `Transfer-Encoding`
    TransferEncoding,
    /// `Connection`
    Connection,
    /// `Upgrade`
    Upgrade,
    /// `Expect`
    Expect,
    /// `Trailer`
    Trailer,
    /// `TE`
    Te,
    /// Any other field that ends at this hop (RFC 9110 section 7.6.1).
    HopByHop,
}

impl Name {
    /// Tells a field name apart.
    #[must_use]
    pub fn of(name: &str) -> Name {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        // The length picks the one or two names worth comparing.
        match name.len() {
            2 if is("te") => Name::Te,
            4 if is("host") => Name::Host,
            6 if is("expect") => Name::Expect,
            7 if is("upgrade") => Name::Upgrade,
            7 if is("trailer") => Name::Trailer,
            10 if is("connection") => Name::Connection,
            10 if is("keep-alive") => Name::HopByHop,
            14 if is("content-length") => Name::ContentLength,
            14 if is("http2-settings") => Name::HopByHop,
            16 if is("proxy-connection") => Name::HopByHop,
            17 if is("transfer-encoding") => Name::TransferEncoding,
            18 if is("proxy-authenticate") => Name::HopByHop,
            19 if is("proxy-authorization") => Name::HopByHop,
            25 if is("proxy-authentication-info") => Name::HopByHop,
            _ => Name::EndToEnd,
        }
    }
}

/// What the fields of one head say about framing and connection.
#[derive(Debug, Default)]
pub(super) struct Summary<'b> {
    pub hosts: usize,
    pub host: &'b [u8],
    pub lengths: usize,
    pub length: &'b [u8],
    pub codings: usize,
    pub coding: &'b [u8],
    pub close: bool,
    pub keep_alive: bool,
    pub connection_upgrade: bool,
    pub upgrade: Option<&'b [u8]>,
    pub expect: Option<&'b [u8]>,
    pub te_trailers: bool,
    /// The connection nominates fields beyond the usual ones.
    pub nominates: bool,
}

impl<'b> Summary<'b> {
    pub fn of(fields: &[Field<'b>]) -> Summary<'b> {
        let mut s = Summary::default();
        for field in fields {
            match Name::of(field.name) {
                Name::Host => {
                    s.hosts += 1;
                    s.host = field.value;
                }
                Name::ContentLength => {
                    s.lengths += 1;
                    s.length = field.value;
                }
                Name::TransferEncoding => {
                    s.codings += 1;
                    s.coding = field.value;
                }
                Name::Connection => {
                    for token in tokens(field.value) {
                        if token.eq_ignore_ascii_case(b"close") {
                            s.close = true;
                        } else if token.eq_ignore_ascii_case(b"keep-alive") {
                            s.keep_alive = true;
                        } else if token.eq_ignore_ascii_case(b"upgrade") {
                            s.connection_upgrade = true;
                        } else {
                            s.nominates = true;
                        }
                    }
                }
                Name::Upgrade => s.upgrade = Some(field.value),
                Name::Expect => s.expect = Some(field.value),
                Name::Te => {
                    s.te_trailers |=
                        tokens(field.value).any(|t| t.eq_ignore_ascii_case(b"trailers"))
                }
                Name::Trailer | Name::HopByHop | Name::EndToEnd => {}
            }
        }
        s
    }

    /// The framing that the fields declare; `None` when they declare none.
    ///
    /// Both kinds at once, a list, a sign, or a second field are refused rather than weighed.
    pub fn framing(&self) -> Result<Option<Framing>, FramingError> {
        if self.codings > 0 && self.lengths > 0 {
            return Err(FramingError::Both);
        }
        if self.codings > 1 || self.lengths > 1 {
            return Err(FramingError::Repeated);
        }
        if self.codings == 1 {
            if self.coding.eq_ignore_ascii_case(b"chunked") {
                return Ok(Some(Framing::Chunked));
            }
            // The message could not be delimited at all: RFC 9112 section 6.3 item 4.
            let last = tokens(self.coding).last().unwrap_or_default();
            let known_end =
                last.eq_ignore_ascii_case(b"chunked") && tokens(self.coding).count() > 1;
            let unknown = !last.is_empty() && !last.eq_ignore_ascii_case(b"chunked");
            return Err(if known_end || unknown {
                FramingError::Coding
            } else {
                FramingError::MalformedCoding
            });
        }
        if self.lengths == 1 {
            return content_length(self.length)
                .map(|n| Some(Framing::Length(n)))
                .ok_or(FramingError::Length);
        }
        Ok(None)
    }
}

/// Why a message's framing is not acceptable (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FramingError {
    /// `Content-Length` and `Transfer-Encoding` in one message.
    Both,
    /// `Content-Length` or `Transfer-Encoding` twice.
    Repeated,
    /// `Content-Length` is not a plain decimal number below 2^63.
    Length,
    /// A transfer coding other than exactly `chunked`.
    Coding,
    /// `Transfer-Encoding` that is no list of codings.
    MalformedCoding,
}

impl FramingError {
    /// One clause for an error text.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            FramingError::Both => "both Content-Length and Transfer-Encoding",
            FramingError::Repeated => "Content-Length or Transfer-Encoding is given twice",
            FramingError::Length => "Content-Length is not one decimal number",
            FramingError::Coding => "a transfer coding other than chunked",
            FramingError::MalformedCoding => "Transfer-Encoding is malformed",
        }
    }
}

/// `1*DIGIT`, and small enough that no sum of ours overflows.
fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let n = value.iter().try_fold(0u64, |n, d| {
        n.checked_mul(10)?.checked_add(u64::from(d - b'0'))
    })?;
    (n <= i64::MAX as u64).then_some(n)
}

/// The members of a comma-separated list, without empty ones.
pub fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|&b| b == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|t| !t.is_empty())
}

/// Whether the `Connection` fields nominate this field (RFC 9110 section 7.6.1).
#[must_use]
pub fn nominated(fields: &[Field<'_>], name: &str) -> bool {
    fields
        .iter()
        .filter(|f| Name::of(f.name) == Name::Connection)
        .any(|f| tokens(f.value).any(|t| t.eq_ignore_ascii_case(name.as_bytes())))
}

/// Whether a field may stand in a trailer section (RFC 9110 section 6.5.1): nothing that frames,
/// routes, authenticates or controls.
#[must_use]
pub fn may_trail(name: &str) -> bool {
    const NEVER: &[&str] = &[
        "age",
        "authorization",
        "cache-control",
        "content-encoding",
        "content-range",
        "content-type",
        "cookie",
        "date",
        "expires",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "location",
        "max-forwards",
        "pragma",
        "proxy-status",
        "range",
        "retry-after",
        "set-cookie",
        "vary",
        "warning",
        "www-authenticate",
    ];
    Name::of(name) == Name::EndToEnd && !NEVER.iter().any(|n| name.eq_ignore_ascii_case(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(input: &[u8]) -> Result<Option<usize>, LineError> {
        let whole = HeadScanner::default().find_end(input);
        // Whatever the split, the answer is the same.
        let mut scanner = HeadScanner::default();
        let mut dribbled = Ok(None);
        for n in 1..=input.len() {
            dribbled = scanner.find_end(&input[..n]);
            if dribbled != Ok(None) {
                break;
            }
        }
        assert_eq!(whole, dribbled, "{}", input.escape_ascii());
        whole
    }

    #[test]
    fn heads_end_at_the_first_empty_line() {
        assert_eq!(scan(b"GET / HTTP/1.1\r\nA: b\r\n\r\nrest"), Ok(Some(24)));
        assert_eq!(scan(b"GET / HTTP/1.1\r\nA: b\r\n\r"), Ok(None));
        assert_eq!(scan(b""), Ok(None));
    }

    #[test]
    fn lines_that_parsers_read_differently_are_refused() {
        assert_eq!(
            scan(b"GET / HTTP/1.1\nA: b\r\n\r\n"),
            Err(LineError::BareLineEnd)
        );
        assert_eq!(
            scan(b"GET / HTTP/1.1\r\nA: b\n\r\n"),
            Err(LineError::BareLineEnd)
        );
        assert_eq!(
            scan(b"GET / HTTP/1.1\r\nA: b\r\n\n"),
            Err(LineError::BareLineEnd)
        );
        assert_eq!(
            scan(b"GET / HTTP/1.1\r\nA: b\rc\r\n\r\n"),
            Err(LineError::BareLineEnd)
        );
        assert_eq!(
            scan(b"GET / HTTP/1.1\r\nA: b\r\r\n\r\n"),
            Err(LineError::BareLineEnd)
        );
        assert_eq!(
            scan(b"\r\nGET / HTTP/1.1\r\n\r\n"),
            Err(LineError::LeadingSpace)
        );
        assert_eq!(
            scan(b" GET / HTTP/1.1\r\n\r\n"),
            Err(LineError::LeadingSpace)
        );
        assert_eq!(scan(b"\nGET"), Err(LineError::BareLineEnd));
        assert_eq!(
            scan(b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n"),
            Err(LineError::Folded)
        );
        assert_eq!(
            scan(b"GET / HTTP/1.1\r\nA: \0\r\n\r\n"),
            Err(LineError::Nul)
        );
    }

    #[test]
    fn content_length_is_one_plain_number() {
        assert_eq!(content_length(b"0"), Some(0));
        assert_eq!(content_length(b"0010"), Some(10));
        assert_eq!(
            content_length(b"9223372036854775807"),
            Some(i64::MAX as u64)
        );
        for bad in [
            "",
            "+5",
            "-1",
            "5, 5",
            "5 5",
            "0x10",
            "9223372036854775808",
            "18446744073709551616",
            "1e3",
        ] {
            assert_eq!(content_length(bad.as_bytes()), None, "{bad}");
        }
    }
}
