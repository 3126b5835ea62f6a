//! Pure HTTP/1.1 (RFC 9110, RFC 9112): bytes in, decision out.
//!
//! No I/O and no clock, so that all of it can be fuzzed. What two parsers could read differently is
//! refused here: nothing may reach the upstream that somebody could take for two messages.

pub mod body;
pub mod headers;
pub mod request;
pub mod response;

/// The limits of a message (design: each length is bounded).
pub mod limits {
    /// A request head, in bytes; more is 431.
    pub const REQUEST_HEAD: usize = 64 * 1024;
    /// Fields of a request; more is 431.
    pub const REQUEST_FIELDS: usize = 128;
    /// A request target, in bytes; more is 414.
    pub const TARGET: usize = 32 * 1024;
    /// A response head, in bytes; more is 502.
    pub const RESPONSE_HEAD: usize = 256 * 1024;
    /// Fields of a response; more is 502.
    pub const RESPONSE_FIELDS: usize = 256;
    /// A trailer section, in bytes.
    pub const TRAILERS: usize = 16 * 1024;
    /// A chunk-size line with its extensions, in bytes.
    pub const CHUNK_LINE: usize = 1024;
    /// Interim (1xx) responses to one request.
    pub const INTERIM: usize = 64;
}

/// The protocol version of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    V10,
    /// HTTP/1.1
    V11,
}

/// How the end of a message body is found (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// `Content-Length`.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// The end of the connection (responses only).
    Close,
}
