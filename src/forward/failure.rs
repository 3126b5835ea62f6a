//! What we answer ourselves: problem details (RFC 9457) and a `Proxy-Status` (RFC 9209), so that
//! nobody can take our answer for the upstream's. No text here ever holds a byte of a credential.

use super::buffer::Buffer;
use super::dial::DialError;
use super::tls::TlsError;
use super::upstream::ConnectError;
use crate::audit::json::push_string;
use crate::http::Version;
use crate::http::body::BodyError;
use crate::http::request::RequestError;
use crate::http::response::ResponseError;

/// Why an exchange ends before its response is complete.
#[derive(Debug)]
pub enum Stop {
    /// Nothing of a response has been sent: we answer ourselves, then close.
    Answer(Failure),
    /// A response has begun: the stream is closed so that the client sees an incomplete message.
    Abort,
    /// The client has gone.
    Gone,
    /// The response was 101: the streams carry another protocol from now on.
    Upgraded,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Stop {
        Stop::Answer(failure)
    }
}

/// Why we answer ourselves.
#[derive(Debug)]
pub enum Failure {
    /// The request's head is refused.
    Request(RequestError),
    /// The request's body is refused.
    Body(BodyError),
    /// The request's head did not arrive in time.
    RequestTimeout,
    /// The request's body ended early.
    RequestIncomplete,
    /// A path with dot segments under an upstream with a prefix.
    DotSegment,
    /// No credential; the text names the source.
    Credential(String),
    /// The audit is required and cannot be written; the text says why.
    Audit(String),
    /// No connection to the upstream.
    Connect(ConnectError),
    /// The upstream closed the connection or reset it before it answered.
    Terminated(String),
    /// The upstream's answer is refused.
    Response(ResponseError),
    /// The upstream's body is refused, and nothing of the response has been passed on.
    ResponseBody(BodyError),
    /// The upstream did not answer in time.
    ResponseTimeout,
    /// More interim responses than are taken.
    TooManyInterim,
    /// The upstream's response holds the credential (`--scrub=fail`).
    Echoed,
    /// The upstream's response has a content coding, in which nothing can be found.
    Coded,
    /// The upstream's WebSocket has an extension, in which nothing can be found.
    Extension,
    /// What the upstream sends within a WebSocket message is no frame.
    Frames,
    /// Nothing moved for as long as `--idle-timeout` allows.
    Idle,
}

impl Failure {
    /// Status, error type of RFC 9209 section 2.3, and a sentence that says what happened.
    pub fn describe(&self) -> (u16, &'static str, String) {
        match self {
            Failure::Request(e) => (
                e.status(),
                "http_request_error",
                format!("request refused: {}", e.text()),
            ),
            Failure::Body(e) => (
                e.status(),
                "http_request_error",
                format!("request body refused: {}", e.text()),
            ),
            Failure::RequestTimeout => (
                408,
                "http_request_error",
                "the request head did not arrive within 30 s of its first byte".into(),
            ),
            Failure::RequestIncomplete => (
                400,
                "http_request_error",
                "the request body ended early".into(),
            ),
            Failure::DotSegment => {
                let text = "the path holds a '.' or '..' segment, which could leave the upstream's path prefix";
                (400, "http_request_error", text.into())
            }
            Failure::Credential(text) => (
                503,
                "proxy_configuration_error",
                format!("no credential, so nothing was sent: {text}"),
            ),
            Failure::Audit(text) => (
                503,
                "proxy_internal_error",
                format!(
                    "the audit cannot be written, so because of --audit-required nothing was sent: {text}"
                ),
            ),
            Failure::Connect(e) => describe_connect(e),
            Failure::Terminated(text) => (
                502,
                "connection_terminated",
                format!("the upstream closed the connection before it answered{text}"),
            ),
            Failure::Response(e) => {
                let kind = match e {
                    ResponseError::HeadTooLarge | ResponseError::TooManyFields => {
                        "http_response_header_section_size"
                    }
                    ResponseError::Upgrade => "http_upgrade_failed",
                    _ => "http_protocol_error",
                };
                (
                    502,
                    kind,
                    format!("the upstream's response was refused: {}", e.text()),
                )
            }
            Failure::ResponseBody(e) => (
                502,
                "http_protocol_error",
                format!("the upstream's response was refused: {}", e.text()),
            ),
            Failure::ResponseTimeout => {
                let text = "the upstream did not answer within --response-header-timeout";
                (504, "http_response_timeout", text.into())
            }
            Failure::Idle => (
                504,
                "connection_timeout",
                "nothing moved within --idle-timeout".into(),
            ),
            Failure::Echoed => (
                502,
                "http_protocol_error",
                "the upstream's response was refused: it holds the credential (--scrub=fail)".into(),
            ),
            Failure::Coded => (
                502,
                "http_protocol_error",
                "the upstream's response was refused: it has a Content-Encoding although identity was \
                 asked for, and the credential cannot be looked for in it (--scrub=off would pass it on)"
                    .into(),
            ),
            Failure::Extension => (
                502,
                "http_upgrade_failed",
                "the upstream's response was refused: it has a WebSocket extension that was not asked for, \
                 and the credential cannot be looked for in it (--scrub=off would pass it on)"
                    .into(),
            ),
            Failure::Frames => (
                502,
                "http_protocol_error",
                "what the upstream sent within a WebSocket message is no frame".into(),
            ),
            Failure::TooManyInterim => (
                502,
                "http_protocol_error",
                "the upstream sent more than 64 interim responses".into(),
            ),
        }
    }

