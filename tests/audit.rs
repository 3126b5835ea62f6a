//! The audit, as somebody reads it who was not there: every line is whole, every request and event
//! has one, nothing secret is in any. A reader that fails is never in the way, unless the audit is
//! required: then what cannot be recorded does not happen.
#![cfg(target_os = "linux")]

mod support;

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use support::session::binary;
use support::{
    Broker, DEADLINE, Finished, Json, Key, Place, Rule, Session, TempDir, Upstream, key, skipped,
};

donor!();

/// The members of every line, then those of each event.
const ALWAYS: &str = "time run event";
const REQUEST: &str = "conn seq service host method path decision reason status bytes_up bytes_down \
                       first_byte_ms total_ms scrubbed error";

/// The lines of an audit. Each is checked for its form.
fn lines(text: &str) -> Vec<Json> {
    assert!(text.is_empty() || text.ends_with('\n'), "a line was cut");
    let parse = |line: &str| {
        assert!(line.len() < 4096, "a line too long for a pipe");
        assert!(line.bytes().all(|b| (b' '..=b'~').contains(&b)), "{line}");
        let json = Json::parse(line).unwrap_or_else(|| panic!("no JSON: {line}"));
        let members = match json.text("event") {
            "start" => "version pid service upstream key protections warnings required",
            "command" => "pid",
            "dial" => "conn",
            "refusal" => "reason",
            "intent" => "conn seq service host method path",
            "request" => REQUEST,
            "key_rotated" => "service key",
            "exit" => "status signal error",
            other => panic!("no such event: {other}"),
        };
        assert_eq!(json.names(), format!("{ALWAYS} {members}"));
        let time = json.text("time");
        let form: String = time
            .chars()
            .map(|c| if c.is_ascii_digit() { '0' } else { c })
            .collect();
        assert_eq!(form, "0000-00-00T00:00:00.000Z");
        let run = json.text("run");
        assert!(run.len() == 16 && run.bytes().all(|b| b.is_ascii_hexdigit()));
        json
    };
    text.lines().map(parse).collect()
}

fn read(path: &Path) -> Vec<Json> {
    lines(&fs::read_to_string(path).expect("the audit"))
}

/// The lines of one event; of requests in the order of their streams, since the line of one that was
/// refused comes after the answer.
fn of<'a>(lines: &'a [Json], event: &str) -> Vec<&'a Json> {
    let of_event = |line: &&Json| line.text("event") == event;
    let mut found: Vec<_> = lines.iter().filter(of_event).collect();
    if event == "request" {
        found.sort_by_key(|line| (line.number("conn") as u64, line.number("seq") as u64));
    }
    found
}

/// A session with an audit in a file, and further options.
struct Audited {
    session: Session,
    log: PathBuf,
    _dir: TempDir,
}

impl Audited {
    fn new(upstream: &Upstream, key: &Key, place: &Place, options: &[&str]) -> Audited {
        let dir = TempDir::new();
        let log = dir.join("audit");
        Audited::at(upstream, key, place, options, dir, log)
    }

    fn at(
        upstream: &Upstream,
        key: &Key,
        place: &Place,
        options: &[&str],
        dir: TempDir,
        log: PathBuf,
    ) -> Audited {
        let mut all = vec!["--audit", log.to_str().expect("a plain path")];
        all.extend(options);
        let session = Session::to(upstream, key, place, all);
        Audited {
            session,
            log,
            _dir: dir,
        }
    }

    fn finish(&mut self) -> Vec<Json> {
        assert!(self.session.finish().success(), "{}", self.session.stderr());
        read(&self.log)
    }

    /// The only `request` line, once the run has ended.
    fn only_request(&mut self) -> Json {
        let lines = self.finish();
        let requests = of(&lines, "request");
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests[0].clone()
    }
}

fn api() -> (Upstream, Key, Place) {
    let (key, place) = (Key::random(), Place::Header("X-Api-Key"));
    let upstream = Upstream::api(false, Rule::new(place.clone(), &key));
    (upstream, key, place)
}

/// A session towards a script.
fn towards(upstream: &Upstream, options: &[&str]) -> Audited {
    Audited::new(upstream, &Key::random(), &Place::Bearer, options)
}

