//! Upstreams whose answers could be read in two ways: 502 before anything was passed on, and such a
//! connection never carries another request.

use crate::support::{Http, Session, Upstream};
use crate::wire::{assert_alive, assert_refused, read_message, session};

/// An upstream that answers `/N` with the bytes of case N and holds the connection open, as one that
/// hopes to be misread would; any other path properly.
pub fn holding(tls: bool, cases: Vec<Vec<u8>>) -> Upstream {
    Upstream::scripted(tls, move |conn| {
        while let Some(request) = read_message(conn) {
            let number = request.target[1..].parse::<usize>();
            let Some(case) = number.ok().and_then(|number| cases.get(number)) else {
                conn.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                continue;
            };
            conn.send(case);
            assert!(conn.peer_closed(), "the broker gives the connection up");
            return;
        }
    })
}

/// Asks for case `number`.
pub fn ask(session: &Session, number: usize) -> Http {
    let mut http = session.http();
    http.send(format!("GET /{number} HTTP/1.1\r\nHost: x\r\n\r\n"));
    http
}

/// Each of these answers is refused with 502, over plain and TLS connections.
fn refuse_all(error: &str, answers: &[&[u8]]) {
    for tls in [false, true] {
        let upstream = holding(tls, answers.iter().map(|case| case.to_vec()).collect());
        let session = session(&upstream, &[]);
        for (number, case) in answers.iter().enumerate() {
            let what = format!("{:?}, TLS {tls}", case.escape_ascii().to_string());
            assert_refused(&mut ask(&session, number), 502, error, &what);
            assert_alive(&session, "/good");
        }
    }
}