    /// Whether the request was not to be sent, as against one that came to nothing.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Failure::Request(_)
                | Failure::Body(_)
                | Failure::RequestTimeout
                | Failure::RequestIncomplete
                | Failure::DotSegment
                | Failure::Credential(_)
                | Failure::Audit(_)
        )
    }

    /// Appends the whole answer, after which the stream is closed.
    pub fn write(&self, out: &mut Buffer, version: Version, head_only: bool) {
        let (status, kind, detail) = self.describe();
        let title = title(status);
        let mut body = format!(
            "{{\"type\":\"about:blank\",\"title\":\"{title}\",\"status\":{status},\"detail\":"
        );
        push_string(&mut body, &detail);
        body.push_str("}\n");
        let version = if version == Version::V10 {
            "1.0"
        } else {
            "1.1"
        };
        let head = format!(
            "HTTP/{version} {status} {title}\r\nContent-Type: application/problem+json\r\n\
             Proxy-Status: broker-exec; error={kind}\r\nContent-Length: {}\r\nConnection: close\r\n{}\r\n",
            body.len(),
            // RFC 9110 section 15.5.6 wants the methods that would do.
            if status == 405 {
                "Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n"
            } else {
                ""
            },
        );
        out.push(head.as_bytes());
        if !head_only {
            out.push(body.as_bytes());
        }
    }
}

fn describe_connect(error: &ConnectError) -> (u16, &'static str, String) {
    match error {
        ConnectError::Dial(DialError::Name(text)) => (
            502,
            "dns_error",
            format!("the upstream's name cannot be resolved (by libc's own resolver): {text}"),
        ),
        ConnectError::Dial(DialError::Prohibited(address, kind)) => (
            502,
            "destination_ip_prohibited",
            format!(
                "the upstream's name stands for {address}, {kind}, so nothing was sent there \
                 (--allow-private lifts this)"
            ),
        ),
        ConnectError::Dial(DialError::Connect(e)) => {
            let kind = match e.kind() {
                std::io::ErrorKind::ConnectionRefused => "connection_refused",
                _ => "destination_unavailable",
            };
            (502, kind, format!("cannot connect to the upstream: {e}"))
        }
        ConnectError::Dial(DialError::Late) | ConnectError::Tls(TlsError::Late) => (
            502,
            "connection_timeout",
            "no connection to the upstream within --connect-timeout".into(),
        ),
        ConnectError::Dial(DialError::Proxy(text)) => (
            502,
            "destination_unavailable",
            format!("the proxy on the way out opened no tunnel: {text}"),
        ),
        ConnectError::Tls(TlsError::Certificate(text)) => (
            502,
            "tls_certificate_error",
            format!("the upstream's certificate is not acceptable: {text} (--cacert adds roots)"),
        ),
        ConnectError::Tls(TlsError::Protocol(text)) => {
            (502, "tls_protocol_error", format!("TLS failed: {text}"))
        }
        ConnectError::Tls(TlsError::Transport(e)) => (
            502,
            "tls_protocol_error",
            format!("the connection broke during the TLS handshake: {e}"),
        ),
        ConnectError::Dial(DialError::Gone) | ConnectError::Tls(TlsError::Gone) => {
            (502, "connection_terminated", "the client has gone".into())
        }
    }
}

fn title(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Bad Gateway",
    }
}
