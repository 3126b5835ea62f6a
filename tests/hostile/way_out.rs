//! The proxy on the way out: chosen as curl chooses it, told nothing but where to, and as little
//! trusted as the upstream.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::front::{dribble, front, peer_closed, read_head, relay};
use crate::support::key::base64;
use crate::support::{Session, Upstream};
use crate::wire::{assert_alive, assert_refused, recording, towards_with};

/// A proxy that keeps the heads it was sent and then does this with the connection.
fn proxy(
    serve: impl Fn(usize, TcpStream) + Send + Sync + 'static,
) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let kept = heads.clone();
    let address = front("127.0.0.1:0", move |number, mut tcp| {
        let head = read_head(&mut tcp);
        kept.lock().expect("no script fails").push(head);
        serve(number, tcp);
    });
    (address, heads)
}

/// A proxy that works.
fn tunnel(to: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    proxy(move |_, mut tcp| {
        let _ = tcp.write_all(b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n");
        relay(tcp, to);
    })
}

fn through(upstream: &Upstream, options: &[&str], variables: &[(&str, String)]) -> Session {
    towards_with(&upstream.url(), upstream.ca(), options, variables)
}

#[test]
fn a_tls_upstream_is_reached_through_the_proxy_of_the_environment() {
    for name in ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        let (upstream, _) = recording(true);
        let (address, heads) = tunnel(upstream.address());
        let session = through(&upstream, &[], &[(name, format!("http://{address}"))]);
        let mut http = session.http();
        for _ in 0..2 {
            assert_eq!(http.get("/secret/path?q").status, 200);
        }
        let heads = heads.lock().expect("no script fails").clone();
        assert_eq!(heads.len(), 1, "${name}: the connection is kept");
        let line = format!("CONNECT {} HTTP/1.1\r\n", upstream.address());
        assert!(heads[0].starts_with(&line), "{}", heads[0]);
        let lower = heads[0].to_ascii_lowercase();
        for word in ["secret", "x-api-key", "proxy-authorization"] {
            assert!(!lower.contains(word), "{word} went to the proxy");
        }
    }
}

#[test]
fn no_proxy_keeps_a_host_direct() {
    let (upstream, _) = recording(true);
    let (address, heads) = tunnel(upstream.address());
    for (name, value) in [
        ("no_proxy", "127.0.0.1"),
        ("NO_PROXY", "example.com, 127.0.0.1"),
        ("no_proxy", "*"),
    ] {
        let variables = [
            ("https_proxy", format!("http://{address}")),
            (name, value.to_owned()),
        ];
        assert_alive(&through(&upstream, &[], &variables), "/");
    }
    assert!(heads.lock().expect("no script fails").is_empty());
}

#[test]
fn a_plain_upstream_goes_by_its_own_variable() {
    let (upstream, _) = recording(false);
    let (address, heads) = tunnel(upstream.address());
    // In capitals HTTP_PROXY may come from a request to a CGI program: not obeyed.
    for name in ["https_proxy", "HTTP_PROXY"] {
        let session = through(&upstream, &[], &[(name, format!("http://{address}"))]);
        assert_alive(&session, "/");
    }
    assert!(heads.lock().expect("no script fails").is_empty());
    let session = through(
        &upstream,
        &[],
        &[("http_proxy", format!("http://{address}"))],
    );
    assert_alive(&session, "/");
    assert_eq!(heads.lock().expect("no script fails").len(), 1);
}

#[test]
fn the_proxys_credential_goes_to_the_proxy_only() {
    let (upstream, _) = recording(true);
    let (address, heads) = tunnel(upstream.address());
    let value = format!("http://user:pass%2Fword@{address}");
    let session = through(&upstream, &[], &[("https_proxy", value)]);
    assert_alive(&session, "/");
    let head = heads.lock().expect("no script fails")[0].clone();
    let sent = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("proxy-authorization")
            .then(|| value.trim().to_owned())
    });
    // Whether the password is decoded first is the library's own affair: curl decodes it.
    let decoded = format!("Basic {}", base64(b"user:pass/word"));
    assert_eq!(sent, Some(decoded));
    for request in upstream.requests() {
        assert!(request.header("proxy-authorization").is_none());
    }
}