#[test]
fn a_run_is_told_from_its_start_to_its_exit() {
    let (upstream, key, place) = api();
    let mut audited = Audited::new(&upstream, &key, &place, &["-v"]);
    let broker = audited.session.pid();
    let command = audited.session.donor_pid();
    assert_eq!(audited.session.http().get("/").status, 200);
    audited.session.send_control(b"\x02");
    assert_eq!(audited.session.receive_control().0, [0xFF]);
    assert_eq!(audited.session.finish_with(7).code(), Some(7));
    let lines = read(&audited.log);
    let events: Vec<_> = lines.iter().map(|line| line.text("event")).collect();
    let mut sorted = events.clone();
    sorted.sort_unstable();
    assert_eq!(
        sorted,
        ["command", "dial", "exit", "refusal", "request", "start"]
    );
    assert_eq!(events[0], "start");
    assert_eq!(events[5], "exit");
    let runs: BTreeSet<_> = lines.iter().map(|line| line.text("run")).collect();
    assert_eq!(runs.len(), 1);

    let start = &lines[0];
    assert_eq!(start.text("version"), env!("CARGO_PKG_VERSION"));
    assert_eq!(start.number("pid"), f64::from(broker));
    assert_eq!(start.text("service"), "api");
    assert_eq!(start.text("upstream"), upstream.url());
    assert!(start.text("key").starts_with("file:/"));
    // What they are depends on the user; standard error has the same when it is asked to.
    let Json::List(warnings) = start.get("warnings") else {
        panic!("no list: {start:?}");
    };
    let stderr = audited.session.stderr();
    for warning in warnings {
        let Json::Text(text) = warning else {
            panic!("no text: {warning:?}");
        };
        assert!(stderr.contains(text.as_str()), "{text}\n{stderr}");
    }
    assert_eq!(stderr.matches("warning: ").count(), warnings.len());
    assert_eq!(*start.get("required"), Json::Bool(false));
    let protections = start.get("protections");
    assert_eq!(
        protections.names(),
        "dumpable no_new_privs ptrace_dropped secret_memory scrub"
    );
    assert_eq!(*protections.get("dumpable"), Json::Bool(false));
    assert_eq!(*protections.get("no_new_privs"), Json::Bool(true));
    assert_eq!(*protections.get("ptrace_dropped"), Json::Bool(true));
    let tier = protections.text("secret_memory");
    assert!(["memfd_secret", "mlock", "none"].contains(&tier));

    assert_eq!(
        of(&lines, "command")[0].number("pid"),
        f64::from(command),
        "the donor keeps its number through execve"
    );
    assert_eq!(of(&lines, "dial")[0].number("conn"), 1.0);
    assert_eq!(of(&lines, "refusal")[0].text("reason"), "message");
    let exit = lines.last().expect("an exit");
    assert_eq!(exit.number("status"), 7.0);
    assert!(exit.is_null("signal") && exit.is_null("error"));
}

