//! What of a good request goes up, to the byte: path and query and end-to-end fields as they came,
//! nothing that names a destination or ends at this hop, and the credential whatever was nominated.

use crate::support::{Http, Key, Place, Session, Upstream};
use crate::wire::{read_message, recording, session};

/// The head that the upstream sees when this request is sent to it; `{HOST}` and `{KEY}` stand for
/// its authority and the credential.
fn passes(cases: &[(&str, &str)]) {
    let key = Key::random();
    let (upstream, _) = recording(false);
    let none: [&str; 0] = [];
    let session = Session::to(&upstream, &key, &Place::Header("X-Api-Key"), none);
    for (sent, expected) in cases {
        let seen = upstream.requests().len();
        let mut http = session.http();
        http.send(sent);
        let method = sent.split(' ').next().expect("a method");
        let answer = http.read_response_to(method);
        assert_eq!(answer.status, 200, "{sent:?}: {}", answer.text());
        let requests = upstream.requests();
        assert_eq!(requests.len(), seen + 1, "{sent:?}");
        let head = String::from_utf8_lossy(&requests[seen].head);
        // What we ask for in place of what the client accepts stands before the credential.
        let expected = expected
            .replacen(
                "X-Api-Key: {KEY}",
                "Accept-Encoding: identity\r\nX-Api-Key: {KEY}",
                1,
            )
            .replace("{HOST}", &upstream.address().to_string())
            .replace("{KEY}", key.as_str());
        assert_eq!(key.mask(&head), key.mask(&expected), "{sent:?}");
    }
}

#[test]
fn a_target_is_taken_for_its_path_and_query_only() {
    let cases: Vec<(String, String)> = [
        ("/", "/"),
        ("/a/b?c=d&e", "/a/b?c=d&e"),
        ("//evil.example/x", "//evil.example/x"),
        ("///x", "///x"),
        ("/http://evil/", "/http://evil/"),
        ("/%00%0d%0a%2F..", "/%00%0d%0a%2F.."),
        ("/a?b?c=/d", "/a?b?c=/d"),
        ("/a|b^c`d{e}\"f<g>", "/a|b^c`d{e}\"f<g>"),
        ("http://evil/x?y", "/x?y"),
        ("http://evil", "/"),
        ("HTTPS://evil:1/", "/"),
        ("http://u:p@evil:99//x", "//x"),
        ("https://[::1]:1/x", "/x"),
    ]
    .into_iter()
    .map(|(target, path)| {
        (
            format!("GET {target} HTTP/1.1\r\nHost: evil.example\r\n\r\n"),
            format!("GET {path} HTTP/1.1\r\nHost: {{HOST}}\r\nX-Api-Key: {{KEY}}\r\n\r\n"),
        )
    })
    .collect();
    let cases: Vec<(&str, &str)> = cases.iter().map(|(a, b)| (&**a, &**b)).collect();
    passes(&cases);
}

#[test]
fn asterisk_form_is_for_options_only() {
    let up = "OPTIONS * HTTP/1.1\r\nHost: {HOST}\r\nX-Api-Key: {KEY}\r\n\r\n";
    passes(&[
        ("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", up),
        ("OPTIONS http://evil HTTP/1.1\r\nHost: x\r\n\r\n", up),
    ]);
    // The refusal of any other method is in requests.rs.
}

#[test]
fn fields_of_the_connection_end_here() {
    passes(&[(
        "GET / HTTP/1.1\r\nHost: x\r\nA: 1\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic eA==\r\n\
         Proxy-Authenticate: x\r\nTE: gzip\r\nTrailer: X\r\nUpgrade: h2c\r\n\
         HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\
         Connection: keep-alive, Upgrade, HTTP2-Settings\r\nB: 2\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: {HOST}\r\nA: 1\r\nB: 2\r\nX-Api-Key: {KEY}\r\n\r\n",
    )]);
}

#[test]
fn nominated_fields_end_here_and_the_credential_cannot_be_nominated_away() {
    passes(&[
        (
            "GET / HTTP/1.1\r\nHost: x\r\nA: 1\r\nB: 2\r\nConnection: b, X-Api-Key, close\r\n\
             C: 3\r\nConnection: C, Host, Content-Length\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: {HOST}\r\nA: 1\r\nX-Api-Key: {KEY}\r\n\r\n",
        ),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\
             Connection: Content-Length, Transfer-Encoding, x-api-key\r\n\r\nhi",
            "POST / HTTP/1.1\r\nHost: {HOST}\r\nX-Api-Key: {KEY}\r\nContent-Length: 2\r\n\r\n",
        ),
    ]);
}

