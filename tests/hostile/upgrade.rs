//! After a 101 the stream is the upstream's own: bytes both ways, none lost at the seam, each
//! direction ended when its sender ended it.

use std::io::{Read, Write};
use std::thread;

use crate::support::api::pattern;
use crate::support::{Http, Session, Upstream};
use crate::wire::{assert_refused, recording, session};

const ASK: &str = "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\n\
                   Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                   Sec-WebSocket-Version: 13\r\n\r\n";
const YES: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Upgrades and reads the 101.
fn upgraded(session: &Session, behind_the_head: &str) -> Http {
    let mut http = session.http();
    http.send(format!("{ASK}{behind_the_head}"));
    let head = http.read_head();
    assert_eq!(head.status, 101);
    assert_eq!(head.header("connection"), Some("Upgrade"));
    assert_eq!(head.header("upgrade"), Some("websocket"));
    assert_eq!(
        head.header("sec-websocket-accept"),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );
    http
}

#[test]
fn what_stands_behind_the_heads_is_the_first_of_the_new_protocol() {
    for tls in [false, true] {
        let upstream = Upstream::scripted(tls, |conn| {
            let head = conn.read_head().expect("a request");
            assert_eq!(head.all("upgrade"), ["websocket"]);
            assert_eq!(head.all("connection"), ["Upgrade"]);
            assert_eq!(head.all("x-api-key").len(), 1);
            conn.send(format!("{YES}from above"));
            let mut bytes = [0; 10];
            conn.read_exact(&mut bytes).expect("what came early");
            assert_eq!(&bytes, b"from below");
            conn.send(b"\0\x01\r\n\r\n\xff");
        });
        let session = session(&upstream, &[]);
        let mut http = upgraded(&session, "from below");
        assert_eq!(http.read_to_end(), b"from above\0\x01\r\n\r\n\xff");
    }
}

#[test]
fn many_megabytes_flow_both_ways_after_an_upgrade() {
    const SIZE: usize = 8 * 1024 * 1024;
    for tls in [false, true] {
        let upstream = Upstream::scripted(tls, |conn| {
            conn.read_head();
            conn.send(YES);
            let mut block = vec![0; 64 * 1024];
            loop {
                match conn.read(&mut block).expect("the stream goes on") {
                    0 => return,
                    n => conn.send(&block[..n]),
                };
            }
        });
        let session = session(&upstream, &[]);
        let mut http = upgraded(&session, "");
        let mut sender = http.stream().try_clone().expect("duplicate the stream");
        let content = pattern(SIZE);
        let sent = content.clone();
        let sending = thread::spawn(move || {
            sender.write_all(&sent).expect("send");
            sender
                .shutdown(std::net::Shutdown::Write)
                .expect("half-close");
        });
        let received = http.read_to_end();
        sending.join().expect("everything was sent");
        assert!(received == content, "{} bytes, TLS {tls}", received.len());
    }
}

#[test]
fn the_commands_half_close_is_kept() {
    for tls in [false, true] {
        let upstream = Upstream::scripted(tls, |conn| {
            conn.read_head();
            conn.send(YES);
            let mut all = Vec::new();
            conn.read_to_end(&mut all).expect("a proper end");
            // The other direction still works.
            conn.send([b"you said ", &all[..]].concat());
        });
        let session = session(&upstream, &[]);
        let mut http = upgraded(&session, "");
        http.send("goodbye");
        http.finish_sending();
        assert_eq!(http.read_to_end(), b"you said goodbye");
    }
}

#[test]
fn the_upstreams_half_close_is_kept() {
    let upstream = Upstream::scripted(false, |conn| {
        conn.read_head();
        conn.send(format!("{YES}goodbye"));
        let tcp = conn.tcp().expect("a socket");
        tcp.shutdown(std::net::Shutdown::Write).expect("half-close");
        let mut all = Vec::new();
        conn.read_to_end(&mut all).expect("a proper end");
        assert_eq!(all, b"still here");
    });
    let session = session(&upstream, &[]);
    let mut http = upgraded(&session, "");
    assert_eq!(http.read_to_end(), b"goodbye");
    http.send("still here");
    drop(http);
    upstream.wait_idle();
}

#[test]
fn the_last_words_of_a_command_that_leaves_are_passed_on() {
    for tls in [false, true] {
        let upstream = Upstream::scripted(tls, |conn| {
            conn.read_head();
            conn.send(YES);
            let mut all = Vec::new();
            let _ = conn.read_to_end(&mut all);
            assert_eq!(all, b"last words");
        });
        let session = session(&upstream, &[]);
        for _ in 0..50 {
            let mut http = upgraded(&session, "");
            // Sent and gone: end and bytes arrive together.
            http.send("last words");
            drop(http);
        }
        upstream.wait_idle();
    }
}

#[test]
fn an_upstream_that_breaks_ends_the_stream() {
    let upstream = Upstream::scripted(false, |conn| {
        conn.read_head();
        conn.send(YES);
        conn.wait_gate();
        conn.close_abruptly();
    });
    let session = session(&upstream, &[]);
    let mut http = upgraded(&session, "");
    upstream.open_gate("go");
    assert!(http.closed());
}

#[test]
fn an_upgrade_that_is_declined_is_an_ordinary_answer() {
    let (upstream, _) = recording(false);
    let session = session(&upstream, &[]);
    let mut http = session.http();
    http.send(ASK);
    assert_eq!(http.read_response().body, b"ok");
    assert_eq!(http.get("/next").body, b"ok");
    assert_eq!(upstream.requests()[0].all("upgrade"), ["websocket"]);
}

#[test]
fn only_a_websocket_without_a_body_is_asked_for() {
    let (upstream, _) = recording(false);
    let session = session(&upstream, &[]);
    for request in [
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket, h2c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Content-Length: 2\r\n\r\nhi",
    ] {
        let mut http = session.http();
        http.send(request);
        assert_eq!(http.read_response().status, 200);
    }
    for request in upstream.requests() {
        assert!(request.all("upgrade").is_empty() && request.all("connection").is_empty());
    }
}

#[test]
fn a_101_to_another_protocol_is_502() {
    let upstream = Upstream::scripted(false, |conn| {
        conn.read_head();
        conn.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        );
        assert!(conn.peer_closed());
    });
    let session = session(&upstream, &[]);
    let mut http = session.http();
    http.send(ASK);
    assert_refused(&mut http, 502, "http_upgrade_failed", "h2c");
}
