//! `make soak`: a great many requests through the released binary, with faults on both sides, and
//! then more dials at once than it takes. No byte may be wrong, and nothing may stay behind.
//!
//! The environment names the binary (BROKER_EXEC) and how many requests there are to be
//! (SOAK_REQUESTS, 1,000,000 unless given). Says what it saw and fails when any of it is not as it
//! should be.

#[path = "../../tests/support/mod.rs"]
mod support;

mod body;
mod load;
mod upstream;

use std::fmt;
use std::process::ExitCode;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use load::Load;
use support::{Ca, Key, Session, TempDir};
use upstream::Upstream;

/// Clients at a time.
const CLIENTS: u64 = 24;
/// The broker's default for live streams.
const LIMIT: usize = 256;
/// Dials at once.
const BURST: usize = 5000;
/// How long the broker may take to give everything back: threads wait a while for another stream.
const SETTLE: Duration = Duration::from_secs(30);
/// Without a change for this long, it has given back what it will.
const CALM: Duration = Duration::from_secs(7);
/// What the allocator may keep beyond what it kept after the warm-up, in KiB.
const GROWTH: usize = 4096;

fn main() -> ExitCode {
    // This program is also the command that the broker runs (tests/support/session.rs).
    support::session::donate_if_asked();
    if std::env::var_os("BROKER_EXEC").is_none() {
        eprintln!("soak: BROKER_EXEC does not name the binary");
        return ExitCode::from(2);
    }
    let requests = match std::env::var("SOAK_REQUESTS").as_deref() {
        Err(_) => 1_000_000,
        Ok(text) => match text.parse() {
            Ok(requests) => requests,
            Err(_) => {
                eprintln!("soak: SOAK_REQUESTS is not a number");
                return ExitCode::from(2);
            }
        },
    };
    let plain = soak(requests - requests / 10, false);
    let tls = soak(requests / 10, true);
    if plain && tls {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// One broker and one upstream; whether all was well.
fn soak(requests: u64, tls: bool) -> bool {
    let name = if tls { "TLS" } else { "plain" };
    let (key, dir) = (Key::random(), TempDir::new());
    let ca = tls.then(Ca::new);
    let config = ca.as_ref().map(|ca| ca.server_config(&[]));
    let upstream = Upstream::start(key.as_str(), config).expect("listen on loopback");
    let mut options = vec![
        "-q".to_owned(),
        format!("-u{}", upstream.url),
        format!("-k{}", key.file_source(&dir)),
        "-iheader:X-Key".to_owned(),
    ];
    if let Some(ca) = &ca {
        options.push(format!("--cacert={}", ca.pem_file().display()));
    }
    let mut session = Session::start(options);
    let load = Load::new(&session);
    let settle = |what: &str, expected: Option<Held>| {
        // Idle connections to the upstream are found closed by the next request that needs one.
        upstream.close_all();
        load.last_word();
        let end = Instant::now() + SETTLE;
        let (mut held, mut since) = (Held::by(session.pid()), Instant::now());
        loop {
            let calm = match expected {
                Some(baseline) => held.is_within(&baseline),
                // The baseline: what is held when nothing is given back any more.
                None => since.elapsed() > CALM,
            };
            if calm || Instant::now() > end {
                println!("soak: {name}: {what}: {held}");
                return (held, calm);
            }
            std::thread::sleep(Duration::from_millis(50));
            let now = Held::by(session.pid());
            if (now.descriptors, now.threads) != (held.descriptors, held.threads) {
                since = Instant::now();
            }
            held = now;
        }
    };

    let start = Instant::now();
    load.run((requests / 10).clamp(1000, 20_000), CLIENTS);
    load.burst(BURST);
    let (baseline, _) = settle("warm", None);
    load.run(requests / 2, CLIENTS);
    let (_, half) = settle("half way", Some(baseline));
    load.run(requests / 2, CLIENTS);
    let (_, whole) = settle("after all", Some(baseline));
    let (accepted, refused) = load.burst(BURST);
    load.churn(BURST);
    let (end, burst) = settle("after the bursts", Some(baseline));

    let wrong = load.wrong.load(Relaxed) + upstream.wrong();
    let recovered = accepted == LIMIT && accepted + refused == BURST;
    let (requests, seconds) = (load.requests.load(Relaxed), start.elapsed().as_secs());
    let (faults, vanished) = (load.faults.load(Relaxed), load.vanished.load(Relaxed));
    let reached = upstream.requests();
    let finished = session.finish().success();
    let quiet = session.stderr().is_empty();
    let well = wrong == 0 && half && whole && burst && recovered && finished && quiet;
    println!(
        "soak: {name}: {}: {requests} requests ({reached} reached the upstream) in {seconds} s, {faults} faults of \
         the upstream, {vanished} clients that vanished, {wrong} wrong; {BURST} dials at once: {accepted} \
         streams, {refused} refusals; held before and after: {baseline}; {end}",
        if well { "well" } else { "FAILED" },
    );
    if !quiet {
        println!("soak: {name}: the broker said: {}", session.stderr());
    }
    well
}

/// What the broker holds.
#[derive(Debug, Clone, Copy)]
struct Held {
    /// `None` where the system does not tell: descriptors of a process that is unreadable to others
    /// are shown to root alone.
    descriptors: Option<usize>,
    threads: usize,
    /// KiB.
    resident: usize,
}

impl Held {
    fn by(pid: u32) -> Held {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let value = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let word = line.and_then(|line| line.split_whitespace().next());
            word.and_then(|word| word.parse().ok())
        };
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd"));
        Held {
            descriptors: descriptors.map(Iterator::count).ok(),
            // A broker that is gone holds too much of everything.
            threads: value("Threads:").unwrap_or(usize::MAX),
            resident: value("VmRSS:").unwrap_or(usize::MAX),
        }
    }

    fn is_within(&self, baseline: &Held) -> bool {
        self.descriptors <= baseline.descriptors
            && self.threads <= baseline.threads
            && self.resident <= baseline.resident.saturating_add(GROWTH)
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.descriptors {
            Some(count) => write!(f, "{count} descriptors")?,
            None => f.write_str("SKIPPED: descriptors (only root sees them)")?,
        }
        write!(f, ", {} threads, {} KiB", self.threads, self.resident)
    }
}
