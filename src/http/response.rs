//! The head of a response, with the same suspicion of the upstream as of the command.

use std::mem::MaybeUninit;

use super::headers::{Field, FramingError, HeadScanner, LineError, Summary};
use super::{Framing, Version, limits};

/// A response head that has passed every check. Borrows the bytes that it was parsed from.
#[derive(Debug)]
pub struct Response<'h, 'b> {
    /// The status code, 100 to 999.
    pub status: u16,
    /// The reason phrase as it came.
    pub reason: &'b [u8],
    /// Every field, in order.
    pub fields: &'h [Field<'b>],
    /// How the body is delimited.
    pub framing: Framing,
    /// Whether the upstream keeps the connection open.
    pub keep_alive: bool,
    /// Whether the connection nominates fields that end here.
    pub nominates: bool,
}

/// Why a response is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseError {
    /// The lines are malformed.
    Line(LineError),
    /// The head is larger than `limits::RESPONSE_HEAD`.
    HeadTooLarge,
    /// More fields than `limits::RESPONSE_FIELDS`.
    TooManyFields,
    /// The status line is malformed, or of another protocol version.
    StatusLine,
    /// A field line is malformed.
    Field,
    /// The body cannot be delimited safely.
    Framing(FramingError),
    /// 101 (Switching Protocols) to a request that asked for no upgrade, or to another protocol.
    Upgrade,
    /// A body in a message that has none (1xx, 204, 205).
    UnexpectedBody,
}

impl ResponseError {
    /// One clause that names what was wrong.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            ResponseError::Line(e) => e.text(),
            ResponseError::HeadTooLarge => "the response head is larger than 256 KiB",
            ResponseError::TooManyFields => "the response has more than 256 fields",
            ResponseError::StatusLine => "the status line is malformed or not HTTP/1.0 or HTTP/1.1",
            ResponseError::Field => "a field line is malformed",
            ResponseError::Framing(e) => e.text(),
            ResponseError::Upgrade => "101 without a matching Upgrade",
            ResponseError::UnexpectedBody => "a body in a response that has none",
        }
    }
}

/// What of the request decides how its response is read.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// The request's method is HEAD.
    pub head: bool,
    /// The request asked for a WebSocket.
    pub websocket: bool,
}

/// Room for the fields of a head: uninitialised, because clearing it would cost more than parsing.
pub type Slots<'b> = [MaybeUninit<Field<'b>>; limits::RESPONSE_FIELDS];

/// Room for the fields of one response.
#[must_use]
pub fn slots<'b>() -> Slots<'b> {
    [const { MaybeUninit::uninit() }; limits::RESPONSE_FIELDS]
}

/// Looks for the end of a response head; an error as soon as it can't become a valid one.
pub fn find_end(scanner: &mut HeadScanner, buf: &[u8]) -> Result<Option<usize>, ResponseError> {
    let end = scanner.find_end(buf).map_err(ResponseError::Line)?;
    if end.unwrap_or(buf.len()) > limits::RESPONSE_HEAD {
        return Err(ResponseError::HeadTooLarge);
    }
    // Another protocol (TLS, SMTP, SSH) has no line to wait for.
    let start = &buf[..buf.len().min(5)];
    if !b"HTTP/".starts_with(start) {
        return Err(ResponseError::StatusLine);
    }
    Ok(end)
}

/// Parses a head that `find_end` has delimited.
pub fn parse<'h, 'b>(
    head: &'b [u8],
    fields: &'h mut Slots<'b>,
    asked: Asked,
) -> Result<Response<'h, 'b>, ResponseError> {
    let mut parsed = httparse::Response::new(&mut []);
    match httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut parsed,
        head,
        fields,
    ) {
        Ok(httparse::Status::Complete(n)) if n == head.len() => {}
        Ok(_) => return Err(ResponseError::StatusLine),
        Err(httparse::Error::TooManyHeaders) => return Err(ResponseError::TooManyFields),
        Err(httparse::Error::HeaderName | httparse::Error::HeaderValue) => {
            return Err(ResponseError::Field);
        }
        Err(_) => return Err(ResponseError::StatusLine),
    }
    let (Some(version), Some(status)) = (parsed.version, parsed.code) else {
        return Err(ResponseError::StatusLine);
    };
    if status < 100 {
        return Err(ResponseError::StatusLine);
    }
    let fields: &'h [Field<'b>] = parsed.headers;
    let version = if version == 0 {
        Version::V10
    } else {
        Version::V11
    };
    let summary = Summary::of(fields);
    let declared = summary.framing().map_err(ResponseError::Framing)?;
    if declared == Some(Framing::Chunked) && version == Version::V10 {
        return Err(ResponseError::Framing(FramingError::MalformedCoding));
    }
    let framing = framing(status, declared, asked)?;
    if status == 101 {
        let agreed = summary
            .upgrade
            .is_some_and(|u| u.eq_ignore_ascii_case(b"websocket"));
        if !asked.websocket || !agreed {
            return Err(ResponseError::Upgrade);
        }
    }
    let keep_alive = match version {
        Version::V11 => !summary.close,
        Version::V10 => summary.keep_alive && !summary.close,
    };
    Ok(Response {
        status,
        reason: reason(head),
        fields,
        framing,
        keep_alive: keep_alive && framing != Framing::Close,
        nominates: summary.nominates,
    })
}

