//! Signals for the command.
use crate::sys::signal;

/// The signal mask that the command gets.
pub(super) fn callers_mask() -> signal::Set {
    signal::block(&signal::Set::empty())
}
