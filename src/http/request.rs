//! The head of a request, as strictly as RFC 9112 allows.

use std::mem::MaybeUninit;

use super::headers::{Field, FramingError, HeadScanner, LineError, Summary};
use super::{Framing, Version, limits};

/// A request head that has passed every check. Borrows the bytes that it was parsed from.
#[derive(Debug)]
pub struct Request<'h, 'b> {
    /// The method, a token.
    pub method: &'b str,
    /// Path and query in origin-form, or `*`. Never a destination.
    pub target: &'b str,
    /// The version that the answer is given in.
    pub version: Version,
    /// Every field, in order.
    pub fields: &'h [Field<'b>],
    /// How the body is delimited.
    pub framing: Framing,
    /// Whether another request may follow on the connection.
    pub keep_alive: bool,
    /// Whether the client waits for 100 (Continue) before it sends the body.
    pub expect_continue: bool,
    /// Whether the client asks for a WebSocket. No other protocol is upgraded to: a raw stream of
    /// another kind (h2c above all) would carry requests that nobody has looked at.
    pub websocket: bool,
    /// Whether the client takes trailers.
    pub te_trailers: bool,
    /// Whether the connection nominates fields that end here.
    pub nominates: bool,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestError {
    /// The lines are malformed.
    Line(LineError),
    /// The head is larger than `limits::REQUEST_HEAD`.
    HeadTooLarge,
    /// More fields than `limits::REQUEST_FIELDS`.
    TooManyFields,
    /// The target is longer than `limits::TARGET`.
    TargetTooLong,
    /// The request line is malformed, or of another protocol version.
    RequestLine,
    /// The target is in no form that the method allows, or holds a byte that a URI can't.
    Target,
    /// A field line is malformed.
    Field,
    /// `Host` is missing, repeated or malformed (RFC 9112 section 3.2).
    Host,
    /// The body cannot be delimited safely.
    Framing(FramingError),
    /// An expectation other than `100-continue` (RFC 9110 section 10.1.1).
    Expectation,
    /// CONNECT names a destination, TRACE has the credential echoed: neither is forwarded.
    Method,
}

impl RequestError {
    /// The status of the refusal.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            RequestError::HeadTooLarge | RequestError::TooManyFields => 431,
            RequestError::TargetTooLong => 414,
            RequestError::Framing(FramingError::Coding) => 501,
            RequestError::Expectation => 417,
            RequestError::Method => 405,
            _ => 400,
        }
    }

    /// One sentence that names what was wrong.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            RequestError::Line(e) => e.text(),
            RequestError::HeadTooLarge => "the request head is larger than 64 KiB",
            RequestError::TooManyFields => "the request has more than 128 fields",
            RequestError::TargetTooLong => "the request target is longer than 32 KiB",
            RequestError::RequestLine => {
                "the request line is malformed or not HTTP/1.0 or HTTP/1.1"
            }
            RequestError::Target => {
                "the request target is malformed or in a form that the method does not allow"
            }
            RequestError::Field => "a field line is malformed",
            RequestError::Host => {
                "Host must be given exactly once and be a host with an optional port"
            }
            RequestError::Framing(e) => e.text(),
            RequestError::Expectation => "the only expectation that can be met is 100-continue",
            RequestError::Method => "CONNECT and TRACE are not forwarded",
        }
    }
}

/// Room for the fields of a head: uninitialised, because clearing it would cost more than parsing.
pub type Slots<'b> = [MaybeUninit<Field<'b>>; limits::REQUEST_FIELDS];

/// Room for the fields of one request.
#[must_use]
pub fn slots<'b>() -> Slots<'b> {
    [const { MaybeUninit::uninit() }; limits::REQUEST_FIELDS]
}

