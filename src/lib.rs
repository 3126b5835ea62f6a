//! Run a command whose outbound API calls are authenticated with a credential that it never sees.
//!
//! The command inherits one descriptor, a `SOCK_SEQPACKET` control socket. A one-byte message on it
//! is answered with a fresh stream; on that stream the command speaks plain HTTP/1.1, and the broker
//! puts the credential in and forwards the request to the one upstream that the credential belongs
//! to. The credential stays in the broker's memory.
#![cfg_attr(not(target_os = "linux"), allow(unused))]
#![deny(unsafe_code)]
#![cfg_attr(fuzzing, allow(missing_docs, missing_debug_implementations))]

#[cfg(target_os = "linux")]
pub mod audit;
#[cfg(target_os = "linux")]
pub mod child;
#[cfg(target_os = "linux")]
pub mod cli;
#[cfg(target_os = "linux")]
mod closure;
#[cfg(target_os = "linux")]
pub mod config;
#[cfg(target_os = "linux")]
pub mod credential;
#[cfg(target_os = "linux")]
mod door;
#[cfg(target_os = "linux")]
pub mod error;
#[cfg(target_os = "linux")]
mod forward;
#[cfg(target_os = "linux")]
pub mod http;
#[cfg(target_os = "linux")]
pub mod run;
#[cfg(target_os = "linux")]
pub mod service;
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
mod sys;

#[cfg(target_os = "linux")]
pub use error::Error;

/// What the fuzz targets (`fuzz/`) get at beyond the public rooms.
#[cfg(fuzzing)]
pub mod fuzzing {
    pub use crate::door::control;
    pub use crate::forward::crew::{Crew, Serve};
    pub use crate::forward::{Forwarder, Limits};
}
