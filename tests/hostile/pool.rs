//! Connections that are kept: a request goes out twice only where that is allowed, and bytes that
//! nobody asked for are never taken for an answer.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use crate::support::{Conn, Upstream};
use crate::wire::{assert_own, assert_refused, read_message, recording, session};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Every connection below `dying` serves one request and then, once it has the head of the next,
/// says this and ends. Later connections work.
fn stale(tls: bool, dying: usize, say: &'static str, abruptly: bool) -> Upstream {
    Upstream::scripted(tls, move |conn| {
        if conn.index() >= dying {
            while read_message(conn).is_some() {
                conn.send(OK);
            }
            return;
        }
        if conn.index() == 0 && read_message(conn).is_some() {
            conn.send(OK);
        }
        if conn.read_head().is_some() {
            conn.send(say);
        }
        if abruptly {
            conn.close_abruptly();
        }
    })
}

#[test]
fn a_get_on_a_connection_that_turns_out_dead_goes_out_once_more() {
    for tls in [false, true] {
        for abruptly in [false, true] {
            for request in [
                "GET /2 HTTP/1.1\r\nHost: x\r\n\r\n",
                "PUT /2 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
                "DELETE /2 HTTP/1.1\r\nHost: x\r\n\r\n",
                "OPTIONS /2 HTTP/1.1\r\nHost: x\r\n\r\n",
            ] {
                let upstream = stale(tls, 1, "", abruptly);
                let session = session(&upstream, &[]);
                let mut http = session.http();
                assert_eq!(http.get("/1").body, b"ok");
                http.send(request);
                let answer = http.read_response();
                assert!(answer.complete && answer.body == b"ok", "{request}");
                assert_eq!(upstream.connections(), 2);
                let requests = upstream.requests();
                assert_eq!(requests.len(), 3, "once on each connection");
                assert_eq!(requests[1].head, requests[2].head);
            }
        }
    }
}

#[test]
fn it_does_not_go_out_a_third_time() {
    let upstream = stale(false, 2, "", false);
    let session = session(&upstream, &[]);
    let mut http = session.http();
    assert_eq!(http.get("/1").body, b"ok");
    http.send("GET /2 HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_refused(&mut http, 502, "connection_terminated", "dead twice");
    assert_eq!(upstream.requests().len(), 3);
    assert_eq!(session.http().get("/3").body, b"ok");
}

#[test]
fn a_request_that_may_not_be_repeated_never_goes_out_twice() {
    for tls in [false, true] {
        for abruptly in [false, true] {
            for request in [
                "POST /2 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
                "POST /2 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi",
                "POST /2 HTTP/1.1\r\nHost: x\r\n\r\n",
                "PATCH /2 HTTP/1.1\r\nHost: x\r\n\r\n",
                "PUT /2 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi",
                "GET /2 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                "INVENTED /2 HTTP/1.1\r\nHost: x\r\n\r\n",
            ] {
                let upstream = stale(tls, 1, "", abruptly);
                let session = session(&upstream, &[]);
                let mut http = session.http();
                assert_eq!(http.get("/1").body, b"ok");
                http.send(request);
                assert_refused(&mut http, 502, "connection_terminated", request);
                assert_eq!(upstream.requests().len(), 2, "{request}");
                assert_eq!(session.http().get("/3").body, b"ok");
            }
        }
    }
}

#[test]
fn the_rest_of_a_body_never_goes_out_as_a_request() {
    for tls in [false, true] {
        for chunked in [false, true] {
            let upstream = stale(tls, 1, "", true);
            let session = session(&upstream, &[]);
            let mut http = session.http();
            assert_eq!(http.get("/1").body, b"ok");
            let framing = if chunked {
                "Transfer-Encoding: chunked"
            } else {
                "Content-Length: 100000000"
            };
            http.send(format!("POST /2 HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n"));
            // The connection dies while this is on its way: whole requests in the body, so that any
            // part of it would be understood.
            let inner = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1000);
            let piece = if chunked {
                format!("{:x}\r\n{inner}\r\n", inner.len())
            } else {
                inner
            };
            while http.try_send(&piece).is_ok() {}
            let answer = http.read_response();
            assert_own(&answer, 502, "connection_terminated", framing);
            assert_eq!(session.http().get("/3").body, b"ok");
            let targets: Vec<String> = upstream.requests().into_iter().map(|r| r.target).collect();
            assert_eq!(targets, ["/1", "/2", "/3"], "TLS {tls}, {framing}");
        }
    }
}

#[test]
fn a_connection_that_ended_while_idle_is_not_tried() {
    for tls in [false, true] {
        let (upstream, told) = surplus(tls, |conn| {
            conn.send(OK);
            conn.wait_gate();
            let tcp = conn.tcp().expect("a socket");
            tcp.shutdown(std::net::Shutdown::Write).expect("half-close");
        });
        let session = session(&upstream, &[]);
        let mut http = session.http();
        assert_eq!(http.get("/1").body, b"ok");
        upstream.open_gate("go");
        told.recv().expect("the end was sent");
        assert_eq!(http.post("/2", b"body").body, b"ok");
        assert_eq!(upstream.requests().len(), 2);
    }
}

#[test]
fn a_request_of_which_an_answer_has_begun_never_goes_out_twice() {
    for say in [
        "H",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n",
        "HTTP/1.1 103 Early Hints\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1",
    ] {
        let upstream = stale(false, 1, say, false);
        let session = session(&upstream, &[]);
        let mut http = session.http();
        assert_eq!(http.get("/1").body, b"ok");
        http.send("GET /2 HTTP/1.1\r\nHost: x\r\n\r\n");
        let answer = http.read_response();
        assert_own(&answer, 502, "connection_terminated", say);
        assert_eq!(upstream.requests().len(), 2);
    }
}