#[test]
fn a_request_is_told_with_its_bytes_and_times_and_without_its_query() {
    let (upstream, key, place) = api();
    let mut audited = Audited::new(&upstream, &key, &place, &[]);
    let mut http = audited.session.http();
    assert_eq!(http.post("/mirror?token=hidden", &[b'x'; 1234]).status, 200);
    assert_eq!(http.get("/download?bytes=300000").body.len(), 300_000);
    http.send("POST /upload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    http.send("3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n");
    assert_eq!(http.read_response().status, 200);
    let chunked = http.get("/chunked?bytes=20000");
    assert_eq!(chunked.body.len(), 20_000);
    assert_eq!(http.get("/status/404").status, 404);
    let mut second = audited.session.http();
    assert_eq!(second.get("http://elsewhere.invalid/?hidden").status, 200);
    drop((http, second));
    let lines = audited.finish();
    let requests = of(&lines, "request");
    let told: Vec<_> = requests
        .iter()
        .map(|line| {
            assert_eq!(line.text("decision"), "forwarded");
            assert!(line.is_null("reason") && line.is_null("error"));
            assert_eq!(line.text("service"), "api");
            assert_eq!(line.text("host"), upstream.address().to_string());
            assert_eq!(line.number("scrubbed"), 0.0);
            let (first, total) = (line.number("first_byte_ms"), line.number("total_ms"));
            assert!(0.0 <= first && first <= total && total < 60_000.0);
            let number = |name| line.number(name) as u64;
            (
                (number("conn"), number("seq"), number("status")),
                format!("{} {}", line.text("method"), line.text("path")),
                (number("bytes_up"), number("bytes_down")),
            )
        })
        .collect();
    let upload = told[2].2.1;
    assert_eq!(
        told,
        [
            ((1, 1, 200), "POST /mirror".to_owned(), (1234, 1234)),
            ((1, 2, 200), "GET /download".to_owned(), (0, 300_000)),
            ((1, 3, 200), "POST /upload".to_owned(), (7, upload)),
            ((1, 4, 200), "GET /chunked".to_owned(), (0, 20_000)),
            ((1, 5, 404), "GET /status/404".to_owned(), (0, 9)),
            ((2, 1, 200), "GET /".to_owned(), (0, 6)),
        ]
    );
    let text = fs::read_to_string(&audited.log).expect("the audit");
    assert!(!text.contains("hidden") && !text.contains('?'));
}

#[test]
fn the_path_is_the_one_that_the_upstream_sees() {
    let upstream = Upstream::scripted(false, |conn| {
        conn.read_head();
        conn.send("HTTP/1.1 204 No Content\r\n\r\n");
    });
    let dir = TempDir::new();
    let log = dir.join("audit");
    let key = Key::random().file_source(&dir);
    let url = format!("{}/v1", upstream.url());
    let log_name = log.to_str().expect("a plain path");
    let mut session = Session::start(["-u", &url, "-k", &key, "--audit", log_name]);
    assert_eq!(session.http().get("/me?q").status, 204);
    let mut http = session.http();
    assert_eq!(http.get("/../v2/me?q").status, 400);
    session.finish();
    let lines = read(&log);
    let requests = of(&lines, "request");
    assert_eq!(requests[0].text("path"), "/v1/me");
    assert_eq!(requests[1].text("path"), "/v1/../v2/me");
    assert_eq!(requests[1].text("decision"), "refused");
    assert!(requests[1].text("error").contains("'..' segment"));
}

#[test]
fn a_refused_request_names_the_rule_that_it_broke() {
    let (upstream, key, place) = api();
    let mut audited = Audited::new(&upstream, &key, &place, &[]);
    let long = format!("/{}", "x".repeat(3000));
    let cases = [
        (
            "GET /two?hidden HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
            400,
            "Host must be given",
            Some("/two"),
        ),
        (
            "CONNECT evil.invalid:443 HTTP/1.1\r\nHost: x\r\n\r\n",
            405,
            "CONNECT and TRACE",
            None,
        ),
        (
            "POST /te HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
            501,
            "refused",
            Some("/te"),
        ),
        (
            "GET ftp://u:hidden@h/p HTTP/1.1\r\nHost: x\r\n\r\n",
            400,
            "target",
            None,
        ),
        (
            "GET /\x1b[31mred HTTP/1.1\r\nHost: x\r\n\r\n",
            400,
            "request line",
            Some("/\x1b[31mred"),
        ),
        (
            "GET /caf\u{e9}\u{202e} HTTP/1.1\r\nHost: x\r\n\r\n",
            400,
            "target",
            Some("/caf\u{e9}\u{202e}"),
        ),
        (
            "GET /a#hidden HTTP/1.1\r\nHost: x\r\n\r\n",
            400,
            "target",
            Some("/a"),
        ),
        ("nonsense\r\n\r\n", 400, "request line", None),
        (
            &format!("GET {long} HTTP/1.1\r\nHost: x\r\nExpect: tea\r\n\r\n"),
            417,
            "100-continue",
            Some(&long),
        ),
    ];
    for (head, status, _, _) in &cases {
        let mut http = audited.session.http();
        http.send(head);
        assert_eq!(http.read_response().status, *status, "{head:?}");
    }
    let lines = audited.finish();
    let requests = of(&lines, "request");
    assert_eq!(requests.len(), cases.len());
    for (line, (head, status, error, path)) in requests.iter().zip(cases) {
        assert_eq!(line.text("decision"), "refused", "{head:?}");
        assert_eq!(line.text("reason"), "http_request_error", "{head:?}");
        assert_eq!(line.number("status"), f64::from(status));
        assert!(line.text("error").contains(error), "{line:?}");
        assert!(line.is_null("first_byte_ms"));
        match path {
            Some(path) if path.len() > 1024 => {
                assert_eq!(line.text("path"), format!("{}...", &path[..1024]));
            }
            Some(path) => assert_eq!(line.text("path"), path),
            None => assert!(line.is_null("path"), "{line:?}"),
        }
    }
    let text = fs::read_to_string(&audited.log).expect("the audit");
    assert!(!text.contains("hidden"));
    assert!(upstream.requests().is_empty());
}

#[test]
fn a_failed_request_names_the_failure() {
    let gone = Upstream::scripted(false, |_| {});
    let mut audited = towards(&gone, &[]);
    drop(gone);
    assert_eq!(audited.session.http().post("/", b"body").status, 502);
    let line = audited.only_request();
    assert_eq!(line.text("decision"), "failed");
    assert_eq!(line.text("reason"), "connection_refused");
    assert_eq!(line.number("status"), 502.0);
    assert_eq!(line.number("bytes_up"), 0.0);

    let silent = Upstream::scripted(false, |conn| {
        conn.read_head();
        conn.peer_closed();
    });
    let mut audited = towards(&silent, &["--response-header-timeout", "100ms"]);
    assert_eq!(audited.session.http().get("/").status, 504);
    let line = audited.only_request();
    assert_eq!(line.text("reason"), "http_response_timeout");
    assert!(line.text("error").contains("--response-header-timeout"));
    assert!(line.number("total_ms") >= 100.0);

    let short = Upstream::scripted(false, |conn| {
        conn.read_head();
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n0123456789");
    });
    let mut audited = towards(&short, &[]);
    assert!(!audited.session.http().get("/").complete);
    let line = audited.only_request();
    assert_eq!(line.text("decision"), "failed");
    assert_eq!(line.text("reason"), "http_response_incomplete");
    assert_eq!(line.number("status"), 200.0);
    assert_eq!(line.number("bytes_down"), 10.0);

    let wrong = Upstream::scripted(false, |conn| {
        conn.read_head();
        conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n");
        conn.peer_closed();
    });
    let mut audited = towards(&wrong, &[]);
    let _ = audited.session.http().get("/");
    let line = audited.only_request();
    assert_eq!(line.text("decision"), "failed");
    assert_eq!(line.text("reason"), "http_protocol_error");
}

#[test]
fn a_client_that_leaves_is_told() {
    let (upstream, key, place) = api();
    let mut audited = Audited::new(&upstream, &key, &place, &[]);
    let mut http = audited.session.http();
    http.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
    upstream.wait_requests(1);
    drop(http);
    let line = audited.only_request();
    assert_eq!(line.text("decision"), "failed");
    assert_eq!(line.text("reason"), "client_gone");
    assert!(line.is_null("status"));
}

#[test]
fn an_upgrade_is_told_with_the_bytes_of_the_other_protocol() {
    let upstream = Upstream::scripted(false, |conn| {
        conn.read_head();
        conn.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nabc",
        );
        let mut bytes = [0; 5];
        conn.read_exact(&mut bytes).expect("what came early");
        conn.send("defg");
    });
    let mut audited = towards(&upstream, &[]);
    let mut http = audited.session.http();
    http.send(
        "GET /ws?q HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello",
    );
    assert_eq!(http.read_head().status, 101);
    assert_eq!(http.read_to_end(), b"abcdefg");
    drop(http);
    let line = audited.only_request();
    assert_eq!(line.text("decision"), "forwarded");
    assert_eq!(line.number("status"), 101.0);
    assert_eq!(
        (line.number("bytes_up"), line.number("bytes_down")),
        (5.0, 7.0)
    );
}

