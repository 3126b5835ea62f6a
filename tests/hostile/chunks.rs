//! Chunked request bodies: decoded strictly, framed anew, and never complete upstream when they were
//! not complete here.

use crate::wire::{assert_alive, assert_refused, recording, send_in_steps, session};

/// A request with this chunked body, and behind it one that must never be executed.
fn request(body: &[u8]) -> Vec<u8> {
    let head = b"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let smuggled = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    [&head[..], body, smuggled].concat()
}

fn refuse_bodies(bodies: &[&[u8]]) {
    let (upstream, messages) = recording(false);
    let session = session(&upstream, &[]);
    for body in bodies {
        for step in [usize::MAX, 1] {
            let what = format!("{:?} in steps of {step}", body.escape_ascii().to_string());
            let mut http = session.http();
            send_in_steps(&mut http, &request(body), step);
            assert_refused(&mut http, 400, "http_request_error", &what);
        }
    }
    assert_alive(&session, "/after");
    drop(session);
    upstream.wait_idle();
    // Heads and good chunks may have gone up, but never the end of such a body.
    assert_eq!(messages.targets(), ["/after"]);
}

#[test]
fn malformed_chunk_sizes_are_refused() {
    refuse_bodies(&[
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n",
        b"5 \r\nhello\r\n0\r\n\r\n",
        b"\t5\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"x5\r\nhello\r\n0\r\n\r\n",
        b"5h\r\nhello\r\n0\r\n\r\n",
        b"5_0\r\nhello\r\n0\r\n\r\n",
        b"g\r\nhello\r\n0\r\n\r\n",
        b"\xef\xbc\x95\r\nhello\r\n0\r\n\r\n",
        b"\r\n5\r\nhello\r\n0\r\n\r\n",
        b"\r\n\r\n",
        b"\0\r\n",
        b"8000000000000000\r\nhello\r\n0\r\n\r\n",
        b"ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        b"10000000000000005\r\nhello\r\n0\r\n\r\n",
        b"00000000000000005\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n+0\r\n\r\n",
        b"5\r\nhello\r\n-0\r\n\r\n",
        b"5\r\nhello\r\n \r\n\r\n",
    ]);
}

#[test]
fn malformed_chunk_ends_are_refused() {
    refuse_bodies(&[
        b"5\nhello\n0\n\n",
        b"5\nhello\r\n0\r\n\r\n",
        b"5\rhello\r\n0\r\n\r\n",
        b"5\r\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhello\r0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhello!\r\n0\r\n\r\n",
        b"5\r\nhell\r\n0\r\n\r\n",
        b"5\r\nhello\r\n\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0\n\r\n",
        b"5\r\nhello\r\n0\r\n\n",
        b"5\r\nhello\r\n0\r\n\r\r\n",
    ]);
}

#[test]
fn malformed_chunk_extensions_are_refused() {
    refuse_bodies(&[
        b"5;\r\nhello\r\n0\r\n\r\n",
        b"5 ;a\r\nhello\r\n0\r\n\r\n",
        b"5; a\r\nhello\r\n0\r\n\r\n",
        b"5;a \r\nhello\r\n0\r\n\r\n",
        b"5;a=\r\nhello\r\n0\r\n\r\n",
        b"5;=b\r\nhello\r\n0\r\n\r\n",
        b"5;a =b\r\nhello\r\n0\r\n\r\n",
        b"5;a= b\r\nhello\r\n0\r\n\r\n",
        b"5;a=\"b\r\nhello\r\n0\r\n\r\n",
        b"5;a=\"b\"c\r\nhello\r\n0\r\n\r\n",
        b"5;a=\"\r\n\"\r\nhello\r\n0\r\n\r\n",
        b"5;a\nb\r\nhello\r\n0\r\n\r\n",
        b"5;\na\r\nhello\r\n0\r\n\r\n",
        b"5;a\rb\r\nhello\r\n0\r\n\r\n",
        b"5;a\0\r\nhello\r\n0\r\n\r\n",
        b"5;a\x01\r\nhello\r\n0\r\n\r\n",
        b"5,a\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0;\r\n\r\n",
    ]);
}

