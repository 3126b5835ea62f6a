//! An upstream that repeats the credential in every place and cut at every point: the command gets
//! stars of the same length, and everything else as it was.

mod support;

use support::key::{base64, hex};
use support::{Conn, Http, Key, Place, Response, Session, TempDir, Upstream};

donor!();

const PLACE: Place = Place::Header("X-Api-Key");

/// An upstream that answers each request by this script, which is given the key, and a session.
fn session(
    tls: bool,
    options: &[&str],
    answer: impl Fn(&mut Conn, &str, &str) + Send + Sync + 'static,
) -> (Upstream, Session, Key) {
    let key = Key::random();
    let secret = key.clone();
    let upstream = Upstream::scripted(tls, move |conn| {
        while let Some(head) = conn.read_head() {
            assert_eq!(head.header("x-api-key"), Some(secret.as_str()));
            answer(conn, secret.as_str(), &head.target);
        }
    });
    let session = Session::to(&upstream, &key, &PLACE, options);
    (upstream, session, key)
}

fn stars(text: &str) -> String {
    "*".repeat(text.len())
}

/// The key in forms that `Key::forms` does not know, each whole.
fn more_forms(key: &str) -> Vec<String> {
    let every = |spell: fn(u8) -> String| key.bytes().map(spell).collect::<String>();
    vec![
        every(|b| format!("%{b:02x}")),
        every(|b| format!("\\u{b:04X}")),
        every(|b| format!("&#{b};")),
        every(|b| format!("={b:02X}")),
        key.replace('/', "\\/"),
        key.replace('/', "&#x2F;").replace('=', "%3D"),
    ]
}

fn with_length(conn: &mut Conn, fields: &str, body: &str) {
    conn.send(format!(
        "HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n{body}",
        body.len()
    ));
}

fn assert_clean(key: &Key, response: &Response) {
    key.assert_absent(&response.raw, "a response");
    for form in more_forms(key.as_str()) {
        assert!(!support::key::contains(&response.raw, form.as_bytes()));
    }
}

#[test]
fn every_part_of_a_head_is_masked() {
    for tls in [false, true] {
        let (_upstream, session, key) = session(tls, &[], |conn, key, _| {
            let encoded = base64(format!("user:{key}").as_bytes());
            conn.send(format!(
                "HTTP/1.1 103 Early {key}\r\nLink: </{key}>\r\n\r\n\
                 HTTP/1.1 302 Found {key}!\r\nLocation: https://h/?k={}&x=1\r\n\
                 Set-Cookie: a={key}; Path=/\r\nSet-Cookie: b=2\r\nX-{}: name\r\n\
                 X-Basic: Basic {encoded}\r\nX-Last: {key}\r\nContent-Length: 0\r\n\r\n",
                key.replace('/', "%2f").replace('+', "%2B"),
                hex(key.as_bytes()),
            ));
        });
        let masked = stars(key.as_str());
        let mut http = session.http();
        http.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        let early = http.read_head();
        assert_eq!(early.status, 103);
        assert_eq!(early.reason, format!("Early {masked}"));
        assert_eq!(early.header("link"), Some(format!("</{masked}>").as_str()));
        let found = http.read_response();
        assert_clean(&key, &found);
        assert_eq!(found.reason, format!("Found {masked}!"));
        let location = format!("https://h/?k={masked}****&x=1");
        assert_eq!(found.header("location"), Some(location.as_str()));
        let cookies = found.all("set-cookie");
        assert_eq!(cookies, [format!("a={masked}; Path=/").as_str(), "b=2"]);
        assert_eq!(found.header(&format!("x-{masked}{masked}")), Some("name"));
        assert_eq!(found.header("x-last"), Some(masked.as_str()));
        let basic = found.header("x-basic").expect("the field is there");
        assert!(basic.starts_with("Basic dXNlc") && basic.contains("***"));
        assert_eq!(found.header("content-length"), Some("0"));
        // The stream goes on.
        assert_eq!(http.get("/").status, 302);
    }
}

