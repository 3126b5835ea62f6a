//! A tiny HTTP/1.1 client for tests: it sends what it is given and tells a complete message from one
//! that was cut off. It judges framing (RFC 9112 section 6) strictly and nothing else.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use super::DEADLINE;

/// A stream from the broker, with what was read past the last message.
pub struct Http {
    stream: UnixStream,
    ahead: Vec<u8>,
}

/// A response as it came.
#[derive(Debug, Default, Clone)]
pub struct Response {
    pub status: u16,
    pub reason: String,
    /// Names in lower case, in order.
    pub headers: Vec<(String, String)>,
    /// The content, with any chunked coding taken off.
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// Every byte of the message as received.
    pub raw: Vec<u8>,
    /// Whether the message ended where its own framing says that it ends. A body that is delimited
    /// by the end of the stream counts as complete: see `by_close`.
    pub complete: bool,
    /// The body had no length and ended with the stream.
    pub by_close: bool,
}

impl Response {
    /// The value of the first field of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// The values of every field of this name.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
            .collect()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Http {
    pub fn new(stream: UnixStream) -> Http {
        stream
            .set_read_timeout(Some(DEADLINE))
            .expect("set a timeout");
        stream
            .set_write_timeout(Some(DEADLINE))
            .expect("set a timeout");
        Http {
            stream,
            ahead: Vec::new(),
        }
    }

    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Sends raw bytes and insists that they are taken.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("the broker takes the bytes");
    }

    /// Sends raw bytes; for a peer that may rightly be gone.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// No more bytes from us.
    pub fn finish_sending(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// A GET and its response.
    pub fn get(&mut self, target: &str) -> Response {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: api.local\r\n\r\n"));
        self.read_response()
    }

    /// A POST with a length, and its response.
    pub fn post(&mut self, target: &str, body: &[u8]) -> Response {
        let head = format!(
            "POST {target} HTTP/1.1\r\nHost: api.local\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.send(head);
        self.send(body);
        self.read_response()
    }

    /// The next final response to a request that has a body in its answer (so: not HEAD). Interim
    /// responses are skipped. A stream that ends too early gives what came, not `complete`.
    pub fn read_response(&mut self) -> Response {
        self.read_response_to("GET")
    }

    /// As `read_response`, for a request of this method (RFC 9112 section 6.3).
    pub fn read_response_to(&mut self, method: &str) -> Response {
        loop {
            let mut response = self.read_head();
            if response.status == 101 || !(100..200).contains(&response.status) {
                if response.status != 0 && response.complete {
                    self.read_body(&mut response, method);
                }
                return response;
            }
        }
    }

    /// The next response head, interim or final. Its status is 0 when the stream ended before it.
    pub fn read_head(&mut self) -> Response {
        let mut response = Response::default();
        let Some(head) = self.read_until(b"\r\n\r\n", &mut response.raw) else {
            return response;
        };
        let head = String::from_utf8(head).expect("a response head in UTF-8");
        let (line, fields) = head.split_once("\r\n").expect("a head has lines");
        let mut words = line.splitn(3, ' ');
        assert_eq!(words.next(), Some("HTTP/1.1"), "the version of {line:?}");
        response.status = words
            .next()
            .and_then(|status| status.parse().ok())
            .expect("a status code");
        response.reason = words.next().unwrap_or_default().to_owned();
        response.headers = parse_fields(fields);
        response.complete = true;
        response
    }

    /// The next chunk of a chunked body, as soon as it has arrived; empty at the last one. For
    /// streams of events, after `read_head`.
    pub fn read_chunk(&mut self) -> Option<Vec<u8>> {
        let mut raw = Vec::new();
        self.read_chunk_into(&mut raw)
    }

    /// At least one byte of whatever comes next; empty at the end of the stream.
    pub fn read_some(&mut self) -> Vec<u8> {
        if self.ahead.is_empty() {
            self.fill();
        }
        std::mem::take(&mut self.ahead)
    }

    /// Everything until the stream ends.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.ahead)
    }

    /// Whether the broker closes the stream, within the deadline, without another byte.
    pub fn closed(&mut self) -> bool {
        self.ahead.is_empty() && !self.fill() && self.ahead.is_empty()
    }

    fn read_body(&mut self, response: &mut Response, method: &str) {
        if method == "HEAD" || matches!(response.status, 101 | 204 | 304) {
            return;
        }
        let coding = response
            .header("transfer-encoding")
            .map(str::to_ascii_lowercase);
        let lengths: Vec<String> = response
            .all("content-length")
            .into_iter()
            .map(str::to_owned)
            .collect();
        assert!(lengths.len() <= 1, "more than one Content-Length");
        assert!(
            coding.is_none() || lengths.is_empty(),
            "both Transfer-Encoding and Content-Length"
        );
        response.complete = false;
        if coding.as_deref() == Some("chunked") {
            self.read_chunked(response);
        } else if let Some(length) = lengths.first() {
            let length: usize = length.parse().expect("Content-Length is a number");
            while self.ahead.len() < length && self.fill() {}
            let count = length.min(self.ahead.len());
            response.body = self.ahead.drain(..count).collect();
            response.raw.extend_from_slice(&response.body);
            response.complete = count == length;
        } else {
            assert!(coding.is_none(), "a transfer coding that we did not offer");
            response.body = self.read_to_end();
            response.raw.extend_from_slice(&response.body);
            response.complete = true;
            response.by_close = true;
        }
    }

    fn read_chunked(&mut self, response: &mut Response) {
        loop {
            let Some(chunk) = self.read_chunk_into(&mut response.raw) else {
                return;
            };
            if chunk.is_empty() {
                break;
            }
            response.body.extend_from_slice(&chunk);
        }
        let mut trailers = String::new();
        loop {
            let Some(line) = self.read_until(b"\r\n", &mut response.raw) else {
                return;
            };
            if line == b"\r\n" {
                break;
            }
            trailers += std::str::from_utf8(&line).expect("a trailer in UTF-8");
        }
        response.trailers = parse_fields(&trailers);
        response.complete = true;
    }

    fn read_chunk_into(&mut self, raw: &mut Vec<u8>) -> Option<Vec<u8>> {
        let line = self.read_until(b"\r\n", raw)?;
        let line = std::str::from_utf8(&line).expect("a chunk size in ASCII");
        let size = line.trim_end().split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size, 16).expect("a chunk size in hexadecimal");
        if size == 0 {
            return Some(Vec::new());
        }
        while self.ahead.len() < size + 2 {
            if !self.fill() {
                return None;
            }
        }
        let mut chunk: Vec<u8> = self.ahead.drain(..size + 2).collect();
        raw.extend_from_slice(&chunk);
        assert!(chunk.ends_with(b"\r\n"), "a chunk ends with CRLF");
        chunk.truncate(size);
        Some(chunk)
    }

