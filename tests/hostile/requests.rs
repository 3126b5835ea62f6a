//! Requests that two parsers could read differently, or that try to name a destination: refused
//! before a byte goes upstream, and nothing behind them on the stream is executed.

use crate::wire::{assert_alive, assert_refused, recording, send_in_steps, session};

/// A request that must never be executed, behind every hostile one.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";

/// Every case is sent whole and byte by byte, each on a stream of its own; each must be answered
/// with this status and then closed, and in the end the upstream has seen none of it.
fn refuse_all(status: u16, cases: &[&[u8]]) {
    let (upstream, messages) = recording(false);
    let session = session(&upstream, &[]);
    for case in cases {
        for step in [usize::MAX, 1] {
            let what = format!("{:?} in steps of {step}", case.escape_ascii().to_string());
            let mut http = session.http();
            send_in_steps(&mut http, &[case, SMUGGLED.as_bytes()].concat(), step);
            assert_refused(&mut http, status, "http_request_error", &what);
        }
    }
    assert_eq!(
        upstream.connections(),
        0,
        "nothing of it reached the upstream"
    );
    assert_alive(&session, "/after");
    drop(session);
    upstream.wait_idle();
    assert_eq!(messages.targets(), ["/after"]);
}

/// The same for field lines, in an otherwise good request.
fn refuse_fields(status: u16, fields: &[&str]) {
    let cases: Vec<Vec<u8>> = fields
        .iter()
        .map(|fields| format!("POST /p HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n").into_bytes())
        .collect();
    let cases: Vec<&[u8]> = cases.iter().map(Vec::as_slice).collect();
    refuse_all(status, &cases);
}

#[test]
fn content_length_beside_transfer_encoding_is_refused() {
    refuse_fields(
        400,
        &[
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
            "Content-Length: 0\r\nTransfer-Encoding: chunked",
            "content-length: 5\r\ntransfer-encoding: chunked",
            "Content-Length: 5\r\nTransfer-Encoding: identity",
            "Content-Length: 5\r\nTransfer-Encoding: gzip",
            "Content-Length: x\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nX: y\r\nContent-Length:",
        ],
    );
}

#[test]
fn a_content_length_that_is_not_one_plain_number_is_refused() {
    refuse_fields(
        400,
        &[
            "Content-Length: 5\r\nContent-Length: 6",
            "Content-Length: 5\r\nContent-Length: 5",
            "Content-Length: 5\r\nX: y\r\ncontent-length: 0",
            "Content-Length: 5, 5",
            "Content-Length: 5,",
            "Content-Length: ,5",
            "Content-Length: +5",
            "Content-Length: -5",
            "Content-Length: -0",
            "Content-Length: 5 5",
            "Content-Length: 0x5",
            "Content-Length: a",
            "Content-Length: 5a",
            "Content-Length: 5.0",
            "Content-Length: 1e3",
            "Content-Length: 5;x=y",
            "Content-Length: \"5\"",
            "Content-Length:",
            "Content-Length: \t ",
            "Content-Length: 9223372036854775808",
            "Content-Length: 18446744073709551615",
            "Content-Length: 18446744073709551616",
            "Content-Length: 18446744073709551621",
            "Content-Length: 00000000000000000005",
            "Content-Length: 99999999999999999999999999999999999999999",
            "Content-Length: \u{0665}",
            "Content-Length: 5\u{b}",
            "Content-Length: 5\u{a0}",
        ],
    );
}

#[test]
fn a_transfer_coding_that_we_cannot_take_off_is_501() {
    refuse_fields(
        501,
        &[
            "Transfer-Encoding: gzip",
            "Transfer-Encoding: identity",
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding: chunkedx",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked, chunked",
            "Transfer-Encoding: chunked, gzip",
            "Transfer-Encoding: chunked;q=1",
            "Transfer-Encoding: chunked identity",
            "Transfer-Encoding: \"chunked\"",
            "Transfer-Encoding: 'chunked'",
        ],
    );
}

#[test]
fn a_malformed_transfer_encoding_is_refused() {
    refuse_fields(
        400,
        &[
            "Transfer-Encoding:",
            "Transfer-Encoding: ,",
            "Transfer-Encoding: chunked,",
            "Transfer-Encoding: ,chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
            "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\u{b}",
            "Transfer-Encoding: \u{b}chunked",
            "Transfer-Encoding: chunked\u{7f}",
            "Transfer-Encoding : chunked",
            "Transfer-Encoding\t: chunked",
            "Transfer-Encoding: \r\n chunked",
        ],
    );
}

