//! Commands that leave, stall and break off: each costs one bounded thread while it lasts, ends the
//! upstream call it started, and leaves nothing behind.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::Mutex;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::front::{front, paced, peer_closed, read_head};
use crate::support::{Conn, DEADLINE, Http, Session, Upstream, skipped};
use crate::wire::{assert_alive, read_message, recording, session, towards};

/// How soon the upstream must see that nobody waits any more.
const SOON: Duration = Duration::from_secs(1);

/// A connection is served by `until`, which returns once the command may leave; then the peer must
/// close. Gives what to send, and hears both moments.
fn cancelled(
    tls: bool,
    request: &[u8],
    until: impl Fn(&mut Conn) + Send + Sync + 'static,
    leave: impl Fn(std::os::unix::net::UnixStream),
) {
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(tell);
    let upstream = Upstream::scripted(tls, move |conn| {
        let Some(head) = conn.read_head() else { return };
        if head.target == "/good" {
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            return;
        }
        until(conn);
        let tell = tell.lock().expect("no script fails").clone();
        let _ = tell.send(Instant::now());
        assert!(conn.peer_closed(), "the broker gives the call up");
        let _ = tell.send(Instant::now());
    });
    let session = session(&upstream, &[]);
    let mut stream = session.dial();
    stream.write_all(request).expect("send the request");
    told.recv_timeout(DEADLINE).expect("the call has begun");
    let left = Instant::now();
    leave(stream);
    let seen = told.recv_timeout(DEADLINE).expect("the call has ended");
    let took = seen.saturating_duration_since(left);
    assert!(took < SOON, "the upstream saw it after {took:?}, TLS {tls}");
    assert_alive(&session, "/good");
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

#[test]
fn a_disconnect_cancels_the_call_while_its_head_is_awaited() {
    for tls in [false, true] {
        cancelled(tls, GET, |_| {}, drop);
        let both = |stream: std::os::unix::net::UnixStream| {
            stream.shutdown(Shutdown::Both).expect("shut both ways");
            // The descriptor itself may live on, in a child of the command for one.
            std::mem::forget(stream);
        };
        cancelled(tls, GET, |_| {}, both);
    }
}

#[test]
fn a_disconnect_cancels_the_call_in_the_middle_of_a_head() {
    let until = |conn: &mut Conn| {
        conn.send("HTTP/1.1 200 OK\r\nContent-");
    };
    for tls in [false, true] {
        cancelled(tls, GET, until, drop);
    }
}

#[test]
fn a_disconnect_cancels_the_call_while_the_upstream_dribbles() {
    // A byte is always on its way, so that the broker never has to wait for one.
    for (begin, byte) in [
        ("HTTP/1.1 200 OK\r\nA: ", "x"),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;",
            "x",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: ",
            "x",
        ),
        ("", "HTTP/1.1 103 Early Hints\r\n\r\n"),
    ] {
        let (tell, told) = mpsc::channel();
        let address = front("127.0.0.1:0", move |_, mut tcp| {
            read_head(&mut tcp);
            let _ = tcp.write_all(begin.as_bytes());
            let _ = tell.send(Instant::now());
            let pace = Duration::from_millis(if byte == "x" { 5 } else { 40 });
            while tcp.write_all(byte.as_bytes()).is_ok() && paced(&mut tcp, pace) {}
            let _ = tell.send(Instant::now());
        });
        let session = towards(&format!("http://{address}"), None, &[]);
        let mut stream = session.dial();
        stream.write_all(GET).expect("send the request");
        told.recv_timeout(DEADLINE).expect("the answer has begun");
        let left = Instant::now();
        drop(stream);
        let seen = told.recv_timeout(DEADLINE).expect("it was given up");
        assert!(seen.saturating_duration_since(left) < SOON, "{begin:?}");
    }
}

#[test]
fn a_disconnect_cancels_the_call_in_the_middle_of_a_body() {
    for tls in [false, true] {
        for head in ["Content-Length: 100", "Transfer-Encoding: chunked", "A: b"] {
            let until = move |conn: &mut Conn| {
                conn.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n"));
            };
            cancelled(tls, GET, until, |mut stream| {
                let read = stream.read(&mut [0; 1]).expect("the head has come");
                assert_eq!(read, 1);
            });
        }
    }
}