/// A proxy that refuses is an error of ours that says so, and says no password.
fn refused(error: &str, options: &[&str], serve: impl Fn(&mut TcpStream) + Send + Sync + 'static) {
    let (upstream, _) = recording(true);
    let to = upstream.address();
    let (address, _) = proxy(move |number, mut tcp| {
        if number == 0 {
            serve(&mut tcp);
        } else {
            let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            relay(tcp, to);
        }
    });
    let value = format!("http://user:hunter2@{address}");
    let session = through(&upstream, options, &[("https_proxy", value)]);
    let mut http = session.http();
    http.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let answer = http.read_response();
    crate::wire::assert_own(&answer, 502, error, "a proxy that refuses");
    for said in [answer.text(), session.stderr()] {
        assert!(!said.contains("hunter2"), "{said}");
        assert!(!said.contains(&base64(b"user:hunter2")), "{said}");
    }
    assert!(http.closed());
    assert!(upstream.requests().is_empty());
    assert_alive(&session, "/good");
}

#[test]
fn a_proxy_that_opens_no_tunnel_is_502() {
    for answer in [
        &b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n"[..],
        b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 403 Forbidden\r\n\r\n",
        b"HTTP/1.1 502 Bad Gateway\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\n\r\n",
        b"SSH-2.0-x\r\n\r\n",
        b"",
    ] {
        refused("destination_unavailable", &[], move |tcp| {
            let _ = tcp.write_all(answer);
        });
    }
}

#[test]
fn a_proxy_that_sends_an_endless_head_is_502() {
    refused("destination_unavailable", &[], |tcp| {
        let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\n");
        while tcp.write_all(b"X-More: of the same\r\n").is_ok() {}
    });
}

#[test]
fn a_proxy_that_stalls_or_dribbles_ends_with_the_connect_timeout() {
    let options = ["--connect-timeout", "400ms"];
    refused("connection_timeout", &options, |tcp| {
        assert!(peer_closed(tcp));
    });
    refused("connection_timeout", &options, |tcp| {
        let head = [&b"HTTP/1.1 200 OK\r\nA: "[..], &[b'x'; 3000]].concat();
        assert!(!dribble(tcp, &head, Duration::from_millis(10)));
    });
}

#[test]
fn a_proxy_that_speaks_for_the_upstream_is_not_believed() {
    // An answer of its own behind the tunnel's head, where only a handshake may be.
    for extra in [
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        "x",
        "\r\n",
    ] {
        refused("tls_protocol_error", &[], move |tcp| {
            let _ = tcp.write_all(format!("HTTP/1.1 200 OK\r\n\r\n{extra}").as_bytes());
            let _ = tcp.shutdown(std::net::Shutdown::Write);
            assert!(peer_closed(tcp));
        });
    }
}

#[test]
fn a_proxy_that_dribbles_but_arrives_works() {
    let (upstream, _) = recording(true);
    let to = upstream.address();
    let (address, _) = proxy(move |_, mut tcp| {
        assert!(dribble(
            &mut tcp,
            b"HTTP/1.1 200 OK\r\nA: b\r\n\r",
            Duration::from_millis(5)
        ));
        let _ = tcp.write_all(b"\n");
        relay(tcp, to);
    });
    let session = through(
        &upstream,
        &[],
        &[("https_proxy", format!("http://{address}"))],
    );
    assert_alive(&session, "/");
}

#[test]
fn a_disconnect_cancels_the_call_to_the_proxy() {
    let (tell, told) = mpsc::channel();
    let (address, _) = proxy(move |_, mut tcp| {
        let _ = tell.send(());
        assert!(peer_closed(&mut tcp));
        let _ = tell.send(());
    });
    let (upstream, _) = recording(true);
    let session = through(
        &upstream,
        &[],
        &[("https_proxy", format!("http://{address}"))],
    );
    let mut http = session.http();
    http.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let deadline = crate::support::DEADLINE;
    told.recv_timeout(deadline).expect("the proxy was asked");
    drop(http);
    told.recv_timeout(deadline).expect("and then left");
}

#[test]
fn a_proxy_that_is_not_there_is_502() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let (upstream, _) = recording(true);
    let session = through(
        &upstream,
        &[],
        &[("https_proxy", format!("http://{address}"))],
    );
    let mut http = session.http();
    http.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    // Going direct instead would be a way out that the user has closed.
    assert_refused(&mut http, 502, "connection_refused", "no proxy");
    assert_eq!(upstream.connections(), 0);
}
