//! What must hold, whatever both peers do.
//!
//! - What goes up is a sequence of requests, each of which the client sent, in its order, with one
//!   Host (the upstream's own), at most one framing field, the credential in its place and no other.
//! - What comes down is a sequence of responses; one that looks complete was complete, and is the
//!   upstream's answer to that very request, or ours.
//! - The credential never comes down.

use broker_exec::http::headers::{HeadScanner, Name};
use broker_exec::http::request::{self, Request};
use broker_exec::http::{Framing as Declared, Version};

use crate::read::{self, Framing, Message, Nothing};
use crate::script::{KEY, Played, SETTINGS, Script, Setting};

/// A request of the client, as the broker is to understand it.
#[derive(Debug)]
struct Asked {
    method: String,
    target: String,
    old: bool,
    fields: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    whole: bool,
    /// Bytes of the client up to its end.
    end: usize,
}

pub fn check(script: &Script<'_>, played: &Played) {
    let setting = &SETTINGS[script.setting];
    let asked = asked(&played.sent);
    let (replies, upgraded) = replies(&asked, played);
    let answered = forwarded(setting, &asked, played, upgraded);
    assert!(replies.len() <= asked.len() + 1, "an answer to no request");

    let key_known = |bytes: &[u8]| contains(bytes, KEY.as_bytes());
    assert!(
        !key_known(&played.got) || played.carried.iter().any(|c| key_known(&c.down)),
        "the credential came down"
    );

    for (at, reply) in replies.iter().enumerate() {
        let ours = reply
            .values("proxy-status")
            .iter()
            .any(|v| v.starts_with(b"broker-exec"));
        // The end of an HTTP/1.0 response says nothing: there is no framing that could.
        if ours || !reply.whole || reply.framing == Framing::Close {
            continue;
        }
        let Some((carrier, place)) = answered.get(at).copied().flatten() else {
            assert!(played.broken || at >= answered.len() || answered[at].is_none());
            // Which connection it went over is not certain; an answer it has to be, all the same.
            assert!(
                !played.carried.iter().all(|c| c.down.is_empty()),
                "an answer from nowhere"
            );
            continue;
        };
        let carried = &played.carried[carrier];
        let methods = methods(answered[..=at].iter().copied(), &asked, carrier);
        let (given, _) = given(&carried.down, &methods, carried.ended);
        let Some(Some(given)) = given.get(place) else {
            panic!("an answer that was not given: {reply:?}, request {at}");
        };
        assert_eq!(given.status(), reply.status());
        let cut = "a cut response looks complete";
        assert!(given.whole, "{cut}: {reply:?} from {given:?}");
        assert_eq!(given.body, reply.body, "request {at}");
    }
}

/// Reads the client's bytes up to the first request that is refused or incomplete.
fn asked(sent: &[u8]) -> Vec<Asked> {
    let (mut all, mut start) = (Vec::new(), 0);
    loop {
        let rest = &sent[start..];
        let Ok(Some(end)) = request::find_end(&mut HeadScanner::default(), rest) else {
            return all;
        };
        let mut slots = request::slots();
        let Ok(parsed) = request::parse(&rest[..end], &mut slots) else {
            return all;
        };
        // The body, by the other reader: both have to agree about where it ends.
        let read = read::request(rest);
        let Request {
            method,
            target,
            version,
            framing,
            keep_alive,
            ..
        } = parsed;
        let (body, whole, length) = match read {
            Ok(read) => {
                let agreed = match framing {
                    Declared::None => Framing::None,
                    Declared::Length(_) => Framing::Length,
                    _ => Framing::Chunked,
                };
                assert_eq!(read.framing, agreed);
                (read.body, read.whole, read.length)
            }
            Err(Nothing::Malformed) if framing == Declared::Chunked => {
                (Vec::new(), false, rest.len())
            }
            Err(e) => panic!("the other reader: {e:?}"),
        };
        let copy = |f: &httparse::Header<'_>| (f.name.to_owned(), f.value.to_vec());
        start += length;
        all.push(Asked {
            method: method.to_owned(),
            target: target.to_owned(),
            old: version == Version::V10,
            fields: parsed.fields.iter().map(copy).collect(),
            body,
            whole,
            end: start,
        });
        if !whole || !keep_alive {
            return all;
        }
    }
}

