//! `broker-exec`: arguments, run, exit status; nothing else.

fn main() {}