#[test]
fn a_dial_past_the_limit_is_told() {
    let (upstream, key, place) = api();
    let mut audited = Audited::new(&upstream, &key, &place, &["--max-connections", "1"]);
    let _stream = audited.session.dial();
    assert!(audited.session.try_dial().is_none());
    let lines = audited.finish();
    assert_eq!(of(&lines, "dial").len(), 1);
    assert_eq!(of(&lines, "refusal")[0].text("reason"), "limit");
}

#[test]
fn a_new_key_is_told_once() {
    let (key, second) = (Key::random(), Key::random());
    let place = Place::Bearer;
    let rule = Rule::new(place.clone(), &key);
    let upstream = Upstream::api(false, rule.clone());
    let mut audited = Audited::new(&upstream, &key, &place, &[]);
    let mut http = audited.session.http();
    assert_eq!(http.get("/").status, 200);
    rule.rotate(&second);
    second.file_source(audited.session.dir());
    for _ in 0..3 {
        assert_eq!(http.get("/").status, 200);
    }
    fs::remove_file(audited.session.dir().join("key")).expect("remove the key");
    assert_eq!(http.get("/").status, 503);
    let lines = audited.finish();
    let rotated = of(&lines, "key_rotated");
    assert_eq!(rotated.len(), 1);
    assert_eq!(rotated[0].text("service"), "api");
    assert_eq!(rotated[0].text("key"), lines[0].text("key"));
    let last = of(&lines, "request")[4];
    assert_eq!(last.text("decision"), "refused");
    assert_eq!(last.text("reason"), "proxy_configuration_error");
    let text = fs::read(&audited.log).expect("the audit");
    key.assert_absent(&text, "the audit");
    second.assert_absent(&text, "the audit");
}

/// The binary around `bash -c SCRIPT`, with these options.
fn run(upstream: &Upstream, options: &[&str], script: &str) -> Finished {
    Broker::to(upstream, &Key::random(), &Place::Bearer)
        .args(options.iter().copied())
        .bash(script)
}

