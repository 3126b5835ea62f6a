//! The framing of a response's body: what the upstream chose, and what the command gets.

use super::answer::Delivery;
use crate::http::body::Chunked;
use crate::http::response::Response;
use crate::http::{Framing, Version};

/// What of the response body is still to come from the upstream.
#[derive(Debug)]
pub struct ResponseBody {
    pub rest: Rest,
    /// Whether the command gets it in chunks.
    pub in_chunks: bool,
}

/// In the upstream's framing.
#[derive(Debug)]
pub enum Rest {
    Length(u64),
    Chunked(Chunked),
    Close,
}

/// How a final response's body goes to the command, and what is to be taken from the upstream.
pub fn deliver(
    response: &Response<'_, '_>,
    head: bool,
    version: Version,
) -> (Delivery, Option<ResponseBody>) {
    if response.status == 101 {
        return (Delivery::Framed(Framing::None), None);
    }
    if response.status == 205 {
        return (Delivery::Framed(Framing::Length(0)), None);
    }
    let chunked = Framing::Chunked;
    let (framing, rest) = match response.framing {
        Framing::None if head || response.status == 304 => return (Delivery::Bodiless, None),
        Framing::None => return (Delivery::Framed(Framing::None), None),
        Framing::Length(0) => return (Delivery::Framed(Framing::Length(0)), None),
        Framing::Length(n) => (Framing::Length(n), Rest::Length(n)),
        Framing::Chunked => (chunked, Rest::Chunked(Chunked::default())),
        // In chunks an early end shows, which the end of the connection would hide.
        Framing::Close => (chunked, Rest::Close),
    };
    // HTTP/1.0 knows no chunks (RFC 9112 section 7.1).
    let framing = if framing == chunked && version == Version::V10 {
        Framing::Close
    } else {
        framing
    };
    (
        Delivery::Framed(framing),
        Some(ResponseBody {
            rest,
            in_chunks: framing == chunked,
        }),
    )
}