#[test]
fn copies_of_the_credentials_place_do_not_pass() {
    passes(&[(
        "GET / HTTP/1.1\r\nHost: x\r\nX-Api-Key: mine\r\nx-api-KEY: mine\r\nX_Api_Key: mine\r\n\
         X-Api-Key:\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Api-Key: {KEY}\r\n\r\n",
    )]);
}

#[test]
fn end_to_end_fields_pass_byte_for_byte_and_in_order() {
    passes(&[(
        "PATCH /x HTTP/1.1\r\nHost: x\r\nzED: \u{e9}\u{ff} \"q\"\r\nA:b\r\nA:  \t c d \t\r\na: \r\n\
         Cookie: s=1\r\nX-!#$%&'*+.^_`|~: y\r\nContent-Length: 0\r\n\r\n",
        "PATCH /x HTTP/1.1\r\nHost: {HOST}\r\nzED: \u{e9}\u{ff} \"q\"\r\nA: b\r\nA: c d\r\na: \r\n\
         Cookie: s=1\r\nX-!#$%&'*+.^_`|~: y\r\nX-Api-Key: {KEY}\r\nContent-Length: 0\r\n\r\n",
    )]);
}

#[test]
fn http_1_0_is_answered_as_1_0_and_spoken_to_the_upstream_as_1_1() {
    let (upstream, _) = recording(false);
    let session = session(&upstream, &[]);
    let ask = |request: &str| {
        let mut http = session.http();
        http.send(request);
        String::from_utf8(http.read_to_end()).expect("text")
    };
    let answer = ask("GET /old HTTP/1.0\r\n\r\n");
    let expected = "HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
    assert_eq!(answer, expected);
    // The strict reader of the upstream's side has seen HTTP/1.1.
    assert_eq!(upstream.requests().len(), 1);

    let mut http = session.http();
    http.send("GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let mut answer = Vec::new();
    while !answer.ends_with(b"ok") {
        answer.extend(http.read_some());
    }
    let text = String::from_utf8(answer).expect("text");
    assert!(text.contains("\r\nConnection: keep-alive\r\n"), "{text}");
    http.send("GET /2 HTTP/1.0\r\n\r\n");
    assert!(http.read_to_end().ends_with(b"ok"));
    assert_eq!(upstream.requests().len(), 3);
}

#[test]
fn chunks_become_the_end_of_the_stream_for_http_1_0() {
    let upstream = Upstream::scripted(false, |conn| {
        while read_message(conn).is_some() {
            conn.send("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n");
            conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n");
            conn.send("2\r\nok\r\n3;x=y\r\nay!\r\n0\r\nT: t\r\n\r\n");
        }
    });
    let session = session(&upstream, &[]);
    let mut http = session.http();
    http.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let answer = String::from_utf8(http.read_to_end()).expect("text");
    assert_eq!(answer, "HTTP/1.0 200 OK\r\nConnection: close\r\n\r\nokay!");
}

#[test]
fn pipelined_requests_are_answered_one_after_the_other() {
    let (upstream, messages) = recording(false);
    let session = session(&upstream, &[]);
    let mut http: Http = session.http();
    http.send(
        "GET /1 HTTP/1.1\r\nHost: x\r\n\r\n\
         POST /2 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc\
         POST /3 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n0\r\n\r\n\
         HEAD /4 HTTP/1.1\r\nHost: x\r\n\r\n\
         GET /5 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n\
         GET /never HTTP/1.1\r\nHost: x\r\n\r\n",
    );
    for method in ["GET", "POST", "POST", "HEAD", "GET"] {
        let answer = http.read_response_to(method);
        assert!(answer.status == 200 && answer.complete, "{}", answer.text());
    }
    assert!(http.closed(), "nothing behind a request that says close");
    assert_eq!(messages.targets(), ["/1", "/2", "/3", "/4", "/5"]);
    let bodies: Vec<Vec<u8>> = messages.all().into_iter().map(|m| m.body).collect();
    assert_eq!(bodies, [&b""[..], b"abc", b"de", b"", b""]);
}