/// Looks for the end of a request head; an error as soon as it can't become a valid one.
pub fn find_end(scanner: &mut HeadScanner, buf: &[u8]) -> Result<Option<usize>, RequestError> {
    let end = scanner.find_end(buf).map_err(RequestError::Line)?;
    if end.unwrap_or(buf.len()) > limits::REQUEST_HEAD {
        // A request line without end is most of all a target without end.
        let first_line = buf.iter().position(|&b| b == b'\n').unwrap_or(buf.len());
        let target_alone = first_line > limits::TARGET + 64;
        return Err(if target_alone {
            RequestError::TargetTooLong
        } else {
            RequestError::HeadTooLarge
        });
    }
    Ok(end)
}

/// Parses a head that `find_end` has delimited.
pub fn parse<'h, 'b>(
    head: &'b [u8],
    fields: &'h mut Slots<'b>,
) -> Result<Request<'h, 'b>, RequestError> {
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(head, fields) {
        Ok(httparse::Status::Complete(n)) if n == head.len() => {}
        Ok(_) => return Err(RequestError::RequestLine),
        Err(httparse::Error::TooManyHeaders) => return Err(RequestError::TooManyFields),
        Err(httparse::Error::HeaderName | httparse::Error::HeaderValue) => {
            return Err(RequestError::Field);
        }
        Err(_) => return Err(RequestError::RequestLine),
    }
    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version)
    else {
        return Err(RequestError::RequestLine);
    };
    let fields: &'h [Field<'b>] = parsed.headers;
    let version = if version == 0 {
        Version::V10
    } else {
        Version::V11
    };
    if target.len() > limits::TARGET {
        return Err(RequestError::TargetTooLong);
    }
    if matches!(method, "CONNECT" | "TRACE") {
        return Err(RequestError::Method);
    }
    let target = origin_form(method, target).ok_or(RequestError::Target)?;

    let summary = Summary::of(fields);
    let host_missing = summary.hosts == 0 && version == Version::V11;
    if host_missing || summary.hosts > 1 || !summary.host.iter().all(|&b| is_host_byte(b)) {
        return Err(RequestError::Host);
    }
    let framing = summary
        .framing()
        .map_err(RequestError::Framing)?
        .unwrap_or(Framing::None);
    if summary.lengths == 1 && tab_behind(head, summary.length) {
        return Err(RequestError::Framing(FramingError::Length));
    }
    if framing == Framing::Chunked && version == Version::V10 {
        // RFC 9112 section 6.1: faulty framing, whatever else the message says.
        return Err(RequestError::Framing(FramingError::MalformedCoding));
    }
    let expect_continue = match summary.expect {
        Some(value) if value.eq_ignore_ascii_case(b"100-continue") => {
            version == Version::V11 && framing != Framing::None && framing != Framing::Length(0)
        }
        Some(_) => return Err(RequestError::Expectation),
        None => false,
    };
    let websocket = summary.connection_upgrade
        && version == Version::V11
        && framing == Framing::None
        && summary
            .upgrade
            .is_some_and(|u| u.eq_ignore_ascii_case(b"websocket"));
    let keep_alive = match version {
        Version::V11 => !summary.close,
        Version::V10 => summary.keep_alive && !summary.close,
    };
    Ok(Request {
        method,
        target,
        version,
        fields,
        framing,
        keep_alive,
        expect_continue,
        websocket,
        te_trailers: summary.te_trailers,
        nominates: summary.nominates,
    })
}

/// Whether a tab stands between a value, which borrows from the head, and the end of its line. There
/// it is white space (RFC 9110 section 5.6.3), but not for every parser (llhttp, Content-Length).
fn tab_behind(head: &[u8], value: &[u8]) -> bool {
    let end = (value.as_ptr_range().end as usize).wrapping_sub(head.as_ptr() as usize);
    let rest = head.get(end..).unwrap_or_default();
    rest.iter()
        .take_while(|b| **b != b'\r')
        .any(|b| *b == b'\t')
}