/// RFC 9112 section 6.3, for responses.
fn framing(status: u16, declared: Option<Framing>, asked: Asked) -> Result<Framing, ResponseError> {
    match status {
        // Interim responses and 204 must not declare a body (RFC 9110 sections 8.6 and 15.3.5). A
        // length of 0 is a common harmless slip.
        100..=199 | 204 => match declared {
            None | Some(Framing::Length(0)) => Ok(Framing::None),
            Some(_) => Err(ResponseError::UnexpectedBody),
        },
        // These declare what another request would get.
        304 => Ok(Framing::None),
        _ if asked.head => Ok(Framing::None),
        // RFC 9110 section 15.3.6: no content, yet with framing that says so.
        205 => match declared {
            None => Ok(Framing::Close),
            Some(Framing::Length(0)) => Ok(Framing::None),
            Some(Framing::Chunked) => Ok(Framing::Chunked),
            Some(_) => Err(ResponseError::UnexpectedBody),
        },
        _ => Ok(declared.unwrap_or(Framing::Close)),
    }
}

/// The reason phrase, byte for byte: httparse gives none when it holds obs-text.
fn reason(head: &[u8]) -> &[u8] {
    let line = head.split(|&b| b == b'\r').next().unwrap_or_default();
    line.get("HTTP/1.1 200 ".len()..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(head: &str, asked: Asked) -> Result<(u16, Framing, bool), ResponseError> {
        let mut scanner = HeadScanner::default();
        let end = find_end(&mut scanner, head.as_bytes())?.expect("a whole head");
        let mut fields = slots();
        let r = parse(&head.as_bytes()[..end], &mut fields, asked)?;
        Ok((r.status, r.framing, r.keep_alive))
    }

    const GET: Asked = Asked {
        head: false,
        websocket: false,
    };

    #[test]
    fn framing_follows_status_and_method() {
        let head = Asked {
            head: true,
            websocket: false,
        };
        let with = |status: u16, fields: &str, asked| {
            check(&format!("HTTP/1.1 {status} X\r\n{fields}\r\n"), asked)
        };
        assert_eq!(
            with(200, "Content-Length: 5\r\n", GET),
            Ok((200, Framing::Length(5), true))
        );
        assert_eq!(
            with(200, "Content-Length: 5\r\n", head),
            Ok((200, Framing::None, true))
        );
        assert_eq!(
            with(304, "Content-Length: 5\r\n", GET),
            Ok((304, Framing::None, true))
        );
        assert_eq!(
            with(200, "Transfer-Encoding: Chunked\r\n", GET),
            Ok((200, Framing::Chunked, true))
        );
        assert_eq!(with(200, "", GET), Ok((200, Framing::Close, false)));
        assert_eq!(with(204, "", GET), Ok((204, Framing::None, true)));
        assert_eq!(
            with(204, "Content-Length: 5\r\n", GET),
            Err(ResponseError::UnexpectedBody)
        );
        assert_eq!(
            with(205, "Content-Length: 5\r\n", GET),
            Err(ResponseError::UnexpectedBody)
        );
        assert_eq!(
            with(103, "Transfer-Encoding: chunked\r\n", GET),
            Err(ResponseError::UnexpectedBody)
        );
        assert_eq!(
            with(200, "Connection: close\r\nContent-Length: 0\r\n", GET),
            Ok((200, Framing::Length(0), false))
        );
    }

    #[test]
    fn suspicious_heads_are_refused() {
        use FramingError as F;
        for (head, error) in [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
                ResponseError::Framing(F::Both),
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
                ResponseError::Framing(F::Repeated),
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n",
                ResponseError::Framing(F::Length),
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
                ResponseError::Framing(F::Coding),
            ),
            (
                "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                ResponseError::Framing(F::MalformedCoding),
            ),
            ("HTTP/2.0 200 OK\r\n\r\n", ResponseError::StatusLine),
            ("HTTP/1.1 099 OK\r\n\r\n", ResponseError::StatusLine),
            ("HTTP/1.1 20 OK\r\n\r\n", ResponseError::StatusLine),
            ("SSH-2.0-x\r\n\r\n", ResponseError::StatusLine),
            ("HTTP/1.1 200 OK\r\nA : b\r\n\r\n", ResponseError::Field),
            (
                "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
                ResponseError::Line(LineError::Folded),
            ),
            (
                "HTTP/1.1 200 OK\nA: b\r\n\r\n",
                ResponseError::Line(LineError::BareLineEnd),
            ),
            (
                "HTTP/1.1 101 X\r\nUpgrade: websocket\r\n\r\n",
                ResponseError::Upgrade,
            ),
        ] {
            assert_eq!(check(head, GET), Err(error), "{head:?}");
        }
        let asked = Asked {
            head: false,
            websocket: true,
        };
        assert_eq!(
            check("HTTP/1.1 101 X\r\nUpgrade: h2c\r\n\r\n", asked),
            Err(ResponseError::Upgrade)
        );
        assert!(check("HTTP/1.1 101 X\r\nUpgrade: WebSocket\r\n\r\n", asked).is_ok());
    }

    #[test]
    fn the_reason_is_kept_byte_for_byte() {
        assert_eq!(
            reason(b"HTTP/1.1 404 Nicht gefunden \xe9\r\n\r\n"),
            b"Nicht gefunden \xe9"
        );
        assert_eq!(reason(b"HTTP/1.1 404\r\n\r\n"), b"");
    }
}
