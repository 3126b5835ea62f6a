//! What the tests share: a real upstream, a real broker with its control descriptor in our hands,
//! and an HTTP client that tells a complete message from a cut one.
//!
//! Nothing here may know how the broker works inside: it is driven by its command line, its control
//! socket and its streams, as any command would. Nothing may wait for longer than [`DEADLINE`], and
//! nothing sleeps to be right.

// Every test program uses a part of this and is compiled on its own.
#![allow(dead_code, unused_imports)]

pub mod api;
pub mod broker;
pub mod ca;
pub mod calls;
pub mod client;
pub mod conn;
pub mod json;
pub mod key;
pub mod place;
pub mod session;
pub mod tempdir;
pub mod upstream;

use std::time::Duration;

pub use api::Rule;
pub use broker::{Broker, Finished};
pub use ca::Ca;
pub use client::{Http, Response};
pub use conn::{Conn, Recorded};
pub use json::Json;
pub use key::Key;
pub use place::Place;
pub use session::Session;
pub use tempdir::TempDir;
pub use upstream::Upstream;

/// How long any single wait may take before it fails the test. Generous: it is no measurement.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Gives a test program the `donate` entry that [`Session`] runs as the broker's command.
#[macro_export]
macro_rules! donor {
    () => {
        /// Not a test of its own: the command that a `Session` runs (see tests/support/session.rs).
        #[test]
        fn donate() {
            $crate::support::session::donate_if_asked();
        }
    };
}

/// Says aloud what this machine or this user cannot show. A test that returns after this has been
/// skipped, never passed in silence.
pub fn skipped(test: &str, why: &str) {
    use std::io::Write;
    // Straight to the descriptor: the harness would swallow println! of a test that passes.
    let line = format!("SKIPPED {test}: {why}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}
