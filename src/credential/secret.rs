//! Bytes that are locked in memory, wiped on drop and never printed.

use std::fmt;

/// A secret. `Debug` prints nothing of it; there is no `Clone` and no `Display`.
pub struct Secret {
    _todo: (),
}

impl Secret {
    /// Takes the bytes over into protected memory and wipes the buffer they came in.
    pub fn take(bytes: &mut [u8]) -> std::io::Result<Secret> {
        let _ = bytes;
        todo!()
    }

    /// The bytes. Whoever borrows them keeps no copy past the call.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        todo!()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
