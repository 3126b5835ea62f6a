//! The ways to spell a character: as it is, percent-encoded, as JSON, HTML and quoted-printable have
//! it. Reading and spelling say the same, the first for matching and the second for the filter and
//! for what is to be held back.

use zeroize::Zeroize;

use super::form::{Form, Value, hex_digit};

/// The longest spelling: two `\uXXXX`.
pub const LONGEST: usize = 12;
/// Digits that a numeric character reference may have.
const DIGITS: usize = 7;
/// What `\` and one more character stand for (RFC 8259 section 7, and `'` of JavaScript).
const SHORT: &[(u8, u8)] = &[
    (b'"', b'"'),
    (b'\\', b'\\'),
    (b'/', b'/'),
    (b'\'', b'\''),
    (b'b', 8),
    (b'f', 12),
    (b'n', b'\n'),
    (b'r', b'\r'),
    (b't', b'\t'),
];
const NAMED: &[(&[u8], u8)] = &[
    (b"&amp;", b'&'),
    (b"&lt;", b'<'),
    (b"&gt;", b'>'),
    (b"&quot;", b'"'),
    (b"&apos;", b'\''),
];

/// A soft line break (RFC 2045 section 6.7) may stand between any two characters.
pub const SOFT: &[&[u8]] = &[b"=\r\n", b"=\n"];
/// What wraps the lines of base64 and hexadecimal texts, as it is and in JSON.
pub const WRAPS: &[&[u8]] = &[b"=\r\n", b"=\n", b"\r\n", b"\n", b"\\r\\n", b"\\n"];

/// Whether a spelling that is not the character itself can begin with this byte.
pub fn introduces(byte: u8) -> bool {
    matches!(byte, b'%' | b'=' | b'\\' | b'&')
}

/// The character that an escape at the start of `input` stands for, and the escape's length. `None`
/// too when more input is needed; `end` says that there is none.
pub fn read(input: &[u8], end: bool) -> Option<(Value, usize)> {
    let byte = |code: u8, len| {
        let value = Value {
            code: code.into(),
            character: false,
        };
        Some((value, len))
    };
    match input {
        [b'%' | b'=', rest @ ..] => byte(hex(rest, 2)? as u8, 3),
        [b'+', ..] => byte(b' ', 1),
        [b'\\', b'x', rest @ ..] => byte(hex(rest, 2)? as u8, 4),
        [b'\\', b'u', rest @ ..] => {
            let character = |code, len| {
                let value = Value {
                    code,
                    character: true,
                };
                Some((value, len))
            };
            match hex(rest, 4)? {
                high @ 0xd800..=0xdbff => match rest.get(4..6)? {
                    b"\\u" => {
                        let low = hex(&rest[6..], 4)?.checked_sub(0xdc00)?;
                        character(0x10000 + ((high - 0xd800) << 10) + low, 12)
                    }
                    _ => None,
                },
                code => character(code, 6),
            }
        }
        [b'\\', short, ..] => {
            let (_, code) = SHORT.iter().find(|(c, _)| c == short)?;
            byte(*code, 2)
        }
        [b'&', b'#', ..] => reference(input, end),
        [b'&', ..] => {
            let (name, code) = NAMED.iter().find(|(name, _)| input.starts_with(name))?;
            byte(*code, name.len())
        }
        _ => None,
    }
}

/// A numeric character reference. Browsers take it without the semicolon, too.
fn reference(input: &[u8], end: bool) -> Option<(Value, usize)> {
    let (start, radix) = match input.get(2) {
        Some(b'x' | b'X') => (3, 16),
        _ => (2, 10),
    };
    let digits = input[start..]
        .iter()
        .take(DIGITS + 1)
        .take_while(|&&b| hex_digit(b).is_some_and(|d| u32::from(d) < radix))
        .count();
    if digits == 0 || digits > DIGITS {
        return None;
    }
    let code = input[start..start + digits].iter().fold(0, |code, &b| {
        code * radix + u32::from(hex_digit(b).unwrap_or(0))
    });
    let value = Value {
        code,
        character: true,
    };
    match input.get(start + digits) {
        None if !end => None,
        Some(b';') => Some((value, start + digits + 1)),
        _ => Some((value, start + digits)),
    }
}

fn hex(input: &[u8], digits: usize) -> Option<u32> {
    input.get(..digits)?.iter().try_fold(0, |code, &b| {
        hex_digit(b).map(|digit| code << 4 | u32::from(digit))
    })
}

/// One way to spell what is wanted. Wiped when it goes.
#[derive(Debug, Clone, Copy)]
pub struct Spelling {
    bytes: [u8; LONGEST],
    len: u8,
    /// How many characters of the form it is.
    pub counts: u8,
}

