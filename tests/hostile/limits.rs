//! The limits of a message: what just fits passes, what is one too many has its own status.

use crate::support::Upstream;
use crate::wire::{assert_alive, assert_refused, read_message, recording, send_in_steps, session};

#[test]
fn a_target_over_32_kib_is_414() {
    let (upstream, messages) = recording(false);
    let session = session(&upstream, &[]);
    let target = format!("/{}", "a".repeat(32 * 1024 - 1));
    assert_alive(&session, &target);
    for excess in ["a", &"a".repeat(40 * 1024)] {
        let mut http = session.http();
        let request = format!("GET {target}{excess} HTTP/1.1\r\nHost: x\r\n\r\n");
        send_in_steps(&mut http, request.as_bytes(), usize::MAX);
        assert_refused(&mut http, 414, "http_request_error", "a long target");
    }
    // Without an end it is refused when it can no longer fit, not when memory has run out.
    let mut http = session.http();
    let endless = format!("GET {target}{}", "a".repeat(40 * 1024));
    send_in_steps(&mut http, endless.as_bytes(), usize::MAX);
    assert_refused(&mut http, 414, "http_request_error", "an endless target");
    assert_eq!(messages.targets(), [target]);
}

#[test]
fn a_head_over_64_kib_is_431() {
    let (upstream, messages) = recording(false);
    let session = session(&upstream, &[]);
    let head = |length: usize| {
        let rest = "GET /fits HTTP/1.1\r\nHost: x\r\nA: \r\n\r\n".len();
        let value = "b".repeat(length - rest);
        format!("GET /fits HTTP/1.1\r\nHost: x\r\nA: {value}\r\n\r\n")
    };
    let mut http = session.http();
    http.send(head(64 * 1024));
    assert_eq!(http.read_response().status, 200);
    for length in [64 * 1024 + 1, 80 * 1024] {
        let mut http = session.http();
        send_in_steps(&mut http, head(length).as_bytes(), usize::MAX);
        assert_refused(&mut http, 431, "http_request_error", "a large head");
    }
    let mut http = session.http();
    let endless = head(100 * 1024);
    send_in_steps(&mut http, endless.trim_end().as_bytes(), 1000);
    assert_refused(&mut http, 431, "http_request_error", "an endless head");
    assert_eq!(messages.targets(), ["/fits"]);
}

#[test]
fn more_than_128_fields_are_431() {
    let (upstream, messages) = recording(false);
    let session = session(&upstream, &[]);
    for (fields, status) in [(127, 200), (128, 431), (5000, 431)] {
        let mut http = session.http();
        let more = "A: b\r\n".repeat(fields);
        http.send(format!("GET /many HTTP/1.1\r\nHost: x\r\n{more}\r\n"));
        if status == 200 {
            assert_eq!(http.read_response().status, 200);
        } else {
            assert_refused(&mut http, status, "http_request_error", "many fields");
        }
    }
    assert_eq!(messages.targets(), ["/many"]);
}

/// A request with a chunked body that starts well and goes on like this.
fn chunked_with(rest: &str) -> String {
    format!("POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n{rest}")
}

#[test]
fn a_chunk_size_line_over_1_kib_is_413() {
    let (upstream, messages) = recording(false);
    let session = session(&upstream, &[]);
    let line = |length: usize| format!("1;{}\r\n", "e".repeat(length - 4));
    let mut http = session.http();
    http.send(chunked_with(&format!("{}y\r\n0\r\n\r\n", line(1024))));
    assert_eq!(http.read_response().status, 200);
    for rest in [line(1025), line(5000), format!("1;{}", "e".repeat(5000))] {
        let mut http = session.http();
        send_in_steps(&mut http, chunked_with(&rest).as_bytes(), 700);
        assert_refused(&mut http, 413, "http_request_error", "a long chunk line");
    }
    drop(session);
    upstream.wait_idle();
    assert_eq!(messages.all().len(), 1);
    assert_eq!(messages.all()[0].body, b"xy", "extensions end here");
}

#[test]
fn trailers_over_16_kib_or_64_fields_are_431() {
    let (upstream, messages) = recording(false);
    let session = session(&upstream, &[]);
    let mut http = session.http();
    let fits = format!("0\r\nA: {}\r\n\r\n", "b".repeat(16 * 1024 - 7));
    http.send(chunked_with(&fits));
    assert_eq!(http.read_response().status, 200);
    for rest in [
        format!("0\r\nA: {}\r\n\r\n", "b".repeat(16 * 1024 - 6)),
        format!("0\r\nA: {}", "b".repeat(40 * 1024)),
        format!("0\r\n{}\r\n", "A: b\r\n".repeat(65)),
    ] {
        let mut http = session.http();
        send_in_steps(&mut http, chunked_with(&rest).as_bytes(), 4000);
        assert_refused(&mut http, 431, "http_request_error", "large trailers");
    }
    drop(session);
    upstream.wait_idle();
    assert_eq!(messages.all().len(), 1);
}

/// An upstream whose answer to every request is this.
fn answering(answer: String) -> Upstream {
    Upstream::scripted(false, move |conn| {
        while let Some(request) = read_message(conn) {
            let alive = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
            let wanted = request.target == "/big";
            conn.send(if wanted { &answer } else { alive });
        }
    })
}

#[test]
fn a_response_head_over_256_kib_or_256_fields_is_502() {
    let sized = |length: usize| {
        let value =
            "b".repeat(length - "HTTP/1.1 200 OK\r\nA: \r\nContent-Length: 0\r\n\r\n".len());
        format!("HTTP/1.1 200 OK\r\nA: {value}\r\nContent-Length: 0\r\n\r\n")
    };
    let fields = |count: usize| {
        let more = "A: b\r\n".repeat(count - 1);
        format!("HTTP/1.1 200 OK\r\n{more}Content-Length: 0\r\n\r\n")
    };
    for (answer, status) in [
        (sized(256 * 1024), 200),
        (sized(256 * 1024 + 1), 502),
        (sized(300 * 1024).trim_end().to_owned(), 502),
        (fields(256), 200),
        (fields(257), 502),
    ] {
        let upstream = answering(answer);
        let session = session(&upstream, &[]);
        let mut http = session.http();
        http.send("GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
        if status == 200 {
            let answer = http.read_response();
            assert!(answer.status == 200 && answer.complete);
        } else {
            let error = "http_response_header_section_size";
            assert_refused(&mut http, status, error, "a large response head");
        }
        assert_alive(&session, "/");
    }
}

#[test]
fn more_than_64_interim_responses_are_502() {
    for (count, status) in [(64, 200), (65, 502)] {
        let interim = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".repeat(count);
        let upstream = answering(format!(
            "{interim}HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        ));
        let session = session(&upstream, &[]);
        let mut http = session.http();
        http.send("GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(http.read_response().status, status);
        assert_alive(&session, "/");
    }
}