#[test]
fn conflicting_framing_is_502() {
    let answers: Vec<String> = [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5, 5",
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 0x5",
        "Content-Length:",
        "Content-Length: 18446744073709551616",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding:",
    ]
    .iter()
    .map(|fields| format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n0\r\n\r\n"))
    .chain([
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(),
        "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello".into(),
        "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(),
        "HTTP/1.1 205 Reset Content\r\nContent-Length: 5\r\n\r\nhello".into(),
        "HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\nhello".into(),
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 5, 6\r\n\r\n".into(),
    ])
    .collect();
    let answers: Vec<&[u8]> = answers.iter().map(String::as_bytes).collect();
    refuse_all("http_protocol_error", &answers);
}

#[test]
fn malformed_heads_are_502() {
    refuse_all(
        "http_protocol_error",
        &[
            b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\n",
            b"HTTP/1.1 200 OK\r\nA: b\rc\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n A: b\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nA : b\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n: b\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nA: \0\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nA: \x01\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nA\x7f: b\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 O\x01K\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n",
            b"http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            b"ICY 200 OK\r\nContent-Length: 0\r\n\r\n",
            b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            b" HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            b"hello",
            b"SSH-2.0-OpenSSH_9.9\r\n",
            b"\x15\x03\x03\x00\x02\x02\x0a",
            b"<html>no head at all</html>",
        ],
    );
}

#[test]
fn a_101_that_nobody_asked_for_is_502() {
    refuse_all(
        "http_upgrade_failed",
        &[
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        ],
    );
}

#[test]
fn bad_chunks_are_502_before_we_began() {
    // Head and fault come in one write, so nothing has been passed on yet.
    let answers: Vec<String> = BAD_CHUNKS
        .iter()
        .map(|body| format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}"))
        .collect();
    let answers: Vec<&[u8]> = answers.iter().map(String::as_bytes).collect();
    refuse_all("http_protocol_error", &answers);
}

const BAD_CHUNKS: &[&str] = &[
    "+5\r\nhello\r\n0\r\n\r\n",
    " 5\r\nhello\r\n0\r\n\r\n",
    "5 \r\nhello\r\n0\r\n\r\n",
    "0x5\r\nhello\r\n0\r\n\r\n",
    "5\nhello\n0\n\n",
    "5\rhello\r0\r\r",
    "\n5\r\nhello\r\n0\r\n\r\n",
    "ffffffffffffffff\r\nhello",
    "\r\n",
    "5;a=\"\r\nhello\r\n",
    "hello",
];

#[test]
fn bad_chunks_are_an_incomplete_message_after_we_began() {
    let bodies = BAD_CHUNKS.iter().copied().chain([
        "3\r\nabc!\r\n",
        "0\r\nA : b\r\n\r\n",
        "0\r\nA: b\n\r\n",
        "0\r\nContent-Length: 5\r\n\r\n",
        "0\r\nConnection: close\r\n\r\n",
        "0\n\r\n",
    ]);
    let bodies: Vec<&'static str> = bodies.collect();
    let count = bodies.len();
    let upstream = Upstream::scripted(false, move |conn| {
        let Some(request) = read_message(conn) else {
            return;
        };
        let Ok(number) = request.target[1..].parse::<usize>() else {
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            return;
        };
        conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n");
        // The test has the good chunk in its hands by now.
        conn.wait_gate();
        conn.send(bodies[number]);
        assert!(conn.peer_closed(), "the broker gives the connection up");
    });
    let session = session(&upstream, &[]);
    for number in 0..count {
        let mut http = ask(&session, number);
        assert_eq!(http.read_head().status, 200);
        assert_eq!(http.read_chunk().as_deref(), Some(&b"good"[..]));
        upstream.open_gate("go");
        while let Some(chunk) = http.read_chunk() {
            assert!(!chunk.is_empty(), "case {number} never comes to its end");
        }
        assert_alive(&session, "/good");
    }
}

#[test]
fn endless_trailers_are_an_incomplete_message() {
    let upstream = Upstream::scripted(false, |conn| {
        read_message(conn);
        conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\n");
        while conn.send("X-More: of the same\r\n") {}
    });
    let session = session(&upstream, &[]);
    let answer = session.http().get("/");
    assert!(answer.status == 502 || !answer.complete);
}

#[test]
fn heads_come_down_byte_for_byte_less_what_ends_here() {
    let upstream = Upstream::scripted(false, |conn| {
        while read_message(conn).is_some() {
            conn.send(
                "HTTP/1.1 299 It's  fine\r\nzED: \u{e9}\r\nA:b\r\nA:  \t c d \t\r\na: \r\n\
                 Set-Cookie: a=1; Path=/\r\nSet-Cookie: b=2\r\nKeep-Alive: timeout=5\r\n\
                 Proxy-Connection: x\r\nProxy-Authenticate: x\r\nUpgrade: h2c\r\nGone: 1\r\n\
                 Trailer: X\r\nConnection: Upgrade, gone\r\nContent-Length: 2\r\n\r\nok",
            );
        }
    });
    let session = session(&upstream, &[]);
    let answer = session.http().get("/");
    let text = String::from_utf8_lossy(&answer.raw).into_owned();
    assert_eq!(
        text,
        "HTTP/1.1 299 It's  fine\r\nzED: \u{e9}\r\nA: b\r\nA: c d\r\na: \r\n\
         Set-Cookie: a=1; Path=/\r\nSet-Cookie: b=2\r\nContent-Length: 2\r\n\r\nok"
    );
}

#[test]
fn an_upstream_cannot_pass_for_us() {
    let upstream = Upstream::scripted(false, |conn| {
        conn.read_head();
        conn.send(
            "HTTP/1.1 502 X\r\nProxy-Status: cdn; error=dns_error\r\n\
             proxy-status: Broker-Exec; error=dns_error\r\nContent-Length: 0\r\n\r\n",
        );
    });
    let session = session(&upstream, &[]);
    let answer = session.http().get("/");
    assert_eq!(answer.header("proxy-status"), Some("cdn; error=dns_error"));
    assert!(!answer.text().contains("roker"));
    assert!(!String::from_utf8_lossy(&answer.raw).contains("Broker-Exec"));
}

/// What comes down for each of these answers, until the stream is quiet or closed.
#[test]
fn head_204_205_and_304_have_no_body() {
    let cases: &[(&str, &str, &str)] = &[
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        ),
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
        ),
        (
            "HEAD",
            "HTTP/1.1 404 Gone\r\nA: b\r\n\r\n",
            "HTTP/1.1 404 Gone\r\nA: b\r\n\r\n",
        ),
        (
            "GET",
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 204 No Content\r\n\r\n",
        ),
        (
            "GET",
            "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 204 No Content\r\n\r\n",
        ),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\nETag: \"x\"\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\nETag: \"x\"\r\n\r\n",
        ),
        (
            "GET",
            "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            "GET",
            "HTTP/1.1 205 Reset Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            "GET",
            "HTTP/1.1 205 Reset Content\r\n\r\n",
            "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n",
        ),
    ];
    let answers: Vec<&'static str> = cases.iter().map(|case| case.1).collect();
    let upstream = Upstream::scripted(false, move |conn| {
        while let Some(request) = read_message(conn) {
            let number: usize = request.target[1..].parse().expect("a case");
            conn.send(answers[number]);
        }
    });
    let session = session(&upstream, &[]);
    // All on one stream: a byte too many or too few would show in the next answer.
    let mut http = session.http();
    for round in 0..2 {
        for (number, (method, _, expected)) in cases.iter().enumerate() {
            http.send(format!("{method} /{number} HTTP/1.1\r\nHost: x\r\n\r\n"));
            let answer = http.read_response_to(method);
            let text = String::from_utf8_lossy(&answer.raw).into_owned();
            assert_eq!(&text, expected, "round {round}");
        }
    }
}
