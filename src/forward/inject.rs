//! Writes the head of a request as the upstream will see it: what ends at this hop taken out, every
//! copy of the credential's place that the command sent taken out, and the credential put in.
//!
//! The credential goes in last and by us, so no `Connection` field can nominate it away.

use super::buffer::Buffer;
use crate::http::Framing;
use crate::http::headers::{Field, Name, nominated};
use crate::http::request::Request;
use crate::service::{Place, Service, has_dot_segment, percent_encode};

/// Appends the head to `out`. With `plain`, the response is to be readable for us: no content coding
/// and no compressed WebSocket. The framing is `request.framing`, declared by exactly one field.
pub fn write_head(
    out: &mut Buffer,
    request: &Request<'_, '_>,
    service: &Service,
    rendered: &[u8],
    plain: bool,
) {
    let mut head = Head(out);
    head.put(request.method.as_bytes());
    head.put(b" ");
    write_target(&mut head, request.target, service, rendered);
    head.put(b" HTTP/1.1\r\nHost: ");
    head.put(service.origin.authority.as_bytes());
    head.put(b"\r\n");
    for field in request.fields {
        if passes(field, request, &service.place) && !(plain && is_coding(field.name)) {
            head.field(field.name.as_bytes(), field.value);
        }
    }
    if plain {
        head.field(b"Accept-Encoding", b"identity");
    }
    match &service.place {
        Place::Query(_) => {}
        Place::Cookie(name) => write_cookies(&mut head, request.fields, name, rendered),
        place => head.field(place.field_name().unwrap_or_default().as_bytes(), rendered),
    }
    match request.framing {
        Framing::Length(n) => head.field(b"Content-Length", n.to_string().as_bytes()),
        Framing::Chunked => head.field(b"Transfer-Encoding", b"chunked"),
        Framing::None | Framing::Close => {}
    }
    if request.expect_continue {
        head.field(b"Expect", b"100-continue");
    }
    if request.websocket {
        head.put(b"Connection: Upgrade\r\nUpgrade: websocket\r\n");
    } else if request.te_trailers {
        head.put(b"Connection: TE\r\nTE: trailers\r\n");
    }
    head.put(b"\r\n");
}

/// Whether a field of the command goes on to the upstream as it is.
fn passes(field: &Field<'_>, request: &Request<'_, '_>, place: &Place) -> bool {
    match Name::of(field.name) {
        Name::EndToEnd => {}
        // The declared trailers follow only where there can be any.
        Name::Trailer if request.framing == Framing::Chunked => {}
        _ => return false,
    }
    let is_place = place
        .field_name()
        .is_some_and(|name| same_field(name, field.name));
    let ends_here = request.nominates && nominated(request.fields, field.name);
    !is_place && !ends_here
}

/// Whether a path could lead out of the upstream's prefix; `*` is no path of the prefix at all.
pub fn escapes_prefix(request: &Request<'_, '_>) -> bool {
    let path = request.target.split('?').next().unwrap_or_default();
    request.target == "*" || has_dot_segment(path)
}

/// Whether a field would let the upstream answer in a coding.
fn is_coding(name: &str) -> bool {
    same_field("Accept-Encoding", name)
        || same_field("Sec-WebSocket-Extensions", name)
        // RFC 3229: a difference to what the client has.
        || same_field("A-IM", name)
}

/// Whether an upstream could take one name for the other: case does not count, and servers that hand
/// fields on as variables (CGI, WSGI) tell `_` from `-` no longer.
fn same_field(a: &str, b: &str) -> bool {
    let fold = |b: u8| {
        if b == b'_' {
            b'-'
        } else {
            b.to_ascii_lowercase()
        }
    };
    a.len() == b.len() && a.bytes().map(fold).eq(b.bytes().map(fold))
}

/// Whether a trailer field may follow a request: it is not the credential's place in disguise.
pub fn trailer_passes(name: &str, place: &Place) -> bool {
    !place.field_name().is_some_and(|own| same_field(own, name))
}

