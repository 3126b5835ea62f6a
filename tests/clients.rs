//! Real commands under the real binary: each is authenticated against a TLS upstream with a private
//! authority, and none of them can find the key anywhere.

mod support;

use std::process::Command;

use support::calls::{api, assert_all_authorized, assert_silent, with_clients};
use support::{Broker, Finished, Key, Place, Upstream, skipped};

/// The usual case: `app_key` in the query, as the issue's first example has it.
fn run(script: &str) -> (Key, Upstream, Finished) {
    let (key, rule, upstream) = api(Place::Query("app_key"));
    let finished = with_clients(Broker::to(&upstream, &key, &rule.place))
        .bash(script)
        .succeeded();
    assert_silent(&key, &finished);
    (key, upstream, finished)
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