#[test]
fn an_end_by_a_signal_and_a_start_that_fails_are_told() {
    let (upstream, ..) = api();
    let dir = TempDir::new();
    let log = dir.join("audit");
    let name = log.to_str().expect("a plain path");
    run(&upstream, &["--audit", name], "kill -TERM $$");
    let missing = Broker::to(&upstream, &Key::random(), &Place::Bearer)
        .args(["--audit", name, "--", "/no/such/command"])
        .run();
    assert_eq!(missing.status.code(), Some(127));
    let no_key = Broker::new()
        .towards(&upstream)
        .args(["-k", "file:/no/such/key", "--audit", name, "--", "true"])
        .run();
    assert_eq!(no_key.status.code(), Some(125));
    let lines = read(&log);
    let exits = of(&lines, "exit");
    assert!(exits[0].is_null("status"));
    assert_eq!(exits[0].number("signal"), 15.0);
    assert_eq!(exits[1].number("status"), 127.0);
    assert!(exits[1].text("error").contains("not found"));
    assert_eq!(exits[2].number("status"), 125.0);
    assert!(exits[2].text("error").contains("/no/such/key"));
    assert_eq!(of(&lines, "start").len(), 2);
    assert_eq!(of(&lines, "command").len(), 1);
}

#[test]
fn a_file_is_created_for_its_owner_and_otherwise_appended_to() {
    let (upstream, ..) = api();
    let dir = TempDir::new();
    let mode = |path: &Path| fs::metadata(path).expect("the audit").permissions().mode() & 0o7777;
    let new = dir.join("new");
    run(&upstream, &["--audit", new.to_str().expect("plain")], ":").succeeded();
    assert_eq!(mode(&new), 0o600);

    let old = dir.write("old", "{\"event\":\"mine\"}\n");
    fs::set_permissions(&old, fs::Permissions::from_mode(0o644)).expect("change its mode");
    for _ in 0..2 {
        run(&upstream, &["--audit", old.to_str().expect("plain")], ":").succeeded();
    }
    assert_eq!(mode(&old), 0o644);
    let text = fs::read_to_string(&old).expect("the audit");
    let ours = text
        .strip_prefix("{\"event\":\"mine\"}\n")
        .expect("what was there");
    let ours = lines(ours);
    let runs: BTreeSet<_> = ours.iter().map(|line| line.text("run")).collect();
    assert_eq!((ours.len(), runs.len()), (6, 2));
}

#[test]
fn the_command_has_no_descriptor_of_the_audit() {
    let (upstream, ..) = api();
    let dir = TempDir::new();
    let log = dir.join("audit");
    let list = "for fd in /proc/$$/fd/*; do readlink \"$fd\" || :; done";
    let by_name = run(&upstream, &["--audit", log.to_str().expect("plain")], list).succeeded();
    assert!(!by_name.stdout.contains("audit"), "{}", by_name.stdout);
    // By number, the caller has it open and the broker takes it over.
    let key = Key::random().file_source(&dir);
    let script = format!(
        "exec \"$0\" -u {} -k {key} --audit fd:9 -- bash -c '{list}' 9>>\"$1\"",
        upstream.url()
    );
    let output = Command::new("bash")
        .args(["-c", &script])
        .arg(binary())
        .arg(&log)
        .output()
        .expect("run bash");
    assert!(output.status.success());
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        stdout.contains("socket:") && !stdout.contains("audit"),
        "{stdout}"
    );
    assert_eq!(of(&read(&log), "exit").len(), 2);
}

#[test]
fn an_audit_that_cannot_be_opened_starts_nothing() {
    let (upstream, ..) = api();
    let dir = TempDir::new();
    let ran = dir.join("ran");
    let touch = format!("touch {}", ran.display());
    let at = |name: &str| dir.join(name).to_str().expect("plain").to_owned();
    let directory = dir.path().to_str().expect("plain").to_owned();
    for bad in [at("no/such/dir"), directory, "fd:77".into(), "fd:1".into()] {
        let finished = run(&upstream, &["--audit", &bad], &touch);
        assert_eq!(finished.status.code(), Some(125), "{bad}");
        assert!(finished.stderr.contains("audit"), "{}", finished.stderr);
    }
    // A descriptor that can only be read.
    let script = format!(
        "exec \"$0\" -u {} -k file:/dev/null --audit fd:9 -- true 9</dev/null",
        upstream.url()
    );
    let status = Command::new("bash")
        .args(["-c", &script])
        .arg(binary())
        .stderr(Stdio::null())
        .status();
    assert_eq!(status.expect("run bash").code(), Some(125));
    assert!(!ran.exists());
}

#[test]
fn a_full_disk_is_said_once_and_ends_nothing() {
    let (upstream, key, place) = api();
    let full = PathBuf::from("/dev/full");
    let mut audited = Audited::at(&upstream, &key, &place, &[], TempDir::new(), full);
    let mut http = audited.session.http();
    for _ in 0..20 {
        assert_eq!(http.get("/").status, 200);
    }
    drop(http);
    assert!(audited.session.finish().success());
    let stderr = audited.session.stderr();
    let said: Vec<_> = stderr
        .lines()
        .filter(|line| line.contains("audit"))
        .collect();
    assert_eq!(said.len(), 2, "{stderr}");
    assert!(
        said[0].contains("1 line lost so far: No space left"),
        "{stderr}"
    );
    // start, command, dial, 20 requests, exit
    assert_eq!(said[1], "broker-exec: audit: 24 lines lost");
}