#[test]
fn a_disconnect_cancels_the_call_in_the_middle_of_an_upload() {
    let sized = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc";
    let chunked = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    let expecting =
        b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n";
    for tls in [false, true] {
        for request in [&sized[..], chunked, expecting] {
            cancelled(tls, request, |_| {}, drop);
        }
    }
}

#[test]
fn a_disconnect_cancels_an_upload_that_the_upstream_does_not_take() {
    let until = |conn: &mut Conn| {
        conn.wait_gate();
    };
    let upstream = Upstream::scripted(false, move |conn| {
        conn.read_head();
        until(conn);
        assert!(conn.peer_closed());
    });
    let session = session(&upstream, &[]);
    let mut stream = session.dial();
    let head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("send the head");
    let patience = Some(Duration::from_millis(300));
    stream.set_write_timeout(patience).expect("set a timeout");
    // Until every buffer on the way is full.
    while stream.write_all(&[0; 64 * 1024]).is_ok() {}
    drop(stream);
    upstream.open_gate("go");
    upstream.wait_idle();
}

#[test]
fn a_disconnect_cancels_a_handshake() {
    let (tell, told) = mpsc::channel();
    let address = front("127.0.0.1:0", move |_, mut tcp| {
        let hello = tcp.read(&mut [0; 64]).expect("the start of a handshake");
        assert!(hello > 0);
        let _ = tell.send(Instant::now());
        assert!(peer_closed(&mut tcp));
        let _ = tell.send(Instant::now());
    });
    let session = towards(&format!("https://{address}"), None, &[]);
    let mut stream = session.dial();
    stream.write_all(GET).expect("send the request");
    told.recv_timeout(DEADLINE).expect("a handshake has begun");
    let left = Instant::now();
    drop(stream);
    let seen = told.recv_timeout(DEADLINE).expect("it was given up");
    assert!(seen.saturating_duration_since(left) < SOON);
}

/// An upstream that sends a body without end, and how much of it was taken before it stood still.
fn endless() -> (Upstream, mpsc::Receiver<usize>) {
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(tell);
    let upstream = Upstream::scripted(false, move |conn| {
        let Some(head) = conn.read_head() else { return };
        if head.target == "/good" {
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            return;
        }
        let patience = Some(Duration::from_millis(300));
        let tcp = conn.tcp().expect("a socket");
        tcp.set_write_timeout(patience).expect("set a timeout");
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n");
        let mut taken = 0;
        while conn.send([b'x'; 64 * 1024]) {
            taken += 64 * 1024;
        }
        let _ = tell.lock().expect("no script fails").send(taken);
        assert!(conn.peer_closed(), "the broker gives the call up");
    });
    (upstream, told)
}

#[test]
fn a_command_that_reads_nothing_holds_up_nobody_and_costs_little() {
    let (upstream, told) = endless();
    let session = session(&upstream, &[]);
    let streams: Vec<_> = (0..4)
        .map(|_| {
            let mut stream = session.dial();
            stream.write_all(GET).expect("send the request");
            stream
        })
        .collect();
    for _ in &streams {
        let taken = told.recv_timeout(DEADLINE).expect("the body stands still");
        // The kernel's buffers take most of it; a proxy that gathers would take it all.
        assert!(taken < 64 * 1024 * 1024, "{taken} bytes were taken");
    }
    assert_alive(&session, "/good");
    match resident(&session) {
        Some(kib) => assert!(kib < 64 * 1024, "{kib} KiB for four stalled bodies"),
        None => unreadable("a_command_that_reads_nothing_holds_up_nobody_and_costs_little"),
    }
    drop(streams);
    upstream.wait_idle();
}

