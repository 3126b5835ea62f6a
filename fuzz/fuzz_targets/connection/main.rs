//! A whole connection: hostile client and hostile upstream around a real forwarder, all over socket
//! pairs. What is asked of it is in check.rs.
//!
//! The input is a script: steps that are divided by the byte 0x1E, which occurs in no valid message.
//! The first byte of a step says what it is (script.rs), the rest is what is sent.
#![no_main]

mod check;
mod read;
mod script;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Some(script) = script::parse(input) {
        let played = script::play(&script);
        check::check(&script, &played);
    }
});
