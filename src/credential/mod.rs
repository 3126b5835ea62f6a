//! Where a secret comes from: a file, a descriptor, the environment or a command.
//!
//! No key is read before the process is hardened: `Credential::load` hardens first, so there is no
//! order in which a caller could get it wrong.

mod secret;
mod source;

pub use secret::Secret;
pub use source::Source;

use std::sync::Arc;

use crate::error::Result;

/// A secret and the form in which it goes into a request (percent-encoded, in a header value, ...).
#[derive(Debug)]
pub struct Loaded {
    /// The credential as it was read, one trailing newline removed.
    pub key: Secret,
    /// What is written into the request in its place.
    pub rendered: Secret,
}

/// Turns a key into its rendered form, or says why it does not fit its place.
pub type Render = Box<dyn Fn(&[u8]) -> std::result::Result<Secret, String> + Send + Sync>;

/// A credential that is kept current with its source.
pub struct Credential {
    _todo: (),
}

impl Credential {
    /// Hardens the process, reads the source and renders the key.
    pub fn load(source: Source, render: Render) -> Result<Credential> {
        let _ = (source, render);
        todo!()
    }

    /// The key as its source has it now. A file that changed is read again; one that is gone,
    /// unreadable or no longer valid gives an error, never the old key.
    ///
    /// The error text names the source and the problem and is fit for a response body.
    pub fn current(&self) -> std::result::Result<Arc<Loaded>, String> {
        todo!()
    }

    /// The source, for messages.
    pub fn source(&self) -> &Source {
        todo!()
    }
}
