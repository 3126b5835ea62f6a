//! x
mod support;
donor!();
