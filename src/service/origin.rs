//! Where requests go, and nowhere else: the origin that a credential belongs to.

use std::fmt;

use ureq::http::Uri;

use super::Reach;
use crate::error::{Error, Result};

/// Where requests are sent: scheme, host, port, and a path prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Whether the upstream speaks TLS.
    pub tls: bool,
    /// The host, lower-case, an IPv6 address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Host and port as the `Host` field has them.
    pub authority: String,
    /// What is put before each request path; empty, or with a leading and no trailing slash.
    pub prefix: String,
    /// Which addresses the host may turn out to be.
    pub reach: Reach,
}

impl Origin {
    /// Parses the value of `--upstream`.
    pub fn parse(url: &str) -> Result<Origin> {
        let bad = |why: &str| {
            Error::Usage(format!(
                "--upstream: {why}; give it as https://HOST[:PORT][/PREFIX]"
            ))
        };
        if url.contains('#') || url.contains('?') {
            return Err(bad("a query or fragment has no meaning there"));
        }
        let uri: Uri = url.parse().map_err(|_| bad("not a URL"))?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(bad("the scheme must be https or http")),
        };
        let authority = uri.authority().ok_or_else(|| bad("the host is missing"))?;
        if authority.as_str().contains('@') {
            return Err(bad(
                "it holds a user name or password; credentials come by --key",
            ));
        }
        let host = authority.host().to_ascii_lowercase();
        // The brackets hold a whole IPv6 address, and stand nowhere else (RFC 3986 section 3.2.2).
        let inside = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        if inside.is_some_and(|h| h.parse::<std::net::Ipv6Addr>().is_err())
            || (inside.is_none() && host.contains(['[', ']']))
        {
            return Err(bad("the host is malformed"));
        }
        let bare = inside.unwrap_or(&host).to_string();
        if bare.is_empty() {
            return Err(bad("the host is missing"));
        }
        let default = if tls { 443 } else { 80 };
        let port =
            match authority.as_str().rsplit_once(':') {
                Some((_, digits)) if !digits.contains(']') => authority
                    .port_u16()
                    .filter(|&p| p > 0)
                    .ok_or_else(|| bad("the port is not a number from 1 to 65535"))?,
                _ => default,
            };
        let authority = if port == default {
            host
        } else {
            format!("{host}:{port}")
        };
        let prefix = uri.path().trim_end_matches('/').to_string();
        if has_dot_segment(&prefix) {
            return Err(bad("the path holds a '.' or '..' segment"));
        }
        let reach = Reach::of(&bare);
        Ok(Origin {
            tls,
            host: bare,
            port,
            authority,
            prefix,
            reach,
        })
    }

    /// Whether the host is this machine itself, where a plain connection meets no eavesdropper.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        Reach::of(&self.host) == Reach::Loopback
            || self
                .host
                .parse::<std::net::IpAddr>()
                .is_ok_and(|a| a.is_loopback())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.prefix)
    }
}

/// Whether a path holds a segment that a server resolves away (RFC 3986 section 5.2.4), encoded or not.
#[must_use]
pub fn has_dot_segment(path: &str) -> bool {
    path.split(['/', '\\']).any(|segment| {
        let plain = segment.replace("%2e", ".").replace("%2E", ".");
        // An encoded slash may be decoded first by the server that resolves the segments.
        plain
            .replace("%2f", "/")
            .replace("%2F", "/")
            .replace("%5c", "/")
            .replace("%5C", "/")
            .split('/')
            .any(|part| part == "." || part == "..")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstream_urls_are_taken_apart() {
        let o = Origin::parse("https://API.example.com/v1/").unwrap();
        assert_eq!(
            (o.tls, o.host.as_str(), o.port),
            (true, "api.example.com", 443)
        );
        assert_eq!(
            (o.authority.as_str(), o.prefix.as_str()),
            ("api.example.com", "/v1")
        );
        let o = Origin::parse("http://[::1]:8080").unwrap();
        assert_eq!(
            (o.host.as_str(), o.port, o.authority.as_str()),
            ("::1", 8080, "[::1]:8080")
        );
        assert_eq!(Origin::parse("https://h:443").unwrap().authority, "h");
        for bad in [
            "",
            "h",
            "ftp://h",
            "https://",
            "https://u:p@h",
            "https://h:0",
            "https://h:99999",
            "https://h/?q",
            "https://h/#f",
            "https://h/a/../b",
            "https://h:x",
            "http://h[::1]:80/",
            "http://[h]/",
        ] {
            assert!(matches!(Origin::parse(bad), Err(Error::Usage(_))), "{bad}");
        }
        // What was given is not repeated: it may hold a password.
        assert!(
            !Origin::parse("https://u:secret@h")
                .unwrap_err()
                .to_string()
                .contains("secret")
        );
    }

    #[test]
    fn dot_segments_are_seen_through_encodings() {
        for path in [
            "/..",
            "/a/../b",
            "/./",
            "/%2e%2E/x",
            "/.%2e",
            "/a%2f..%2fb",
            "/a\\..\\b",
            "/a%5c..",
        ] {
            assert!(has_dot_segment(path), "{path}");
        }
        for path in [
            "",
            "/",
            "/a.b",
            "/...",
            "/a..b",
            "/.well-known",
            "/%2e%2e%2e",
        ] {
            assert!(!has_dot_segment(path), "{path}");
        }
    }
}
