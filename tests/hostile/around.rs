//! What stands around a message: expectations, interim responses and trailers, both ways.

use crate::support::Upstream;
use crate::wire::{read_chunked, read_counted, session};

#[test]
fn an_expectation_is_the_upstreams_to_meet() {
    let upstream = Upstream::scripted(false, |conn| {
        while let Some(head) = conn.read_head() {
            assert_eq!(head.all("expect"), ["100-continue"]);
            conn.send("HTTP/1.1 100 Continue\r\n\r\n");
            assert_eq!(read_counted(conn, 4).as_deref(), Some(&b"body"[..]));
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let session = session(&upstream, &[]);
    let mut http = session.http();
    for _ in 0..2 {
        http.send("PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-Continue\r\n\r\n");
        let interim = http.read_head();
        assert_eq!((interim.status, interim.reason.as_str()), (100, "Continue"));
        assert!(interim.headers.is_empty());
        http.send("body");
        let answer = http.read_response();
        assert!(answer.status == 200 && answer.complete);
        assert_eq!(answer.header("connection"), None, "the stream goes on");
    }
    assert_eq!(upstream.connections(), 1, "and so does the connection");
}

#[test]
fn an_early_final_answer_to_an_expectation_wins() {
    let upstream = Upstream::scripted(false, |conn| {
        conn.read_head();
        conn.send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno");
        assert!(conn.peer_closed(), "the body never comes");
    });
    let session = session(&upstream, &[]);
    let mut http = session.http();
    http.send("PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    let answer = http.read_head();
    assert_eq!(answer.status, 417);
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(http.read_to_end(), b"no");
}

#[test]
fn a_command_that_sends_its_body_without_waiting_is_served_too() {
    let upstream = Upstream::scripted(false, |conn| {
        conn.read_head();
        assert_eq!(read_counted(conn, 4).as_deref(), Some(&b"body"[..]));
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    let session = session(&upstream, &[]);
    let mut http = session.http();
    http.send("PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\nbody");
    assert_eq!(http.read_response().body, b"ok");
}

#[test]
fn expect_without_a_body_or_from_http_1_0_does_not_go_up() {
    let upstream = Upstream::scripted(false, |conn| {
        while let Some(head) = conn.read_head() {
            assert!(head.all("expect").is_empty());
            let length = head.header("content-length").unwrap_or("0");
            read_counted(conn, length.parse().expect("a number"));
            // Nobody asked for it, so it goes nowhere.
            conn.send("HTTP/1.1 100 Continue\r\n\r\n");
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let session = session(&upstream, &[]);
    let mut http = session.http();
    http.send("GET / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(http.read_head().status, 200);
    let mut http = session.http();
    http.send("PUT / HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\nx");
    assert!(http.read_to_end().starts_with(b"HTTP/1.0 200 OK\r\n"));
}

#[test]
fn early_hints_are_passed_on_when_they_come() {
    let upstream = Upstream::scripted(false, |conn| {
        conn.read_head();
        conn.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: x\r\nX: y\r\n\r\n");
        conn.wait_gate();
        conn.send("HTTP/1.1 102 Processing\r\n\r\n");
        conn.wait_gate();
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    let session = session(&upstream, &[]);
    let mut http = session.http();
    http.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let hints = http.read_head();
    assert_eq!(hints.raw, b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
    upstream.open_gate("go");
    assert_eq!(http.read_head().raw, b"HTTP/1.1 102 Processing\r\n\r\n");
    upstream.open_gate("go");
    assert_eq!(http.read_response().body, b"ok");
}

#[test]
fn trailers_come_down_without_those_that_frame_or_control() {
    let upstream = Upstream::scripted(false, |conn| {
        while conn.read_head().is_some() {
            conn.send(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n\
                 0\r\nX-Sum: 42\r\nTE: x\r\nHost: x\r\n\
                 Set-Cookie: a=b\r\nContent-Type: x\r\nLocation: /x\r\n\
                 WWW-Authenticate: x\r\nProxy-Status: broker-exec; error=x\r\nServer-Timing: t\r\n\r\n",
            );
        }
    });
    let session = session(&upstream, &[]);
    let mut http = session.http();
    for _ in 0..2 {
        let answer = http.get("/");
        assert!(answer.complete);
        assert_eq!(answer.header("trailer"), Some("X-Sum"));
        let own = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            answer.trailers,
            [own("x-sum", "42"), own("server-timing", "t")]
        );
    }
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn te_trailers_goes_up_as_our_own_and_declared_trailers_with_chunks() {
    let upstream = Upstream::scripted(false, |conn| {
        let head = conn.read_head().expect("a request");
        assert_eq!(head.all("te"), ["trailers"]);
        assert_eq!(head.all("connection"), ["TE"]);
        assert_eq!(head.all("trailer"), ["X-Sum"]);
        let body = read_chunked(conn);
        assert_eq!(body, Some((b"hi".to_vec(), "X-Sum: 1\r\n".into())));
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    let session = session(&upstream, &[]);
    let mut http = session.http();
    http.send(
        "POST / HTTP/1.1\r\nHost: x\r\nConnection: TE\r\nTE: trailers, deflate;q=0.5\r\n\
         Trailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n",
    );
    assert_eq!(http.read_response().status, 200);
}