#[test]
fn a_file_size_limit_ends_nothing() {
    // In units of 1024 bytes; what is there already leaves room for a line or two.
    const LIMIT: usize = 128;
    let (upstream, ..) = api();
    let dir = TempDir::new();
    let before = "x".repeat(LIMIT * 1024 - 801) + "\n";
    let log = dir.write("audit", &before);
    let key = Key::random().file_source(&dir);
    let messages =
        "for i in 1 2 3 4 5 6 7 8 9; do printf xx >&3; head -c 1 <&3 >/dev/null; done; exit 3";
    let script = format!(
        "ulimit -f {LIMIT}; exec \"$0\" -u {} -k {key} --audit \"$1\" -- bash -c '{messages}' 2>&1",
        upstream.url()
    );
    let output = Command::new("bash")
        .args(["-c", &script])
        .arg(binary())
        .arg(&log)
        .output()
        .expect("run bash");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("File too large"), "{said}");
    // The last line has its beginning only, which is all that is wrong.
    let text = fs::read_to_string(&log).expect("the audit");
    assert_eq!(text.len(), LIMIT * 1024);
    let ours = text.strip_prefix(&before).expect("what was there");
    let whole = ours.rfind('\n').expect("a whole line") + 1;
    assert_eq!(lines(&ours[..whole])[0].text("event"), "start");
}

/// A pipe with a name, and its reading end. It holds a page.
fn pipe(dir: &TempDir) -> (PathBuf, File) {
    let path = dir.join("pipe");
    let made = Command::new("mkfifo").arg(&path).status();
    assert!(made.expect("run mkfifo").success());
    let reader = OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
        .open(&path)
        .expect("open the pipe");
    rustix::pipe::fcntl_setpipe_size(&reader, 4096).expect("make the pipe small");
    (path, reader)
}

/// What is in the pipe now.
fn drain(reader: &mut File) -> String {
    let (mut text, mut some) = (Vec::new(), [0; 4096]);
    while let Ok(n @ 1..) = reader.read(&mut some) {
        text.extend_from_slice(&some[..n]);
    }
    String::from_utf8(text).expect("ASCII")
}

#[test]
fn a_pipe_that_nobody_reads_delays_nothing() {
    let (upstream, key, place) = api();
    let dir = TempDir::new();
    let (path, mut reader) = pipe(&dir);
    let mut audited = Audited::at(&upstream, &key, &place, &[], dir, path);
    let mut http = audited.session.http();
    for _ in 0..50 {
        assert_eq!(http.get("/").status, 200);
    }
    let first = lines(&drain(&mut reader));
    assert_eq!(first[0].text("event"), "start");
    assert!(first.len() < 53);
    assert_eq!(http.get("/cookies").status, 200);
    drop(http);
    assert!(audited.session.finish().success());
    let rest = lines(&drain(&mut reader));
    assert_eq!(
        of(&rest, "request").last().expect("one").text("path"),
        "/cookies"
    );
    let stderr = audited.session.stderr();
    assert!(
        stderr.contains("1 line lost so far: its reader does not keep up"),
        "{stderr}"
    );
    let lost = 55 - first.len() - rest.len();
    assert!(
        stderr.ends_with(&format!("audit: {lost} lines lost\n")),
        "{stderr}"
    );
}

#[test]
fn a_reader_that_has_gone_ends_nothing() {
    let (upstream, key, place) = api();
    let dir = TempDir::new();
    let (path, reader) = pipe(&dir);
    let mut audited = Audited::at(&upstream, &key, &place, &[], dir, path);
    drop(reader);
    let mut http = audited.session.http();
    for _ in 0..5 {
        assert_eq!(http.get("/").status, 200);
    }
    drop(http);
    assert!(audited.session.finish().success());
    let stderr = audited.session.stderr();
    assert!(
        stderr.contains("1 line lost so far: its reader has gone"),
        "{stderr}"
    );
    assert!(stderr.ends_with("lines lost\n"), "{stderr}");
}

#[test]
fn a_required_audit_has_the_intent_before_the_request() {
    let (upstream, key, place) = api();
    let mut audited = Audited::new(&upstream, &key, &place, &["--audit-required"]);
    let mut http = audited.session.http();
    assert_eq!(http.get("/?hidden").status, 200);
    http.send("GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n");
    assert_eq!(http.read_response().status, 400);
    drop(http);
    let lines = audited.finish();
    let events: Vec<_> = lines.iter().map(|line| line.text("event")).collect();
    assert_eq!(
        events,
        [
            "start", "command", "dial", "intent", "request", "request", "exit"
        ]
    );
    assert_eq!(*lines[0].get("required"), Json::Bool(true));
    for name in ["conn", "seq", "service", "host", "method", "path"] {
        assert_eq!(lines[3].get(name), lines[4].get(name));
    }
    assert_eq!(lines[5].text("decision"), "refused");
}

