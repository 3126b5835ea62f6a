//! Where copies of the key are in the broker's memory once its streams have ended: read by root from
//! outside, through /proc/PID/mem, while the broker is stopped.
//!
//! The one copy that may stay is the kept one. Where the kernel has memfd_secret(2) not even this
//! reader sees it, so nothing at all may be found there.
#![cfg(target_os = "linux")]

mod support;
donor!();

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use support::{DEADLINE, Http, Key, Place, Rule, Session, Upstream, skipped};

/// A copy: the kind of mapping, the form of the key, and what stands before it.
type Copy = (String, &'static str, String);

/// Every copy in memory that the process can write, or could before.
fn copies(session: &Session, key: &Key) -> Vec<Copy> {
    let pid = session.pid();
    let stopped = Stopped::stop(pid);
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("read the maps");
    let memory = File::open(format!("/proc/{pid}/mem")).expect("open the memory");
    let forms = key.forms();
    let mut found = Vec::new();
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (range, rights) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let name = words.nth(3).unwrap_or("anonymous").to_owned();
        let Some((from, to)) = range.split_once('-') else {
            continue;
        };
        let parse = |text| u64::from_str_radix(text, 16).expect("an address");
        let (from, to) = (parse(from), parse(to));
        if !rights.starts_with('r') || name.starts_with("[v") {
            continue;
        }
        let mut bytes = vec![0; (to - from) as usize];
        // memfd_secret memory cannot be read by anybody.
        if memory.read_exact_at(&mut bytes, from).is_err() {
            continue;
        }
        for (form, text) in &forms {
            let first = text[0];
            let mut at = 0;
            while let Some(next) = bytes[at..].iter().position(|&byte| byte == first) {
                at += next;
                if bytes[at..].starts_with(text) {
                    let before = &bytes[at.saturating_sub(40)..at];
                    let before = String::from_utf8_lossy(before).escape_debug().to_string();
                    found.push((format!("{name} {:#x}", from + at as u64), *form, before));
                }
                at += 1;
            }
        }
    }
    drop(stopped);
    found
}

/// A process that stands still.
struct Stopped(Pid);

impl Stopped {
    fn stop(pid: u32) -> Stopped {
        let id = Pid::from_raw(pid as i32).expect("a process id");
        kill_process(id, Signal::STOP).expect("stop the broker");
        let start = Instant::now();
        // Every thread, not only the first.
        let stands = || {
            let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("list the threads");
            tasks.flatten().all(|task| {
                let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
                stat.rsplit(')')
                    .next()
                    .is_some_and(|rest| rest.trim_start().starts_with('T'))
            })
        };
        while !stands() {
            assert!(start.elapsed() < DEADLINE, "the broker does not stop");
            std::thread::yield_now();
        }
        Stopped(id)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::CONT);
    }
}

