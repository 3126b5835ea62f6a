//! The head of a response as the command gets it: without what ends at this hop, and in a framing in
//! which an early end shows.

use std::io::Write;

use super::buffer::Buffer;
use crate::http::headers::{Field, Name, nominated};
use crate::http::response::Response;
use crate::http::{Framing, Version};

/// How the body of a response goes to the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// As the declared framing has it, or without a body.
    Framed(Framing),
    /// There is no body, whatever the fields declare (HEAD, 304): they pass as they are.
    Bodiless,
}

/// How the response is to be written.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// The version of the request.
    pub version: Version,
    /// How the body goes to the command.
    pub delivery: Delivery,
    /// Whether the stream stays open for another request.
    pub keep_alive: bool,
}

/// Appends the head of a final or interim response.
pub fn write_head(out: &mut Buffer, response: &Response<'_, '_>, shape: Shape) {
    let version = if shape.version == Version::V10 {
        "HTTP/1.0"
    } else {
        "HTTP/1.1"
    };
    put(out, format_args!("{version} {} ", response.status));
    out.push(response.reason);
    out.push(b"\r\n");
    let interim = (100..200).contains(&response.status);
    for field in response.fields {
        let passes = match Name::of(field.name) {
            Name::EndToEnd | Name::Host | Name::Expect | Name::Te => true,
            Name::ContentLength => shape.delivery == Delivery::Bodiless,
            Name::Trailer => shape.delivery == Delivery::Framed(Framing::Chunked),
            Name::TransferEncoding | Name::Connection | Name::Upgrade | Name::HopByHop => false,
        };
        let ends_here = response.nominates && nominated(response.fields, field.name);
        if passes && !ends_here && !claims_to_be_ours(field) {
            out.push(field.name.as_bytes());
            out.push(b": ");
            out.push(field.value);
            out.push(b"\r\n");
        }
    }
    match shape.delivery {
        Delivery::Framed(Framing::Length(n)) => put(out, format_args!("Content-Length: {n}\r\n")),
        Delivery::Framed(Framing::Chunked) => out.push(b"Transfer-Encoding: chunked\r\n"),
        Delivery::Framed(Framing::None | Framing::Close) | Delivery::Bodiless => {}
    }
    if response.status == 101 {
        out.push(b"Connection: Upgrade\r\nUpgrade: websocket\r\n");
    } else if !interim && !shape.keep_alive {
        out.push(b"Connection: close\r\n");
    } else if !interim && shape.version == Version::V10 {
        out.push(b"Connection: keep-alive\r\n");
    }
    out.push(b"\r\n");
}

/// Whether the upstream signs a field with our name: what is in it would pass for our own words.
fn claims_to_be_ours(field: &Field<'_>) -> bool {
    let ours = b"broker-exec";
    field.name.eq_ignore_ascii_case("proxy-status")
        && field
            .value
            .windows(ours.len())
            .any(|word| word.eq_ignore_ascii_case(ours))
}

fn put(out: &mut Buffer, text: std::fmt::Arguments<'_>) {
    let mut line = [0u8; 64];
    let mut rest = &mut line[..];
    // Every text given to this function is shorter than the line.
    let _ = rest.write_fmt(text);
    let written = 64 - rest.len();
    out.push(&line[..written]);
}