#[test]
fn a_required_audit_on_a_full_disk_starts_nothing() {
    let (upstream, ..) = api();
    let dir = TempDir::new();
    let ran = dir.join("ran");
    let options = ["--audit", "/dev/full", "--audit-required"];
    let finished = run(&upstream, &options, &format!("touch {}", ran.display()));
    assert_eq!(finished.status.code(), Some(125));
    assert!(
        finished
            .stderr
            .contains("--audit-required: the audit cannot be written")
    );
    assert!(!ran.exists());
}

#[test]
fn a_required_audit_that_nobody_reads_stops_requests_and_dials_until_it_is_read() {
    let (upstream, key, place) = api();
    let dir = TempDir::new();
    let (path, mut reader) = pipe(&dir);
    let mut audited = Audited::at(&upstream, &key, &place, &["--audit-required"], dir, path);
    // A 503 closes its stream: each of these is dialled while there is room.
    let mut https: Vec<_> = (0..3).map(|_| audited.session.http()).collect();
    let mut sent = 0;
    let refused = loop {
        let response = https[0].get("/");
        if response.status != 200 {
            break response;
        }
        sent += 1;
        assert!(sent < 50, "the pipe takes no end of lines");
    };
    assert_eq!(refused.status, 503);
    assert_eq!(
        refused.header("content-type"),
        Some("application/problem+json")
    );
    let proxy_status = refused.header("proxy-status");
    assert_eq!(
        proxy_status,
        Some("broker-exec; error=proxy_internal_error")
    );
    assert!(
        refused.text().contains("--audit-required"),
        "{}",
        refused.text()
    );
    assert_eq!(https[1].post("/mirror", b"body").status, 503);
    assert_eq!(upstream.requests().len(), sent);
    // A line for a dial is shorter than one for a request: fill what room there is.
    let mut dialled = Vec::new();
    while let Some(stream) = audited.session.try_dial() {
        dialled.push(stream);
        assert!(dialled.len() < 50, "the pipe takes no end of lines");
    }
    lines(&drain(&mut reader));
    assert_eq!(https[2].get("/").status, 200);
    assert_eq!(audited.session.http().get("/").status, 200);
    drop((https, dialled));
    assert!(audited.session.finish().success());
    let last = lines(&drain(&mut reader));
    assert_eq!(of(&last, "intent").len(), 2);
    assert_eq!(of(&last, "exit").len(), 1);
}

#[test]
fn a_required_audit_whose_reader_has_gone_stops_requests_and_dials() {
    let (upstream, key, place) = api();
    let dir = TempDir::new();
    let (path, reader) = pipe(&dir);
    let mut audited = Audited::at(&upstream, &key, &place, &["--audit-required"], dir, path);
    let mut http = audited.session.http();
    drop(reader);
    assert_eq!(http.get("/").status, 503);
    assert!(audited.session.try_dial().is_none());
    assert!(upstream.requests().is_empty());
    assert_eq!(upstream.connections(), 0);
    assert!(audited.session.finish().success());
}

#[test]
fn a_required_audit_waits_a_moment_for_a_slow_reader() {
    let (upstream, key, place) = api();
    let dir = TempDir::new();
    let (path, mut reader) = pipe(&dir);
    let mut audited = Audited::at(&upstream, &key, &place, &["--audit-required"], dir, path);
    let (told, done) = std::sync::mpsc::channel::<()>();
    let reading = thread::spawn(move || {
        // Poll-free on purpose: a reader that is behind most of the time.
        let mut text = String::new();
        while done.try_recv() != Err(std::sync::mpsc::TryRecvError::Disconnected) {
            text += &drain(&mut reader);
            thread::yield_now();
        }
        text + &drain(&mut reader)
    });
    let mut http = audited.session.http();
    for _ in 0..100 {
        assert_eq!(http.get("/").status, 200);
    }
    drop(http);
    assert!(audited.session.finish().success());
    drop(told);
    let lines = lines(&reading.join().expect("the reader"));
    assert_eq!(of(&lines, "intent").len(), 100);
}