/// Waits until every stream's thread has ended: the main and the control thread are left.
fn wait_until_idle(session: &Session) {
    let start = Instant::now();
    let tasks = || {
        let dir = format!("/proc/{}/task", session.pid());
        fs::read_dir(dir).expect("list the threads").count()
    };
    while tasks() > 2 {
        assert!(start.elapsed() < DEADLINE, "{} threads are left", tasks());
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// Whether this machine lets the key's own memory be told from copies.
fn can_tell(test: &str) -> bool {
    if !rustix::process::geteuid().is_root() {
        skipped(test, "only root reads another process's memory");
        return false;
    }
    let output = std::process::Command::new(support::session::binary())
        .arg("--capabilities")
        .output()
        .expect("ask for the capabilities");
    let secret = String::from_utf8_lossy(&output.stdout).contains("memfd_secret");
    if !secret {
        skipped(
            test,
            "no memfd_secret here: the kept key itself would be found",
        );
    }
    secret
}

/// Fifty requests of all kinds on keep-alive streams, one after the other and side by side.
fn work(session: &Session) -> Vec<Http> {
    let mut streams: Vec<Http> = (0..5).map(|_| session.http()).collect();
    for round in 0..10 {
        for http in &mut streams {
            let response = if round % 3 == 2 {
                http.post("/upload", &vec![b'x'; 40_000])
            } else {
                http.get("/chunked?bytes=30000&x=%20y")
            };
            assert_eq!(response.status, 200);
        }
    }
    streams
}

/// Waits until no copy is left, and fails with where they are.
#[track_caller]
fn assert_gone(session: &Session, key: &Key, when: &str) {
    let start = Instant::now();
    loop {
        let found = copies(session, key);
        if found.is_empty() {
            return;
        }
        assert!(start.elapsed() < DEADLINE, "{when}: {found:#?}");
    }
}

const PLACES: [Place; 6] = [
    Place::Bearer,
    Place::Basic(Some("user")),
    Place::Header("X-Api-Key"),
    Place::Template("Authorization", "Token token={}"),
    Place::Query("app_key"),
    Place::Cookie("sid"),
];

fn leaves_no_copy(test: &str, tls: bool) {
    if !can_tell(test) {
        return;
    }
    for place in PLACES {
        let key = Key::random();
        let upstream = Upstream::api(tls, Rule::new(place.clone(), &key));
        let session = Session::to(&upstream, &key, &place, [] as [&str; 0]);
        let streams = work(&session);
        // The client has its response a moment before the broker is done with it.
        assert_gone(&session, &key, &format!("{place:?}, streams idle"));
        drop(streams);
        wait_until_idle(&session);
        let found = copies(&session, &key);
        assert!(found.is_empty(), "{place:?}, streams closed: {found:#?}");
    }
}

#[test]
fn nothing_is_left_of_requests_to_a_plain_upstream() {
    leaves_no_copy("nothing_is_left_of_requests_to_a_plain_upstream", false);
}

#[test]
fn nothing_is_left_of_requests_to_a_tls_upstream() {
    leaves_no_copy("nothing_is_left_of_requests_to_a_tls_upstream", true);
}

#[test]
fn a_copy_is_seen_while_a_request_may_have_to_go_again() {
    // Otherwise a reader that sees nothing would pass for a broker that keeps nothing.
    if !can_tell("a_copy_is_seen_while_a_request_may_have_to_go_again") {
        return;
    }
    let key = Key::random();
    let place = Place::Query("app_key");
    let upstream = Upstream::api(false, Rule::new(place.clone(), &key));
    let session = Session::to(&upstream, &key, &place, [] as [&str; 0]);
    let mut http = session.http();
    http.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
    upstream.wait_requests(1);
    let found = copies(&session, &key);
    assert!(
        found.iter().any(|copy| copy.1 == "percent-encoding"),
        "{found:?}"
    );
    upstream.open_gate("done");
    assert_eq!(http.read_response().status, 200);
    assert_gone(&session, &key, "after the answer");
}

#[test]
fn nothing_is_kept_while_a_long_answer_comes_in() {
    if !can_tell("nothing_is_kept_while_a_long_answer_comes_in") {
        return;
    }
    for (tls, place) in [false, true]
        .into_iter()
        .zip([Place::Bearer, Place::Query("k")])
    {
        let key = Key::random();
        let upstream = Upstream::api(tls, Rule::new(place.clone(), &key));
        let session = Session::to(&upstream, &key, &place, [] as [&str; 0]);
        let mut http = session.http();
        http.send("GET /sse HTTP/1.1\r\nHost: x\r\n\r\n");
        upstream.open_gate("data: one\n\n");
        assert_eq!(http.read_head().status, 200);
        assert!(http.read_chunk().is_some());
        assert_gone(
            &session,
            &key,
            &format!("an answer that goes on, TLS {tls}"),
        );
        upstream.open_gate("");
    }
}

#[test]
fn nothing_is_kept_of_a_request_that_cannot_go_again() {
    if !can_tell("nothing_is_kept_of_a_request_that_cannot_go_again") {
        return;
    }
    for tls in [false, true] {
        let key = Key::random();
        let place = Place::Basic(Some("me"));
        let upstream = Upstream::api(tls, Rule::new(place.clone(), &key));
        let session = Session::to(&upstream, &key, &place, [] as [&str; 0]);
        let mut http = session.http();
        http.send("POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab");
        upstream.wait_requests(1);
        assert_gone(
            &session,
            &key,
            &format!("an answer that is awaited, TLS {tls}"),
        );
        upstream.open_gate("done");
        assert_eq!(http.read_response().status, 200);
    }
}

#[test]
fn reading_a_source_leaves_no_copy() {
    if !can_tell("reading_a_source_leaves_no_copy") {
        return;
    }
    for source in ["env:API_KEY", "fd:0", "file:KEY", "exec:cat KEY"] {
        let key = Key::random();
        let dir = support::TempDir::new();
        let path = dir.write("KEY", key.as_str());
        let options = [
            "-u",
            "https://api.example.com",
            "-i",
            "basic:me",
            "-k",
            source,
        ];
        let session = Session::start_with(options, |command| {
            command.current_dir(dir.path());
            if source == "env:API_KEY" {
                command.env("API_KEY", key.as_str());
            }
            command.stdin(File::open(&path).expect("open the key"));
        });
        let found = copies(&session, &key);
        assert!(found.is_empty(), "{source}: {found:#?}");
    }
}
