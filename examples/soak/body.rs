//! Bodies that follow from a number: an answer that goes to the wrong client shows.

use std::sync::LazyLock;

/// A prime, so that bodies do not line up with any buffer.
const PERIOD: usize = 65_521;
/// The largest body.
pub const LARGEST: usize = 512 * 1024;

static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let once: Vec<u8> = (0..PERIOD).map(|_| next(&mut state) as u8).collect();
    once.iter()
        .copied()
        .cycle()
        .take(PERIOD + LARGEST)
        .collect()
});

/// The first `length` bytes of the body of this number.
pub fn of(id: u64, length: usize) -> Vec<u8> {
    let mut body = format!("{id:x}.").into_bytes();
    let start = (id % PERIOD as u64) as usize;
    let more = length.saturating_sub(body.len());
    body.extend_from_slice(&NOISE[start..start + more]);
    body.truncate(length);
    body
}

/// The next number of a sequence that looks random (xorshift).
pub fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}
