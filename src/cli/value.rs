//! The values of options: parsed once, into what the rest of the program works with.
//!
//! Errors say what would have been right; the caller names the option.

use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::str::FromStr;
use std::time::Duration;

/// The longest duration. A deadline is an instant plus this, which must not overflow.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// Parses a whole number with its unit: `500ms`, `60s`, `5m`, `1h`. Never zero, at most a week.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let form = || String::from("not a duration such as 500ms, 60s, 5m or 1h");
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let digits = &text[..text.len() - unit.len()];
    let millis: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 3600 * 1000,
        "" if !digits.is_empty() => return Err(String::from("needs a unit: ms, s, m or h")),
        _ => return Err(form()),
    };
    if digits.is_empty() {
        return Err(form());
    }
    // Only digits are left, so what does not parse is too large.
    let count = digits.parse::<u64>().ok();
    match count.and_then(|count| count.checked_mul(millis)) {
        Some(0) => Err(String::from("must be more than 0")),
        Some(total) if Duration::from_millis(total) <= LONGEST => Ok(Duration::from_millis(total)),
        _ => Err(String::from("too long: 168h is the most")),
    }
}

/// Parses a plain decimal number within these bounds.
pub(super) fn number<N>(text: &str, least: N, most: N) -> Result<N, String>
where
    N: FromStr + PartialOrd + Display,
{
    // Digits only: `parse` would take `+3`.
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(number) if plain && number >= least && number <= most => Ok(number),
        _ => Err(format!("not a number from {least} to {most}")),
    }
}

/// Splits `NAME=TEMPLATE` at the first `=`.
pub(super) fn assignment(text: &OsStr) -> Result<(OsString, OsString), &'static str> {
    let bytes = text.as_bytes();
    let at = match bytes.iter().position(|&byte| byte == b'=') {
        Some(at) if at > 0 => at,
        _ => return Err("not of the form NAME=TEMPLATE"),
    };
    let name = OsStr::from_bytes(&bytes[..at]);
    if name == "BROKER_EXEC_FD" || name == "BROKER_EXEC_FD_ID" {
        return Err("this variable is set by broker-exec itself");
    }
    let value = OsString::from_vec(bytes[at + 1..].to_vec());
    Ok((name.to_owned(), value))
}