    fn read_until(&mut self, end: &[u8], raw: &mut Vec<u8>) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self
                .ahead
                .windows(end.len())
                .position(|window| window == end)
            {
                let line: Vec<u8> = self.ahead.drain(..at + end.len()).collect();
                raw.extend_from_slice(&line);
                return Some(line);
            }
            if !self.fill() {
                raw.append(&mut self.ahead);
                return None;
            }
        }
    }

    /// Reads once. False at the end of the stream; a peer that is silent for too long fails the test.
    fn fill(&mut self) -> bool {
        let mut some = [0; 64 * 1024];
        match self.stream.read(&mut some) {
            Ok(0) => false,
            Ok(count) => {
                self.ahead.extend_from_slice(&some[..count]);
                true
            }
            Err(err) if err.kind() == io::ErrorKind::Interrupted => true,
            Err(err)
                if matches!(
                    err.kind(),
                    io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
                ) =>
            {
                false
            }
            Err(err) => panic!("nothing from the broker within the deadline: {err}"),
        }
    }
}

fn parse_fields(text: &str) -> Vec<(String, String)> {
    let lines = text.split("\r\n").filter(|line| !line.is_empty());
    let fields = lines.map(|line| {
        let (name, value) = line
            .split_once(':')
            .unwrap_or_else(|| panic!("no colon in the field line {line:?}"));
        (
            name.to_ascii_lowercase(),
            value.trim_matches([' ', '\t']).to_owned(),
        )
    });
    fields.collect()
}
