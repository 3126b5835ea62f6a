//! How the command reaches us.

pub mod control;
