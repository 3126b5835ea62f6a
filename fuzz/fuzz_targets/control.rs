//! The control channel, served by a real crew: one answer to each datagram, a descriptor for a lone
//! 0x01 and for nothing else, and never a hang. The input is the datagrams: each has a byte before it
//! that says how long it is, whether it brings a descriptor, and whether the stream it may get is kept.
#![no_main]

use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use broker_exec::fuzzing::{Crew, Serve, control};
use libfuzzer_sys::fuzz_target;
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recv, recvmsg, send, sendmsg,
};

/// Streams that the crew serves at a time.
const LIMIT: usize = 8;
/// Longer than any scheduling delay; past it, something hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// Each stream answers one byte with the same byte.
struct Echo;

impl Serve for Echo {
    fn serve(&self, _: u64, stream: &OwnedFd) {
        let mut byte = [0];
        while let Ok((1, _)) = recv(stream, &mut byte[..], RecvFlags::empty()) {
            let _ = send(stream, &byte, SendFlags::NOSIGNAL);
        }
    }
}

/// The command's end, and a descriptor to attach.
static CHANNEL: LazyLock<(OwnedFd, OwnedFd)> = LazyLock::new(|| {
    let (ours, peer) = control::channel().expect("a socket pair");
    let crew = Arc::new(Crew::new(LIMIT, None, Echo));
    std::thread::spawn(move || {
        control::serve(&ours, &crew, None);
        panic!("the channel has ended");
    });
    for timeout in [Timeout::Recv, Timeout::Send] {
        set_socket_timeout(&peer, timeout, Some(PATIENCE)).expect("set a timeout");
    }
    let (spare, _) = rustix::pipe::pipe().expect("a pipe");
    (peer, spare)
});

/// libFuzzer's alarm interrupts calls that have a timeout (signal(7)).
fn uninterrupted<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

fn say(datagram: &[u8], with_descriptor: bool) {
    let (peer, spare) = &*CHANNEL;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds = [spare.as_fd()];
    if with_descriptor {
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    }
    let data = [IoSlice::new(datagram)];
    let sent = uninterrupted(|| sendmsg(peer, &data, &mut ancillary, SendFlags::NOSIGNAL));
    assert_eq!(sent, Ok(datagram.len()));
}

/// One answer; a stream that came with it has been tried.
fn hear() -> (u8, Option<OwnedFd>) {
    let mut bytes = [0; 8];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let data = &mut [IoSliceMut::new(&mut bytes)];
    let got = uninterrupted(|| recvmsg(&CHANNEL.0, data, &mut ancillary, RecvFlags::CMSG_CLOEXEC));
    assert_eq!(got.expect("an answer in time").bytes, 1);
    let mut fds: Vec<OwnedFd> = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    assert!(fds.len() <= 1);
    let stream = fds.pop();
    match (bytes[0], &stream) {
        (0x01, Some(stream)) => {
            set_socket_timeout(stream, Timeout::Recv, Some(PATIENCE)).expect("set a timeout");
            assert_eq!(send(stream, b"x", SendFlags::NOSIGNAL), Ok(1));
            let mut byte = [0];
            let heard = uninterrupted(|| recv(stream, &mut byte[..], RecvFlags::empty()));
            assert_eq!((heard.map(|(n, _)| n), byte), (Ok(1), *b"x"));
        }
        (0xFF, None) => {}
        other => panic!("an impossible answer: {other:?}"),
    }
    (bytes[0], stream)
}

/// A stream comes when there is room; those that were just closed may still count for a moment.
fn dial() -> OwnedFd {
    let end = Instant::now() + PATIENCE;
    loop {
        say(&[1], false);
        if let (_, Some(stream)) = hear() {
            return stream;
        }
        assert!(Instant::now() < end, "no stream though there is room");
        std::thread::yield_now();
    }
}

fuzz_target!(|input: &[u8]| {
    let (mut rest, mut waiting, mut kept) = (input, VecDeque::new(), VecDeque::new());
    let mut settle = |expected: (bool, bool)| {
        let (is_dial, keep) = expected;
        let (_, stream) = hear();
        assert!(
            is_dial || stream.is_none(),
            "a stream that nobody asked for"
        );
        if keep && let Some(stream) = stream {
            kept.push_back(stream);
            // Room is left for the dial at the end.
            if kept.len() > LIMIT / 2 {
                kept.pop_front();
            }
        }
    };
    for _ in 0..32 {
        let Some((&how, after)) = rest.split_first() else {
            break;
        };
        let length = usize::from(how & 0x0f).min(after.len());
        let (datagram, after) = after.split_at(length);
        rest = after;
        say(datagram, how & 0x20 != 0);
        waiting.push_back((datagram == [1], how & 0x40 != 0));
        // Some are answered before the next one is sent, others pile up.
        if how & 0x10 != 0 {
            waiting.drain(..).for_each(&mut settle);
        }
    }
    waiting.drain(..).for_each(&mut settle);
    drop(dial());
});
