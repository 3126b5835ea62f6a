//! The forms in which a key can stand in a response, as a sequence of characters that are wanted one
//! after the other: the key itself, its hexadecimal digits, and its base64 at three alignments.
//!
//! Every form is computed from the key when it is needed: none is kept.

/// What a base64 text of something that holds the key begins with, the key's own digits, or another
/// form altogether.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The bytes of the key.
    Raw,
    /// Two digits for each byte.
    Hex,
    /// RFC 4648 base64 or base64url, with this many bytes (modulo 3) before the key.
    ///
    /// A digit that is shared with what stands before the key is the first character of the form. One
    /// that is shared with what follows is the tail, which is not needed for a match.
    Base64(u8),
}

/// Where a match can begin: with the first character of each form; and behind a shared digit, because
/// that one may have been cut off. The place in this list is the bit in `Scrubber::first`.
pub const ENTRIES: [(Form, usize); 7] = [
    (Form::Raw, 0),
    (Form::Hex, 0),
    (Form::Base64(0), 0),
    (Form::Base64(1), 1),
    (Form::Base64(2), 1),
    // Entries that begin with a shared digit; the filter does not look for them.
    (Form::Base64(1), 0),
    (Form::Base64(2), 0),
];

/// How many of the entries the filter looks for.
pub const FILTERED: usize = 5;

/// A character of a response, after one layer of escapes is taken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value {
    /// A byte, or a code point.
    pub code: u32,
    /// Whether it stands for a character rather than a byte, so that it may mean the several bytes
    /// of its UTF-8 encoding.
    pub character: bool,
}

impl Form {
    /// How many characters make a match.
    pub fn len(self, key: &[u8]) -> usize {
        match self {
            Form::Raw => key.len(),
            Form::Hex => 2 * key.len(),
            Form::Base64(before) => 8 * (usize::from(before) + key.len()) / 6 - self.skipped(),
        }
    }

    /// Whether the character behind a match holds bits of the key, too.
    pub fn has_tail(self, key: &[u8]) -> bool {
        matches!(self, Form::Base64(before) if !(8 * (usize::from(before) + key.len())).is_multiple_of(6))
    }

    /// How many whole bytes of the key the first `n` characters tell.
    pub fn told(self, n: usize) -> usize {
        match self {
            Form::Raw => n,
            Form::Hex => n / 2,
            Form::Base64(0) => 6 * n / 8,
            Form::Base64(_) => 6 * n.saturating_sub(1) / 8,
        }
    }

    /// The base64 digits that hold no bit of the key.
    fn skipped(self) -> usize {
        match self {
            Form::Base64(before) => 8 * usize::from(before) / 6,
            _ => 0,
        }
    }

    /// How many characters of the form `value` stands for at character `n`: in a form of bytes a
    /// code point may be read in two ways. 0 is none.
    pub fn accepts(self, key: &[u8], n: usize, value: Value) -> [usize; 2] {
        let Ok(byte) = u8::try_from(value.code) else {
            return [0, self.character(key, n, value)];
        };
        let fits = match self {
            Form::Raw => key.get(n) == Some(&byte),
            Form::Hex => hex_digit(byte).is_some_and(|digit| {
                key.get(n / 2)
                    .is_some_and(|&b| digit == if n.is_multiple_of(2) { b >> 4 } else { b & 15 })
            }),
            Form::Base64(_) => {
                let (mask, want) = self.base64_bits(key, n);
                mask != 0 && base64_digit(byte).is_some_and(|digit| digit & mask == want)
            }
        };
        [usize::from(fits), self.character(key, n, value)]
    }

    /// The bytes of the key that a character means by its UTF-8 encoding.
    fn character(self, key: &[u8], n: usize, value: Value) -> usize {
        if self != Form::Raw || !value.character || value.code < 0x80 {
            return 0;
        }
        let mut utf8 = [0; 4];
        match char::from_u32(value.code).map(|c| c.encode_utf8(&mut utf8).len()) {
            Some(len)
                if key
                    .get(n..)
                    .is_some_and(|rest| rest.starts_with(&utf8[..len])) =>
            {
                len
            }
            _ => 0,
        }
    }

    /// Which of the six bits of digit `n` are the key's, and what they are.
    fn base64_bits(self, key: &[u8], n: usize) -> (u8, u8) {
        let Form::Base64(before) = self else {
            return (0, 0);
        };
        let (from, end) = (6 * (self.skipped() + n), 8 * key.len());
        let (at, mask) = match from.checked_sub(8 * usize::from(before)) {
            // The last bits of the digit are the first ones of the key.
            None => {
                let own = from + 6 - 8 * usize::from(before);
                return (
                    (1 << own) - 1,
                    key.first().map_or(0, |first| first >> (8 - own)),
                );
            }
            Some(at) if at >= end => return (0, 0),
            Some(at) => (at, 0x3f << (6 - (end - at).min(6)) & 0x3f),
        };
        let two = |i| u16::from(key.get(i).copied().unwrap_or(0));
        let bits = two(at / 8) << 8 | two(at / 8 + 1);
        let want = (bits >> (10 - at % 8)) as u8 & mask;
        (mask, want)
    }

    /// Every value that is accepted at character `n`, for `spell`.
    pub fn values(self, key: &[u8], n: usize, mut take: impl FnMut(Value, usize)) {
        let mut byte = |byte: u8| {
            let value = Value {
                code: byte.into(),
                character: false,
            };
            if self.accepts(key, n, value)[0] > 0 {
                take(value, 1);
            }
        };
        match self {
            Form::Raw => key.get(n).copied().into_iter().for_each(&mut byte),
            Form::Hex => b"0123456789abcdefABCDEF"
                .iter()
                .copied()
                .for_each(&mut byte),
            Form::Base64(_) => (b'+'..=b'z').for_each(&mut byte),
        }
        let rest = key.get(n..).unwrap_or_default();
        if self == Form::Raw && rest.first().is_some_and(|b| *b >= 0x80) {
            for len in 2..=rest.len().min(4) {
                if let Some(c) = std::str::from_utf8(&rest[..len])
                    .ok()
                    .and_then(|s| s.chars().next())
                    && c.len_utf8() == len
                {
                    let value = Value {
                        code: c.into(),
                        character: true,
                    };
                    take(value, len);
                }
            }
        }
    }
}

pub fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// In either alphabet (RFC 4648 sections 4 and 5).
fn base64_digit(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    }
}
