//! What comes is passed on as it comes, both ways at once: early answers, echoes, events, uploads.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread;

use crate::support::api::pattern;
use crate::support::{Upstream, key::Crc32};
use crate::wire::{assert_alive, read_chunk, read_counted, read_line, session};

#[test]
fn an_answer_that_comes_before_the_body_is_passed_on_at_once() {
    for tls in [false, true] {
        let upstream = Upstream::scripted(tls, |conn| {
            let Some(head) = conn.read_head() else { return };
            if head.target == "/early" {
                // Not one byte of the body is read, and the connection stays open.
                conn.send("HTTP/1.1 413 Too Much\r\nContent-Length: 2\r\n\r\nno");
                assert!(conn.peer_closed());
            } else {
                conn.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            }
        });
        let session = session(&upstream, &[]);
        for framing in ["Content-Length: 1000000000", "Transfer-Encoding: chunked"] {
            let mut http = session.http();
            http.send(format!(
                "POST /early HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n"
            ));
            let answer = http.read_response();
            assert_eq!((answer.status, answer.body.as_slice()), (413, &b"no"[..]));
            assert!(answer.complete);
            // Where the next request would start nobody can tell.
            assert_eq!(answer.header("connection"), Some("close"));
            assert!(http.closed());
            assert_alive(&session, "/good");
        }
    }
}

#[test]
fn an_early_answer_reaches_a_command_that_is_stuck_sending() {
    for reset in [false, true] {
        let upstream = Upstream::scripted(false, move |conn| {
            conn.read_head();
            conn.send("HTTP/1.1 413 Too Much\r\nContent-Length: 2\r\n\r\nno");
            if !reset {
                conn.wait_gate();
            }
        });
        let session = session(&upstream, &[]);
        let stream = session.dial();
        let sender = stream.try_clone().expect("duplicate the stream");
        let sending = thread::spawn(move || {
            let mut sender = &sender;
            let head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n";
            let _ = sender.write_all(head.as_bytes());
            let block = [0; 64 * 1024];
            // Until the broker hangs up on us.
            while sender.write_all(&block).is_ok() {}
        });
        let mut http = crate::support::Http::new(stream);
        let answer = http.read_response();
        assert_eq!(
            (answer.status, answer.complete),
            (413, true),
            "reset {reset}"
        );
        drop(http);
        sending.join().expect("the sender is released");
        upstream.open_gate("go");
    }
}

#[test]
fn an_echo_of_many_megabytes_flows_both_ways_at_once() {
    const SIZE: usize = 8 * 1024 * 1024;
    for (tls, chunked) in [(false, false), (false, true), (true, false), (true, true)] {
        // The echo holds almost nothing: who only sends, or only receives, is stuck.
        let upstream = Upstream::scripted(tls, move |conn| {
            conn.read_head();
            if chunked {
                conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                while let Some(chunk) = read_chunk(conn) {
                    if chunk.is_empty() {
                        assert_eq!(read_line(conn).as_deref(), Some(""));
                        break;
                    }
                    let line = format!("{:x}\r\n", chunk.len());
                    conn.send([line.as_bytes(), &chunk, b"\r\n"].concat());
                }
                conn.send("0\r\n\r\n");
            } else {
                conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n"));
                let mut left = SIZE;
                let mut block = vec![0; 64 * 1024];
                while left > 0 {
                    let read = conn.read(&mut block).expect("the body goes on");
                    assert!(read > 0, "the body is whole");
                    conn.send(&block[..read]);
                    left -= read;
                }
            }
        });
        let session = session(&upstream, &[]);
        let stream = session.dial();
        let mut sender = stream.try_clone().expect("duplicate the stream");
        let content = pattern(SIZE);
        let crc = Crc32::of(&content);
        let sending = thread::spawn(move || {
            let framing = if chunked {
                "Transfer-Encoding: chunked".into()
            } else {
                format!("Content-Length: {SIZE}")
            };
            let head = format!("POST /echo HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n");
            sender.write_all(head.as_bytes()).expect("send the head");
            for block in content.chunks(100_000) {
                if chunked {
                    let line = format!("{:x}\r\n", block.len());
                    sender.write_all(line.as_bytes()).expect("send a size");
                }
                sender.write_all(block).expect("send a block");
                if chunked {
                    sender.write_all(b"\r\n").expect("send a line end");
                }
            }
            if chunked {
                sender.write_all(b"0\r\n\r\n").expect("send the end");
            }
        });
        let answer = crate::support::Http::new(stream).read_response();
        sending.join().expect("everything was sent");
        assert!(answer.complete, "TLS {tls}, chunked {chunked}");
        assert_eq!(Crc32::of(&answer.body), crc, "TLS {tls}, chunked {chunked}");
    }
}

