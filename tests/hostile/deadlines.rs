//! Deadlines are absolute: a peer that sends a byte now and then gains nothing by it, and one that
//! is merely slow where no limit was given is left alone.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType};

use crate::front::{dribble, front};
use crate::support::{Http, Upstream};
use crate::wire::{assert_alive, assert_refused, read_message, recording, session, towards};

/// Nothing comes for this long.
fn quiet(stream: &UnixStream, time: Duration) {
    stream.set_read_timeout(Some(time)).expect("set a timeout");
    let mut stream_ref = stream;
    let read = stream_ref.read(&mut [0; 1]);
    assert!(
        matches!(&read, Err(err) if err.kind() == io::ErrorKind::WouldBlock),
        "{read:?} while nothing was due"
    );
    let deadline = Some(crate::support::DEADLINE);
    stream.set_read_timeout(deadline).expect("set a timeout");
}

/// Thirty seconds from its first byte: the one wait of this suite that takes its full time.
#[test]
fn a_request_head_must_be_whole_within_30_seconds_of_its_first_byte() {
    let (upstream, messages) = recording(false);
    let session = session(&upstream, &[]);
    let started = Instant::now();
    let silent = session.dial();
    (&silent).write_all(b"G").expect("send a byte");
    let behind_another = session.dial();
    (&behind_another)
        .write_all(b"GET /first HTTP/1.1\r\nHost: x\r\n\r\nGET /sec")
        .expect("send one and a half requests");
    let dribbling = session.dial();
    let dribbler = dribbling.try_clone().expect("duplicate the stream");
    let pace = Duration::from_millis(5);
    let pacing = thread::spawn(move || {
        let mut sink = Vec::new();
        dribbler.set_read_timeout(Some(pace)).expect("set a pace");
        let head = b"GET /slow HTTP/1.1\r\nHost: x\r\nA: ".iter().copied();
        for byte in head.chain(std::iter::repeat(b'b')) {
            let _ = (&dribbler).write_all(&[byte]);
            let mut some = [0; 4096];
            match (&dribbler).read(&mut some) {
                Ok(0) => break,
                Ok(n) => sink.extend_from_slice(&some[..n]),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {
                    let late = started.elapsed() > Duration::from_secs(45);
                    assert!(!late, "a dribbled head has no end");
                }
                Err(err) => panic!("{err}"),
            }
        }
        sink
    });
    // Meanwhile a stream between requests has no deadline at all.
    let idle = session.dial();
    quiet(&silent, Duration::from_secs(25));
    let mut http = Http::new(silent);
    assert_refused(&mut http, 408, "http_request_error", "one byte");
    let mut http = Http::new(behind_another);
    assert_eq!(http.read_response().status, 200);
    assert_refused(&mut http, 408, "http_request_error", "behind a request");
    let answer = pacing.join().expect("the dribbled head was refused");
    assert!(answer.starts_with(b"HTTP/1.1 408 Request Timeout\r\n"));
    assert!(started.elapsed() >= Duration::from_secs(29));
    let mut http = Http::new(idle);
    assert_eq!(http.get("/idle").status, 200);
    assert_eq!(messages.targets(), ["/first", "/idle"]);
}

#[test]
fn the_response_head_deadline_is_504() {
    for tls in [false, true] {
        for limit in ["80ms", "400ms"] {
            let upstream = Upstream::scripted(tls, |conn| {
                while let Some(request) = read_message(conn) {
                    if request.target == "/good" {
                        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                    } else {
                        assert!(conn.peer_closed(), "the call is given up");
                        return;
                    }
                }
            });
            let session = session(&upstream, &["--response-header-timeout", limit]);
            for request in [
                "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
                "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi",
            ] {
                let mut http = session.http();
                http.send(request);
                assert_refused(&mut http, 504, "http_response_timeout", request);
            }
            assert_alive(&session, "/good");
        }
    }
}

#[test]
fn a_dribbling_upstream_gains_no_time() {
    // However fast it dribbles: a byte is always there, or one comes just before each look.
    for pace in [1, 10, 30, 70] {
        for bytes in [
            [&b"HTTP/1.1 200 OK\r\nA: "[..], &[b'x'; 30_000]].concat(),
            b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(60),
        ] {
            let address = front("127.0.0.1:0", move |number, mut tcp| {
                crate::front::read_head(&mut tcp);
                if number > 0 {
                    let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                } else {
                    let all = dribble(&mut tcp, &bytes, Duration::from_millis(pace));
                    assert!(!all, "the call is given up");
                }
            });
            let session = towards(
                &format!("http://{address}"),
                None,
                &["--response-header-timeout", "500ms"],
            );
            let mut http = session.http();
            http.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
            assert_refused(&mut http, 504, "http_response_timeout", "a dribble");
            assert_alive(&session, "/good");
        }
    }
}

