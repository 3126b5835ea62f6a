//! The only unsafe code: raw descriptors, memory, processes and signals, behind safe functions.
//!
//! Every block says why it is sound. Nothing here knows what the broker does.

pub mod caller;
pub mod exec;
pub mod fd;
pub mod ids;
pub mod inherited;
pub mod memory;
pub mod process;
pub mod signal;
pub mod stack;
