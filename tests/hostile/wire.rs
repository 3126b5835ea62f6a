//! What these tests share: strict reading of what went upstream, and what an answer of the broker's
//! own looks like.

use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use crate::support::{Ca, Conn, Http, Key, Place, Response, Session, Upstream};

/// A request that arrived at the upstream from its first to its last byte.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub method: String,
    pub target: String,
    pub body: Vec<u8>,
    /// The trailer section without its empty line.
    pub trailers: String,
}

/// Every whole request that an upstream has read.
#[derive(Clone, Default)]
pub struct Messages(Arc<Mutex<Vec<Message>>>);

impl Messages {
    pub fn push(&self, message: Message) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(message);
    }

    pub fn all(&self) -> Vec<Message> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub fn targets(&self) -> Vec<String> {
        self.all().into_iter().map(|m| m.target).collect()
    }

    /// What came since the last time.
    pub fn take(&self) -> Vec<Message> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// An upstream that answers every whole request with `ok`, and keeps what it has read.
pub fn recording(tls: bool) -> (Upstream, Messages) {
    let messages = Messages::default();
    let kept = messages.clone();
    let upstream = Upstream::scripted(tls, move |conn| {
        while let Some(message) = read_message(conn) {
            let body = if message.method == "HEAD" { "" } else { "ok" };
            kept.push(message);
            conn.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{body}"
            ));
        }
    });
    (upstream, messages)
}

/// Reads one request with its body. `None` when the peer ended before the request did. Anything
/// that two parsers could read differently fails the test.
pub fn read_message(conn: &mut Conn) -> Option<Message> {
    let head = conn.read_head()?;
    let lengths = head.all("content-length");
    let codings = head.all("transfer-encoding");
    let (body, trailers) = match (lengths.as_slice(), codings.as_slice()) {
        ([], []) => (Vec::new(), String::new()),
        ([length], []) => {
            let length: usize = length.parse().expect("Content-Length is a number");
            (read_counted(conn, length)?, String::new())
        }
        ([], ["chunked"]) => read_chunked(conn)?,
        _ => panic!("ambiguous framing went upstream"),
    };
    Some(Message {
        method: head.method,
        target: head.target,
        body,
        trailers,
    })
}

/// Reads exactly this many bytes; `None` when the peer ended first.
pub fn read_counted(conn: &mut impl Read, length: usize) -> Option<Vec<u8>> {
    let mut body = vec![0; length];
    conn.read_exact(&mut body).ok()?;
    Some(body)
}

/// Reads a chunked body to its end: content and trailer section.
pub fn read_chunked(conn: &mut impl Read) -> Option<(Vec<u8>, String)> {
    let mut body = Vec::new();
    loop {
        let chunk = read_chunk(conn)?;
        if chunk.is_empty() {
            break;
        }
        body.extend(chunk);
    }
    let mut trailers = String::new();
    loop {
        match read_line(conn)?.as_str() {
            "" => return Some((body, trailers)),
            line => trailers += &format!("{line}\r\n"),
        }
    }
}

/// Reads one chunk; empty at the last one.
pub fn read_chunk(conn: &mut impl Read) -> Option<Vec<u8>> {
    let line = read_line(conn)?;
    assert!(
        !line.is_empty() && line.bytes().all(|b| b.is_ascii_hexdigit()),
        "a bare chunk size goes upstream, not {line:?}"
    );
    let size = usize::from_str_radix(&line, 16).expect("a chunk size");
    if size == 0 {
        return Some(Vec::new());
    }
    let chunk = read_counted(conn, size)?;
    assert_eq!(read_counted(conn, 2)?, b"\r\n", "a chunk ends with CRLF");
    Some(chunk)
}

/// A line without its CRLF.
pub fn read_line(conn: &mut impl Read) -> Option<String> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.extend(read_counted(conn, 1)?);
    }
    line.truncate(line.len() - 2);
    Some(String::from_utf8_lossy(&line).into_owned())
}

/// A session whose credential goes into `X-Api-Key`.
pub fn session(upstream: &Upstream, options: &[&str]) -> Session {
    Session::to(
        upstream,
        &Key::random(),
        &Place::Header("X-Api-Key"),
        options,
    )
}

/// A session towards this URL that trusts this authority.
pub fn towards(url: &str, ca: Option<&Ca>, options: &[&str]) -> Session {
    towards_with(url, ca, options, &[])
}

/// As `towards`, with these variables and no other proxy settings.
pub fn towards_with(
    url: &str,
    ca: Option<&Ca>,
    options: &[&str],
    variables: &[(&str, String)],
) -> Session {
    let place = Place::Header("X-Api-Key").inject();
    let mut all = vec!["-u", url, "-k", "env:API_KEY", "-i", &place];
    if let Some(ca) = ca {
        all.extend(["--cacert", ca.pem_file().to_str().expect("a plain path")]);
    }
    all.extend(options);
    Session::start_with(all, |command| {
        for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
            command.env_remove(name);
            command.env_remove(name.to_uppercase());
        }
        command.env("API_KEY", Key::random().as_str());
        command.envs(variables.iter().map(|(name, value)| (name, value)));
    })
}

/// Sends hostile bytes, `step` at a time. The broker may rightly stop reading in the middle.
pub fn send_in_steps(http: &mut Http, bytes: &[u8], step: usize) {
    for piece in bytes.chunks(step) {
        if http.try_send(piece).is_err() {
            return;
        }
    }
}

/// The answer is the broker's own, says so, is complete, and is the last on its stream.
pub fn assert_own(answer: &Response, status: u16, error: &str, what: &str) {
    assert_eq!(answer.status, status, "{what}: {}", answer.text());
    assert!(answer.complete, "{what}");
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json"),
        "{what}"
    );
    assert_eq!(
        answer.header("proxy-status"),
        Some(format!("broker-exec; error={error}").as_str()),
        "{what}: {}",
        answer.text()
    );
    assert_eq!(answer.header("connection"), Some("close"), "{what}");
    assert!(
        answer.text().contains(&format!("\"status\":{status},")),
        "{what}: {}",
        answer.text()
    );
}

/// As `assert_own`, and the stream ends behind it without another byte.
pub fn assert_refused(http: &mut Http, status: u16, error: &str, what: &str) {
    assert_own(&http.read_response(), status, error, what);
    assert!(http.closed(), "{what}: the stream is closed");
}

/// A whole request and its answer on a fresh dial: the broker has survived what came before.
pub fn assert_alive(session: &Session, target: &str) {
    let answer = session.http().get(target);
    assert!(
        answer.status == 200 && answer.complete,
        "the next request on a new dial: {} {}",
        answer.status,
        answer.text()
    );
}
