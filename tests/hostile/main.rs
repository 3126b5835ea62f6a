//! Hostile commands and hostile upstreams against the real binary, both sides scripted byte by byte
//! over raw sockets. One program, so that what has to wait for a deadline waits beside the rest.

mod around;
mod chunks;
mod deadlines;
mod differential;
mod front;
mod heads;
mod limits;
mod pool;
mod requests;
mod responses;
mod stages;
mod streaming;
#[path = "../support/mod.rs"]
mod support;
mod truncation;
mod upgrade;
mod vanish;
mod way_out;
mod wire;

donor!();
