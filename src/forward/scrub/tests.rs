//! What goes in with the key in it comes out without it, and otherwise as it was. The encoders and
//! the decoders here know nothing of the matcher.

use super::*;
use crate::credential::Secret;

mod decode;
mod random;

fn scrubber_for(key: &[u8], place: &str) -> Result<Scrubber, String> {
    let loaded = Loaded {
        key: Secret::take(&mut key.to_vec()).unwrap(),
        rendered: Secret::take(&mut key.to_vec()).unwrap(),
        serial: 1,
    };
    Scrubber::new(Arc::new(loaded), &Place::parse(place).unwrap())
}

fn scrubber(key: &str) -> Scrubber {
    scrubber_for(key.as_bytes(), "query:k").unwrap()
}

/// The text after scrubbing in pieces of these sizes, the last one over and over.
fn in_pieces(scrubber: &Scrubber, text: &[u8], sizes: &[usize]) -> Vec<u8> {
    let mut stream = Stream::default();
    let (mut out, mut held) = (Vec::new(), Vec::new());
    let (mut rest, mut sizes) = (text, sizes.iter());
    let mut size = 1;
    loop {
        size = *sizes.next().unwrap_or(&size);
        let (piece, behind) = rest.split_at(size.clamp(1, rest.len().max(1)).min(rest.len()));
        rest = behind;
        held.extend_from_slice(piece);
        let n = stream.scrub(scrubber, &mut held, rest.is_empty());
        out.extend(held.drain(..n));
        if rest.is_empty() {
            assert!(held.is_empty(), "held back at the end");
            return out;
        }
    }
}

/// Scrubbed whole and byte by byte, with the same result.
fn scrubbed(key: &str, text: &str) -> String {
    let scrubber = scrubber(key);
    let whole = in_pieces(&scrubber, text.as_bytes(), &[usize::MAX]);
    for size in [1, 2, 3, 7] {
        let pieces = in_pieces(&scrubber, text.as_bytes(), &[size]);
        assert_eq!(
            String::from_utf8_lossy(&pieces),
            String::from_utf8_lossy(&whole),
            "by {size}"
        );
    }
    String::from_utf8(whole).unwrap()
}

const KEY: &str = "sk/live+\"A&b<9\\z";

#[test]
fn the_key_itself_is_masked() {
    assert_eq!(scrubbed(KEY, &format!("a {KEY} b")), "a **************** b");
    assert_eq!(scrubbed(KEY, KEY), "****************");
    assert_eq!(scrubbed(KEY, &KEY.repeat(3)), "*".repeat(48));
    assert_eq!(
        scrubbed("aaaaaaaa", "xaaaaaaaaaaay"),
        "x***********y",
        "overlapping matches"
    );
}

#[test]
fn what_is_not_the_key_stays() {
    for text in [
        "",
        "s",
        "plain text that ends like the key: sk/liv",
        "sk/live+\"A&b<9\\",
        "k/live+\"A&b<9\\z",
        "sk/live+\"a&b<9\\z",
    ] {
        let masked_end = text.len() - text.find(&KEY[..8]).unwrap_or(text.len());
        let kept = text.len() - masked_end;
        let expected = text[..kept].to_string() + &"*".repeat(masked_end);
        if text.contains("\"a&") {
            assert_eq!(scrubbed(KEY, text), text);
        } else {
            assert_eq!(scrubbed(KEY, text), expected);
        }
    }
}

#[test]
fn a_cut_key_is_masked_at_the_end_only_when_it_tells_eight_bytes() {
    assert_eq!(scrubbed("0123456789abcdef", "x0123456"), "x0123456");
    assert_eq!(scrubbed("0123456789abcdef", "x01234567"), "x********");
    assert_eq!(scrubbed("0123456789abcdef", "01234567 x"), "01234567 x");
    // 16 hexadecimal digits, 11 of base64.
    assert_eq!(
        scrubbed("key=secret-0123", "6b65793d73656372"),
        "*".repeat(16)
    );
    assert_eq!(
        scrubbed("key=secret-0123", "6b65793d7365637"),
        "6b65793d7365637"
    );
}

