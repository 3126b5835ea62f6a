//! What both peers do, and what they get.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use broker_exec::fuzzing::{Forwarder, Limits, Serve};
use broker_exec::run::Scrub;
use broker_exec::service::Service;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, recv, send, shutdown,
    socketpair,
};

/// The credential: nothing that a script can guess by mutation.
pub const KEY: &str = "k3y-Zq81vXc0mW7rTn5b";
/// Connections that the upstream takes; later ones are refused by an unused port.
const CONNECTIONS: usize = 3;

/// A place for the credential and an upstream.
#[derive(Debug)]
pub struct Setting {
    pub inject: &'static str,
    pub upstream: &'static str,
    pub authority: &'static str,
    pub prefix: &'static str,
}

const fn setting(inject: &'static str, prefix: &'static str, upstream: &'static str) -> Setting {
    Setting {
        inject,
        upstream,
        authority: "127.0.0.1:1",
        prefix,
    }
}

pub static SETTINGS: [Setting; 5] = [
    setting("bearer", "", "http://127.0.0.1:1"),
    setting("query:app_key", "", "http://127.0.0.1:1"),
    setting("header:X-Api-Key:t {}", "/v1", "http://127.0.0.1:1/v1"),
    setting("cookie:sid", "", "http://127.0.0.1:1"),
    setting("basic:user", "/a/b", "http://127.0.0.1:1/a/b"),
];

#[derive(Debug)]
pub enum Step<'a> {
    /// The client sends.
    Client(&'a [u8]),
    /// The upstream sends on the connection at hand.
    Upstream(&'a [u8]),
    /// The client has sent everything.
    ClientEnds,
    /// The client is gone.
    ClientGoes,
    /// The upstream has sent everything on this connection.
    UpstreamEnds,
    /// The upstream closes the connection at hand.
    UpstreamGoes,
    /// The next steps of the upstream concern the next connection.
    Next,
}

#[derive(Debug)]
pub struct Script<'a> {
    pub setting: usize,
    /// Everything is sent before the forwarder starts, or each step while it runs.
    pub ahead: bool,
    pub steps: Vec<Step<'a>>,
}

/// The first step is a digit for the setting and, behind it, `s` for step by step.
pub fn parse(input: &[u8]) -> Option<Script<'_>> {
    if input.len() > 8 * 1024 {
        return None;
    }
    let mut parts = input.split(|&b| b == 0x1e);
    let first = parts.next()?;
    let steps = parts.filter_map(|part| {
        let (kind, bytes) = part.split_first()?;
        Some(match kind {
            b'c' => Step::Client(bytes),
            b'u' => Step::Upstream(bytes),
            b'f' => Step::ClientEnds,
            b'x' => Step::ClientGoes,
            b'e' => Step::UpstreamEnds,
            b'r' => Step::UpstreamGoes,
            b'n' => Step::Next,
            _ => return None,
        })
    });
    Some(Script {
        setting: usize::from(first.first()?.wrapping_sub(b'0')) % SETTINGS.len(),
        ahead: first.get(1) != Some(&b's'),
        steps: steps.take(48).collect(),
    })
}

/// One connection of the upstream.
#[derive(Debug, Default)]
pub struct Carried {
    /// What the upstream got.
    pub up: Vec<u8>,
    /// What it could send.
    pub down: Vec<u8>,
    /// It ended its direction.
    pub ended: bool,
}

/// What went over the wires.
#[derive(Debug, Default)]
pub struct Played {
    /// What the client could send.
    pub sent: Vec<u8>,
    /// What the client got.
    pub got: Vec<u8>,
    pub carried: Vec<Carried>,
    /// The upstream went away, so that what was sent to it may be lost.
    pub broken: bool,
}

/// Forwarders are kept: loading a credential runs a command.
static FORWARDERS: LazyLock<Vec<[Forwarder; 2]>> = LazyLock::new(|| {
    let forwarder = |setting: &Setting, patience: u64| {
        let key = format!("exec:printf %s {KEY}");
        let service = Service::load("fuzz", setting.upstream, key.as_ref(), setting.inject);
        let patience = Duration::from_millis(patience);
        let limits = Limits {
            connect: Duration::from_secs(1),
            response_header: patience,
            idle: Some(patience),
        };
        Forwarder::new(service.expect("a service"), &[], limits, Scrub::Off, false)
            .expect("a forwarder")
    };
    let both = |setting| [forwarder(setting, 1), forwarder(setting, 100)];
    SETTINGS.iter().map(both).collect()
});

