//! Where the key comes from: from each source the command is served, and finds the key nowhere; a file
//! that changes or goes is followed.

mod support;

use std::fs::File;
use std::process::Command;

use support::calls::{api, assert_all_authorized, assert_silent, with_clients};
use support::session::binary;
use support::{Broker, Finished, Key, Place, Session, TempDir};

donor!();

/// Runs a small tree of processes that makes a request, copies out everything it may read of every
/// process, and looks through all of that for the key.
fn the_key_is_nowhere_with(broker: impl FnOnce(Broker, &Key) -> Broker) {
    let (key, rule, upstream) = api(Place::Query("app_key"));
    let out = TempDir::new();
    let base = with_clients(
        Broker::new()
            .towards(&upstream)
            .args(["-i", &rule.place.inject()]),
    );
    // A sleeper beside, so that the tree has more than one branch; the second request shows that
    // the look around disturbed nothing.
    let finished = broker(base.env("OUT", out.path()), &key)
        .bash(
            r#"
            sleep 60 & sleeper=$!
            printenv; set
            python3 $CLIENTS/get.py /echo
            python3 $CLIENTS/dump.py "$OUT" $$ || exit
            kill $sleeper
            python3 $CLIENTS/get.py /echo"#,
        )
        .succeeded();
    for name in ["environ", "cmdline", "links", "contents"] {
        key.assert_absent(std::fs::read(out.join(name)).unwrap_or_default(), name);
    }
    let environ = std::fs::read(out.join("environ")).expect("environments were dumped");
    assert!(
        support::key::contains(&environ, b"BROKER_EXEC_FD="),
        "the tree's own are among them"
    );
    assert!(finished.stdout.contains("dumped "), "{}", finished.stdout);
    assert_silent(&key, &finished);
    assert_all_authorized(&upstream, 2);
}

#[test]
fn the_key_of_a_file_is_nowhere_to_be_found() {
    the_key_is_nowhere_with(|broker, key| {
        let source = key.file_source(broker.dir());
        broker.args(["-k", &source])
    });
}

#[test]
fn the_key_of_a_variable_is_nowhere_to_be_found() {
    the_key_is_nowhere_with(|broker, key| {
        broker
            .env("API_KEY", key.as_str())
            .args(["-k", "env:API_KEY"])
    });
}

#[test]
fn the_key_of_a_command_is_nowhere_to_be_found() {
    the_key_is_nowhere_with(|broker, key| {
        let path = broker.dir().write("vault", key.as_str());
        broker.args(["-k", &format!("exec:cat '{}'", path.display())])
    });
}

#[test]
fn the_key_of_a_descriptor_is_nowhere_to_be_found() {
    the_key_is_nowhere_with(|broker, key| {
        let path = broker.dir().write("key", key.as_str());
        let file = File::open(path).expect("open the key");
        // Number 0 is what safe code can place: the command then has no standard input.
        broker
            .with(|command| {
                command.stdin(file);
            })
            .args(["-k", "fd:0"])
    });
}

#[test]
fn a_descriptor_above_the_standard_three_is_read_and_closed() {
    let (key, rule, upstream) = api(Place::Bearer);
    let base = Broker::new();
    let path = base.dir().write("key", key.as_str());
    let ca = upstream
        .ca()
        .expect("a TLS upstream has an authority")
        .pem_file();
    let output = Command::new("bash")
        .args(["-c", r#"exec 8< <(cat "$1"); shift; exec "$0" "$@""#])
        .arg(binary())
        .arg(path)
        .args([
            "-u",
            &upstream.url(),
            "-k",
            "fd:8",
            "-i",
            &rule.place.inject(),
            "--cacert",
        ])
        .arg(ca)
        .args([
            "--",
            "bash",
            "-c",
            "[ -e /proc/self/fd/8 ] && exit 9; exec python3 \"$0\" /",
        ])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/get.py"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("run bash");
    let finished = Finished {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    assert_silent(&key, &finished);
    assert!(finished.succeeded().stdout.starts_with("200 "));
    assert_all_authorized(&upstream, 1);
}

#[test]
fn a_rotated_file_is_used_without_a_restart() {
    let (old, rule, upstream) = api(Place::Bearer);
    let session = Session::to(&upstream, &old, &rule.place, [] as [&str; 0]);
    let mut http = session.http();
    assert_eq!(http.get("/").status, 200);
    let new = Key::random();
    session.dir().write("key", new.as_str());
    rule.rotate(&new);
    assert_eq!(http.get("/").status, 200, "on the same stream");
    assert_eq!(session.http().get("/").status, 200, "on a fresh one");
    assert_all_authorized(&upstream, 3);
    for key in [&old, &new] {
        key.assert_absent(session.stderr(), "what was said on standard error");
    }
}

#[test]
fn a_file_that_is_gone_sends_nothing_upstream() {
    let (key, rule, upstream) = api(Place::Bearer);
    let session = Session::to(&upstream, &key, &rule.place, [] as [&str; 0]);
    assert_eq!(session.http().get("/").status, 200);
    std::fs::remove_file(session.dir().join("key")).expect("remove the key");
    let mut http = session.http();
    let refused = http.get("/");
    assert!(refused.status >= 500 && refused.complete, "{refused:?}");
    assert_eq!(
        refused.header("content-type"),
        Some("application/problem+json")
    );
    assert!(
        refused
            .header("proxy-status")
            .is_some_and(|value| value.starts_with("broker-exec; error="))
    );
    assert!(
        refused.text().contains("key"),
        "the source is named: {}",
        refused.text()
    );
    key.assert_absent(&refused.raw, "the refusal");
    assert_eq!(upstream.requests().len(), 1, "nothing more went upstream");
    // The source comes back: so does the service.
    session.dir().write("key", key.as_str());
    assert_eq!(session.http().get("/").status, 200);
}
