//! The upstream is killed at every stage: each has its own error, and the next request works.

use std::io::Write;
use std::net::{Shutdown, TcpListener};

use crate::front::{front, peer_closed, relay};
use crate::support::{Ca, Conn, Http, Session, Upstream};
use crate::wire::{assert_alive, assert_refused, read_message, recording, session, towards};

fn ask(session: &Session) -> Http {
    let mut http = session.http();
    http.send("GET /1 HTTP/1.1\r\nHost: x\r\n\r\n");
    http
}

#[test]
fn a_name_that_does_not_resolve_is_a_dns_error() {
    // A label over 63 bytes is refused by every resolver, without asking anybody.
    let url = format!("http://{}.invalid", "x".repeat(64));
    let session = towards(&url, None, &[]);
    for _ in 0..2 {
        assert_refused(&mut ask(&session), 502, "dns_error", "a name");
    }
}

#[test]
fn a_refused_connection_is_said_and_the_next_request_works() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let session = towards(&format!("http://{address}"), None, &[]);
    for _ in 0..2 {
        assert_refused(&mut ask(&session), 502, "connection_refused", "no listener");
    }
    let (upstream, _) = recording(false);
    let to = upstream.address();
    front(&address.to_string(), move |_, tcp| relay(tcp, to));
    assert_alive(&session, "/back");
}

/// The first connection misbehaves below TLS, the others reach a good upstream.
fn broken_handshake(
    error: &str,
    options: &[&str],
    misbehave: impl Fn(std::net::TcpStream) + Send + Sync + 'static,
) {
    let (upstream, _) = recording(true);
    let to = upstream.address();
    let address = front("127.0.0.1:0", move |number, tcp| match number {
        0 => misbehave(tcp),
        _ => relay(tcp, to),
    });
    let session = towards(&format!("https://{address}"), upstream.ca(), options);
    assert_refused(&mut ask(&session), 502, error, "a handshake");
    assert!(upstream.requests().is_empty());
    assert_alive(&session, "/good");
    drop(session);
}

#[test]
fn a_handshake_of_garbage_is_a_tls_error() {
    for garbage in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        b"\x15\x03\x03\x00\x02\x02\x28",
        b"\x16\x03\x03\xff\xff\0\0\0\0",
        &[0; 4096],
    ] {
        broken_handshake("tls_protocol_error", &[], move |mut tcp| {
            let _ = tcp.write_all(garbage);
            assert!(peer_closed(&mut tcp));
        });
    }
}

#[test]
fn a_connection_that_ends_in_the_handshake_is_a_tls_error() {
    broken_handshake("tls_protocol_error", &[], drop);
    broken_handshake("tls_protocol_error", &[], |tcp| {
        let _ = tcp.shutdown(Shutdown::Write);
        assert!(peer_closed(&mut { tcp }));
    });
    broken_handshake("tls_protocol_error", &[], |mut tcp| {
        let _ = tcp.write_all(b"\x16\x03\x03\x00\x40\x02");
    });
}

#[test]
fn a_handshake_that_stalls_ends_with_the_connect_timeout() {
    broken_handshake(
        "connection_timeout",
        &["--connect-timeout", "300ms"],
        |mut tcp| assert!(peer_closed(&mut tcp)),
    );
}

#[test]
fn a_handshake_that_dribbles_ends_with_the_connect_timeout() {
    broken_handshake(
        "connection_timeout",
        &["--connect-timeout", "300ms"],
        |mut tcp| {
            // The start of a record that would be long.
            let pace = std::time::Duration::from_millis(10);
            crate::front::dribble(
                &mut tcp,
                &[&b"\x16\x03\x03\x3f\xff\x02"[..], &[0; 4000]].concat(),
                pace,
            );
        },
    );
}

#[test]
fn a_certificate_of_an_unknown_authority_is_refused() {
    let (upstream, _) = recording(true);
    let other = Ca::new();
    for ca in [None, Some(&other)] {
        let session = towards(&upstream.url(), ca, &[]);
        assert_refused(&mut ask(&session), 502, "tls_certificate_error", "unknown");
    }
    assert!(upstream.requests().is_empty());
    assert_alive(&towards(&upstream.url(), upstream.ca(), &[]), "/good");
}

#[test]
fn a_certificate_for_another_host_is_refused() {
    let (upstream, _) = recording(true);
    let to = upstream.address();
    // The certificate is for localhost and 127.0.0.1.
    let address = front("127.0.0.2:0", move |_, tcp| relay(tcp, to));
    let session = towards(&format!("https://{address}"), upstream.ca(), &[]);
    assert_refused(
        &mut ask(&session),
        502,
        "tls_certificate_error",
        "127.0.0.2",
    );
    assert!(upstream.requests().is_empty());
}

/// The first request is answered with these bytes and this end; the second properly.
fn broken_answer(tls: bool, say: &'static str, end: fn(&mut Conn)) {
    let upstream = Upstream::scripted(tls, move |conn| {
        if read_message(conn).is_none() {
            return;
        }
        if conn.index() == 0 {
            conn.send(say);
            end(conn);
        } else {
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let session = session(&upstream, &[]);
    let what = format!("{say:?}, TLS {tls}");
    assert_refused(&mut ask(&session), 502, "connection_terminated", &what);
    assert_eq!(upstream.requests().len(), 1, "{what}");
    assert_alive(&session, "/good");
}

const ENDS: [fn(&mut Conn); 3] = [
    Conn::close_cleanly,
    Conn::close_without_notify,
    Conn::close_abruptly,
];

#[test]
fn an_upstream_that_ends_before_its_head_is_said() {
    for tls in [false, true] {
        for end in ENDS {
            broken_answer(tls, "", end);
        }
    }
}

#[test]
fn an_upstream_that_ends_within_its_head_is_said() {
    for tls in [false, true] {
        for end in ENDS {
            broken_answer(tls, "H", end);
            broken_answer(tls, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", end);
            broken_answer(tls, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r", end);
        }
    }
}

#[test]
fn an_upstream_that_ends_after_an_interim_response_is_said() {
    for tls in [false, true] {
        for end in ENDS {
            broken_answer(tls, "HTTP/1.1 103 Early Hints\r\n\r\n", end);
        }
    }
}