/// A thread that serves streams while the script goes on.
static WORKER: LazyLock<(SyncSender<(usize, OwnedFd)>, std::sync::Mutex<Receiver<()>>)> =
    LazyLock::new(|| {
        let (orders, taken) = sync_channel::<(usize, OwnedFd)>(0);
        let (report, done) = sync_channel(1);
        std::thread::spawn(move || {
            for (setting, stream) in taken {
                FORWARDERS[setting][1].serve(1, &stream);
                drop(stream);
                if report.send(()).is_err() {
                    return;
                }
            }
        });
        (orders, std::sync::Mutex::new(done))
    });

pub fn play(script: &Script<'_>) -> Played {
    let forwarder = &FORWARDERS[script.setting][usize::from(!script.ahead)];
    let (ours, client) = pair();
    let (theirs, upstreams): (Vec<_>, Vec<_>) = (0..CONNECTIONS).map(|_| pair()).unzip();
    forwarder.connect_to(theirs);
    let mut played = Played::default();
    played.carried.resize_with(CONNECTIONS, Carried::default);
    if script.ahead {
        steps(script, &client, &upstreams, &mut played, || {});
        // Nothing else will come: an exchange that waits for the client ends.
        let _ = shutdown(&client, Shutdown::Write);
        forwarder.serve(1, &ours);
        drop(ours);
    } else {
        let (orders, done) = &*WORKER;
        orders.send((script.setting, ours)).expect("a worker");
        let pause = || std::thread::sleep(Duration::from_micros(40));
        steps(script, &client, &upstreams, &mut played, pause);
        let _ = shutdown(&client, Shutdown::Write);
        let done = done.lock().expect("no other thread");
        if done.recv_timeout(Duration::from_millis(3)).is_err() {
            // The client has waited long enough: its leaving cancels whatever goes on.
            let _ = shutdown(&client, Shutdown::Both);
            let ended = done.recv_timeout(Duration::from_secs(15));
            ended.expect("an exchange that does not end");
        }
    }
    forwarder.connect_to(Vec::new());
    forwarder.rest();
    played.got = drain(&client);
    for (carried, upstream) in played.carried.iter_mut().zip(&upstreams) {
        carried.up = drain(upstream);
    }
    played
}

fn steps(
    script: &Script<'_>,
    client: &OwnedFd,
    upstreams: &[OwnedFd],
    played: &mut Played,
    pause: impl Fn(),
) {
    let mut at = 0;
    for step in &script.steps {
        let (upstream, carried) = (&upstreams[at], &mut played.carried[at]);
        match step {
            Step::Client(bytes) => push(client, bytes, &mut played.sent),
            Step::Upstream(bytes) => push(upstream, bytes, &mut carried.down),
            Step::ClientEnds => {
                let _ = shutdown(client, Shutdown::Write);
            }
            Step::ClientGoes => {
                let _ = shutdown(client, Shutdown::Both);
            }
            Step::UpstreamEnds => {
                carried.ended = true;
                let _ = shutdown(upstream, Shutdown::Write);
            }
            Step::UpstreamGoes => {
                carried.ended = true;
                played.broken = true;
                let _ = shutdown(upstream, Shutdown::Both);
            }
            Step::Next => at = (at + 1).min(CONNECTIONS - 1),
        }
        pause();
    }
}

fn pair() -> (OwnedFd, OwnedFd) {
    let flags = SocketFlags::CLOEXEC;
    let (ours, other) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).expect("a socket pair");
    // As the forwarder's own sockets have it: no read waits for long.
    let timeout = rustix::net::sockopt::Timeout::Recv;
    let tick = Some(Duration::from_millis(50));
    rustix::net::sockopt::set_socket_timeout(&ours, timeout, tick).expect("set a timeout");
    (ours, other)
}

fn push(to: &OwnedFd, bytes: &[u8], taken: &mut Vec<u8>) {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    if let Ok(n) = send(to.as_fd(), bytes, flags) {
        taken.extend_from_slice(&bytes[..n]);
    }
}

fn drain(from: &OwnedFd) -> Vec<u8> {
    let (mut all, mut piece) = (Vec::new(), [0; 16 * 1024]);
    while let Ok((n @ 1.., _)) = recv(from, &mut piece[..], RecvFlags::DONTWAIT) {
        all.extend_from_slice(&piece[..n]);
    }
    all
}
