//! One request's account: begun when its head has come, written when its end is known.

use std::time::Instant;

use super::json::Object;
use super::{Audit, TEXT};

/// The longest path, in bytes, that is written in full.
const PATH: usize = 1024;
/// The longest method.
const METHOD: usize = 32;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It went to the upstream, and all of the response went to the command.
    Forwarded,
    /// A rule or limit of ours, or the want of something that we need, forbade it.
    Refused,
    /// There was no response, or only a part of one.
    Failed,
}

impl Decision {
    fn name(self) -> &'static str {
        match self {
            Decision::Forwarded => "forwarded",
            Decision::Refused => "refused",
            Decision::Failed => "failed",
        }
    }
}

/// What was counted and timed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Measured {
    /// The status that the command saw.
    pub status: Option<u16>,
    /// When the final response's head was there.
    pub first: Option<Instant>,
    /// Bytes of the request's body that went up.
    pub up: u64,
    /// Bytes of the response's body that went down.
    pub down: u64,
    /// Places in the response where the credential was taken out.
    pub scrubbed: u64,
}

/// The account of one request.
#[derive(Debug)]
pub struct Entry<'a> {
    audit: &'a Audit,
    started: Instant,
    /// What is known before the request is sent.
    about: Object,
    /// Whether method and path are among it.
    named: bool,
    decision: Decision,
    reason: Option<&'static str>,
    error: Option<String>,
    /// To be filled in as it becomes known.
    pub measured: Measured,
}

impl<'a> Entry<'a> {
    /// Begins the account of request `seq` of connection `conn`.
    #[must_use]
    pub fn new(audit: &'a Audit, conn: u64, seq: u64, service: &str, host: &str) -> Entry<'a> {
        let mut about = Object::open();
        about.number("conn", conn);
        about.number("seq", seq);
        about.text("service", &[service], TEXT);
        about.text("host", &[host], TEXT);
        Entry {
            audit,
            started: Instant::now(),
            about,
            named: false,
            // What is true of a request that is dropped without another word.
            decision: Decision::Failed,
            reason: Some("client_gone"),
            error: Some("the client closed its stream before the response was complete".into()),
            measured: Measured::default(),
        }
    }

    /// Names the request. Of the target only the path is taken, below the upstream's prefix.
    pub fn names(&mut self, method: &str, prefix: &str, target: &str) {
        let path = target.split('?').next().unwrap_or_default();
        let prefix = if path == "*" { "" } else { prefix };
        self.about.text("method", &[method], METHOD);
        self.about.text("path", &[prefix, path], PATH);
        self.named = true;
    }

    /// Names a request whose head was refused, as far as that can be done without taking a query, a
    /// password or a body for its path.
    pub fn names_refused(&mut self, prefix: &str, head: &[u8]) {
        let line = head.split(|&b| b == b'\n').next().unwrap_or_default();
        let mut words = line.split(|&b| b == b' ');
        let (method, target) = (words.next(), words.next());
        let is_method = |word: &&[u8]| word.iter().all(u8::is_ascii_alphabetic);
        let Some(method) = method.filter(is_method) else {
            return;
        };
        let path = target.filter(|target| target.starts_with(b"/"));
        let path = path.and_then(|path| path.split(|&b| b == b'?' || b == b'#').next());
        let method = String::from_utf8_lossy(method);
        match path {
            Some(path) => self.names(&method, prefix, &String::from_utf8_lossy(path)),
            None => {
                self.about.text("method", &[&method], METHOD);
                self.about.null("path");
                self.named = true;
            }
        }
    }

    /// Where the audit is required, writes that the request is about to be sent.
    ///
    /// # Errors
    /// Why that could not be written: then the request must not be sent.
    pub fn intend(&self) -> Result<(), String> {
        if !self.audit.required {
            return Ok(());
        }
        let mut line = self.audit.line("intent");
        line.extend(&self.about);
        self.audit.write(line)
    }

    /// The response went down in full.
    pub fn forwarded(&mut self) {
        self.decision = Decision::Forwarded;
        (self.reason, self.error) = (None, None);
    }

    /// Something else happened: `reason` is an error type of RFC 9209 section 2.3.
    pub fn ended(&mut self, decision: Decision, reason: &'static str, error: String) {
        self.decision = decision;
        (self.reason, self.error) = (Some(reason), Some(error));
    }

    /// Writes the line.
    pub fn finish(mut self) {
        if !self.named {
            self.about.null("method");
            self.about.null("path");
        }
        let Measured {
            status,
            first,
            up,
            down,
            scrubbed,
        } = self.measured;
        let mut line = self.audit.line("request");
        line.extend(&self.about);
        line.text("decision", &[self.decision.name()], TEXT);
        match self.reason {
            Some(reason) => line.text("reason", &[reason], TEXT),
            None => line.null("reason"),
        }
        line.number("status", status.map(u64::from));
        line.number("bytes_up", up);
        line.number("bytes_down", down);
        let first = first.map(|first| first.saturating_duration_since(self.started));
        line.millis("first_byte_ms", first);
        line.millis("total_ms", Some(self.started.elapsed()));
        line.number("scrubbed", scrubbed);
        match &self.error {
            Some(error) => line.text("error", &[error], TEXT),
            None => line.null("error"),
        }
        // What was done cannot be undone: a line that is lost is counted, and with a required audit
        // the next request is not sent.
        let _ = self.audit.write(line);
    }
}