/// The version that a refused request claims, for the answer to it.
#[must_use]
pub fn claimed_version(head: &[u8]) -> Version {
    let line = head.split(|&b| b == b'\r').next().unwrap_or_default();
    if line.ends_with(b" HTTP/1.0") {
        Version::V10
    } else {
        Version::V11
    }
}

/// Path and query of a target (RFC 9112 section 3.2). Of an absolute-form only they are taken.
fn origin_form<'b>(method: &str, target: &'b str) -> Option<&'b str> {
    // httparse lets UTF-8 through; a URI has none, and upstreams disagree about it.
    if !target
        .bytes()
        .all(|b| (0x21..=0x7e).contains(&b) && b != b'#')
    {
        return None;
    }
    if target.starts_with('/') {
        return Some(target);
    }
    if target == "*" {
        return (method == "OPTIONS").then_some(target);
    }
    let (scheme, rest) = target.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return None;
    }
    match rest.find(['/', '?']) {
        None if rest.is_empty() => None,
        // RFC 9112 sections 3.2.1 and 3.2.4: an absent path is "/", and for OPTIONS "*".
        None => Some(if method == "OPTIONS" { "*" } else { "/" }),
        Some(end) if end > 0 && rest[end..].starts_with('/') => Some(&rest[end..]),
        Some(_) => None,
    }
}