#[test]
fn commands_that_leave_at_any_point_leave_nothing_behind() {
    let test = "commands_that_leave_at_any_point_leave_nothing_behind";
    let (upstream, _) = recording(false);
    // The limit is not what is tried here: a dial is never refused.
    let session = session(&upstream, &["--max-connections", "2000"]);
    // One connection is kept for the next request, so what follows starts with it.
    let mut first = session.http();
    assert_eq!(first.get("/first").status, 200);
    let serving = tasks(&session);
    drop(first);
    let resting = settle(&session, |now| serving.is_some_and(|s| now.0 < s.0));
    for round in 0..20 {
        let streams: Vec<_> = (0..32).map(|_| session.dial()).collect();
        for (number, stream) in streams.into_iter().enumerate() {
            let mut stream = &stream;
            match (number + round) % 8 {
                0 => {}
                1 => drop(stream.write_all(b"G")),
                2 => drop(stream.write_all(b"GET / HTTP/1.1\r\nHost")),
                3 => drop(stream.shutdown(Shutdown::Write)),
                4 => drop(stream.write_all(b"nonsense\r\n\r\nmore of it")),
                5 => {
                    let _ = stream.write_all(b"\0");
                    let _ = stream.shutdown(Shutdown::Write);
                }
                6 => drop(stream.write_all(
                    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nContent-Length: 8\r\n\r\n",
                )),
                _ => drop(stream.shutdown(Shutdown::Both)),
            }
        }
    }
    // And calls that are left while they run.
    for _ in 0..20 {
        let mut stream = session.dial();
        let _ = stream.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc");
    }
    assert_alive(&session, "/last");
    let Some((threads, descriptors)) = resting else {
        return unreadable(test);
    };
    let settled = settle(&session, |now| now.0 <= threads && now.1 <= descriptors);
    assert_eq!(
        settled,
        Some((threads, descriptors)),
        "threads and descriptors"
    );
}

#[test]
fn dials_past_the_limit_are_refused_until_one_leaves() {
    let (upstream, _) = recording(false);
    let session = session(&upstream, &["--max-connections", "4"]);
    let mut streams: Vec<_> = (0..4).map(|_| session.dial()).collect();
    // Whatever they do: half a request, half-closed, silent.
    let _ = streams[0].write_all(b"GET /half");
    for _ in 0..3 {
        assert!(session.try_dial().is_none());
        let stream = streams.pop().expect("four streams");
        drop(stream);
        // The place is free when the thread has seen the end.
        let end = Instant::now() + DEADLINE;
        let next = std::iter::repeat_with(|| session.try_dial())
            .take_while(|_| Instant::now() < end)
            .find_map(|dialled| dialled);
        let mut http = Http::new(next.expect("a place is free again"));
        assert_eq!(http.get("/").status, 200);
        streams.push(http.stream().try_clone().expect("duplicate the stream"));
    }
}

#[test]
fn a_command_that_resets_with_an_unread_answer_is_forgotten() {
    let (upstream, messages) = recording(false);
    let session = session(&upstream, &[]);
    for _ in 0..50 {
        let mut stream = session.dial();
        stream.write_all(GET).expect("send the request");
        stream.write_all(GET).expect("send the request");
        upstream.wait_requests(1);
        // Closed over an answer that nobody has read: the broker's writes fail.
        drop(stream);
    }
    assert_alive(&session, "/good");
    assert!(messages.targets().contains(&"/good".to_owned()));
}

#[test]
fn a_command_that_sends_a_byte_at_a_time_is_served_beside_others() {
    let upstream = Upstream::scripted(false, |conn| {
        while let Some(message) = read_message(conn) {
            let length = message.body.len();
            conn.send(format!(
                "HTTP/1.1 200 OK\r\nX-Length: {length}\r\nContent-Length: 0\r\n\r\n"
            ));
        }
    });
    let session = session(&upstream, &[]);
    let mut http = session.http();
    let request = b"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello";
    for byte in request {
        http.send([*byte]);
        // Others are served between any two bytes.
        assert_alive(&session, "/good");
    }
    assert_eq!(http.read_response().header("x-length"), Some("5"));
}

/// Threads and descriptors of the broker; `None` where the system does not show them to us.
fn tasks(session: &Session) -> Option<(usize, usize)> {
    let count = |what: &str| {
        let list = fs::read_dir(format!("/proc/{}/{what}", session.pid())).ok()?;
        Some(list.count())
    };
    Some((count("task")?, count("fd")?))
}

/// Waits until `done` holds of them; gives what they were in the end.
fn settle(session: &Session, done: impl Fn((usize, usize)) -> bool) -> Option<(usize, usize)> {
    let end = Instant::now() + 2 * DEADLINE;
    loop {
        let now = tasks(session)?;
        if done(now) || Instant::now() > end {
            return Some(now);
        }
        // The broker tells nobody when a thread of it ends: looked at again until it has.
        thread::park_timeout(Duration::from_millis(20));
    }
}

fn resident(session: &Session) -> Option<usize> {
    let status = fs::read_to_string(format!("/proc/{}/status", session.pid())).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

fn unreadable(test: &str) {
    skipped(
        test,
        "only root can count a hidden process's threads and descriptors",
    );
}
