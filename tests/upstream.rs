//! The test upstream is itself what it claims to be: the other tests lean on it.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use support::key::{Crc32, base64, form_decode};
use support::{Key, Place, Rule, Upstream, skipped};

#[test]
fn the_encodings_are_the_known_ones() {
    assert_eq!(Crc32::of(b"123456789"), "cbf43926");
    assert_eq!(base64(b"foobar"), "Zm9vYmFy");
    assert_eq!(base64(b"fooba"), "Zm9vYmE=");
    assert_eq!(base64(b"f"), "Zg==");
    assert_eq!(form_decode("a%2Bb+c%zz"), b"a+b c%zz");
    let key = Key::random();
    for user in ["", "u", "us", "use"] {
        let encoded = base64(format!("{user}{}:tail", key.as_str()).as_bytes());
        assert!(
            key.found_in(encoded.as_bytes()).is_some(),
            "base64 after {user:?}"
        );
    }
    assert_eq!(key.found_in(b"k/ and nothing more"), None);
}

#[test]
fn the_api_demands_the_credential_and_only_the_right_one() {
    let key = Key::random();
    let upstream = Upstream::api(false, Rule::new(Place::Query("app_key"), &key));
    let encoded = key
        .as_str()
        .replace('/', "%2F")
        .replace('+', "%2B")
        .replace('=', "%3D");
    let ask = |target: &str| {
        let mut tcp = TcpStream::connect(upstream.address()).expect("connect");
        write!(
            tcp,
            "GET {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
        )
        .expect("send");
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).expect("read");
        answer
    };
    assert!(ask("/").contains("X-Refused: missing"));
    assert!(ask("/?app_key=nonsense").contains("X-Refused: wrong"));
    assert!(ask(&format!("/?app_key=x&app%5Fkey={encoded}")).contains("X-Refused: wrong"));
    assert!(ask(&format!("/?app_key={encoded}")).starts_with("HTTP/1.1 200 "));
    key.assert_absent(ask(&format!("/echo?app_key={encoded}")), "an echo");
    let authorized: Vec<bool> = upstream
        .requests()
        .iter()
        .map(|request| request.authorized)
        .collect();
    assert_eq!(authorized, [false, false, false, true, true]);
}

#[test]
fn the_tls_upstream_satisfies_curl_and_only_with_its_authority() {
    if Command::new("curl").arg("--version").output().is_err() {
        return skipped("the_tls_upstream_satisfies_curl", "curl is absent");
    }
    let key = Key::random();
    let upstream = Upstream::api(true, Rule::new(Place::Header("X-Api-Key"), &key));
    let ca = upstream
        .ca()
        .expect("a TLS upstream has an authority")
        .pem_file();
    let curl = |more: &[&str]| {
        let output = Command::new("curl")
            .args(["-s", "-S"])
            .args(more)
            .output()
            .expect("run curl");
        (output.status.success(), output.stdout)
    };
    let (ca, header) = (
        ca.to_str().expect("a plain path"),
        format!("X-Api-Key: {}", key.as_str()),
    );
    let url = |path: &str| format!("{}{path}", upstream.url_by_name());
    let (fine, body) = curl(&[
        "--cacert",
        ca,
        "-H",
        &header,
        &url("/download?bytes=100000"),
    ]);
    assert!(fine && body == support::api::pattern(100_000));
    let (fine, body) = curl(&["--cacert", ca, "-H", &header, &url("/trailers?bytes=20000")]);
    assert!(fine && body == support::api::pattern(20_000));
    assert!(
        !curl(&["-H", &header, &url("/")]).0,
        "an unknown authority is refused"
    );
}