/// The final responses that the client got, and which of them was a 101.
fn replies(asked: &[Asked], played: &Played) -> (Vec<Message>, Option<usize>) {
    let (mut rest, mut replies) = (&played.got[..], Vec::new());
    while !rest.is_empty() {
        let asker = asked.get(replies.len());
        let bodiless = asker.is_some_and(|asked| asked.method == "HEAD");
        let reply = match read::response(rest, bodiless, true) {
            Ok(reply) => reply,
            Err(Nothing::Unfinished) => break,
            Err(Nothing::Malformed) => panic!("no response: {:?}", String::from_utf8_lossy(rest)),
        };
        let old = asker.is_some_and(|asked| asked.old);
        let framings =
            reply.values("content-length").len() + reply.values("transfer-encoding").len();
        assert!(framings <= 1, "{reply:?}");
        assert!(
            reply.framing != Framing::Close || old,
            "an end that does not show: {reply:?}"
        );
        assert!(
            reply.framing != Framing::Chunked || !old,
            "chunks for HTTP/1.0: {reply:?}"
        );
        for (name, value) in &reply.fields {
            let own = match Name::of(name) {
                Name::Connection => {
                    [&b"close"[..], b"keep-alive", b"Upgrade"].contains(&&value[..])
                }
                Name::Upgrade => reply.status() == 101,
                Name::HopByHop => false,
                _ => true,
            };
            assert!(own, "{name} does not end here: {reply:?}");
        }
        rest = &rest[reply.length..];
        match reply.status() {
            101 => {
                let at = replies.len();
                replies.push(reply);
                return (replies, Some(at));
            }
            100..200 => assert!(!old && replies.len() < asked.len(), "1xx out of place"),
            _ => {
                let (whole, last) = (
                    reply.whole,
                    reply.values("connection").contains(&&b"close"[..]),
                );
                replies.push(reply);
                assert!(whole || rest.is_empty());
                assert!(!last || rest.is_empty(), "bytes behind the last response");
            }
        }
    }
    (replies, None)
}

/// Checks what went up. For each request, over which connection and as which request there it was
/// sent last; `None` where that is not certain.
fn forwarded(
    setting: &Setting,
    asked: &[Asked],
    played: &Played,
    upgraded: Option<usize>,
) -> Vec<Option<(usize, usize)>> {
    let mut places: Vec<(usize, usize)> = Vec::new();
    for (carrier, carried) in played.carried.iter().enumerate() {
        let (mut rest, mut place) = (&carried.up[..], 0);
        while !rest.is_empty() {
            let message = match read::request(rest) {
                Ok(message) => message,
                Err(Nothing::Unfinished) => break,
                Err(Nothing::Malformed) => {
                    panic!("no request went up: {:?}", String::from_utf8_lossy(rest))
                }
            };
            strictly_valid(rest);
            if place == 0 && died_unanswered(&places, asked, played) {
                let again = places.len() - 1;
                let before = &asked[again];
                let idempotent = ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"];
                assert!(
                    idempotent.contains(&&before.method[..]) && before.body.is_empty(),
                    "sent twice: {before:?}"
                );
                same(setting, asked.get(again), &message);
                places[again] = (carrier, place);
            } else {
                same(setting, asked.get(places.len()), &message);
                places.push((carrier, place));
            }
            // The upstream agreed, even if the client left before it could be told.
            let switches = message.values("upgrade").len() == 1 && {
                let methods = methods(places.iter().copied().map(Some), asked, carrier);
                let (given, _) = given(&carried.down, &methods, carried.ended);
                matches!(given.get(place), Some(Some(answer)) if answer.status() == 101)
            };
            assert!(switches || upgraded != Some(places.len() - 1));
            if switches {
                // Another protocol from here on: bytes as they are.
                let behind = &played.sent[asked[places.len() - 1].end..];
                assert!(behind.starts_with(&rest[message.length..]));
                break;
            }
            rest = &rest[message.length..];
            assert!(message.whole || rest.is_empty());
            place += 1;
        }
    }
    let certain = |place| (!played.broken).then_some(place);
    places.into_iter().map(certain).collect()
}