#[test]
fn a_body_may_take_longer_than_a_head() {
    let upstream = Upstream::scripted(false, |conn| {
        conn.read_head();
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab");
        conn.wait_gate();
        conn.send("cd");
    });
    let session = session(&upstream, &["--response-header-timeout", "150ms"]);
    let mut http = session.http();
    http.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let head = http.read_head();
    assert_eq!(head.status, 200);
    let mut body = http.read_some();
    quiet(http.stream(), Duration::from_millis(400));
    upstream.open_gate("go");
    body.extend(http.read_some());
    assert_eq!(body, b"abcd");
}

#[test]
fn a_command_that_sends_slowly_is_not_held_against_the_upstream() {
    let (upstream, messages) = recording(false);
    let session = session(&upstream, &["--response-header-timeout", "150ms"]);
    let mut http = session.http();
    http.send("POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab");
    quiet(http.stream(), Duration::from_millis(400));
    http.send("cd");
    assert_eq!(http.read_response().status, 200);
    assert_eq!(messages.all()[0].body, b"abcd");
}

#[test]
fn an_upstream_that_neither_asks_for_a_body_nor_answers_is_given_up() {
    let upstream = Upstream::scripted(false, |conn| {
        conn.read_head();
        conn.wait_gate();
    });
    let session = session(&upstream, &["--response-header-timeout", "300ms"]);
    let mut http = session.http();
    http.send("PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(http.read_response().status, 504);
    upstream.open_gate("go");
}

#[test]
fn an_upstream_that_takes_nothing_more_of_an_upload_is_given_up() {
    let upstream = Upstream::scripted(false, |conn| {
        conn.read_head();
        conn.wait_gate();
    });
    let session = session(&upstream, &["--response-header-timeout", "500ms"]);
    let stream = session.dial();
    let sender = stream.try_clone().expect("duplicate the stream");
    let sending = thread::spawn(move || {
        let head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n";
        let _ = (&sender).write_all(head.as_bytes());
        while (&sender).write_all(&[0; 64 * 1024]).is_ok() {}
    });
    let mut http = Http::new(stream);
    let answer = http.read_response();
    assert_eq!(answer.status, 504, "{}", answer.text());
    drop(http);
    sending.join().expect("the sender is released");
    upstream.open_gate("go");
}

#[test]
fn the_connect_timeout_is_502() {
    // A listener whose queue is full answers no more attempts to connect (listen(2), backlog).
    let socket =
        rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).expect("make a socket");
    let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    rustix::net::bind(&socket, &any).expect("bind");
    rustix::net::listen(&socket, 0).expect("listen");
    let address = rustix::net::getsockname(&socket).expect("an address");
    let address = SocketAddr::try_from(address).expect("an internet address");
    let fill = |_| -> OwnedFd {
        let flags = rustix::net::SocketFlags::NONBLOCK;
        let filler = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)
            .expect("make a socket");
        let _ = rustix::net::connect(&filler, &address);
        filler
    };
    let fillers: Vec<OwnedFd> = (0..4).map(fill).collect();
    let session = towards(
        &format!("http://{address}"),
        None,
        &["--connect-timeout", "300ms"],
    );
    let mut http = session.http();
    http.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_refused(&mut http, 502, "connection_timeout", "a full queue");
    drop(fillers);
}

#[test]
fn the_idle_timeout_ends_what_does_not_move() {
    let upstream = Upstream::scripted(false, |conn| {
        while let Some(head) = conn.read_head() {
            match head.target.as_str() {
                "/good" => {
                    conn.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                    continue;
                }
                "/body" => {
                    conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab");
                }
                _ => {}
            }
            assert!(conn.peer_closed(), "the call is given up");
            return;
        }
    });
    let session = session(&upstream, &["--idle-timeout", "300ms"]);
    // Between requests: closed without a word.
    let mut http = session.http();
    assert!(http.closed());
    assert_alive(&session, "/good");
    // Before an answer.
    let mut http = session.http();
    http.send("GET /silent HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_refused(&mut http, 504, "connection_timeout", "a silent upstream");
    // In an upload.
    let mut http = session.http();
    http.send("POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nab");
    assert_refused(&mut http, 504, "connection_timeout", "a silent command");
    // In a body: an incomplete message.
    let mut http = session.http();
    http.send("GET /body HTTP/1.1\r\nHost: x\r\n\r\n");
    let answer = http.read_response();
    assert!(!answer.complete && answer.body == b"ab");
}
