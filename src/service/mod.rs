//! An upstream, its credential and the place where the credential goes.
//!
//! The three belong together: a credential is rendered for one place and sent to one origin, and
//! nothing that the command says can pair it with another.

mod origin;
mod place;
mod reach;

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

use crate::credential::{Credential, Loaded, Source};
use crate::error::Result;

pub use origin::{Origin, has_dot_segment};
pub use place::{Place, percent_encode};
pub use reach::Reach;

/// An upstream with its credential.
#[derive(Debug)]
pub struct Service {
    /// The name, for messages.
    pub name: String,
    /// Where requests go.
    pub origin: Origin,
    /// Where the credential goes.
    pub place: Place,
    credential: Credential,
}

impl Service {
    /// Parses the options of these names and loads the credential. The process is hardened first.
    ///
    /// # Errors
    /// A malformed option is `Error::Usage`, a key that can't be had or used `Error::Credential`, a
    /// protection that can't be put in place `Error::Protection`.
    pub fn load(name: &str, upstream: &str, key: &OsStr, inject: &str) -> Result<Service> {
        let origin = Origin::parse(upstream)?;
        let place = Place::parse(inject)?;
        let source = Source::parse(key)?;
        let renderer = place.clone();
        let credential = Credential::load(source, Box::new(move |key| renderer.render(key)))?;
        Ok(Service {
            name: name.to_string(),
            origin,
            place,
            credential,
        })
    }

    /// The credential as its source has it now; the text of the failure is fit for a response.
    pub fn credential(&self) -> std::result::Result<Arc<Loaded>, String> {
        self.credential.current()
    }

    /// The regular file that the credential was read from, if there was one.
    #[must_use]
    pub fn key_file(&self) -> Option<&Path> {
        self.credential.file()
    }

    /// Where the credential comes from.
    #[must_use]
    pub fn source(&self) -> &Source {
        self.credential.source()
    }
}
