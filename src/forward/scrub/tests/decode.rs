//! Looks for a key in every encoding, slowly: decodes the whole text in every way and searches.

/// How the key can be read out of the text, if it can.
pub fn found(text: &[u8], key: &[u8]) -> Option<String> {
    let mut layers = vec![("plain", text.to_vec())];
    layers.push(("percent", decode(text, "%")));
    layers.push(("JSON", decode(text, "\\")));
    layers.push(("HTML", decode(text, "&")));
    layers.push(("quoted-printable", decode(text, "=")));
    layers.push(("any mix", decode(text, "%\\&=")));
    let plain = text;
    for (name, text) in layers {
        if name != "plain" && text == plain {
            continue;
        }
        if holds(&text, key) {
            return Some(format!("in {name}"));
        }
        let spaces: Vec<u8> = text
            .iter()
            .map(|&b| if b == b'+' { b' ' } else { b })
            .collect();
        // A form has all its spaces as `+`.
        let plus: Vec<u8> = key
            .iter()
            .map(|&b| if b == b'+' { b' ' } else { b })
            .collect();
        if key.contains(&b' ') && !key.contains(&b'+') && holds(&spaces, &plus) {
            return Some(format!("in {name} with + for a space"));
        }
        for run in runs(&text, 2 * key.len(), |b| b.is_ascii_hexdigit()) {
            for start in 0..2 {
                if holds(&bits(&run[start.min(run.len())..], 4, hex), key) {
                    return Some(format!("in hexadecimal digits in {name}"));
                }
            }
        }
        let digits = digits();
        let base64 = |b: u8| digits[usize::from(b)];
        for run in runs(&text, 8 * key.len() / 6, |b| base64(b) < 64) {
            for start in 0..4 {
                if holds(&bits(&run[start.min(run.len())..], 6, base64), key) {
                    return Some(format!("in base64 in {name}"));
                }
            }
        }
    }
    None
}

fn holds(text: &[u8], key: &[u8]) -> bool {
    let first = key[0];
    text.len() >= key.len()
        && (0..=text.len() - key.len()).any(|i| text[i] == first && text[i..].starts_with(key))
}

/// What is long enough to hold the key.
fn runs(text: &[u8], least: usize, belongs: impl Fn(u8) -> bool) -> Vec<&[u8]> {
    text.split(|&b| !belongs(b))
        .filter(|run| run.len() >= least)
        .collect()
}

fn bits(digits: &[u8], width: u32, value: impl Fn(u8) -> u32) -> Vec<u8> {
    let (mut out, mut acc, mut have) = (Vec::new(), 0u32, 0);
    for &digit in digits {
        acc = (acc << width | value(digit)) & 0xffff;
        have += width;
        if have >= 8 {
            have -= 8;
            out.push((acc >> have) as u8);
        }
    }
    out
}

fn hex(b: u8) -> u32 {
    (b as char).to_digit(16).unwrap()
}

/// The base64 digits of both alphabets; 64 is none.
fn digits() -> [u32; 256] {
    let mut digits = [64; 256];
    for alphabet in [super::random::STANDARD, super::random::URL] {
        for (value, &b) in alphabet.iter().enumerate() {
            digits[usize::from(b)] = value as u32;
        }
    }
    digits
}

/// Takes the escapes off that begin with one of these characters.
fn decode(text: &[u8], introducers: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let escape = introducers
            .as_bytes()
            .contains(&rest[0])
            .then(|| one(rest))
            .flatten();
        match escape {
            Some((bytes, len)) => {
                out.extend(bytes);
                at += len;
            }
            None => {
                out.push(rest[0]);
                at += 1;
            }
        }
    }
    out
}

fn number(digits: &[u8], radix: u32) -> Option<u32> {
    let text = std::str::from_utf8(digits).ok()?;
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric());
    plain
        .then(|| u32::from_str_radix(text, radix).ok())
        .flatten()
}

fn utf8(code: u32) -> Option<Vec<u8>> {
    char::from_u32(code).map(|c| c.to_string().into_bytes())
}

fn one(rest: &[u8]) -> Option<(Vec<u8>, usize)> {
    match rest[0] {
        b'=' if rest.starts_with(b"=\r\n") => Some((vec![], 3)),
        b'=' if rest.starts_with(b"=\n") => Some((vec![], 2)),
        b'%' | b'=' => Some((vec![number(rest.get(1..3)?, 16)? as u8], 3)),
        b'\\' => match rest.get(1)? {
            b'u' => {
                let unit = number(rest.get(2..6)?, 16)?;
                if let (0xd800..0xdc00, Some(b"\\u")) = (unit, rest.get(6..8)) {
                    let low = number(rest.get(8..12)?, 16)?;
                    let code = 0x10000 + ((unit - 0xd800) << 10) + low.checked_sub(0xdc00)?;
                    return Some((utf8(code)?, 12));
                }
                Some((utf8(unit)?, 6))
            }
            b @ (b'/' | b'"' | b'\\') => Some((vec![*b], 2)),
            _ => None,
        },
        b'&' => {
            let end = rest.iter().take(12).position(|&b| b == b';')?;
            let code = match &rest[1..end] {
                [b'#', b'x' | b'X', digits @ ..] => number(digits, 16)?,
                [b'#', digits @ ..] => number(digits, 10)?,
                b"amp" => 38,
                b"lt" => 60,
                b"gt" => 62,
                b"quot" => 34,
                b"apos" => 39,
                _ => return None,
            };
            Some((utf8(code)?, end + 1))
        }
        _ => None,
    }
}