/// `uri-host [ ":" port ]`, looked at byte by byte: nothing that starts a path, a query or userinfo.
fn is_host_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(&b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(head: &str) -> Result<(Framing, bool, String), RequestError> {
        let mut scanner = HeadScanner::default();
        let end = find_end(&mut scanner, head.as_bytes())?.expect("a whole head");
        let mut fields = slots();
        let r = parse(&head.as_bytes()[..end], &mut fields)?;
        Ok((r.framing, r.keep_alive, r.target.to_string()))
    }

    fn with(fields: &str) -> Result<(Framing, bool, String), RequestError> {
        check(&format!("POST /p?q=1 HTTP/1.1\r\nHost: x\r\n{fields}\r\n"))
    }

    #[test]
    fn plain_requests_pass() {
        assert_eq!(with(""), Ok((Framing::None, true, "/p?q=1".into())));
        assert_eq!(
            with("Content-Length: 5\r\n").map(|r| r.0),
            Ok(Framing::Length(5))
        );
        assert_eq!(
            with("Transfer-Encoding: chunked\r\n").map(|r| r.0),
            Ok(Framing::Chunked)
        );
        assert_eq!(with("Connection: close\r\n").map(|r| r.1), Ok(false));
        assert_eq!(check("GET / HTTP/1.0\r\n\r\n").map(|r| r.1), Ok(false));
        assert_eq!(
            check("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").map(|r| r.1),
            Ok(true)
        );
    }

    #[test]
    fn ambiguous_framing_is_refused() {
        use FramingError as F;
        let cases: &[(&str, F)] = &[
            (
                "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
                F::Both,
            ),
            ("Content-Length: 5\t\r\n", F::Length),
            ("Content-Length: 5\r\nContent-Length: 5\r\n", F::Repeated),
            ("Content-Length: 5\r\nContent-Length: 6\r\n", F::Repeated),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                F::Repeated,
            ),
            ("Content-Length: 5, 5\r\n", F::Length),
            ("Content-Length: +5\r\n", F::Length),
            ("Content-Length: \r\n", F::Length),
            ("Content-Length: 0x5\r\n", F::Length),
            ("Transfer-Encoding: gzip, chunked\r\n", F::Coding),
            ("Transfer-Encoding: xchunked\r\n", F::Coding),
            ("Transfer-Encoding: chunked, identity\r\n", F::Coding),
            ("Transfer-Encoding: chunked;q=1\r\n", F::Coding),
            ("Transfer-Encoding: ,chunked\r\n", F::MalformedCoding),
            ("Transfer-Encoding: \r\n", F::MalformedCoding),
        ];
        for (fields, error) in cases {
            assert_eq!(with(fields), Err(RequestError::Framing(*error)), "{fields}");
        }
        let old = check("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert_eq!(old, Err(RequestError::Framing(F::MalformedCoding)));
    }

    #[test]
    fn malformed_heads_are_refused() {
        for head in [
            "GET / HTTP/2.0\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\n",
            "GET /\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
            "G(T / HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET / HTTP/1.1 \r\nHost: x\r\n\r\n",
            "GET / http/1.1\r\nHost: x\r\n\r\n",
        ] {
            assert_eq!(check(head), Err(RequestError::RequestLine), "{head:?}");
        }
        for field in [
            "A : b",
            "A",
            ": b",
            "A\u{e9}: b",
            "A: b\u{1}",
            "A: \u{7f}",
            "A\tB: c",
        ] {
            assert_eq!(
                with(&format!("{field}\r\n")),
                Err(RequestError::Field),
                "{field:?}"
            );
        }
        for host in [
            "",
            "Host: a\r\nHost: a\r\n",
            "Host: a/b\r\n",
            "Host: u@a\r\n",
            "Host: a b\r\n",
            "Host: a,b\r\n",
        ] {
            assert_eq!(
                check(&format!("GET / HTTP/1.1\r\n{host}\r\n")),
                Err(RequestError::Host),
                "{host:?}"
            );
        }
    }

    #[test]
    fn a_target_never_names_a_destination() {
        let target = |t: &str| check(&format!("GET {t} HTTP/1.1\r\nHost: x\r\n\r\n")).map(|r| r.2);
        assert_eq!(target("/a?b"), Ok("/a?b".into()));
        assert_eq!(target("//evil/x"), Ok("//evil/x".into()));
        assert_eq!(target("http://evil/x?y"), Ok("/x?y".into()));
        assert_eq!(target("HTTPS://u@evil:1/"), Ok("/".into()));
        assert_eq!(target("http://evil"), Ok("/".into()));
        for bad in [
            "*",
            "evil:443",
            "evil/x",
            "ftp://evil/x",
            "http:///x",
            "http://",
            "http://evil?x",
            "/a#b",
            "/\u{e9}",
        ] {
            assert!(
                matches!(
                    target(bad),
                    Err(RequestError::Target | RequestError::RequestLine)
                ),
                "{bad}"
            );
        }
        assert_eq!(
            check("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n").map(|r| r.2),
            Ok("*".into())
        );
        assert_eq!(
            check("CONNECT e:443 HTTP/1.1\r\nHost: x\r\n\r\n"),
            Err(RequestError::Method)
        );
        assert_eq!(
            check("TRACE / HTTP/1.1\r\nHost: x\r\n\r\n"),
            Err(RequestError::Method)
        );
    }

    #[test]
    fn limits_have_their_own_status() {
        let long = format!(
            "GET /{} HTTP/1.1\r\nHost: x\r\n\r\n",
            "a".repeat(limits::TARGET)
        );
        assert_eq!(check(&long).unwrap_err().status(), 414);
        let endless = format!("GET /{}", "a".repeat(limits::REQUEST_HEAD));
        assert_eq!(
            find_end(&mut HeadScanner::default(), endless.as_bytes())
                .unwrap_err()
                .status(),
            414
        );
        let big = format!(
            "GET / HTTP/1.1\r\nHost: x\r\nA: {}",
            "a".repeat(limits::REQUEST_HEAD)
        );
        assert_eq!(
            find_end(&mut HeadScanner::default(), big.as_bytes())
                .unwrap_err()
                .status(),
            431
        );
        let many = with(&"A: b\r\n".repeat(limits::REQUEST_FIELDS));
        assert_eq!(many.unwrap_err().status(), 431);
        assert_eq!(with("Expect: cake\r\n").unwrap_err().status(), 417);
    }
}
