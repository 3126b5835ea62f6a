//! Random keys in random encodings at random offsets in random text, cut at random places.

use std::ops::Range;

use super::*;

pub const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
pub const URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    fn hex(&mut self, nibble: u8) -> char {
        let digit = char::from_digit(nibble.into(), 16).unwrap();
        if self.one_in(2) {
            digit.to_ascii_uppercase()
        } else {
            digit
        }
    }
}

/// Base64 of `bytes`, with `*` for each digit that holds a bit of the bytes in `masked`; and the
/// places of those.
pub fn base64(
    bytes: &[u8],
    alphabet: &[u8; 64],
    padded: bool,
    masked: &Range<usize>,
) -> (String, Range<usize>) {
    let bit = |at: usize| bytes.get(at / 8).map_or(0, |b| b >> (7 - at % 8) & 1);
    let mut out = String::new();
    #[allow(clippy::reversed_empty_ranges)] // Empty until the first place is known.
    let mut places = usize::MAX..0;
    for digit in 0..(8 * bytes.len()).div_ceil(6) {
        let value = (0..6).fold(0, |value, i| value << 1 | bit(6 * digit + i));
        let hidden = 6 * digit < 8 * masked.end && 6 * digit + 6 > 8 * masked.start;
        if hidden && !masked.is_empty() {
            places = places.start.min(digit)..digit + 1;
            out.push('*');
        } else {
            out.push(char::from(alphabet[usize::from(value)]));
        }
    }
    while padded && !out.len().is_multiple_of(4) {
        out.push('=');
    }
    (out, places)
}

/// A key, and whether it is so much like itself that it may be found where it was not put.
fn key(random: &mut Random) -> (Vec<u8>, bool) {
    let len = match random.below(32) {
        0 => 100 + random.below(200),
        1..8 => 20 + random.below(40),
        8..12 => 8,
        _ => 8 + random.below(20),
    };
    let alphabets: [&[u8]; 6] = [
        STANDARD,
        URL,
        b"0123456789abcdef",
        b" !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~abz019",
        b"ab",
        b"%&\\=;u02#x",
    ];
    let kind = random.below(7);
    if kind == 6 {
        // With characters of several bytes; `*` would look like the mask.
        let text: String = (0..len)
            .map(|_| *random.pick(&['a', 'ü', '€', '😀', 'z', '7', '-']))
            .collect();
        return (text.into_bytes(), true);
    }
    let alphabet = alphabets[kind];
    let key: Vec<u8> = (0..len).map(|_| *random.pick(alphabet)).collect();
    (key, kind >= 3 || len < 10)
}

/// One byte or character in a random spelling of these kinds.
fn spell(random: &mut Random, c: char, kinds: &[usize], out: &mut String) {
    let code = u32::from(c);
    let mut utf8 = [0; 4];
    let bytes = c.encode_utf8(&mut utf8).as_bytes().to_vec();
    match *random.pick(kinds) {
        kind @ (1 | 2) => {
            for b in bytes {
                if b == b' ' && kind == 1 && random.one_in(2) {
                    out.push('+');
                    continue;
                }
                out.push(if kind == 1 { '%' } else { '=' });
                out.push(random.hex(b >> 4));
                out.push(random.hex(b & 15));
            }
        }
        3 => {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                out.push_str("\\u");
                for i in (0..4).rev() {
                    out.push(random.hex((*unit >> (4 * i) & 15) as u8));
                }
            }
        }
        4 if "/\"\\".contains(c) => out.extend(['\\', c]),
        5 => {
            let width = random.below(8);
            match random.below(3) {
                0 => *out += &format!("&#{code:0width$};"),
                1 => *out += &format!("&#x{code:0width$x};"),
                _ => *out += &format!("&#X{code:0width$X};"),
            }
        }
        6 => match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            _ => out.push(c),
        },
        _ => out.push(c),
    }
}

/// The kinds of one family, plain ones more often than not; or of all of them.
fn family(random: &mut Random) -> &'static [usize] {
    let orders: &'static [&'static [usize]] = &[
        &[0],
        &[0, 0, 1],
        &[1],
        &[0, 3, 4],
        &[3],
        &[0, 0, 5, 6],
        &[5],
        &[0, 2],
        &[0, 0, 0, 1, 2, 3, 4, 5, 6],
    ];
    let order: &&[usize] = random.pick(orders);
    order
}

