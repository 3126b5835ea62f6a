//! A credential of one test, and every form in which it could leak.

use std::io::Read;

use super::TempDir;

/// A random credential. It holds characters that percent-encoding and form encoding change, so that
/// a wrong encoding in a query fails and each form can be told from the raw one.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(String);

// A test that fails prints its values: not this one.
impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    pub fn random() -> Key {
        Key(format!("k/{}+=", hex(&random_bytes::<16>())))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `file:PATH` of a fresh file in `dir`, with the trailing newline that an editor leaves.
    pub fn file_source(&self, dir: &TempDir) -> String {
        format!(
            "file:{}",
            dir.write("key", format!("{}\n", self.0)).display()
        )
    }

    /// The first form of this key that stands in `haystack`, by name; nothing when it is clean.
    pub fn found_in(&self, haystack: &[u8]) -> Option<&'static str> {
        self.forms()
            .into_iter()
            .find(|(_, form)| contains(haystack, form))
            .map(|(name, _)| name)
    }

    /// Fails the test when any form of the key stands in `haystack`. The message names the form and
    /// the place, and repeats neither the key nor the haystack.
    pub fn assert_absent(&self, haystack: impl AsRef<[u8]>, place: &str) {
        if let Some(form) = self.found_in(haystack.as_ref()) {
            panic!("the key stands in {place}, as {form}");
        }
    }

    /// `haystack` with every form of the key taken out.
    pub fn mask(&self, haystack: &str) -> String {
        self.forms()
            .into_iter()
            .fold(haystack.to_owned(), |text, (_, form)| {
                // Every form is ASCII: the key is, and encodings only make more of it.
                text.replace(
                    std::str::from_utf8(&form).unwrap_or(self.as_str()),
                    "[masked]",
                )
            })
    }

    /// The key as it is and in every encoding that a careless program would print it in.
    pub fn forms(&self) -> Vec<(&'static str, Vec<u8>)> {
        let raw = self.0.as_bytes();
        let percent = |upper: bool| -> Vec<u8> {
            raw.iter()
                .flat_map(|&byte| match byte {
                    b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                        vec![byte]
                    }
                    _ if upper => format!("%{byte:02X}").into_bytes(),
                    _ => format!("%{byte:02x}").into_bytes(),
                })
                .collect()
        };
        let mut forms = vec![
            ("itself", raw.to_vec()),
            ("percent-encoding", percent(true)),
            ("percent-encoding in lower case", percent(false)),
            ("hexadecimal", hex(raw).into_bytes()),
            (
                "hexadecimal in upper case",
                hex(raw).to_uppercase().into_bytes(),
            ),
        ];
        // Base64 of anything that contains the key: the key may begin at any of three phases. The
        // characters at either edge mix in a neighbour's bits, so only what is between them counts.
        for phase in 0..3 {
            let padded: Vec<u8> = std::iter::repeat_n(0, phase)
                .chain(raw.iter().copied())
                .collect();
            let from = (phase * 8).div_ceil(6);
            let to = padded.len() * 8 / 6;
            let encoded = &base64(&padded)[from..to];
            forms.push(("base64", encoded.as_bytes().to_vec()));
            forms.push((
                "base64url",
                encoded.replace('+', "-").replace('/', "_").into_bytes(),
            ));
        }
        forms
    }
}

pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .expect("read /dev/urandom");
    bytes
}

pub fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// RFC 4648, with padding.
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for three in bytes.chunks(3) {
        let bits = three
            .iter()
            .fold(0u32, |bits, &byte| bits << 8 | u32::from(byte))
            << (8 * (3 - three.len()));
        for place in 0..4 {
            if place <= three.len() {
                out.push(char::from(
                    ALPHABET[(bits >> (18 - 6 * place) & 63) as usize],
                ));
            } else {
                out.push('=');
            }
        }
    }
    out
}

/// The value behind `application/x-www-form-urlencoded` text.
pub fn form_decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (escaped, bytes[at]) {
            (Some(byte), _) => {
                out.push(byte);
                at += 2;
            }
            (None, b'+') => out.push(b' '),
            (None, byte) => out.push(byte),
        }
        at += 1;
    }
    out
}

/// CRC-32 as zlib has it, so that a Python client checks a body with `zlib.crc32`.
#[derive(Clone, Copy)]
pub struct Crc32(u32);

impl Crc32 {
    pub fn new() -> Crc32 {
        Crc32(!0)
    }

    pub fn of(bytes: &[u8]) -> String {
        let mut crc = Crc32::new();
        crc.update(bytes);
        crc.hex()
    }

    pub fn update(&mut self, bytes: &[u8]) {
        const TABLE: [u32; 256] = table();
        for &byte in bytes {
            self.0 = TABLE[(self.0 as u8 ^ byte) as usize] ^ (self.0 >> 8);
        }
    }

    pub fn hex(self) -> String {
        format!("{:08x}", !self.0)
    }
}

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        let mut value = at as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 {
                0xEDB8_8320 ^ (value >> 1)
            } else {
                value >> 1
            };
            bit += 1;
        }
        table[at] = value;
        at += 1;
    }
    table
}