fn write_target(head: &mut Head<'_>, target: &str, service: &Service, rendered: &[u8]) {
    if target == "*" {
        head.put(b"*");
        return;
    }
    head.put(service.origin.prefix.as_bytes());
    let Place::Query(name) = &service.place else {
        head.put(target.as_bytes());
        return;
    };
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    head.put(path.as_bytes());
    head.put(b"?");
    let mut found = false;
    for (i, pair) in query.unwrap_or_default().split('&').enumerate() {
        if i > 0 {
            head.put(b"&");
        }
        let key = pair.split('=').next().unwrap_or_default();
        if !key.is_empty() && decodes_to(key.as_bytes(), name.as_bytes()) {
            found = true;
            head.put(key.as_bytes());
            head.put(b"=");
            head.put(rendered);
        } else {
            head.put(pair.as_bytes());
        }
    }
    if !found {
        if query.is_some_and(|q| !q.is_empty() && !q.ends_with('&')) {
            head.put(b"&");
        }
        let mut encoded = Vec::new();
        percent_encode(name.as_bytes(), &mut encoded);
        head.put(&encoded);
        head.put(b"=");
        head.put(rendered);
    }
}

/// Whether a parameter name means `name` once it is decoded as forms are (`+` is a space).
fn decodes_to(encoded: &[u8], name: &[u8]) -> bool {
    let hex = |b: u8| (b as char).to_digit(16).map(|d| d as u8);
    let mut expected = name.iter();
    let mut rest = encoded;
    while let Some((&first, tail)) = rest.split_first() {
        let (byte, tail) = match (first, tail) {
            (b'%', [high, low, tail @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, tail),
                _ => (first, &rest[1..]),
            },
            (b'+', tail) => (b' ', tail),
            (first, tail) => (first, tail),
        };
        if expected.next() != Some(&byte) {
            return false;
        }
        rest = tail;
    }
    expected.next().is_none()
}

/// The command's cookies without those of this name, and ours.
fn write_cookies(head: &mut Head<'_>, fields: &[Field<'_>], name: &str, rendered: &[u8]) {
    head.put(b"Cookie: ");
    for field in fields.iter().filter(|f| same_field("Cookie", f.name)) {
        for pair in field.value.split(|&b| b == b';').map(<[u8]>::trim_ascii) {
            let own = pair
                .split(|&b| b == b'=')
                .next()
                .unwrap_or_default()
                .trim_ascii()
                == name.as_bytes();
            if !own && !pair.is_empty() {
                head.put(pair);
                head.put(b"; ");
            }
        }
    }
    head.put(name.as_bytes());
    head.put(b"=");
    head.put(rendered);
    head.put(b"\r\n");
}

/// A head that is being written.
struct Head<'a>(&'a mut Buffer);

