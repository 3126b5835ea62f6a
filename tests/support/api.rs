//! A small, correct HTTP/1.1 API that demands the credential, once and in its place, and never says
//! it back.
//!
//! | path | answer |
//! |---|---|
//! | `/echo` | JSON: method, target, headers (credential masked), length and CRC-32 of the body |
//! | `/mirror` | the body that was sent |
//! | `/upload` | JSON: length and CRC-32 of the body, read in a stream |
//! | `/download?bytes=N` | N bytes of a known pattern, with a length and `X-Crc32` |
//! | `/chunked?bytes=N` | the same in chunks |
//! | `/sse` | each `open_gate(text)` becomes one event, flushed; an empty text ends the stream |
//! | `/slow` | says nothing until `open_gate(body)` |
//! | `/redirect` | 302 to another host |
//! | `/status/NNN` | that status, no body where none is allowed |
//! | `/cookies` | two `Set-Cookie` fields |
//! | `/trailers` | chunks with a trailer section |
//!
//! Anything else is 404; a request without the credential is 401, and says in `X-Refused` whether
//! it was `missing`, `wrong` or `repeated`.

use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use super::key::Crc32;
use super::{Conn, Key, Place, Recorded, Upstream};

/// The credential that an API demands. A clone is a handle on the same rule.
#[derive(Clone, Debug)]
pub struct Rule {
    pub place: Place,
    key: Arc<Mutex<Key>>,
}

impl Rule {
    pub fn new(place: Place, key: &Key) -> Rule {
        Rule {
            place,
            key: Arc::new(Mutex::new(key.clone())),
        }
    }

    /// From now on the API takes only this key.
    pub fn rotate(&self, key: &Key) {
        *self.key.lock().unwrap_or_else(PoisonError::into_inner) = key.clone();
    }

    fn key(&self) -> Key {
        self.key
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn refusal(&self, request: &Recorded) -> Option<&'static str> {
        let wanted = self.place.value(&self.key()).into_bytes();
        // A parameter is overwritten as often as it stands; any other place stands once.
        let often = matches!(self.place, Place::Query(_));
        match self.place.found(request).as_slice() {
            [] => Some("missing"),
            found if found.iter().any(|value| *value != wanted) => Some("wrong"),
            [_, _, ..] if !often => Some("repeated"),
            _ => None,
        }
    }
}

impl Upstream {
    /// The API above, with keep-alive and pipelining.
    pub fn api(tls: bool, rule: Rule) -> Upstream {
        Upstream::scripted(tls, move |conn| while serve_api(conn, &rule) {})
    }
}

/// Serves one request. False when the connection is to end.
pub fn serve_api(conn: &mut Conn, rule: &Rule) -> bool {
    let Some(request) = conn.read_head() else {
        return false;
    };
    let mut body = Body::of(&request);
    if let Some(why) = rule.refusal(&request) {
        let refused = format!("X-Refused: {why}\r\n");
        return body.skip(conn)
            && reply(
                conn,
                &request,
                "401 Unauthorized",
                &refused,
                b"no credential\n",
            );
    }
    conn.mark_authorized();
    if request
        .header("expect")
        .is_some_and(|expect| expect.eq_ignore_ascii_case("100-continue"))
        && !conn.send("HTTP/1.1 100 Continue\r\n\r\n")
    {
        return false;
    }
    let path = request
        .target
        .split('?')
        .next()
        .unwrap_or_default()
        .to_owned();
    match path.as_str() {
        "/sse" => body.skip(conn) && events(conn),
        "/mirror" => {
            let mut whole = Vec::new();
            body.each(conn, |part| whole.extend_from_slice(part))
                && reply(conn, &request, "200 OK", "", &whole)
        }
        "/echo" | "/upload" => {
            let (mut length, mut crc) = (0, Crc32::new());
            let read = body.each(conn, |part| {
                length += part.len();
                crc.update(part);
            });
            let mut fields = vec![
                ("length", length.to_string()),
                ("crc32", json_string(&crc.hex())),
            ];
            if path == "/echo" {
                fields.splice(0..0, echo(&request, &rule.key()));
            }
            let fields: Vec<String> = fields
                .iter()
                .map(|(name, value)| format!("\"{name}\":{value}"))
                .collect();
            let json = format!("{{{}}}", fields.join(","));
            read && reply(
                conn,
                &request,
                "200 OK",
                "Content-Type: application/json\r\n",
                json.as_bytes(),
            )
        }
        "/slow" => {
            if !body.skip(conn) {
                return false;
            }
            let Some(late) = conn.wait_gate() else {
                return false;
            };
            reply(conn, &request, "200 OK", "", &late)
        }
        _ => body.skip(conn) && plain(conn, &request, &path),
    }
}

/// The answers that are the same whatever was sent.
fn plain(conn: &mut Conn, request: &Recorded, path: &str) -> bool {
    let content = || pattern(number(&request.target, "bytes").unwrap_or(1000));
    match path {
        "/" => reply(conn, request, "200 OK", "", b"hello\n"),
        "/download" => {
            let content = content();
            let crc = format!("X-Crc32: {}\r\n", Crc32::of(&content));
            reply(conn, request, "200 OK", &crc, &content)
        }
        "/chunked" => chunked(conn, &content(), ""),
        "/trailers" => chunked(conn, &content(), "X-Checksum: 42\r\nX-Last: yes\r\n"),
        "/redirect" => reply(
            conn,
            request,
            "302 Found",
            "Location: https://elsewhere.invalid/\r\n",
            b"",
        ),
        "/cookies" => {
            let cookies = "Set-Cookie: a=1; Path=/\r\nSet-Cookie: b=2; HttpOnly\r\n";
            reply(conn, request, "200 OK", cookies, b"crumbs\n")
        }
        _ => match path
            .strip_prefix("/status/")
            .and_then(|status| status.parse::<u16>().ok())
        {
            Some(status @ (204 | 304)) => conn.send(format!("HTTP/1.1 {status} As Asked\r\n\r\n")),
            Some(status) => reply(
                conn,
                request,
                &format!("{status} As Asked"),
                "",
                b"as asked\n",
            ),
            None => reply(conn, request, "404 Not Found", "", b"no such thing\n"),
        },
    }
}