#[test]
fn a_refused_http_1_0_request_is_answered_as_1_0() {
    let (upstream, _) = recording(false);
    let session = session(&upstream, &[]);
    for case in [
        "POST /p HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.0\r\nA : b\r\n\r\n",
    ] {
        let mut http = session.http();
        http.send(case);
        let answer = String::from_utf8(http.read_to_end()).expect("text");
        assert!(
            answer.starts_with("HTTP/1.0 400 Bad Request\r\n"),
            "{answer}"
        );
        assert!(answer.contains("\r\nProxy-Status: broker-exec; error=http_request_error\r\n"));
    }
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn line_ends_other_than_cr_lf_are_refused() {
    refuse_all(
        400,
        &[
            b"GET / HTTP/1.1\nHost: x\n\n",
            b"GET / HTTP/1.1\r\nHost: x\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\n\n",
            b"GET / HTTP/1.1\rHost: x\r\r",
            b"GET / HTTP/1.1\r\nHost: x\rA: b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\r\n\r\n",
            b"GET / HTTP/1.1\r\r\nHost: x\r\n\r\n",
            b"GET /\r HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET\r / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nA:\rb\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nA\r: b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nA: b\nTransfer-Encoding: chunked\r\n\r\n",
            b"\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
        ],
    );
}

#[test]
fn folded_lines_and_leading_white_space_are_refused() {
    refuse_all(
        400,
        &[
            b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n\tc\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n \r\n\r\n",
            b"GET / HTTP/1.1\r\n Host: x\r\n\r\n",
            b"GET / HTTP/1.1\r\n\tHost: x\r\nHost: y\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost:\r\n x\r\n\r\n",
            b" GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"\tGET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"\x0bGET / HTTP/1.1\r\nHost: x\r\n\r\n",
        ],
    );
}

#[test]
fn malformed_field_lines_are_refused() {
    refuse_fields(
        400,
        &[
            "A : b",
            "A\t: b",
            "A",
            ": b",
            " : b",
            "A B: c",
            "A\tB: c",
            "A(: b",
            "A\": b",
            "A/: b",
            "A,: b",
            "A;: b",
            "A<: b",
            "A=: b",
            "A?: b",
            "A@: b",
            "A[: b",
            "A\\: b",
            "A]: b",
            "A{: b",
            "A}: b",
            "\u{e9}: b",
            "A\u{200b}: b",
        ],
    );
}

#[test]
fn nul_and_control_characters_are_refused_wherever_they_stand() {
    let controls = (0..0x20u8).filter(|b| !b"\t\r\n".contains(b)).chain([0x7f]);
    let mut cases = Vec::new();
    for byte in controls {
        for template in [
            "GE?T / HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET / HTTP/1.1?\r\nHost: x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x?\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nA?B: c\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nA: b?c\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nA: ?\r\n\r\n",
        ] {
            let bytes = template.bytes().map(|b| if b == b'?' { byte } else { b });
            cases.push(bytes.collect::<Vec<u8>>());
        }
    }
    let cases: Vec<&[u8]> = cases.iter().map(Vec::as_slice).collect();
    refuse_all(400, &cases);
}

#[test]
fn malformed_request_lines_are_refused() {
    refuse_all(
        400,
        &[
            b"G(T / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"G@T / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"\"GET\" / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET: / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"G\xc9T / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /  HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /\tHTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET / HTTP/1.1 \r\nHost: x\r\n\r\n",
            b"GET / x HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET HTTP/1.1\r\nHost: x\r\n\r\n",
            b"/ HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET / http/1.1\r\nHost: x\r\n\r\n",
            b"GET / HTTP/1\r\nHost: x\r\n\r\n",
            b"GET / HTTP/1.10\r\nHost: x\r\n\r\n",
            b"GET / HTTP/01.1\r\nHost: x\r\n\r\n",
            b"GET / HTTP/1.2\r\nHost: x\r\n\r\n",
            b"GET / HTTP/3.0\r\nHost: x\r\n\r\n",
            b"GET / HTTPS/1.1\r\nHost: x\r\n\r\n",
            b"GET / RTSP/1.0\r\nHost: x\r\n\r\n",
        ],
    );
}

#[test]
fn http_0_9_and_2_0_prefaces_are_refused() {
    refuse_all(
        400,
        &[
            b"GET /\r\n\r\n",
            b"GET / \r\n\r\n",
            b"GET / HTTP/0.9\r\nHost: x\r\n\r\n",
            b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
            b"GET / HTTP/2\r\nHost: x\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\0",
        ],
    );
}

#[test]
fn host_must_be_given_once_and_be_a_host() {
    refuse_all(
        400,
        &[
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nA: b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a?b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a#b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: \xc3\xa9\r\n\r\n",
        ],
    );
}

#[test]
fn targets_that_are_no_path_are_refused() {
    let targets = [
        "*",
        "evil",
        "evil:443",
        "evil/x",
        "?x",
        "#x",
        "ftp://evil/x",
        "file:///etc/passwd",
        "http:/x",
        "http:x",
        "http:///x",
        "http://",
        "http://evil?x",
        "http://?x",
        "://evil/",
        "\\evil\\x",
        "/a#b",
        "/\u{e9}",
        "http://evil/\u{e9}",
    ];
    let cases: Vec<String> = targets
        .iter()
        .map(|target| format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"))
        .collect();
    let cases: Vec<&[u8]> = cases.iter().map(String::as_bytes).collect();
    refuse_all(400, &cases);
    refuse_all(400, &[b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n"]);
}

#[test]
fn connect_and_trace_are_refused() {
    refuse_all(
        405,
        &[
            b"CONNECT evil:443 HTTP/1.1\r\nHost: evil:443\r\n\r\n",
            b"CONNECT / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"CONNECT http://evil/ HTTP/1.1\r\nHost: x\r\n\r\n",
            b"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"TRACE / HTTP/1.1\r\nHost: x\r\nMax-Forwards: 0\r\n\r\n",
        ],
    );
}

#[test]
fn an_expectation_that_nobody_can_meet_is_417() {
    refuse_fields(
        417,
        &[
            "Content-Length: 1\r\nExpect: cake",
            "Content-Length: 1\r\nExpect: 100-continue, cake",
            "Content-Length: 1\r\nExpect:",
        ],
    );
}