#[test]
fn malformed_trailers_are_refused() {
    refuse_bodies(&[
        b"5\r\nhello\r\n0\r\nA : b\r\n\r\n",
        b"5\r\nhello\r\n0\r\nA\r\n\r\n",
        b"5\r\nhello\r\n0\r\n: b\r\n\r\n",
        b"5\r\nhello\r\n0\r\nA: b\n\r\n",
        b"5\r\nhello\r\n0\r\nA: b\r\n\n",
        b"5\r\nhello\r\n0\r\nA: b\rc\r\n\r\n",
        b"5\r\nhello\r\n0\r\n A: b\r\n\r\n",
        b"5\r\nhello\r\n0\r\nA: b\r\n c\r\n\r\n",
        b"5\r\nhello\r\n0\r\nA: \0\r\n\r\n",
        b"5\r\nhello\r\n0\r\nA: \x01\r\n\r\n",
        b"5\r\nhello\r\n0\r\nA\x7f: b\r\n\r\n",
        b"5\r\nhello\r\n0\r\nA(: b\r\n\r\n",
        b"5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n",
        b"5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"5\r\nhello\r\n0\r\nConnection: close\r\n\r\n",
        b"5\r\nhello\r\n0\r\nUpgrade: h2c\r\n\r\n",
        b"5\r\nhello\r\n0\r\nKeep-Alive: x\r\n\r\n",
    ]);
}

#[test]
fn chunks_are_framed_anew_and_extensions_end_here() {
    let (upstream, messages) = recording(false);
    let session = session(&upstream, &[]);
    for step in [usize::MAX, 1, 3] {
        let mut http = session.http();
        let good = b"5;a;b=c;d=\"e;\\\"f\"\r\nhello\r\n00006\r\n world\r\nA\r\n0123456789\r\n\
                     1;x\r\n\n\r\n000;last\r\n\r\n";
        send_in_steps(&mut http, &request(good), step);
        assert_eq!(http.read_response().status, 200);
        assert_eq!(http.read_response().status, 200, "the request behind it");
        let all = messages.take();
        assert_eq!(all[0].body, b"hello world0123456789\n");
        assert_eq!(all[1].target, "/smuggled");
    }
}

#[test]
fn trailers_go_up_without_those_that_frame_route_or_authenticate() {
    let (upstream, messages) = recording(false);
    let session = session(&upstream, &[]);
    let mut http = session.http();
    http.send(request(
        b"2\r\nhi\r\n0\r\nX-Checksum: 42\r\n\
          Host: evil\r\nAuthorization: x\r\nX-Api-Key: mine\r\nX_api-key: mine\r\nCookie: a=b\r\n\
          TE: x\r\nTrailer: y\r\nContent-Type: z\r\nContent-Encoding: gzip\r\n\
          Content-Range: bytes 0-1/2\r\nExpect: 100-continue\r\nRange: bytes=0-\r\n\
          If-Match: *\r\nIf-None-Match: *\r\nIf-Range: x\r\nIf-Modified-Since: x\r\n\
          If-Unmodified-Since: x\r\nMax-Forwards: 0\r\nCache-Control: no-cache\r\n\
          x-last:  yes \r\n\r\n",
    ));
    assert_eq!(http.read_response().status, 200);
    assert_eq!(
        messages.all()[0].trailers,
        "X-Checksum: 42\r\nx-last: yes\r\n"
    );
}

#[test]
fn a_body_that_ends_early_is_never_complete_upstream() {
    let (upstream, messages) = recording(false);
    let session = session(&upstream, &[]);
    let chunked = "POST /cut HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let sized = "POST /cut HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n";
    for cut in [
        sized.to_owned(),
        format!("{sized}123456789"),
        chunked.to_owned(),
        format!("{chunked}5"),
        format!("{chunked}5\r\nhel"),
        format!("{chunked}5\r\nhello"),
        format!("{chunked}5\r\nhello\r\n"),
        format!("{chunked}5\r\nhello\r\n0"),
        format!("{chunked}5\r\nhello\r\n0\r\n"),
        format!("{chunked}5\r\nhello\r\n0\r\n\r"),
        format!("{chunked}5\r\nhello\r\n0\r\nA: b\r\n"),
    ] {
        // Half-closed, the command still reads why; closed, nobody is left to tell.
        let mut http = session.http();
        http.send(&cut);
        http.finish_sending();
        assert_refused(&mut http, 400, "http_request_error", &cut);
        let mut http = session.http();
        http.send(&cut);
        drop(http);
    }
    let mut http = session.http();
    http.send("GET /cut HTTP/1.1\r\nHost: x\r\nA: b\r\n");
    http.finish_sending();
    assert_refused(&mut http, 400, "http_request_error", "half a head");
    assert_alive(&session, "/after");
    drop(session);
    upstream.wait_idle();
    assert_eq!(messages.targets(), ["/after"]);
}