#[test]
fn percent_encoding_is_seen_through() {
    for text in [
        "sk%2Flive%2B%22A%26b%3C9%5Cz",
        "sk%2flive%2b%22A%26b%3c9%5cz",
        "%73%6B/live+%22A&b<9\\%7A",
        "%73%6b%2F%6c%69%76%65%2B%22%41%26%62%3C%39%5C%7A",
    ] {
        assert_eq!(scrubbed(KEY, text), "*".repeat(text.len()), "{text}");
    }
    assert_eq!(scrubbed("a key with", "q=a+key%20with&"), "q=************&");
    // Escapes of what introduces escapes, and a key that looks like one.
    assert_eq!(scrubbed("%41%42%43", "<%41%42%43>"), "<*********>");
    assert_eq!(
        scrubbed("%41%42%43", "<%2541%2542%2543>"),
        "<***************>"
    );
}

#[test]
fn json_escapes_are_seen_through() {
    for text in [
        r#"sk\/live+\"A&b<9\\z"#,
        r"\u0073k\u002flive\u002B\u0022A\u0026b\u003c9\u005Cz",
        r"\x73k\x2Flive+\x22A\x26b<9\x5cz",
    ] {
        assert_eq!(scrubbed(KEY, text), "*".repeat(text.len()), "{text}");
    }
    let text = r#"{"a":"schl\u00fcssel-\ud83d\uDE00-x","b":1}"#;
    assert_eq!(
        scrubbed("schlüssel-😀-x", text),
        format!("{{\"a\":\"{}\",\"b\":1}}", "*".repeat(29))
    );
    // The bytes of UTF-8 as if each were a character.
    assert_eq!(
        scrubbed("schlüssel", r"schl\u00c3\u00bcssel"),
        "*".repeat(20)
    );
}

#[test]
fn html_entities_are_seen_through() {
    for text in [
        "sk/live+&quot;A&amp;b&lt;9\\z",
        "&#115;k&#x2f;live&#X2B;&#34;A&#038;b&#x003C;9&#92z",
    ] {
        assert_eq!(scrubbed(KEY, text), "*".repeat(text.len()), "{text}");
    }
}

#[test]
fn quoted_printable_is_seen_through() {
    let text = "sk/li=\r\nve=2B\"A=26b<=\n9=5Cz";
    assert_eq!(scrubbed(KEY, text), "*".repeat(text.len()));
}

#[test]
fn hexadecimal_digits_are_seen_in_any_case() {
    let hex: String = KEY.bytes().map(|b| format!("{b:02x}")).collect();
    let mixed: String = hex
        .chars()
        .enumerate()
        .map(|(i, c)| {
            if i % 3 == 0 {
                c.to_ascii_uppercase()
            } else {
                c
            }
        })
        .collect();
    for text in [hex.to_uppercase(), hex, mixed] {
        assert_eq!(
            scrubbed(KEY, &format!("<{text}>")),
            format!("<{}>", "*".repeat(32))
        );
    }
}

#[test]
fn base64_is_seen_at_every_alignment_and_its_shared_digits_are_masked() {
    let scrubber = scrubber(KEY);
    for alphabet in [random::STANDARD, random::URL] {
        for before in ["", "u", "us", "use", "Bearer ", "user:", "\u{1}\u{2}"] {
            for behind in ["", "\n", "!!", "xyz", " and more"] {
                let text = format!("{before}{KEY}{behind}");
                for padded in [true, false] {
                    let (encoded, _) = random::base64(text.as_bytes(), alphabet, padded, &(0..0));
                    let secret = before.len()..before.len() + KEY.len();
                    let (expected, _) = random::base64(text.as_bytes(), alphabet, padded, &secret);
                    let (mut encoded, mut expected) = (encoded, expected);
                    encoded.insert_str(0, "x ");
                    expected.insert_str(0, "x ");
                    let whole = in_pieces(&scrubber, encoded.as_bytes(), &[usize::MAX]);
                    assert!(whole == expected.as_bytes(), "{before:?} {behind:?}");
                    // A shared digit is not waited for.
                    let first = expected.find('*').expect("a masked digit");
                    let own = first + usize::from(!before.len().is_multiple_of(3));
                    for size in [1, 2, 3, 7] {
                        let pieces = in_pieces(&scrubber, encoded.as_bytes(), &[size]);
                        assert!(pieces[own..] == whole[own..], "by {size}");
                        assert!(pieces[..first] == whole[..first], "by {size}");
                    }
                }
            }
        }
    }
}