#[test]
fn every_event_is_passed_on_when_it_comes() {
    for tls in [false, true] {
        for framing in [
            "Transfer-Encoding: chunked",
            "Connection: close",
            "Content-Length: 35",
        ] {
            let in_chunks = framing.starts_with("Transfer");
            let upstream = Upstream::scripted(tls, move |conn| {
                conn.read_head();
                conn.send(format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{framing}\r\n\r\n"
                ));
                while let Some(event) = conn.wait_gate() {
                    let event = String::from_utf8(event).expect("text");
                    if event.is_empty() {
                        break;
                    }
                    conn.send(if in_chunks {
                        format!("{:x}\r\n{event}\r\n", event.len())
                    } else {
                        event
                    });
                }
                if in_chunks {
                    conn.send("0\r\n\r\n");
                }
            });
            let session = session(&upstream, &[]);
            let mut http = session.http();
            http.send("GET /sse HTTP/1.1\r\nHost: x\r\n\r\n");
            // The head comes before any event, each event before the next is made.
            let head = http.read_head();
            let chunked = head.header("transfer-encoding").is_some();
            for number in 0..5 {
                let event = format!("data:{number}\n");
                upstream.open_gate(event.clone());
                let got = if chunked {
                    http.read_chunk().expect("a chunk")
                } else {
                    http.read_some()
                };
                assert_eq!(String::from_utf8_lossy(&got), event);
            }
            upstream.open_gate("");
            if chunked {
                assert_eq!(http.read_chunk().as_deref(), Some(&b""[..]));
            }
        }
    }
}

#[test]
fn every_piece_of_an_upload_is_passed_on_when_it_comes() {
    for tls in [false, true] {
        let upstream = Upstream::scripted(tls, |conn| {
            let Some(head) = conn.read_head() else { return };
            let chunked = head.header("transfer-encoding").is_some();
            // It serves one request: without saying so, the next could meet its end.
            let fields = "Connection: close\r\nTransfer-Encoding: chunked";
            conn.send(format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n"));
            for _ in 0..5 {
                let piece = if chunked {
                    read_chunk(conn)
                } else {
                    read_counted(conn, 7)
                };
                let piece = piece.expect("the next piece");
                conn.send([b"7\r\n", &piece[..], b"\r\n"].concat());
            }
            conn.send("0\r\n\r\n");
        });
        let session = session(&upstream, &[]);
        for chunked in [false, true] {
            let mut http = session.http();
            http.send(if chunked {
                "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            } else {
                "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 35\r\n\r\n"
            });
            assert_eq!(http.read_head().status, 200, "before any of the body");
            for number in 0..5 {
                let piece = format!("piece {number}");
                http.send(if chunked {
                    format!("7\r\n{piece}\r\n")
                } else {
                    piece.clone()
                });
                assert_eq!(http.read_chunk(), Some(piece.into_bytes()));
            }
            if chunked {
                let _ = http.try_send("0\r\n\r\n");
            }
            assert_eq!(http.read_chunk().as_deref(), Some(&b""[..]));
        }
    }
}

#[test]
fn a_command_that_half_closes_after_its_request_gets_its_answer() {
    for tls in [false, true] {
        let upstream = Upstream::scripted(tls, |conn| {
            conn.read_head();
            conn.wait_gate();
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        });
        let session = session(&upstream, &[]);
        let mut http = session.http();
        http.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        http.stream().shutdown(Shutdown::Write).expect("half-close");
        upstream.wait_requests(1);
        upstream.open_gate("go");
        let answer = http.read_response();
        assert!(answer.complete && answer.body == b"ok");
        assert!(http.closed());
    }
}
