//! What the audit is told of a request: its names, what became of it, and when its key is a new one.
//!
//! Without an audit there is no `Accounts` and no `Entry`: nothing here runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::exchange::Exchange;
use super::failure::{Failure, Stop};
use crate::audit::{Audit, Decision, Entry};
use crate::credential::Loaded;
use crate::service::Service;

/// The audit of a service's requests.
#[derive(Debug)]
pub struct Accounts {
    audit: Arc<Audit>,
    /// The serial of the newest key that was used.
    key: AtomicU64,
}

impl Accounts {
    /// `key` is the serial of the key that the audit knows of.
    pub fn new(audit: Arc<Audit>, key: u64) -> Accounts {
        let key = AtomicU64::new(key);
        Accounts { audit, key }
    }

    /// Begins the account of a request.
    pub fn begin(&self, service: &Service, conn: u64, seq: u64) -> Entry<'_> {
        Entry::new(
            &self.audit,
            conn,
            seq,
            &service.name,
            &service.origin.authority,
        )
    }

    /// Tells of a key that is newer than the last.
    pub fn notice(&self, service: &Service, credential: &Loaded) {
        // Threads may come by here in another order than they loaded their keys.
        if self.key.fetch_max(credential.serial, Ordering::Relaxed) < credential.serial {
            let source = service.source().to_string();
            self.audit.key_rotated(&service.name, &source);
        }
    }
}

/// Enters an answer of our own.
pub fn answered(entry: &mut Entry<'_>, failure: &Failure) {
    let (status, kind, detail) = failure.describe();
    entry.measured.status = Some(status);
    let decision = if failure.is_refusal() {
        Decision::Refused
    } else {
        Decision::Failed
    };
    entry.ended(decision, kind, detail);
}

/// Enters what an exchange came to. A failure that we answer is entered with the answer.
pub fn settled(entry: &mut Entry<'_>, exchange: &Exchange<'_>, outcome: &Result<bool, Stop>) {
    entry.measured.status = exchange.down.status();
    entry.measured.first = exchange.down.first();
    entry.measured.up = exchange.up.carried();
    entry.measured.down = exchange.down.carried();
    entry.measured.scrubbed = exchange.down.found();
    match (outcome, &exchange.cause) {
        (Ok(_) | Err(Stop::Upgraded), _) => entry.forwarded(),
        (Err(Stop::Abort), Some(failure)) => {
            let (_, kind, detail) = failure.describe();
            entry.ended(Decision::Failed, kind, detail);
        }
        (Err(Stop::Abort), None) => {
            let text = "the upstream ended its response before it was complete";
            entry.ended(Decision::Failed, "http_response_incomplete", text.into());
        }
        (Err(Stop::Answer(_) | Stop::Gone), _) => {}
    }
}
