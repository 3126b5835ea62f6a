//! A body that was cut short upstream never looks complete to the command, however it was cut; and
//! one that ended properly does.

use crate::support::{Conn, Upstream};
use crate::wire::{assert_alive, read_message, session};

/// How a connection can end.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    /// FIN, after close_notify where there is TLS.
    Clean,
    /// FIN alone, where there is TLS.
    NoNotify,
    Reset,
}

impl End {
    fn close(self, conn: &mut Conn) {
        match self {
            End::Clean => conn.close_cleanly(),
            End::NoNotify => conn.close_without_notify(),
            End::Reset => conn.close_abruptly(),
        }
    }
}

/// Ends the connection behind this answer, once the command has the first bytes of its body in its
/// hands; gives whether what it got was complete, and the body.
fn cut(tls: bool, answer: &'static str, end: End) -> (bool, Vec<u8>) {
    let upstream = Upstream::scripted(tls, move |conn| {
        let Some(request) = read_message(conn) else {
            return;
        };
        if request.target == "/good" {
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            return;
        }
        conn.send(answer);
        conn.wait_gate();
        end.close(conn);
    });
    let session = session(&upstream, &[]);
    let mut http = session.http();
    http.send("GET /cut HTTP/1.1\r\nHost: x\r\n\r\n");
    let head = http.read_head();
    assert_eq!(head.status, 200, "{answer:?}: {}", head.text());
    let mut body = Vec::new();
    let complete;
    if head.header("transfer-encoding") == Some("chunked") {
        let first = http.read_chunk().expect("the first chunk");
        body.extend(first);
        upstream.open_gate("go");
        loop {
            match http.read_chunk() {
                None => {
                    complete = false;
                    break;
                }
                Some(chunk) if chunk.is_empty() => {
                    complete = http.read_some() == b"\r\n";
                    break;
                }
                Some(chunk) => body.extend(chunk),
            }
        }
    } else {
        let length: usize = head
            .header("content-length")
            .and_then(|length| length.parse().ok())
            .expect("a length");
        body.extend(http.read_some());
        upstream.open_gate("go");
        body.extend(http.read_to_end());
        complete = body.len() == length;
    }
    assert_alive(&session, "/good");
    (complete, body)
}

#[test]
fn a_cut_body_with_a_length_never_looks_complete() {
    for tls in [false, true] {
        for end in [End::Clean, End::NoNotify, End::Reset] {
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello";
            let (complete, body) = cut(tls, answer, end);
            assert!(!complete, "TLS {tls}, {end:?}");
            assert_eq!(body, b"hello");
        }
    }
}

#[test]
fn a_cut_chunked_body_never_looks_complete() {
    for tls in [false, true] {
        for end in [End::Clean, End::NoNotify, End::Reset] {
            for answer in [
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n",
            ] {
                let (complete, body) = cut(tls, answer, end);
                assert!(!complete, "TLS {tls}, {end:?}, {answer:?}");
                assert!(b"hello".starts_with(&body));
            }
        }
    }
}

#[test]
fn a_close_delimited_body_is_complete_only_at_a_proper_end() {
    for (tls, end, expected) in [
        (false, End::Clean, true),
        (false, End::Reset, false),
        (true, End::Clean, true),
        (true, End::NoNotify, false),
        (true, End::Reset, false),
    ] {
        for answer in [
            "HTTP/1.1 200 OK\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello",
            "HTTP/1.0 200 OK\r\n\r\nhello",
        ] {
            let (complete, body) = cut(tls, answer, end);
            assert_eq!(complete, expected, "TLS {tls}, {end:?}, {answer:?}");
            assert_eq!(body, b"hello");
        }
    }
}

#[test]
fn a_whole_body_is_complete_however_the_connection_ends_behind_it() {
    for tls in [false, true] {
        for end in [End::Clean, End::NoNotify, End::Reset] {
            for answer in [
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            ] {
                let upstream = Upstream::scripted(tls, move |conn| {
                    if read_message(conn).is_some() {
                        conn.send(answer);
                        conn.wait_gate();
                        end.close(conn);
                    }
                });
                let session = session(&upstream, &[]);
                let answer = session.http().get("/");
                assert!(answer.complete && answer.body == b"hello");
                upstream.open_gate("go");
            }
        }
    }
}

#[test]
fn what_arrived_before_the_cut_is_passed_on() {
    // The command is not reading yet when the end comes: it still gets all there was.
    let upstream = Upstream::scripted(false, |conn| {
        read_message(conn);
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n");
        conn.send(vec![b'x'; 50_000]);
    });
    let session = session(&upstream, &[]);
    let mut http = session.http();
    http.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    upstream.wait_requests(1);
    upstream.wait_idle();
    let answer = http.read_response();
    assert!(!answer.complete);
    assert_eq!(answer.body.len(), 50_000);
}
