//! The place of a credential in a request, and the form in which it stands there.

use zeroize::Zeroizing;

use crate::credential::Secret;
use crate::error::{Error, Result};
use crate::http::headers::Name;

/// Where in a request the credential goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// `Authorization: Bearer KEY` (RFC 6750).
    Bearer,
    /// `Authorization: Basic ...` (RFC 7617): with a user, the key is the password; without, the
    /// key is `user:password`, or, when there is no colon in it, a password for an empty user name.
    Basic(Option<String>),
    /// A header field of this name, the key between `before` and `after`.
    Header {
        /// The field's name.
        name: String,
        /// What stands before the key.
        before: String,
        /// What stands behind it.
        after: String,
    },
    /// A query parameter of this name.
    Query(String),
    /// A cookie of this name.
    Cookie(String),
}

impl Place {
    /// Parses the value of `--inject`.
    pub fn parse(text: &str) -> Result<Place> {
        let bad = |why: &str| Error::Usage(format!("--inject: {why}"));
        let (kind, rest) = match text.split_once(':') {
            Some((kind, rest)) => (kind, Some(rest)),
            None => (text, None),
        };
        match (kind, rest) {
            ("bearer", None) => Ok(Place::Bearer),
            ("basic", None) => Ok(Place::Basic(None)),
            ("basic", Some(user)) => {
                // RFC 7617 section 2: the user-id holds no colon, neither holds a control character.
                if user.is_empty() || user.contains(':') || user.chars().any(char::is_control) {
                    return Err(bad(
                        "the user must be given, without a colon or control character",
                    ));
                }
                Ok(Place::Basic(Some(user.to_string())))
            }
            ("header", Some(rest)) => {
                let (name, template) = rest.split_once(':').unwrap_or((rest, "{}"));
                if !is_token(name) {
                    return Err(bad("the header name is not a token"));
                }
                if Name::of(name) != Name::EndToEnd || name.eq_ignore_ascii_case("cookie") {
                    return Err(bad(
                        "that field frames or routes the message (or has a place of its own)",
                    ));
                }
                let template = template.trim_ascii();
                let (before, after) = template
                    .split_once("{}")
                    .ok_or_else(|| bad("the template lacks {}"))?;
                if after.contains("{}") || !template.bytes().all(|b| (0x20..0x7f).contains(&b)) {
                    return Err(bad("the template must be printable ASCII with {} once"));
                }
                Ok(Place::Header {
                    name: name.to_string(),
                    before: before.to_string(),
                    after: after.to_string(),
                })
            }
            ("query", Some(name)) if !name.is_empty() => Ok(Place::Query(name.to_string())),
            ("cookie", Some(name)) if is_token(name) => Ok(Place::Cookie(name.to_string())),
            _ => Err(bad(
                "expected bearer, basic[:USER], header:NAME, header:NAME:TEMPLATE, query:NAME or cookie:NAME",
            )),
        }
    }

    /// The header field that holds the credential; `None` when it goes into the query.
    #[must_use]
    pub fn field_name(&self) -> Option<&str> {
        match self {
            Place::Bearer | Place::Basic(_) => Some("Authorization"),
            Place::Header { name, .. } => Some(name),
            Place::Cookie(_) => Some("Cookie"),
            Place::Query(_) => None,
        }
    }