/// Whether the last request went over a connection that had carried others, and the upstream ended
/// it without a byte of an answer: the request is sent again.
fn died_unanswered(places: &[(usize, usize)], asked: &[Asked], played: &Played) -> bool {
    let Some(&(carrier, place @ 1..)) = places.last() else {
        return false;
    };
    let carried = &played.carried[carrier];
    let methods = methods(places.iter().copied().map(Some), asked, carrier);
    let (given, rest) = given(&carried.down, &methods, carried.ended);
    carried.ended && rest.is_empty() && !matches!(given.get(place), Some(Some(_)))
}

/// The methods of the requests that went over this connection.
fn methods(
    places: impl Iterator<Item = Option<(usize, usize)>>,
    asked: &[Asked],
    carrier: usize,
) -> Vec<&str> {
    let over_it = |place: &Option<(usize, usize)>| place.is_some_and(|(c, _)| c == carrier);
    let pairs = places.zip(asked);
    let chosen = pairs.filter(|(place, _)| over_it(place));
    chosen.map(|(_, asked)| &asked.method[..]).collect()
}

fn same(setting: &Setting, asked: Option<&Asked>, message: &Message) {
    let asked = asked.unwrap_or_else(|| panic!("nobody asked for {message:?}"));
    if let Some(difference) = difference(setting, asked, message) {
        panic!("not what the client sent: {difference}\n{message:?}\n{asked:?}");
    }
}

/// The broker's own parser takes what the broker sends.
fn strictly_valid(bytes: &[u8]) {
    let end = request::find_end(&mut HeadScanner::default(), bytes);
    let end = end.expect("valid lines").expect("a whole head");
    let mut slots = request::slots();
    let request = request::parse(&bytes[..end], &mut slots).expect("a valid request");
    assert_eq!(request.version, Version::V11);
}

/// How a message that went up is not this request with the credential put in.
fn difference(setting: &Setting, asked: &Asked, message: &Message) -> Option<String> {
    let [method, target, version] = &message.line;
    let wrong = |what: &str| Some(what.to_owned());
    if *method != asked.method || version != "1.1" {
        return wrong("method or version");
    }
    if message.values("host") != [setting.authority.as_bytes()] {
        return wrong("host");
    }
    if message.values("content-length").len() + message.values("transfer-encoding").len() > 1 {
        return wrong("framing");
    }
    // A body that the client did not finish is not finished here either.
    let body = match message.whole {
        true => asked.whole && asked.body == message.body,
        false => asked.body.starts_with(&message.body) || !asked.whole,
    };
    if !body {
        return wrong("body");
    }
    let (kind, name) = setting
        .inject
        .split_once(':')
        .unwrap_or((setting.inject, ""));
    if !target_is(setting, asked, target, (kind == "query").then_some(name)) {
        return wrong("target");
    }
    let credential = match kind {
        "bearer" => Some(("authorization", format!("Bearer {KEY}"))),
        // user:KEY in base64, as another implementation gives it.
        "basic" => Some((
            "authorization",
            "Basic dXNlcjprM3ktWnE4MXZYYzBtVzdyVG41Yg==".to_owned(),
        )),
        "header" => Some(("x-api-key", format!("t {KEY}"))),
        _ => None,
    };
    if let Some((name, value)) = &credential
        && (message.values(name) != [value.as_bytes()]
            || message
                .fields
                .iter()
                .filter(|(n, _)| fold(n) == *name)
                .count()
                > 1)
    {
        return wrong("credential");
    }
    if kind == "cookie" {
        let [value] = message.values("cookie")[..] else {
            return wrong("cookie fields");
        };
        let sids: Vec<&[u8]> = value
            .split(|&b| b == b';')
            .map(<[u8]>::trim_ascii)
            .filter(|pair| pair.starts_with(b"sid=") || *pair == b"sid")
            .collect();
        if sids != [format!("sid={KEY}").as_bytes()] {
            return wrong("cookies");
        }
    }
    // Everything else is the client's, in its order, and nothing of it belongs to the connection.
    let own = |name: &str| match Name::of(name) {
        Name::EndToEnd | Name::Trailer => {
            credential
                .as_ref()
                .is_some_and(|(place, _)| fold(name) == fold(place))
                || (kind == "cookie" && fold(name) == "cookie")
        }
        _ => true,
    };
    let mut theirs = asked.fields.iter();
    for (name, value) in message.fields.iter().filter(|(name, _)| !own(name)) {
        if !theirs.any(|(n, v)| n == name && v == value) {
            return Some(format!("{name} is not the client's"));
        }
    }
    for (name, value) in &message.fields {
        let allowed = match Name::of(name) {
            Name::Connection => value == b"TE" || value == b"Upgrade",
            Name::Te => value == b"trailers",
            Name::Upgrade => value == b"websocket",
            Name::Expect => value == b"100-continue",
            Name::HopByHop => false,
            _ => true,
        };
        if !allowed {
            return Some(format!("{name} goes up"));
        }
    }
    for (name, _) in &message.trailers {
        let fold = fold(name);
        if credential.as_ref().is_some_and(|(place, _)| fold == *place)
            || Name::of(name) != Name::EndToEnd
        {
            return Some(format!("{name} trails"));
        }
    }
    None
}

