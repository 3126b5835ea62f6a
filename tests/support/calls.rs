//! What every test of authenticated calls begins and ends with.

use super::{Broker, Finished, Key, Place, Rule, Upstream};

/// A key and a TLS API that demands it.
pub fn api(place: Place) -> (Key, Rule, Upstream) {
    let key = Key::random();
    let rule = Rule::new(place, &key);
    let upstream = Upstream::api(true, rule.clone());
    (key, rule, upstream)
}

/// `broker` with the directory of the Python clients in `$CLIENTS`.
pub fn with_clients(broker: Broker) -> Broker {
    broker
        .env(
            "CLIENTS",
            concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients"),
        )
        .env("PYTHONDONTWRITEBYTECODE", "1")
}

/// The key is in nothing that was printed, responses included.
pub fn assert_silent(key: &Key, finished: &Finished) {
    key.assert_absent(&finished.stdout, "the command's output");
    key.assert_absent(&finished.stderr, "what was said on standard error");
}

/// Every request came with the credential, once and right.
pub fn assert_all_authorized(upstream: &Upstream, count: usize) {
    let requests = upstream.requests();
    assert_eq!(requests.len(), count, "requests upstream");
    assert!(
        requests.iter().all(|request| request.authorized),
        "every request carries the credential"
    );
}