/// The key in a random encoding, which bytes of it are to be masked, and how many of these are a
/// digit that is shared with what stands before the key.
fn encode(random: &mut Random, key: &[u8]) -> (Vec<u8>, Range<usize>, usize) {
    let kinds = family(random);
    let Ok(text) = std::str::from_utf8(key) else {
        return (key.to_vec(), 0..key.len(), 0);
    };
    let mut out = String::new();
    match random.below(3) {
        0 => {
            for c in text.chars() {
                spell(random, c, kinds, &mut out);
            }
        }
        1 => {
            for b in key {
                for nibble in [b >> 4, b & 15] {
                    let digit = random.hex(nibble);
                    spell(random, digit, kinds, &mut out);
                }
            }
        }
        _ => {
            let before = random.below(9);
            let behind = random.below(5);
            let mut bytes: Vec<u8> = (0..before).map(|_| random.next() as u8).collect();
            bytes.extend_from_slice(key);
            bytes.extend((0..behind).map(|_| random.next() as u8));
            let alphabet = *random.pick(&[STANDARD, URL]);
            let padded = random.one_in(2);
            let secret = before..before + key.len();
            let (digits, _) = base64(&bytes, alphabet, padded, &(0..0));
            let (_, places) = base64(&bytes, alphabet, padded, &secret);
            let (mut masked, mut shared) = (0..0, 0);
            for (i, c) in digits.chars().enumerate() {
                if i == places.start {
                    masked.start = out.len();
                }
                spell(random, c, kinds, &mut out);
                if i == places.start && !before.is_multiple_of(3) {
                    shared = out.len() - masked.start;
                }
                if i + 1 == places.end {
                    masked.end = out.len();
                }
            }
            return (out.into_bytes(), masked, shared);
        }
    }
    let len = out.len();
    (out.into_bytes(), 0..len, 0)
}

/// Text that does not hold the key, yet looks a little like it.
fn noise(random: &mut Random, key: &[u8], out: &mut Vec<u8>) {
    for _ in 0..random.below(4) {
        match random.below(5) {
            0 => out.extend((0..random.below(40)).map(|_| random.next() as u8)),
            1 => {
                let cut = random.below(key.len().min(7));
                out.extend_from_slice(&key[..cut]);
            }
            2 => {
                out.extend((0..random.below(9)).map(|_| *random.pick(b"%\\u&#x=0123456789abcdef")))
            }
            3 => out.extend_from_slice(b"data: {\"id\": 17, \"text\": \"hello\"}\r\n\r\n"),
            _ => out.extend((0..random.below(50)).map(|_| *random.pick(STANDARD))),
        }
    }
    // What stands before must not be taken for the beginning of an escape of the key's first
    // character, nor for the digits before it, nor what stands behind for the end.
    out.extend_from_slice(b"\n |");
}

/// Fifty cases with one key.
fn cases(seed: u64) {
    let mut random = Random(seed);
    let (key, alike) = key(&mut random);
    let scrubber = scrubber_for(&key, "query:k").unwrap();
    for _ in 0..50 {
        case(seed, &mut random, &scrubber, &key, alike);
    }
}

fn case(seed: u64, random: &mut Random, scrubber: &Scrubber, key: &[u8], alike: bool) {
    let mut text = Vec::new();
    let mut masked = Vec::new();
    noise(random, key, &mut text);
    for _ in 0..random.below(3) {
        let (encoded, places, shared) = encode(random, key);
        let start = text.len() + places.start;
        masked.push((start, start + shared, text.len() + places.end));
        text.extend(encoded);
        text.extend_from_slice(b"| ");
        noise(random, key, &mut text);
    }
    let most = *random.pick(&[1, 2, 5, 20, 100, 10_000]);
    let sizes: Vec<usize> = (0..text.len()).map(|_| 1 + random.below(most)).collect();
    let out = in_pieces(scrubber, &text, &sizes);
    let context = || {
        format!(
            "SCRUB_SEED={seed} key {:?}\ntext {:?}\nout  {:?}",
            String::from_utf8_lossy(key),
            String::from_utf8_lossy(&text),
            String::from_utf8_lossy(&out)
        )
    };
    assert_eq!(out.len(), text.len(), "{}", context());
    let mut expected = text.clone();
    for (start, own, end) in masked {
        expected[start..end].fill(b'*');
        // A shared digit, or the escape that spells it, may have gone out before the next one came.
        for at in start..own {
            if sizes[0] < text.len() && out[at] == text[at] {
                expected[at] = text[at];
            }
        }
        assert!(out[start..end] == expected[start..end], "{}", context());
    }
    if !alike {
        assert!(out == expected, "{}", context());
    }
    if let Some(how) = decode::found(&out, key) {
        panic!("found {how}: {}", context());
    }
    // And the checker itself is no fool.
    if !alike && random.one_in(8) && out != text {
        assert!(decode::found(&text, key).is_some(), "{}", context());
    }
}

#[test]
fn no_key_gets_through_and_no_other_byte_is_changed() {
    let number = |name| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    if let Some(seed) = number("SCRUB_SEED") {
        return cases(seed);
    }
    for seed in 0..number("SCRUB_CASES").unwrap_or(2_000) / 50 {
        cases(seed);
    }
}