#[test]
fn base64_in_wrapped_lines_and_in_escapes_is_seen() {
    let key = "0123456789abcdef";
    assert_eq!(
        scrubbed(key, "MDEyMzQ1\r\nNjc4OWFiY2RlZg==\r\n"),
        "************************==\r\n"
    );
    assert_eq!(
        scrubbed(key, r"MDEyMzQ1\nNjc4OWFiY2RlZg=="),
        "************************=="
    );
    // PHP writes a slash as `\/`, and a query has `%2F`.
    assert_eq!(scrubbed("????????", r"Pz8\/Pz8\/Pz8="), "*************=");
    assert_eq!(
        scrubbed("????????", "Pz8%2FPz8%2fPz8%3D"),
        "***************%3D"
    );
}

#[test]
fn the_password_of_basic_is_what_is_secret() {
    let masked = |key: &str, text: &str| {
        let mut text = text.as_bytes().to_vec();
        scrubber_for(key.as_bytes(), "basic")
            .unwrap()
            .scrub(&mut text);
        String::from_utf8(text).unwrap()
    };
    assert_eq!(
        masked("user:pass:word", "user, pass:word"),
        "user, *********"
    );
    assert_eq!(masked("sk_live_1:", "sk_live_1"), "*********");
    assert!(scrubber_for(b"long-user-name:pass", "basic").is_err());
}

#[test]
fn a_short_key_is_refused_and_the_way_out_named() {
    let error = scrubber_for(b"1234567", "bearer").unwrap_err();
    assert!(
        error.contains("--scrub=off") && !error.contains("1234567"),
        "{error}"
    );
    assert!(scrubber_for(b"12345678", "bearer").is_ok());
}

#[test]
fn only_what_may_begin_a_match_is_held_back() {
    let scrubber = scrubber("sk-live-0123456789abcdef");
    let released =
        |text: &str| Stream::default().scrub(&scrubber, &mut text.as_bytes().to_vec(), false);
    for event in [
        "",
        "data: hello\n\n",
        "data: hello\r\n\r\n",
        "{\"a\":1}\n",
        "a sk-live-0123456789abcde.",
        "50 %",
        "x\\",
        "ends like base64 with a 1",
        "a&b",
        "=\r\n",
    ] {
        let held = event.len() - released(event);
        // An escape may begin a match, too.
        let may = usize::from(event.ends_with(['%', '\\']));
        assert_eq!(held, may, "{event:?}");
    }
    assert_eq!(released("a sk-li"), 2);
    assert_eq!(released("a sk-li%7"), 2);
    assert_eq!(released("a sk-li%0"), 9);
    assert_eq!(released("a sk-li\\u00"), 2);
    assert_eq!(released("a sk-li\\u01"), 11);
    assert_eq!(released("a sk-li&#11"), 2);
    assert_eq!(released("a sk-li&#2"), 10);
}

#[test]
fn a_pause_releases_nothing_of_a_key() {
    let key = "sk-live-0123456789abcdef";
    let scrubber = scrubber(key);
    let mut stream = Stream::default();
    let mut held = Vec::new();
    for byte in key.bytes() {
        assert_eq!(stream.scrub(&scrubber, &mut held, false), 0);
        held.push(byte);
        // Nothing new came.
        if held.len() < key.len() {
            assert_eq!(stream.scrub(&scrubber, &mut held, false), 0);
        }
    }
    assert_eq!(stream.scrub(&scrubber, &mut held, false), key.len());
    assert_eq!(held, "*".repeat(key.len()).as_bytes());
    assert_eq!(stream.found, 1);
}

#[test]
fn a_key_that_repeats_itself_costs_no_more_than_its_length() {
    let key = "%2".repeat(64);
    let scrubber = scrubber(&key);
    let text = key.repeat(20);
    let mut stream = Stream::default();
    let (mut held, mut out) = (Vec::new(), Vec::new());
    for byte in text.bytes() {
        held.push(byte);
        let n = stream.scrub(&scrubber, &mut held, false);
        out.extend(held.drain(..n));
        assert!(stream.live.len() <= 16 * key.len(), "{}", stream.live.len());
    }
    assert!(!String::from_utf8_lossy(&out).contains(&key));
}