fn fold(name: &str) -> String {
    name.to_ascii_lowercase().replace('_', "-")
}

fn target_is(setting: &Setting, asked: &Asked, target: &str, place: Option<&str>) -> bool {
    if asked.target == "*" {
        return target == "*";
    }
    let expected = format!("{}{}", setting.prefix, asked.target);
    let Some(name) = place else {
        return target == expected;
    };
    let split = |t: &str| -> (String, Vec<String>) {
        let (path, query) = t.split_once('?').unwrap_or((t, ""));
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        (path.to_owned(), pairs.map(str::to_owned).collect())
    };
    let (path, theirs) = split(&expected);
    let mut found = false;
    let mut pairs: Vec<String> = theirs
        .iter()
        .map(|pair| {
            let key = pair.split('=').next().unwrap_or_default();
            if decoded(key) == name.as_bytes() {
                found = true;
                format!("{key}={KEY}")
            } else {
                pair.clone()
            }
        })
        .collect();
    if !found {
        pairs.push(format!("{name}={KEY}"));
    }
    (path, pairs) == split(target)
}

/// As a form's name is decoded.
fn decoded(name: &str) -> Vec<u8> {
    let (bytes, mut out, mut at) = (name.as_bytes(), Vec::new(), 0);
    while at < bytes.len() {
        let pair = bytes
            .get(at + 1..at + 3)
            .and_then(|pair| std::str::from_utf8(pair).ok());
        let code = pair.filter(|pair| pair.bytes().all(|b| b.is_ascii_hexdigit()));
        match (
            bytes[at],
            code.and_then(|code| u8::from_str_radix(code, 16).ok()),
        ) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    out
}

/// The final responses that an upstream gave on one connection to requests of these methods, and
/// what it sent behind them.
fn given<'d>(down: &'d [u8], methods: &[&str], ended: bool) -> (Vec<Option<Message>>, &'d [u8]) {
    let (mut rest, mut all) = (down, Vec::new());
    while all.len() < methods.len() {
        // A 205 has no content, whatever comes behind its head (RFC 9110 section 15.3.6); what that
        // is shows here as the next response, which the broker must not take for one.
        let head = read::response(rest, true, ended);
        let is_205 = head.is_ok_and(|head| head.status() == 205);
        let bodiless = is_205 || methods[all.len()] == "HEAD";
        let Ok(message) = read::response(rest, bodiless, ended) else {
            all.push(None);
            return (all, rest);
        };
        rest = &rest[message.length..];
        if message.status() >= 200 || message.status() == 101 {
            all.push(Some(message));
        }
    }
    (all, rest)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
