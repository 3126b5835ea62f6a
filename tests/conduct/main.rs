//! The command behaves as if it had been started without us. Every test compares real processes, where
//! that says something with what `env COMMAND` does.

mod descriptors;
mod exit;
mod process;
mod signals;
mod support;
mod terminal;
