//! JSON (RFC 8259) as far as we write it: one object on one line, in ASCII alone.
//!
//! Whatever a string holds, it can end neither its quotes nor its line, nor move a terminal's cursor:
//! control characters and all that is not ASCII are escaped.

use std::fmt::{Arguments, Write};

/// What stands at the end of a string that was cut.
const CUT: &str = "...";

/// Appends a string in its quotes.
pub fn push_string(out: &mut String, text: &str) {
    push_bounded(out, &[text], usize::MAX);
}

/// Appends these parts as one string of at most `limit` bytes, escapes included; when there is more,
/// three dots follow in its place.
fn push_bounded(out: &mut String, parts: &[&str], limit: usize) {
    out.push('"');
    let end = out.len().saturating_add(limit);
    for char in parts.iter().flat_map(|part| part.chars()) {
        let before = out.len();
        match char {
            '"' | '\\' => out.extend(['\\', char]),
            ' '..='~' => out.push(char),
            _ => {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    // Writing to a String never fails.
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
        if out.len() > end {
            out.truncate(before);
            out.push_str(CUT);
            break;
        }
    }
    out.push('"');
}

/// An object that is being written.
#[derive(Debug, Clone)]
pub struct Object {
    text: String,
}

impl Object {
    /// `{`
    #[must_use]
    pub fn open() -> Object {
        // Room for the line of a usual request.
        let mut text = String::with_capacity(512);
        text.push('{');
        Object { text }
    }

    fn name(&mut self, name: &str) {
        if !self.text.ends_with('{') {
            self.text.push(',');
        }
        self.put(format_args!("\"{name}\":"));
    }

    fn put(&mut self, text: Arguments<'_>) {
        let _ = self.text.write_fmt(text);
    }

    /// A string of these parts, cut where its escaped form would be longer than `limit` bytes.
    pub fn text(&mut self, name: &str, parts: &[&str], limit: usize) {
        self.name(name);
        push_bounded(&mut self.text, parts, limit);
    }

    /// A string that is known to need no escape.
    pub fn plain(&mut self, name: &str, value: Arguments<'_>) {
        self.name(name);
        self.put(format_args!("\"{value}\""));
    }

    /// A whole number, or null.
    pub fn number(&mut self, name: &str, value: impl Into<Option<u64>>) {
        self.name(name);
        match value.into() {
            Some(value) => self.put(format_args!("{value}")),
            None => self.text.push_str("null"),
        }
    }

    /// Milliseconds with three decimals, or null.
    pub fn millis(&mut self, name: &str, value: Option<std::time::Duration>) {
        self.name(name);
        match value.map(|value| value.as_micros()) {
            Some(micros) => self.put(format_args!("{}.{:03}", micros / 1000, micros % 1000)),
            None => self.text.push_str("null"),
        }
    }

    /// `true` or `false`.
    pub fn flag(&mut self, name: &str, value: bool) {
        self.name(name);
        self.put(format_args!("{value}"));
    }

    /// `null`.
    pub fn null(&mut self, name: &str) {
        self.number(name, None);
    }

    /// The members of another object.
    pub fn extend(&mut self, other: &Object) {
        if !self.text.ends_with('{') {
            self.text.push(',');
        }
        self.text.push_str(&other.text[1..]);
    }

    /// Another object as a member.
    pub fn object(&mut self, name: &str, value: &Object) {
        self.name(name);
        self.put(format_args!("{}}}", value.text));
    }

    /// A list of strings, each cut as `text` cuts it.
    pub fn texts(&mut self, name: &str, values: &[String], limit: usize) {
        self.name(name);
        self.text.push('[');
        for (i, value) in values.iter().enumerate() {
            if i > 0 {
                self.text.push(',');
            }
            push_bounded(&mut self.text, &[value], limit);
        }
        self.text.push(']');
    }

    /// The whole line.
    #[must_use]
    pub fn into_line(mut self) -> String {
        self.text.push_str("}\n");
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(text: &str) -> String {
        let mut out = String::new();
        push_string(&mut out, text);
        out
    }

    #[test]
    fn a_string_stays_within_its_quotes_and_its_line() {
        assert_eq!(string(""), r#""""#);
        assert_eq!(string("a\"b\\c/"), r#""a\"b\\c/""#);
        assert_eq!(
            string("\0\n\r\t\x1b\x7f"),
            r#""\u0000\u000a\u000d\u0009\u001b\u007f""#
        );
        assert_eq!(string("\u{e9}\u{2028}"), r#""\u00e9\u2028""#);
        assert_eq!(string("\u{1f511}"), r#""\ud83d\udd11""#);
    }

    #[test]
    fn a_long_string_is_cut_between_two_characters() {
        let cut = |text: &str, limit| {
            let mut out = String::new();
            push_bounded(&mut out, &[text], limit);
            out
        };
        assert_eq!(cut("abcd", 4), r#""abcd""#);
        assert_eq!(cut("abcde", 4), r#""abcd...""#);
        // An escape is never cut in its middle.
        assert_eq!(cut("ab\n", 7), r#""ab...""#);
        assert_eq!(cut("ab\n", 8), r#""ab\u000a""#);
    }

    #[test]
    fn members_are_separated() {
        let mut inner = Object::open();
        inner.flag("b", true);
        let mut object = Object::open();
        object.number("a", 1);
        object.null("n");
        object.object("o", &inner);
        object.extend(&inner);
        object.texts("l", &["x".into(), "yy".into()], 1);
        object.millis("t", Some(std::time::Duration::from_micros(1_002_003)));
        object.text("s", &["a", "b"], 9);
        assert_eq!(
            object.into_line(),
            "{\"a\":1,\"n\":null,\"o\":{\"b\":true},\"b\":true,\"l\":[\"x\",\"y...\"],\"t\":1002.003,\"s\":\"ab\"}\n"
        );
    }
}