impl Head<'_> {
    fn put(&mut self, bytes: &[u8]) {
        self.0.push(bytes);
    }

    fn field(&mut self, name: &[u8], value: &[u8]) {
        self.put(name);
        self.put(b": ");
        self.put(value);
        self.put(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::headers::HeadScanner;
    use crate::http::request;

    /// The head that goes up when this one comes in.
    fn head(place: &str, upstream: &str, input: &str) -> String {
        // A file is the one source that needs nothing of the process.
        let path = std::env::temp_dir().join(format!("inject-{}-{:p}", std::process::id(), &place));
        std::fs::write(&path, "KEY").unwrap();
        let source = format!("file:{}", path.display());
        let service = Service::load("test", upstream, source.as_ref(), place).unwrap();
        std::fs::remove_file(&path).unwrap();
        let end = request::find_end(&mut HeadScanner::default(), input.as_bytes())
            .unwrap()
            .unwrap();
        let mut slots = request::slots();
        let request = request::parse(&input.as_bytes()[..end], &mut slots).unwrap();
        let mut out = Buffer::default();
        write_head(&mut out, &request, &service, b"KEY", false);
        String::from_utf8(out.filled().to_vec()).unwrap()
    }

    fn target(place: &str, target: &str) -> String {
        let head = head(
            place,
            "https://h",
            &format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"),
        );
        head.split(' ').nth(1).unwrap().to_string()
    }

    #[test]
    fn the_query_parameter_is_overwritten_wherever_it_stands() {
        let t = |given| target("query:app_key", given);
        assert_eq!(t("/a"), "/a?app_key=KEY");
        assert_eq!(t("/a?"), "/a?app_key=KEY");
        assert_eq!(t("/a?x=1"), "/a?x=1&app_key=KEY");
        assert_eq!(t("/a?x=1&"), "/a?x=1&app_key=KEY");
        assert_eq!(t("/a?app_key=old&x=%20+&&y"), "/a?app_key=KEY&x=%20+&&y");
        assert_eq!(
            t("/a?x&app_key=1&app%5Fkey=2&%61pp_key&app_key==3"),
            "/a?x&app_key=KEY&app%5Fkey=KEY&%61pp_key=KEY&app_key=KEY"
        );
        assert_eq!(
            t("/a?xapp_key=1&app_keyx=2&APP_KEY=3"),
            "/a?xapp_key=1&app_keyx=2&APP_KEY=3&app_key=KEY"
        );
        assert_eq!(t("/a?b?c=d&%zz=%"), "/a?b?c=d&%zz=%&app_key=KEY");
        assert_eq!(
            target("query:a b", "/?a+b=1&a%20b=2"),
            "/?a+b=KEY&a%20b=KEY"
        );
        assert_eq!(target("bearer", "//x//y/?q=%2F|\"\\"), "//x//y/?q=%2F|\"\\");
    }

    #[test]
    fn every_other_copy_of_the_place_is_removed() {
        let request = "GET / HTTP/1.1\r\nHost: evil\r\nauthorization: Basic x\r\nX-A: 1\r\nAUTHORIZATION: y\r\n\r\n";
        assert_eq!(
            head("bearer", "https://h:8443", request),
            "GET / HTTP/1.1\r\nHost: h:8443\r\nX-A: 1\r\nAuthorization: KEY\r\n\r\n"
        );
        let request = "GET / HTTP/1.1\r\nHost: e\r\nx_api_key: a\r\nX-Api-Key: b\r\nAuthorization: kept\r\n\r\n";
        assert_eq!(
            head("header:X-API-Key", "https://h", request),
            "GET / HTTP/1.1\r\nHost: h\r\nAuthorization: kept\r\nX-API-Key: KEY\r\n\r\n"
        );
        let request =
            "GET / HTTP/1.1\r\nHost: e\r\nCookie: a=1; sid=x;b=2\r\ncookie: sid=y; c\r\n\r\n";
        assert_eq!(
            head("cookie:sid", "https://h", request),
            "GET / HTTP/1.1\r\nHost: h\r\nCookie: a=1; b=2; c; sid=KEY\r\n\r\n"
        );
    }

    #[test]
    fn fields_that_end_here_do_not_go_on() {
        let request = "POST /x HTTP/1.1\r\nHost: e\r\nConnection: keep-alive, X-Drop, authorization, host\r\nKeep-Alive: 5\r\n\
             X-Drop: 1\r\nProxy-Authorization: p\r\nProxy-Connection: k\r\nUpgrade: h2c\r\nHTTP2-Settings: z\r\n\
             TE: trailers, gzip\r\nTrailer: A\r\nContent-Length: 3\r\nX-Keep: 1\r\n\r\n";
        assert_eq!(
            head("bearer", "https://h/p", request),
            "POST /p/x HTTP/1.1\r\nHost: h\r\nX-Keep: 1\r\nAuthorization: KEY\r\nContent-Length: 3\r\n\
             Connection: TE\r\nTE: trailers\r\n\r\n"
        );
        let request = "GET / HTTP/1.1\r\nHost: e\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n";
        assert_eq!(
            head("bearer", "https://h", request),
            "GET / HTTP/1.1\r\nHost: h\r\nSec-WebSocket-Key: k\r\nAuthorization: KEY\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        );
    }
}
