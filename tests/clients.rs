//! Real commands under the real binary: each is authenticated against a TLS upstream with a private
//! authority, and none of them can find the key anywhere.

mod support;

use std::fs::File;
use std::process::Command;

use support::session::binary;
use support::{Broker, Finished, Key, Place, Rule, Session, TempDir, Upstream, skipped};

donor!();

/// A key and a TLS API that demands it.
fn api(place: Place) -> (Key, Rule, Upstream) {
    let key = Key::random();
    let rule = Rule::new(place, &key);
    let upstream = Upstream::api(true, rule.clone());
    (key, rule, upstream)
}

/// `broker` with the directory of the Python clients in `$CLIENTS`.
fn with_clients(broker: Broker) -> Broker {
    broker
        .env(
            "CLIENTS",
            concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients"),
        )
        .env("PYTHONDONTWRITEBYTECODE", "1")
}

/// The usual case: `app_key` in the query, as the issue's first example has it.
fn run(script: &str) -> (Key, Upstream, Finished) {
    let (key, rule, upstream) = api(Place::Query("app_key"));
    let finished = with_clients(Broker::to(&upstream, &key, &rule.place))
        .bash(script)
        .succeeded();
    assert_silent(&key, &finished);
    (key, upstream, finished)
}

/// The key is in nothing that was printed, responses included.
fn assert_silent(key: &Key, finished: &Finished) {
    key.assert_absent(&finished.stdout, "the command's output");
    key.assert_absent(&finished.stderr, "what was said on standard error");
}

/// Every request came with the credential, once and right.
fn assert_all_authorized(upstream: &Upstream, count: usize) {
    let requests = upstream.requests();
    assert_eq!(requests.len(), count, "requests upstream");
    assert!(
        requests.iter().all(|request| request.authorized),
        "every request carries the credential"
    );
}

#[test]
fn bash_running_a_python_client_is_authenticated() {
    let (_, upstream, finished) = run("python3 $CLIENTS/get.py /echo?x=1 /status/418 /nowhere");
    assert!(
        finished.stdout.contains("\"method\":\"GET\""),
        "{}",
        finished.stdout
    );
    assert!(finished.stdout.contains("\n418 "), "{}", finished.stdout);
    assert!(finished.stdout.contains("\n404 "), "{}", finished.stdout);
    assert_all_authorized(&upstream, 3);
    let host = format!("127.0.0.1:{}", upstream.port());
    for request in upstream.requests() {
        assert_eq!(
            request.all("host"),
            [host.as_str()],
            "the upstream's own Host, once"
        );
    }
}

#[test]
fn ssl_cert_file_adds_an_authority_as_cacert_does() {
    let (key, rule, upstream) = api(Place::Bearer);
    let ca = upstream
        .ca()
        .expect("a TLS upstream has an authority")
        .pem_file();
    let broker = Broker::new().env("SSL_CERT_FILE", ca);
    let source = key.file_source(broker.dir());
    let broker = broker.args([
        "-u",
        &upstream.url_by_name(),
        "-k",
        &source,
        "-i",
        &rule.place.inject(),
    ]);
    let finished = with_clients(broker)
        .bash("python3 $CLIENTS/get.py /")
        .succeeded();
    assert!(finished.stdout.starts_with("200 "), "{}", finished.stdout);
    assert_silent(&key, &finished);
    assert_all_authorized(&upstream, 1);
}

#[test]
fn an_upstream_of_an_unknown_authority_gets_no_request() {
    let (key, rule, upstream) = api(Place::Bearer);
    let broker = Broker::new().with(|command| {
        command.env_remove("SSL_CERT_FILE");
    });
    let source = key.file_source(broker.dir());
    let broker = broker.args([
        "-u",
        &upstream.url(),
        "-k",
        &source,
        "-i",
        &rule.place.inject(),
    ]);
    let finished = with_clients(broker)
        .bash("python3 $CLIENTS/get.py /")
        .succeeded();
    assert!(finished.stdout.starts_with("502 "), "{}", finished.stdout);
    assert!(
        finished.stdout.contains("broker-exec; error="),
        "{}",
        finished.stdout
    );
    assert_silent(&key, &finished);
    assert_eq!(upstream.requests().len(), 0);
    assert!(
        upstream.failed_handshakes() > 0,
        "the broker tried, and turned away"
    );
}