#[test]
fn streams_at_once_give_whole_lines() {
    const STREAMS: usize = 8;
    const REQUESTS: usize = 50;
    let (upstream, key, place) = api();
    let mut audited = Audited::new(&upstream, &key, &place, &[]);
    let streams: Vec<_> = (0..STREAMS).map(|_| audited.session.http()).collect();
    thread::scope(|scope| {
        for mut http in streams {
            scope.spawn(move || {
                for _ in 0..REQUESTS {
                    assert_eq!(http.get("/").status, 200);
                }
            });
        }
    });
    let lines = audited.finish();
    let requests = of(&lines, "request");
    let numbers: BTreeSet<_> = requests
        .iter()
        .map(|line| (line.number("conn") as u64, line.number("seq") as u64))
        .collect();
    let want: BTreeSet<_> = (1..=STREAMS as u64)
        .flat_map(|conn| (1..=REQUESTS as u64).map(move |seq| (conn, seq)))
        .collect();
    assert_eq!(requests.len(), STREAMS * REQUESTS);
    assert_eq!(numbers, want);
}

/// A random number below `end`.
fn below(end: usize) -> usize {
    u32::from_ne_bytes(key::random_bytes()) as usize % end
}

#[test]
fn a_long_mixed_run_parses_line_by_line_and_holds_no_key() {
    let start = Instant::now();
    for place in [Place::Query("app_key"), Place::Basic(Some("user"))] {
        let key = Key::random();
        let rule = Rule::new(place.clone(), &key);
        let upstream = Upstream::api(true, rule.clone());
        let mut audited = Audited::new(&upstream, &key, &place, &["--max-connections", "4"]);
        let mut keys = vec![key];
        let mut requests = 0;
        let mut http = audited.session.http();
        for round in 0..250 {
            assert!(start.elapsed() < 6 * DEADLINE);
            let mine = format!("app_key=mine-{round}&q=%00%ff");
            let (sent, keeps) = match below(10) {
                0 => (
                    http.post(&format!("/mirror?{mine}"), &vec![b'x'; below(20_000)]),
                    true,
                ),
                1 => (
                    http.get(&format!(
                        "/echo/%00{}?{mine}",
                        "%e2%80%ae".repeat(below(300))
                    )),
                    true,
                ),
                2 => (http.get("/chunked?bytes=50000"), true),
                3 => (http.get(&format!("/redirect?{mine}")), true),
                4 => (http.get("/trailers"), true),
                5 => {
                    http.send("GET /\u{1f511}\x7f\u{202e}\"\\?hidden HTTP/1.1\r\nHost: x\r\n\r\n");
                    (http.read_response(), false)
                }
                6 => {
                    http.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc");
                    http.finish_sending();
                    (http.read_response(), false)
                }
                7 => {
                    http.send("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
                    (http.read_response(), false)
                }
                8 => {
                    let next = Key::random();
                    rule.rotate(&next);
                    next.file_source(audited.session.dir());
                    keys.push(next);
                    (http.get(&format!("/cookies?{mine}")), true)
                }
                _ => {
                    audited.session.send_control(&[1; 3]);
                    assert_eq!(audited.session.receive_control().0, [0xFF]);
                    (http.get("/status/500"), true)
                }
            };
            assert!(sent.status != 0 && sent.status != 401, "{}", sent.status);
            requests += 1;
            if !keeps {
                http = audited.session.http();
            }
        }
        drop(http);
        let lines = audited.finish();
        assert_eq!(of(&lines, "request").len(), requests);
        assert_eq!(of(&lines, "key_rotated").len(), keys.len() - 1);
        let text = fs::read_to_string(&audited.log).expect("the audit");
        for key in &keys {
            key.assert_absent(&text, "the audit");
            key.assert_absent(audited.session.stderr(), "standard error");
        }
        for query in ["mine", "hidden", "?"] {
            assert!(!text.contains(query), "a query stands in the audit");
        }
        parses_with_python(&audited.log, lines.len());
        is_selected_by_jq(&audited.log, &lines);
    }
}

/// Somebody else's parser reads the same.
fn parses_with_python(log: &Path, count: usize) {
    let program = "import json, sys\nprint(len([json.loads(line) for line in open(sys.argv[1])]))";
    match Command::new("python3")
        .args(["-c", program])
        .arg(log)
        .output()
    {
        Err(_) => skipped("parses_with_python", "there is no python3"),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!(said.trim(), count.to_string(), "{:?}", output.stderr);
        }
    }
}

/// The manual page's example selects what was not forwarded.
fn is_selected_by_jq(log: &Path, lines: &[Json]) {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("man/broker-exec.1");
    let page = fs::read_to_string(page)
        .expect("the manual page")
        .replace("\\e", "\\");
    let (_, program) = page.split_once("$ jq -r '").expect("the example");
    let (program, _) = program.split_once("' audit.jsonl").expect("its end");
    let jq = Command::new("jq").args(["-r", program]).arg(log).output();
    let Ok(output) = jq else {
        return skipped("is_selected_by_jq", "there is no jq");
    };
    assert!(output.status.success(), "{:?}", output.stderr);
    let not_forwarded = of(lines, "request")
        .iter()
        .filter(|line| line.text("decision") != "forwarded")
        .count();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(said.lines().count(), not_forwarded);
}