/// How a scripted upstream sends a body.
fn send_body(conn: &mut Conn, how: &str, body: &[u8]) {
    let mut pieces = |size: usize, chunked: bool| {
        for piece in body.chunks(size) {
            if chunked {
                conn.send([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
            } else {
                conn.send(piece);
            }
        }
    };
    match how {
        "/length" => pieces(usize::MAX, false),
        "/length-bytes" => pieces(1, false),
        "/chunked" => pieces(usize::MAX, true),
        "/chunked-bytes" => pieces(1, true),
        _ => pieces(7, false),
    }
}

#[test]
fn bodies_are_masked_in_every_framing_and_however_they_are_cut() {
    // Over TLS, what is sent by itself is a record of its own.
    for tls in [false, true] {
        let (_upstream, session, key) = session(tls, &[], |conn, key, target| {
            let mut body = b"\0\xff before ".to_vec();
            let forms = support_forms(key);
            for form in &forms {
                body.extend_from_slice(form);
                body.extend_from_slice(b"| \x80 |");
            }
            let framing = match target {
                "/length" | "/length-bytes" => format!("Content-Length: {}\r\n", body.len()),
                "/close" => String::new(),
                _ => "Transfer-Encoding: chunked\r\n".to_string(),
            };
            conn.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n"));
            send_body(conn, target, &body);
            match target {
                "/close" => conn.close_cleanly(),
                "/chunked" | "/chunked-bytes" => {
                    conn.send(format!("0\r\nX-Trailer: a {key} b\r\n\r\n"));
                }
                _ => {}
            }
        });
        let mut expected = b"\0\xff before ".to_vec();
        for form in support_forms(key.as_str()) {
            expected.extend(vec![b'*'; form.len()]);
            expected.extend_from_slice(b"| \x80 |");
        }
        for target in [
            "/length",
            "/length-bytes",
            "/chunked",
            "/chunked-bytes",
            "/close",
        ] {
            let response = session.http().get(target);
            assert!(response.complete, "{target}");
            assert_clean(&key, &response);
            assert!(response.body == expected, "{target}, TLS {tls}");
            if target.starts_with("/chunked") {
                let trailer = format!("a {} b", stars(key.as_str()));
                let raw = String::from_utf8_lossy(&response.raw).into_owned();
                assert!(
                    raw.contains(&format!("X-Trailer: {trailer}\r\n")),
                    "{target}"
                );
            }
        }
    }
}

/// Whole forms whose every byte is to be masked.
fn support_forms(key: &str) -> Vec<Vec<u8>> {
    let mut forms: Vec<Vec<u8>> = vec![
        key.into(),
        hex(key.as_bytes()).into_bytes(),
        hex(key.as_bytes()).to_uppercase().into_bytes(),
        base64(key.as_bytes()).trim_end_matches('=').into(),
    ];
    forms.extend(more_forms(key).into_iter().map(String::into_bytes));
    forms
}

#[test]
fn a_large_body_is_masked_and_otherwise_unchanged() {
    const SIZE: usize = 8 * 1024 * 1024;
    let (_upstream, session, key) = session(false, &[], |conn, key, target| {
        let mut body = support::api::pattern(SIZE);
        for at in (0..SIZE - 100).step_by(99_991) {
            body[at..at + key.len()].copy_from_slice(key.as_bytes());
        }
        if target == "/length" {
            conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n"));
            conn.send(&body);
        } else {
            conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            for piece in body.chunks(50_021) {
                conn.send([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
            }
            conn.send("0\r\n\r\n");
        }
    });
    let mut expected = support::api::pattern(SIZE);
    for at in (0..SIZE - 100).step_by(99_991) {
        expected[at..at + key.as_str().len()].fill(b'*');
    }
    for target in ["/length", "/chunked"] {
        let response = session.http().get(target);
        assert!(response.complete && response.body == expected, "{target}");
    }
}

#[test]
fn an_event_is_not_delayed() {
    let (upstream, session, key) = session(true, &[], |conn, key, _| {
        conn.send(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
             Transfer-Encoding: chunked\r\n\r\n",
        );
        let events = [
            "data: hello\n\n",
            "data: KEY\n\n",
            ": k/\n\n",
            "data: {\"a\":\"k\"}\r\n\r\n",
        ];
        for event in events {
            let event = event.replace("KEY", key);
            conn.send(format!("{:x}\r\n{event}\r\n", event.len()));
            // The next comes when the command has this one.
            if conn.wait_gate().is_none() {
                return;
            }
        }
        conn.send("0\r\n\r\n");
    });
    let mut http = session.http();
    http.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(http.read_head().status, 200);
    let masked = format!("data: {}\n\n", stars(key.as_str()));
    for event in [
        "data: hello\n\n",
        &masked,
        ": k/\n\n",
        "data: {\"a\":\"k\"}\r\n\r\n",
    ] {
        assert_eq!(http.read_chunk().as_deref(), Some(event.as_bytes()));
        upstream.open_gate("next");
    }
    assert_eq!(http.read_chunk().as_deref(), Some(&b""[..]));
}

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                        Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..126 => frame.push(len as u8),
        len => {
            frame.push(126);
            frame.extend((len as u16).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

/// The payload of the next message, however it is cut, and the payloads of pings within it.
fn read_message(http: &mut Http, ahead: &mut Vec<u8>) -> (Vec<u8>, Vec<Vec<u8>>) {
    let (mut message, mut pings) = (Vec::new(), Vec::new());
    loop {
        let mut need = |n: usize| {
            while ahead.len() < n {
                let more = http.read_some();
                assert!(!more.is_empty(), "the stream ended");
                ahead.extend(more);
            }
        };
        need(2);
        let (first, len) = (ahead[0], usize::from(ahead[1]));
        let ahead = &mut *ahead;
        let (len, size) = if len == 126 {
            while ahead.len() < 4 {
                ahead.extend(http.read_some());
            }
            (usize::from(u16::from_be_bytes([ahead[2], ahead[3]])), 4)
        } else {
            (len, 2)
        };
        while ahead.len() < size + len {
            ahead.extend(http.read_some());
        }
        let payload: Vec<u8> = ahead.drain(..size + len).skip(size).collect();
        match first & 15 {
            9 => pings.push(payload),
            _ => {
                message.extend(payload);
                if first & 0x80 != 0 {
                    return (message, pings);
                }
            }
        }
    }
}

#[test]
fn websocket_messages_are_masked_however_they_are_framed_and_none_waits() {
    for tls in [false, true] {
        let (upstream, session, key) = session(tls, &[], |conn, key, _| {
            conn.send(format!("{SWITCHED}X-Echo: {key}\r\n\r\n"));
            let (a, b) = key.as_bytes().split_at(9);
            let long = format!("{}{key}{}", "x".repeat(300), "y".repeat(300));
            let messages: [Vec<u8>; 6] = [
                frame(0x81, key.as_bytes()),
                // Ends like the beginning of the key.
                frame(0x81, b"hello k"),
                [frame(1, a), frame(0x89, b"ping k"), frame(0x80, b)].concat(),
                frame(0x82, long.as_bytes()),
                frame(0x82, b""),
                [frame(2, b"k"), frame(0, b""), frame(0x80, b"")].concat(),
            ];
            for (i, message) in messages.iter().enumerate() {
                if i == 2 {
                    message.iter().for_each(|byte| {
                        conn.send([*byte]);
                    });
                } else {
                    conn.send(message);
                }
                if conn.wait_gate().is_none() {
                    return;
                }
            }
            conn.close_cleanly();
        });
        let mut http = session.http();
        http.send(UPGRADE);
        let head = http.read_head();
        let masked = stars(key.as_str());
        assert_eq!(
            (head.status, head.header("x-echo")),
            (101, Some(masked.as_str()))
        );
        assert!(
            upstream.requests()[0]
                .all("sec-websocket-extensions")
                .is_empty()
        );
        let mut ahead = Vec::new();
        let long = format!("{}{masked}{}", "x".repeat(300), "y".repeat(300));
        for (i, expected) in [&masked, "hello k", &masked, &long, "", "k"]
            .iter()
            .enumerate()
        {
            let (message, pings) = read_message(&mut http, &mut ahead);
            assert_eq!(String::from_utf8_lossy(&message), **expected, "message {i}");
            let expected: &[&[u8]] = if i == 2 { &[b"ping k"] } else { &[] };
            assert_eq!(pings, expected);
            upstream.open_gate("next");
        }
        assert!(http.read_to_end().is_empty() && ahead.is_empty());
    }
}

#[test]
fn an_upgraded_stream_that_has_no_frames_is_searched_as_bytes() {
    let (_upstream, session, key) = session(false, &[], |conn, key, _| {
        conn.send(format!("{SWITCHED}\r\n"));
        for byte in format!("not a frame {key} at all k").bytes() {
            conn.send([byte]);
        }
        conn.close_cleanly();
    });
    let mut http = session.http();
    http.send(UPGRADE);
    assert_eq!(http.read_head().status, 101);
    let expected = format!("not a frame {} at all k", stars(key.as_str()));
    assert_eq!(http.read_to_end(), expected.as_bytes());
}

fn assert_refused(response: &Response, key: &Key, why: &str) {
    assert_eq!(response.status, 502);
    let status = response.header("proxy-status").unwrap_or_default();
    assert!(status.starts_with("broker-exec; error="), "{status}");
    assert!(response.text().contains(why), "{}", response.text());
    key.assert_absent(&response.raw, "an answer of our own");
}

#[test]
fn what_is_compressed_is_asked_for_plain_and_refused_otherwise() {
    let (upstream, session, key) = session(false, &[], |conn, _, target| match target {
        "/head" => {
            let gzip = "Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\n";
            conn.send(format!("HTTP/1.1 200 OK\r\n{gzip}"));
        }
        "/304" => {
            conn.send("HTTP/1.1 304 Not Modified\r\nContent-Encoding: gzip\r\n\r\n");
        }
        "/identity" => with_length(conn, "Content-Encoding: identity\r\n", "plain"),
        "/second" => with_length(conn, "Content-Encoding: identity, br\r\n", "coded"),
        _ => with_length(conn, "Content-Encoding: gzip\r\n", "coded"),
    });
    let ask = |method: &str, target: &str| {
        let mut http = session.http();
        http.send(format!(
            "{method} {target} HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip, br\r\n\r\n"
        ));
        http.read_response_to(method)
    };
    for target in ["/gzip", "/second"] {
        assert_refused(&ask("GET", target), &key, "Content-Encoding");
    }
    assert_eq!(ask("GET", "/identity").body, b"plain");
    assert_eq!(ask("GET", "/304").status, 304);
    let head = ask("HEAD", "/head");
    assert_eq!(
        (head.status, head.header("content-length")),
        (200, Some("5"))
    );
    for request in upstream.requests() {
        assert_eq!(request.all("accept-encoding"), ["identity"]);
    }
}

#[test]
fn a_compressed_websocket_is_refused() {
    let (_upstream, session, key) = session(false, &[], |conn, _, _| {
        conn.send(format!(
            "{SWITCHED}Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
        ));
    });
    let mut http = session.http();
    http.send(UPGRADE);
    assert_refused(&http.read_response(), &key, "WebSocket extension");
}

#[test]
fn a_head_alone_is_masked_too() {
    let (_upstream, session, key) = session(false, &[], |conn, key, _| {
        conn.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Echo: {key}\r\n\r\n"
        ));
    });
    let mut http = session.http();
    http.send("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n");
    let head = http.read_response_to("HEAD");
    assert_eq!(head.header("content-length"), Some("5"));
    assert_eq!(head.header("x-echo"), Some(stars(key.as_str()).as_str()));
}

#[test]
fn with_fail_the_response_is_refused_or_ends_early() {
    let (_upstream, session, key) =
        session(false, &["--scrub=fail"], |conn, key, target| match target {
            "/head" => with_length(conn, &format!("X-Echo: {key}\r\n"), "x"),
            "/body" => with_length(conn, "", &format!("it is {key}")),
            "/later" => {
                conn.send("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nbegin");
                if conn.wait_gate().is_some() {
                    conn.send(format!("{key}{}", " ".repeat(90_000)));
                }
            }
            _ => with_length(conn, "", "clean"),
        });
    for target in ["/head", "/body"] {
        assert_refused(&session.http().get(target), &key, "--scrub=fail");
    }
    let mut http = session.http();
    http.send("GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(http.read_head().status, 200);
    let mut body = http.read_some();
    _upstream.open_gate("go");
    body.extend(http.read_to_end());
    assert!(b"begin".starts_with(&body[..]) || body == b"begin");
    assert_eq!(session.http().get("/").body, b"clean");
}

#[test]
fn with_off_nothing_is_touched() {
    let (upstream, session, key) = session(false, &["--scrub=off"], |conn, key, _| {
        with_length(conn, "Content-Encoding: x-none\r\n", key);
    });
    let mut http = session.http();
    http.send("GET / HTTP/1.1\r\nHost: x\r\nAccept-Encoding: br\r\n\r\n");
    assert_eq!(http.read_response().body, key.as_str().as_bytes());
    assert_eq!(upstream.requests()[0].all("accept-encoding"), ["br"]);
}

#[test]
fn a_body_that_is_cut_off_shows_what_came_and_nothing_of_the_key() {
    for framing in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
        let (_upstream, session, key) = session(false, &[], move |conn, key, _| {
            let body = format!("some {}", &key[..20]);
            let body = if framing.starts_with('C') {
                body
            } else {
                format!("{:x}\r\n{body}", 100)
            };
            conn.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{body}"));
            conn.close_cleanly();
        });
        let response = session.http().get("/");
        assert!(!response.complete);
        assert_eq!(response.body, format!("some {}", "*".repeat(20)).as_bytes());
        key.assert_absent(&response.raw, "a response");
    }
}

#[test]
fn a_short_key_is_refused_before_the_command_starts() {
    let dir = TempDir::new();
    let path = dir.write("key", "1234567\n");
    let run = |options: &[&str]| {
        let output = std::process::Command::new(support::session::binary())
            .args(["-u", "http://127.0.0.1:1", "-k"])
            .arg(format!("file:{}", path.display()))
            .args(options)
            .args(["--", "echo", "started"])
            .output()
            .expect("run the broker");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (status, out, err) = run(&[]);
    assert_eq!((status, out.as_str()), (Some(125), ""));
    assert!(
        err.contains("--scrub=off") && !err.contains("1234567"),
        "{err}"
    );
    let (status, out, _) = run(&["--scrub=off"]);
    assert_eq!((status, out.as_str()), (Some(0), "started\n"));
}

#[test]
fn a_key_that_changes_is_looked_for_as_it_is_now() {
    let keys = [Key::random(), Key::random()];
    let both: Vec<String> = keys.iter().map(|k| k.as_str().to_owned()).collect();
    let upstream = Upstream::scripted(false, move |conn| {
        while conn.read_head().is_some() {
            with_length(conn, "", &both.join("|"));
        }
    });
    let dir = TempDir::new();
    let source = keys[0].file_source(&dir);
    let session = Session::start(["-u", &upstream.url(), "-k", &source]);
    let [a, b] = [keys[0].as_str(), keys[1].as_str()];
    assert_eq!(session.http().get("/").text(), format!("{}|{b}", stars(a)));
    keys[1].file_source(&dir);
    assert_eq!(session.http().get("/").text(), format!("{a}|{}", stars(b)));
}