    /// The key as it is written into a request, or why it can't stand there. Control characters
    /// have been refused already.
    pub(super) fn render(&self, key: &[u8]) -> std::result::Result<Secret, String> {
        let refuse = |fits: fn(&u8) -> bool, what: &str| match key.iter().position(|b| !fits(b)) {
            Some(at) => Err(format!("byte {at} of the key cannot stand in {what}")),
            None => Ok(()),
        };
        // Room for the worst case, so that no growing vector leaves a copy behind.
        let mut out = Zeroizing::new(Vec::with_capacity(64 + 3 * key.len() + self.overhead()));
        match self {
            Place::Bearer => {
                refuse(u8::is_ascii_graphic, "a bearer token")?;
                out.extend_from_slice(b"Bearer ");
                out.extend_from_slice(key);
            }
            Place::Basic(user) => {
                let mut pair = Zeroizing::new(Vec::with_capacity(key.len() + self.overhead() + 1));
                if let Some(user) = user {
                    pair.extend_from_slice(user.as_bytes());
                }
                if user.is_some() || !key.contains(&b':') {
                    pair.push(b':');
                }
                pair.extend_from_slice(key);
                out.extend_from_slice(b"Basic ");
                base64(&pair, &mut out);
            }
            Place::Header { before, after, .. } => {
                refuse(|b| *b >= 0x20, "a header field")?;
                out.extend_from_slice(before.as_bytes());
                out.extend_from_slice(key);
                out.extend_from_slice(after.as_bytes());
                if out.trim_ascii().len() != out.len() {
                    return Err("a header field cannot start or end with white space".into());
                }
            }
            Place::Query(_) => percent_encode(key, &mut out),
            Place::Cookie(_) => {
                // RFC 6265 section 4.1.1, cookie-octet.
                refuse(
                    |b| b.is_ascii_graphic() && !b"\",;\\".contains(b),
                    "a cookie value",
                )?;
                out.extend_from_slice(key);
            }
        }
        Secret::take(&mut out).map_err(|e| format!("no memory for the key: {e}"))
    }

    fn overhead(&self) -> usize {
        match self {
            Place::Basic(Some(user)) => 2 * user.len(),
            Place::Header { before, after, .. } => before.len() + after.len(),
            _ => 0,
        }
    }
}

/// RFC 9110 section 5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// Percent-encodes all but the unreserved characters of RFC 3986 section 2.3.
pub fn percent_encode(bytes: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &b in bytes {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
            out.push(b);
        } else {
            out.extend_from_slice(&[b'%', HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]);
        }
    }
}

/// RFC 4648 section 4, with padding.
fn base64(bytes: &[u8], out: &mut Vec<u8>) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for group in bytes.chunks(3) {
        let n = group.iter().fold(0u32, |n, &b| n << 8 | u32::from(b)) << (8 * (3 - group.len()));
        for i in 0..4 {
            let digit = (n >> (18 - 6 * i)) as usize & 63;
            out.push(if i <= group.len() {
                ALPHABET[digit]
            } else {
                b'='
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_rendered() {
        let render = |place: &str, key: &str| {
            Place::parse(place)
                .unwrap()
                .render(key.as_bytes())
                .map(|s| String::from_utf8(s.expose().to_vec()).unwrap())
        };
        assert_eq!(render("bearer", "k+/="), Ok("Bearer k+/=".into()));
        assert_eq!(
            render("basic:user", "pass"),
            Ok("Basic dXNlcjpwYXNz".into())
        );
        assert_eq!(
            render("basic", "user:pass"),
            Ok("Basic dXNlcjpwYXNz".into())
        );
        assert_eq!(render("basic", "key"), Ok("Basic OmtleQ==".into()));
        assert_eq!(render("header:X-Api-Key", "k y"), Ok("k y".into()));
        assert_eq!(
            render("header:Authorization:Token token={}", "k"),
            Ok("Token token=k".into())
        );
        assert_eq!(render("query:q", "a b&c=%"), Ok("a%20b%26c%3D%25".into()));
        assert_eq!(render("cookie:sid", "abc"), Ok("abc".into()));
        assert!(render("bearer", "a b").is_err());
        assert!(render("cookie:sid", "a;b").is_err());
        assert!(render("header:X", "a ").is_err());
    }

    #[test]
    fn places_that_make_no_sense_are_refused() {
        for bad in [
            "",
            "bearer:x",
            "basic:",
            "basic:a:b",
            "header",
            "header:",
            "header:a b",
            "header:Host",
            "header:content-length",
            "header:Cookie",
            "header:X:no",
            "header:X:{}{}",
            "query:",
            "cookie:",
            "cookie:a;b",
            "env:X",
        ] {
            assert!(matches!(Place::parse(bad), Err(Error::Usage(_))), "{bad}");
        }
    }
}
