//! Where the key goes: into each place that `--inject` knows, over whatever the command put there, and
//! nothing else of the request is touched.

mod support;

use support::calls::api;
use support::{Place, Session};

donor!();

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