#[test]
fn curl_is_authenticated_through_a_relay_in_the_file_system() {
    if Command::new("curl").arg("--version").output().is_err() {
        return skipped(
            "curl_is_authenticated_through_a_relay_in_the_file_system",
            "curl is absent",
        );
    }
    let (_, upstream, finished) = run(r#"
        dir=$(mktemp -d) && trap 'rm -r "$dir"' EXIT
        python3 $CLIENTS/relay.py "$dir/api" \
            curl -sS -i --unix-socket "$dir/api" http://api.local/echo -d 'a body' --next \
                 -sS -i --unix-socket "$dir/api" 'http://api.local/download?bytes=100000' -o "$dir/body"
        python3 -c 'import sys, zlib
head, body = open(sys.argv[1], "rb").read().split(b"\r\n\r\n", 1)
assert b"%08x" % zlib.crc32(body) in head' "$dir/body""#);
    assert!(
        finished.stdout.starts_with("HTTP/1.1 200 "),
        "{}",
        finished.stdout
    );
    assert!(
        finished.stdout.contains("\"length\":6"),
        "{}",
        finished.stdout
    );
    assert_all_authorized(&upstream, 2);
}

#[test]
fn a_client_may_dial_with_plain_write() {
    let (_, upstream, finished) = run("python3 $CLIENTS/plain_write.py");
    assert!(
        finished.stdout.starts_with("HTTP/1.1 201 "),
        "{}",
        finished.stdout
    );
    assert_all_authorized(&upstream, 1);
}

#[test]
fn a_third_party_client_of_the_preset_works_unchanged() {
    let (key, _, upstream) = api(Place::Query("app_key"));
    let broker = Broker::new().args(["-s", "flashduty"]).towards(&upstream);
    let source = key.file_source(broker.dir());
    let finished = with_clients(broker)
        .args(["-k", &source])
        // The habit that the preset ends: it must not survive beside the broker.
        .env("FLASHDUTY_APP_KEY", key.as_str())
        .bash("printenv; python3 $CLIENTS/third_party.py")
        .succeeded();
    assert!(
        finished.stdout.contains("served 4\n"),
        "{}",
        finished.stdout
    );
    assert!(
        finished
            .stdout
            .contains("FLASHDUTY_BASE_URL=http://flashduty.broker.local\n")
    );
    assert_silent(&key, &finished);
    assert_all_authorized(&upstream, 8);
}

#[test]
fn eight_clients_at_once_do_not_get_each_others_bodies() {
    let (_, upstream, finished) = run(r"
        for name in one two three four five six seven eight; do
            python3 $CLIENTS/mirror.py $name & clients+=($!)
        done
        status=0
        for client in ${clients[@]}; do wait $client || status=1; done
        exit $status");
    assert_eq!(
        finished.stdout.matches("intact ").count(),
        8,
        "{}",
        finished.stdout
    );
    assert_all_authorized(&upstream, 40);
}

#[test]
fn a_grandchild_that_inherited_the_descriptor_is_authenticated() {
    let (_, upstream, finished) =
        run("bash -c 'sh -c \"python3 $CLIENTS/get.py /; true\"; true'; true");
    assert!(finished.stdout.starts_with("200 "), "{}", finished.stdout);
    assert_all_authorized(&upstream, 1);
}

#[test]
fn python_passes_the_descriptor_on_with_pass_fds() {
    let (_, upstream, finished) = run("python3 $CLIENTS/grandchild.py");
    assert!(finished.stdout.starts_with("200 "), "{}", finished.stdout);
    assert_all_authorized(&upstream, 1);
}

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

/// Sends `request` with the credential's place filled by the command itself, and gives back the head
/// that arrived upstream.
fn sent_upstream(place: Place, target: &str, fields: &str) -> support::Recorded {
    let (key, rule, upstream) = api(place);
    let session = Session::to(&upstream, &key, &rule.place, [] as [&str; 0]);
    let mut http = session.http();
    http.send(format!(
        "GET {target} HTTP/1.1\r\nHost: api.local\r\n{fields}X-Mine: kept\r\n\r\n"
    ));
    let response = http.read_response();
    assert_eq!(
        response.status,
        200,
        "{:?} {}",
        rule.place,
        response.header("x-refused").unwrap_or_default()
    );
    key.assert_absent(&response.raw, "the response");
    let request = upstream.requests().remove(0);
    assert!(request.authorized);
    assert!(
        !support::key::contains(&request.head, b"evil"),
        "the command's own credential went upstream"
    );
    assert_eq!(request.all("x-mine"), ["kept"]);
    request
}

#[test]
fn bearer_replaces_what_the_command_sent() {
    let fields =
        "Authorization: Bearer evil\r\nauthorization: Basic evil\r\nAUTHORIZATION:evil\r\n";
    sent_upstream(Place::Bearer, "/", fields);
    sent_upstream(Place::Bearer, "/", "");
}

#[test]
fn basic_replaces_what_the_command_sent() {
    let fields = "Authorization: Bearer evil\r\nauthorization: Basic evil\r\n";
    sent_upstream(Place::Basic(None), "/", fields);
    sent_upstream(Place::Basic(Some("user")), "/", fields);
    sent_upstream(Place::Basic(Some("user")), "/", "");
}

#[test]
fn a_header_replaces_what_the_command_sent() {
    sent_upstream(
        Place::Header("X-Api-Key"),
        "/",
        "X-Api-Key: evil\r\nx-api-key:evil\r\nX-API-KEY: evil, evil\r\n",
    );
    sent_upstream(Place::Header("X-Api-Key"), "/", "");
    let fields = "authorization: Token evil\r\nAuthorization: Bearer evil\r\n";
    sent_upstream(Place::Template("Authorization", "Token {}"), "/", fields);
}

#[test]
fn a_query_parameter_replaces_what_the_command_sent_and_nothing_else() {
    let strip = |request: &support::Recorded| {
        let (path, query) = request
            .target
            .split_once('?')
            .expect("the credential stands in the query");
        let others: Vec<&str> = query
            .split('&')
            .filter(|pair| !pair.starts_with("app") && !pair.starts_with("%61pp"))
            .collect();
        format!("{path}?{}", others.join("&"))
    };
    let place = || Place::Query("app_key");
    let target =
        "/?a=1&app_key=evil&b=%20x+y&app%5Fkey=evil&c&app_key&d==;=&%61pp_key=evil&app_keys=2";
    let request = sent_upstream(place(), target, "");
    assert_eq!(strip(&request), "/?a=1&b=%20x+y&c&d==;=");
    assert!(
        request.target.contains("app_keys=2"),
        "a longer name is another name"
    );
    assert_eq!(strip(&sent_upstream(place(), "/", "")), "/?");
    assert_eq!(strip(&sent_upstream(place(), "/?x=%41", "")), "/?x=%41");
}

#[test]
fn a_cookie_replaces_what_the_command_sent_and_leaves_the_others() {
    let request = sent_upstream(
        Place::Cookie("sid"),
        "/",
        "Cookie: a=1; sid=evil; b=2\r\ncookie: sid=evil; sid2=c\r\n",
    );
    let cookies = request.all("cookie").join("; ");
    for other in ["a=1", "b=2", "sid2=c"] {
        assert!(
            cookies.split("; ").any(|cookie| cookie == other),
            "{other} is kept"
        );
    }
    sent_upstream(Place::Cookie("sid"), "/", "");
    sent_upstream(Place::Cookie("sid"), "/", "Cookie: sid=evil\r\n");
}
