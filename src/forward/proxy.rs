//! The proxy on the way out: `https_proxy`, `http_proxy`, `all_proxy` and `no_proxy`, either case.
//!
//! ureq parses and speaks; which variable counts for which scheme is decided here, as curl does it,
//! because ureq takes the first one that is set. A setting that cannot be honoured is refused: going
//! direct instead would be a way out that the user has closed.

use ureq::http::Uri;
use ureq::{Proxy, ProxyProtocol};

use crate::error::{Error, Result};

/// The proxy that the environment names for this URI.
pub fn from_env(uri: &Uri, tls: bool) -> Result<Option<Proxy>> {
    choose(uri, tls, |name| {
        std::env::var(name).ok().filter(|v| !v.is_empty())
    })
}

fn choose(uri: &Uri, tls: bool, var: impl Fn(&str) -> Option<String>) -> Result<Option<Proxy>> {
    // HTTP_PROXY in capitals is not read: a CGI request can set it (CVE-2016-5385).
    let names: &[&str] = if tls {
        &["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
    } else {
        &["http_proxy", "all_proxy", "ALL_PROXY"]
    };
    let Some((name, value)) = names
        .iter()
        .find_map(|name| var(name).map(|value| (*name, value)))
    else {
        return Ok(None);
    };
    // The value may hold a password: it is never repeated.
    let refuse = |why: &str| Error::Usage(format!("the proxy in ${name} {why}"));
    let no_proxy = var("no_proxy")
        .or_else(|| var("NO_PROXY"))
        .unwrap_or_default();
    if no_proxy.split(',').any(|entry| covers(entry.trim(), uri)) {
        return Ok(None);
    }
    let proxy = Proxy::new(&value).map_err(|_| refuse("is not a URL that can be understood"))?;
    if proxy.protocol() != ProxyProtocol::Http {
        return Err(refuse(
            "is not an http:// proxy; SOCKS and https:// proxies are not supported",
        ));
    }
    Ok(Some(proxy))
}

/// Whether one entry of `no_proxy` covers the host: `*`, a name with its subdomains, or an address;
/// each with an optional port.
fn covers(entry: &str, uri: &Uri) -> bool {
    let host = uri
        .host()
        .unwrap_or_default()
        .trim_start_matches('[')
        .trim_end_matches(']');
    let entry = entry.trim_end_matches('.');
    if entry == "*" {
        return true;
    }
    let (name, port) = match entry.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => {
            (name, port.parse().ok())
        }
        _ => (entry, None),
    };
    let default = if uri.scheme_str() == Some("https") {
        443
    } else {
        80
    };
    if port.is_some_and(|port: u16| port != uri.port_u16().unwrap_or(default)) {
        return false;
    }
    let name = name
        .trim_start_matches('[')
        .trim_end_matches(']')
        .trim_start_matches("*.")
        .trim_start_matches('.');
    if name.is_empty() || host.len() < name.len() {
        return false;
    }
    let (front, tail) = host.split_at(host.len() - name.len());
    let address = host.parse::<std::net::IpAddr>().is_ok();
    tail.eq_ignore_ascii_case(name) && (front.is_empty() || (front.ends_with('.') && !address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(url: &str, vars: &[(&str, &str)]) -> Option<String> {
        let uri: Uri = url.parse().unwrap();
        let tls = uri.scheme_str() == Some("https");
        let var = |name: &str| {
            vars.iter()
                .find(|(n, _)| *n == name)
                .map(|(_, v)| v.to_string())
        };
        choose(&uri, tls, var)
            .unwrap()
            .map(|p| p.host().to_string())
    }

    #[test]
    fn the_variable_of_the_scheme_counts() {
        let all = [
            ("https_proxy", "http://a"),
            ("http_proxy", "http://b"),
            ("all_proxy", "http://c"),
        ];
        assert_eq!(chosen("https://h", &all).as_deref(), Some("a"));
        assert_eq!(chosen("http://h", &all).as_deref(), Some("b"));
        assert_eq!(chosen("https://h", &all[1..]).as_deref(), Some("c"));
        assert_eq!(
            chosen("https://h", &[("HTTPS_PROXY", "x:3128")]).as_deref(),
            Some("x")
        );
        assert_eq!(chosen("http://h", &[("HTTP_PROXY", "http://a")]), None);
        assert_eq!(chosen("https://h", &[]), None);
    }

    #[test]
    fn no_proxy_keeps_hosts_direct() {
        let direct = |url: &str, no: &str| {
            chosen(url, &[("https_proxy", "http://p"), ("no_proxy", no)]).is_none()
        };
        assert!(direct("https://a.example.com", "example.com"));
        assert!(direct("https://example.com", ".example.com"));
        assert!(direct("https://a.example.com", "x, *.example.com"));
        assert!(direct("https://EXAMPLE.com", "example.COM"));
        assert!(direct("https://h", "*"));
        assert!(direct("https://127.0.0.1", "127.0.0.1"));
        assert!(direct("https://[::1]", "::1"));
        assert!(direct("https://h:8443", "h:8443"));
        assert!(!direct("https://h:8443", "h:443"));
        assert!(!direct("https://badexample.com", "example.com"));
        assert!(!direct("https://h", ""));
        assert!(!direct("https://10.127.0.0.1.com", "127.0.0.1"));
    }

    #[test]
    fn a_proxy_that_cannot_be_honoured_is_refused_without_its_password() {
        let uri: Uri = "https://h".parse().unwrap();
        for value in [
            "socks5://u:secret@p",
            "https://u:secret@p",
            "not a url secret",
        ] {
            let refused = choose(&uri, true, |name| {
                (name == "https_proxy").then(|| value.to_string())
            });
            let text = refused.unwrap_err().to_string();
            assert!(
                text.contains("https_proxy") && !text.contains("secret"),
                "{text}"
            );
        }
    }
}
