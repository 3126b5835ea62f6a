//! Bytes that are locked in memory, wiped on drop and never printed.

use std::fmt;
use std::io;

use zeroize::Zeroize;

use crate::sys::memory::Locked;

/// A secret. `Debug` prints nothing of it; there is no `Clone`, no `Display` and no `==`.
pub struct Secret {
    bytes: Locked,
}

impl Secret {
    /// Takes the bytes over into protected memory and wipes the buffer they came in, on failure too.
    pub fn take(bytes: &mut [u8]) -> io::Result<Secret> {
        let copy = Secret::copy(bytes);
        bytes.zeroize();
        copy
    }

    /// Copies bytes that stay in protected memory themselves.
    pub(super) fn copy(bytes: &[u8]) -> io::Result<Secret> {
        let mut copy = Locked::new(bytes.len())?;
        copy.as_mut_slice().copy_from_slice(bytes);
        Ok(Secret { bytes: copy })
    }

    /// The bytes. Whoever borrows them keeps no copy past the call.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        self.bytes.as_slice()
    }

    /// How these bytes are protected: `memfd_secret`, `mlock` or `none`.
    #[must_use]
    pub fn tier(&self) -> &'static str {
        self.bytes.tier().name()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
