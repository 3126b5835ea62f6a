//! What our caller handed us, recorded before Rust's runtime changes it.
//!
//! Before `main`, std ignores SIGPIPE and opens `/dev/null` in the place of a closed standard
//! descriptor; afterwards nobody can tell what was there. A function in `.init_array` runs earlier
//! (ELF gABI, "Initialization and Termination Functions"), both under glibc and in a static musl
//! program. It may only look: a program that merely links this library keeps its own signals.

use std::sync::atomic::{AtomicU8, Ordering};

use super::signal;

const SIGPIPE_IGNORED: u8 = 1 << 3;
const SIGCHLD_IGNORED: u8 = 1 << 4;

/// Bits 0-2: that standard descriptor was closed; above them the constants.
static RECORD: AtomicU8 = AtomicU8::new(0);

#[used]
#[unsafe(link_section = ".init_array")]
static RECORD_AT_START: extern "C" fn() = record;

extern "C" fn record() {
    let mut seen = 0;
    for number in 0..3 {
        if super::fd::flags(number).is_none() {
            seen |= 1 << number;
        }
    }
    if signal::is_ignored(libc::SIGPIPE) {
        seen |= SIGPIPE_IGNORED;
    }
    if signal::is_ignored(libc::SIGCHLD) {
        seen |= SIGCHLD_IGNORED;
    }
    RECORD.store(seen, Ordering::Relaxed);
}

/// Whether this standard descriptor was closed and still holds what std put there.
///
/// A program that links this library may have put something else there since; that stays.
pub fn stdio_closed(number: u8) -> bool {
    number < 3
        && RECORD.load(Ordering::Relaxed) & (1 << number) != 0
        && super::fd::is_dev_null(i32::from(number))
}

/// Whether SIGPIPE was ignored.
pub fn sigpipe_ignored() -> bool {
    RECORD.load(Ordering::Relaxed) & SIGPIPE_IGNORED != 0
}

/// Whether SIGCHLD was ignored.
pub fn sigchld_ignored() -> bool {
    RECORD.load(Ordering::Relaxed) & SIGCHLD_IGNORED != 0
}