impl Spelling {
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// Every spelling of one character of a form.
#[derive(Debug)]
pub struct Spellings(Vec<Spelling>);

impl Drop for Spellings {
    fn drop(&mut self) {
        for spelling in &mut self.0 {
            spelling.bytes.zeroize();
        }
    }
}

impl std::ops::Deref for Spellings {
    type Target = [Spelling];
    fn deref(&self) -> &[Spelling] {
        &self.0
    }
}

impl Spellings {
    pub fn of(form: Form, key: &[u8], n: usize) -> Spellings {
        // Room for the usual number, so that little is left behind by growing.
        let mut all = Spellings(Vec::with_capacity(512));
        for introducer in [0, b'%', b'=', b'\\', b'&'] {
            form.values(key, n, |value, counts| all.spell(value, counts, introducer));
        }
        all
    }

    /// Whether `input` is the beginning of an escape of one character of a form.
    pub fn may_be(input: &[u8], form: Form, key: &[u8], n: usize) -> bool {
        let mut all = Spellings(Vec::with_capacity(128));
        let introducer = input.first().copied().unwrap_or(0);
        form.values(key, n, |value, counts| all.spell(value, counts, introducer));
        all.iter()
            .any(|spelling| spelling.bytes().starts_with(input))
    }

    /// The escapes that begin with `introducer`; 0 stands for none.
    fn spell(&mut self, value: Value, counts: usize, introducer: u8) {
        let Value { code, character } = value;
        let byte = u8::try_from(code).ok().filter(|_| !character);
        match (introducer, byte) {
            (0, Some(byte)) => {
                self.add(&[byte], counts);
                if byte == b' ' {
                    self.add(b"+", counts);
                }
            }
            (b'%' | b'=', Some(byte)) => self.cases(&[introducer], byte.into(), 2, b"", counts),
            (b'\\', _) => {
                if let Some(byte) = byte {
                    self.cases(b"\\x", byte.into(), 2, b"", counts);
                    for (short, _) in SHORT.iter().filter(|(_, c)| *c == byte) {
                        self.add(&[b'\\', *short], counts);
                    }
                }
                self.utf16(code, counts);
            }
            (b'&', _) => {
                for (name, _) in NAMED.iter().filter(|(_, c)| Some(*c) == byte) {
                    self.add(name, counts);
                }
                self.references(code, counts);
            }
            _ => {}
        }
    }

    fn utf16(&mut self, code: u32, counts: usize) {
        let Some(above) = code.checked_sub(0x10000) else {
            return self.cases(b"\\u", code, 4, b"", counts);
        };
        let both = (0xd800 + (above >> 10)) << 16 | (0xdc00 + (above & 0x3ff));
        let start = self.0.len();
        self.cases(b"\\u", both, 8, b"", counts);
        for spelling in &mut self.0[start..] {
            spelling.bytes.copy_within(6..10, 8);
            spelling.bytes[6..8].copy_from_slice(b"\\u");
            spelling.len = 12;
        }
    }

    fn references(&mut self, code: u32, counts: usize) {
        for end in [&b";"[..], b""] {
            for digits in 1..=DIGITS {
                for x in [&b"&#x"[..], b"&#X"] {
                    self.cases(x, code, digits, end, counts);
                }
                let mut bytes = *b"&#0000000;__";
                let mut rest = code;
                for i in (2..2 + digits).rev() {
                    bytes[i] = b'0' + (rest % 10) as u8;
                    rest /= 10;
                }
                if rest == 0 {
                    bytes[2 + digits] = b';';
                    self.add(&bytes[..2 + digits + end.len()], counts);
                }
            }
        }
    }

    /// `start`, the number in this many hexadecimal digits of either case, `end`.
    fn cases(&mut self, start: &[u8], code: u32, digits: usize, end: &[u8], counts: usize) {
        if digits < 8 && code >> (4 * digits) > 0 {
            return;
        }
        let nibble = |i: usize| (code >> (4 * (digits - 1 - i)) & 15) as u8;
        let letters = (0..digits).filter(|&i| nibble(i) > 9).count();
        for mut upper in 0..1u32 << letters {
            let mut bytes = [0; LONGEST];
            bytes[..start.len()].copy_from_slice(start);
            for i in 0..digits {
                bytes[start.len() + i] = match nibble(i) {
                    digit @ 0..10 => b'0' + digit,
                    digit => {
                        let base = if upper & 1 == 1 { b'A' } else { b'a' };
                        upper >>= 1;
                        base + digit - 10
                    }
                };
            }
            let len = start.len() + digits;
            bytes[len..len + end.len()].copy_from_slice(end);
            self.add(&bytes[..len + end.len()], counts);
        }
    }

    fn add(&mut self, bytes: &[u8], counts: usize) {
        let mut spelling = Spelling {
            bytes: [0; LONGEST],
            len: bytes.len() as u8,
            counts: counts as u8,
        };
        spelling.bytes[..bytes.len()].copy_from_slice(bytes);
        self.0.push(spelling);
    }
}