fn reply(conn: &mut Conn, request: &Recorded, status: &str, fields: &str, body: &[u8]) -> bool {
    let head = format!(
        "HTTP/1.1 {status}\r\n{fields}Content-Length: {}\r\n\r\n",
        body.len()
    );
    let mut message = head.into_bytes();
    if request.method != "HEAD" {
        message.extend_from_slice(body);
    }
    let wants_close = request
        .header("connection")
        .is_some_and(|value| value.eq_ignore_ascii_case("close"));
    conn.send(message) && !wants_close
}

fn chunked(conn: &mut Conn, content: &[u8], trailers: &str) -> bool {
    let mut sent = conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    for part in content.chunks(7000) {
        let mut chunk = format!("{:x}\r\n", part.len()).into_bytes();
        chunk.extend_from_slice(part);
        chunk.extend_from_slice(b"\r\n");
        sent = sent && conn.send(chunk);
    }
    sent && conn.send(format!("0\r\n{trailers}\r\n"))
}

fn events(conn: &mut Conn) -> bool {
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut sent = conn.send(head);
    while sent {
        let Some(text) = conn.wait_gate() else {
            return false;
        };
        if text.is_empty() {
            return conn.send("0\r\n\r\n");
        }
        let event = format!("data: {}\n\n", String::from_utf8_lossy(&text));
        sent = conn.send(format!("{:x}\r\n{event}\r\n", event.len()));
    }
    sent
}

fn echo(request: &Recorded, key: &Key) -> Vec<(&'static str, String)> {
    let masked = |text: &str| json_string(&key.mask(text));
    let fields = request
        .headers
        .iter()
        .map(|(name, value)| format!("[{},{}]", masked(name), masked(value)));
    let fields: Vec<String> = fields.collect();
    vec![
        ("method", masked(&request.method)),
        ("target", masked(&request.target)),
        ("headers", format!("[{}]", fields.join(","))),
    ]
}

fn json_string(text: &str) -> String {
    let escaped = text.chars().map(|char| match char {
        '"' | '\\' => format!("\\{char}"),
        ' '.. => char.to_string(),
        _ => format!("\\u{:04x}", char as u32),
    });
    format!("\"{}\"", escaped.collect::<String>())
}

/// The number behind `name=` in a target's query.
fn number(target: &str, name: &str) -> Option<usize> {
    let query = target.split_once('?')?.1;
    query
        .split('&')
        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}

/// The first `length` bytes of the known content: it repeats after a prime number of bytes, so that
/// a block that is lost, doubled or moved changes it.
pub fn pattern(length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| (at % 65_521 * 31 % 251) as u8)
        .collect()
}

/// A request body that is still on the wire.
enum Body {
    Length(usize),
    Chunked,
}

impl Body {
    fn of(request: &Recorded) -> Body {
        let lengths = request.all("content-length");
        let codings = request.all("transfer-encoding");
        match (lengths.as_slice(), codings.as_slice()) {
            ([], []) => Body::Length(0),
            ([length], []) => Body::Length(length.parse().expect("Content-Length is a number")),
            ([], [coding]) if coding.eq_ignore_ascii_case("chunked") => Body::Chunked,
            _ => panic!("ambiguous framing went upstream"),
        }
    }

    fn skip(&mut self, conn: &mut Conn) -> bool {
        self.each(conn, |_| {})
    }

    /// Reads the body part by part. False when the peer stopped in its middle.
    fn each(&mut self, conn: &mut Conn, mut see: impl FnMut(&[u8])) -> bool {
        match self {
            Body::Length(left) => {
                let length = std::mem::take(left);
                counted(conn, length, &mut see)
            }
            Body::Chunked => loop {
                let Some(size) = line(conn) else { return false };
                let size = usize::from_str_radix(&size, 16).expect("a chunk size in hexadecimal");
                if !counted(conn, size, &mut see) {
                    return false;
                }
                if size > 0 {
                    assert_eq!(line(conn).as_deref(), Some(""), "a chunk ends with CRLF");
                    continue;
                }
                // The trailer section, then the empty line.
                *self = Body::Length(0);
                while let Some(field) = line(conn) {
                    if field.is_empty() {
                        return true;
                    }
                }
                return false;
            },
        }
    }
}

fn counted(conn: &mut Conn, mut left: usize, see: &mut impl FnMut(&[u8])) -> bool {
    let mut part = vec![0; 64 * 1024];
    while left > 0 {
        let room = left.min(part.len());
        match conn.read(&mut part[..room]) {
            Ok(0) | Err(_) => return false,
            Ok(count) => {
                see(&part[..count]);
                left -= count;
            }
        }
    }
    true
}

/// A line without its CRLF.
fn line(conn: &mut Conn) -> Option<String> {
    let mut line: Vec<u8> = Vec::new();
    let mut byte = [0];
    while !line.ends_with(b"\r\n") {
        conn.read_exact(&mut byte).ok()?;
        line.push(byte[0]);
    }
    line.truncate(line.len() - 2);
    String::from_utf8(line).ok()
}