#[test]
fn a_request_on_a_new_connection_never_goes_out_twice() {
    let upstream = Upstream::scripted(false, |conn| {
        conn.read_head();
    });
    let session = session(&upstream, &[]);
    for count in 1..=3 {
        let mut http = session.http();
        http.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_refused(&mut http, 502, "connection_terminated", "a new connection");
        assert_eq!(upstream.requests().len(), count);
    }
}

/// Serves one request with what `answer` sends, tells the test, and holds the connection open; any
/// further connection works.
fn surplus(
    tls: bool,
    answer: impl Fn(&mut Conn) + Send + Sync + 'static,
) -> (Upstream, mpsc::Receiver<()>) {
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(tell);
    let upstream = Upstream::scripted(tls, move |conn| {
        if conn.index() > 0 {
            while read_message(conn).is_some() {
                conn.send(OK);
            }
            return;
        }
        read_message(conn);
        answer(conn);
        let _ = tell.lock().expect("the other end lives").send(());
        assert!(conn.read_head().is_none(), "nothing more is asked of it");
    });
    (upstream, told)
}

const EVIL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";

#[test]
fn bytes_that_come_unasked_on_an_idle_connection_are_never_delivered() {
    for tls in [false, true] {
        for other_stream in [false, true] {
            let (upstream, told) = surplus(tls, |conn| {
                conn.send(OK);
                conn.wait_gate();
                conn.send(EVIL);
            });
            let session = session(&upstream, &[]);
            let mut http = session.http();
            assert_eq!(http.get("/1").body, b"ok");
            upstream.open_gate("go");
            told.recv().expect("the surplus was sent");
            if other_stream {
                http = session.http();
            }
            for _ in 0..3 {
                assert_eq!(http.get("/2").body, b"ok", "TLS {tls}");
            }
            assert_eq!(upstream.connections(), 2);
        }
    }
}

#[test]
fn bytes_behind_an_answer_are_never_delivered() {
    // Sizes at which a record ends where a buffer of some layer does.
    for tls in [false, true] {
        for size in [1, 4095, 4096, 8192, 12_288, 16_384, 100_000] {
            let (upstream, _) = surplus(tls, move |conn| {
                let tcp = conn.tcp().expect("a socket").try_clone().expect("a copy");
                let cork = |on| rustix::net::sockopt::set_tcp_cork(&tcp, on).expect("cork");
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n");
                conn.send(head);
                cork(true);
                conn.send(vec![b'x'; size]);
                conn.send(EVIL);
                cork(false);
            });
            let session = session(&upstream, &[]);
            let mut http = session.http();
            assert_eq!(http.get("/1").body.len(), size);
            // Another stream gets no such connection from the pool either.
            assert_eq!(session.http().get("/2").body, b"ok", "{size}, TLS {tls}");
            for _ in 0..3 {
                assert_eq!(http.get("/3").body, b"ok", "{size}, TLS {tls}");
            }
        }
    }
}

#[test]
fn bytes_behind_an_answer_without_a_body_are_never_delivered() {
    for (method, answer) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"),
        (
            "GET",
            "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        ),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nevil",
        ),
        ("GET", "HTTP/1.1 205 Reset Content\r\n\r\nevil"),
        (
            "GET",
            "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\nevil",
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nevil",
        ),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nevil"),
    ] {
        let (upstream, _) = surplus(false, move |conn| {
            conn.send(answer);
        });
        let session = session(&upstream, &[]);
        let mut http = session.http();
        http.send(format!("{method} /1 HTTP/1.1\r\nHost: x\r\n\r\n"));
        let first = http.read_response_to(method);
        assert!(first.complete && first.body.is_empty(), "{answer:?}");
        assert_eq!(http.get("/2").body, b"ok", "{answer:?}");
        assert_eq!(upstream.connections(), 2);
    }
}

#[test]
fn connections_are_kept_between_requests_and_streams() {
    for tls in [false, true] {
        let (upstream, _) = recording(tls);
        let session = session(&upstream, &[]);
        let mut http = session.http();
        for _ in 0..3 {
            assert_eq!(http.get("/").body, b"ok");
        }
        drop(http);
        // The pool gets it when the first stream's end has been seen.
        let mut waits = 0;
        while upstream.connections() < 2 && waits < 3 {
            assert_eq!(session.http().get("/").body, b"ok");
            waits += 1;
        }
        assert!(upstream.connections() <= 2);
    }
}

#[test]
fn a_connection_that_the_upstream_ends_is_not_used_again() {
    for answer in [
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ] {
        let served = Arc::new(AtomicUsize::new(0));
        let count = served.clone();
        let upstream = Upstream::scripted(false, move |conn| {
            if conn.read_head().is_some() {
                count.fetch_add(1, Ordering::SeqCst);
                conn.send(answer);
                assert!(conn.read_head().is_none(), "it was said to end");
            }
        });
        let session = session(&upstream, &[]);
        let mut http = session.http();
        for _ in 0..3 {
            // A POST: a wrong attempt on the old connection could not be repeated.
            assert_eq!(http.post("/", b"").body, b"ok");
        }
        assert_eq!(served.load(Ordering::SeqCst), 3);
        assert_eq!(upstream.connections(), 3);
    }
}
