//! The control channel, version 1: one byte 0x01 asks for a stream, the answer is 0x01 with exactly
//! one descriptor, or 0xFF without.
//!
//! Whoever holds the other end is the command's process tree: there is nothing to authenticate and
//! nothing that the peer can send but this one byte. It can't make the thread that reads here wait
//! for anything but itself.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, IoSlice, IoSliceMut};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use crate::audit::{Audit, Refusal};
use crate::forward::crew::Crew;

/// The message that asks for a stream, and the answer that brings one.
const DIAL: u8 = 0x01;
/// The answer to anything else, and to a dial that can't be served.
const REFUSED: u8 = 0xFF;

/// Both ends of a channel: ours, and the command's.
pub fn channel() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// Answers dials until the last holder of the other end has closed it, or ours is shut down.
pub fn serve(control: &OwnedFd, crew: &Crew, audit: Option<&Audit>) {
    let refuse = |why| {
        if let Some(audit) = audit {
            audit.refusal(why);
        }
        answer(control.as_fd(), REFUSED, None)
    };
    while let Ok(Some(dialled)) = next(control.as_fd()) {
        let stream = if dialled {
            crew.dial()
        } else {
            Err(Refusal::Message)
        };
        let recorded = stream.and_then(|(number, stream)| {
            audit.map_or(Ok(()), |audit| audit.dial(number))?;
            Ok(stream)
        });
        let answered = match recorded {
            Ok(stream) => match answer(control.as_fd(), DIAL, Some(stream.as_fd())) {
                // Too many descriptors in flight (unix(7), ETOOMANYREFS): a refusal still fits.
                Err(Errno::TOOMANYREFS | Errno::NOBUFS | Errno::NOMEM) => {
                    refuse(Refusal::Resources)
                }
                sent => sent,
            },
            Err(why) => refuse(why),
        };
        if answered.is_err() {
            return;
        }
    }
}

/// Waits for a datagram: whether it is a dial, or `None` at the end of the channel.
fn next(control: BorrowedFd<'_>) -> io::Result<Option<bool>> {
    loop {
        // One byte more than a message has, so that a longer one shows. No room for control
        // messages: the kernel drops descriptors that the peer attaches.
        let mut bytes = [0; 2];
        let mut none = RecvAncillaryBuffer::new(&mut []);
        match recvmsg(
            control,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut none,
            RecvFlags::empty(),
        ) {
            Ok(received) if received.bytes == 0 && has_ended(control)? => return Ok(None),
            Ok(received) => return Ok(Some(received.bytes == 1 && bytes[0] == DIAL)),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// An empty datagram and the end of the channel both read as 0; only the end leaves a hang-up.
fn has_ended(control: BorrowedFd<'_>) -> io::Result<bool> {
    let mut fds = [PollFd::from_borrowed_fd(control, PollFlags::RDHUP)];
    let now = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    loop {
        match poll(&mut fds, Some(&now)) {
            Ok(_) => {
                let gone = PollFlags::HUP | PollFlags::RDHUP | PollFlags::ERR;
                return Ok(fds[0].revents().intersects(gone));
            }
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Sends one answer, waiting while the peer reads none.
fn answer(control: BorrowedFd<'_>, byte: u8, stream: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let fds = stream.map(|fd| [fd]);
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if let Some(fds) = &fds {
        ancillary.push(SendAncillaryMessage::ScmRights(fds));
    }
    loop {
        match sendmsg(
            control,
            &[IoSlice::new(&[byte])],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        ) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::crew::Serve;
    use rustix::net::{RecvAncillaryMessage, recv, send};
    use std::sync::Arc;

    struct Echo;

    impl Serve for Echo {
        fn serve(&self, _: u64, stream: &OwnedFd) {
            let mut byte = [0];
            while let Ok((1, _)) = recv(stream, &mut byte[..], RecvFlags::empty()) {
                let _ = send(stream, &byte, SendFlags::NOSIGNAL);
            }
        }
    }

    /// A channel that is served by a crew which echoes.
    struct Channel {
        peer: OwnedFd,
        thread: Option<std::thread::JoinHandle<()>>,
        crew: Arc<Crew>,
    }

    impl Channel {
        fn new(limit: usize) -> Channel {
            let (ours, peer) = channel().unwrap();
            let crew = Arc::new(Crew::new(limit, None, Echo));
            let served = crew.clone();
            let thread = Some(std::thread::spawn(move || serve(&ours, &served, None)));
            Channel { peer, thread, crew }
        }

        fn say(&self, message: &[u8]) {
            assert_eq!(
                send(&self.peer, message, SendFlags::NOSIGNAL),
                Ok(message.len())
            );
        }

        /// One answer: its byte and its descriptors.
        fn hear(&self) -> (u8, Vec<OwnedFd>) {
            let mut bytes = [0; 8];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::CMSG_CLOEXEC;
            let got = recvmsg(
                &self.peer,
                &mut [IoSliceMut::new(&mut bytes)],
                &mut ancillary,
                flags,
            )
            .unwrap();
            assert_eq!(got.bytes, 1);
            let mut fds = Vec::new();
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(rights) = message {
                    fds.extend(rights);
                }
            }
            (bytes[0], fds)
        }

        fn dial(&self) -> Option<OwnedFd> {
            self.say(&[DIAL]);
            match self.hear() {
                (DIAL, mut fds) if fds.len() == 1 => fds.pop(),
                (REFUSED, fds) if fds.is_empty() => None,
                other => panic!("{other:?}"),
            }
        }
    }

    fn is_served(stream: &OwnedFd) -> bool {
        let mut byte = [0];
        send(stream, b"x", SendFlags::NOSIGNAL) == Ok(1)
            && recv(stream, &mut byte[..], RecvFlags::empty()).is_ok_and(|(n, _)| n == 1)
    }

    #[test]
    fn a_dial_brings_one_stream_that_is_served() {
        let channel = Channel::new(8);
        let streams: Vec<_> = (0..8).map(|_| channel.dial().unwrap()).collect();
        assert!(streams.iter().all(is_served));
    }

    #[test]
    fn anything_else_is_refused_and_the_channel_lives_on() {
        let channel = Channel::new(8);
        for message in [
            &b""[..],
            b"\0",
            b"\xff",
            b"\x02",
            b"\x01\x01",
            b"\x01\0",
            &[1; 4096],
            b"",
        ] {
            channel.say(message);
            let (byte, fds) = channel.hear();
            assert_eq!((byte, fds.len()), (REFUSED, 0), "{message:?}");
            assert!(is_served(&channel.dial().unwrap()));
        }
    }

    #[test]
    fn descriptors_that_the_peer_attaches_are_dropped() {
        let channel = Channel::new(8);
        let (kept, given) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let fds = [given.as_fd()];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
        sendmsg(
            &channel.peer,
            &[IoSlice::new(&[DIAL])],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        )
        .unwrap();
        assert_eq!(channel.hear().0, DIAL);
        drop(given);
        // End of file: nobody else holds the other end of the pipe.
        assert_eq!(rustix::io::read(&kept, &mut [0; 1][..]), Ok(0));
    }

    #[test]
    fn the_limit_refuses_and_recovers() {
        let channel = Channel::new(2);
        let one = channel.dial().unwrap();
        let two = channel.dial().unwrap();
        assert!(channel.dial().is_none());
        drop(one);
        let third = std::iter::repeat_with(|| channel.dial())
            .take(100_000)
            .find_map(|s| s)
            .unwrap();
        assert!(is_served(&two) && is_served(&third));
    }

    #[test]
    fn a_flood_of_unread_dials_is_answered_in_the_end() {
        let channel = Channel::new(64);
        std::thread::scope(|scope| {
            scope.spawn(|| (0..2000).for_each(|_| channel.say(&[DIAL])));
            let answers: Vec<_> = (0..2000).map(|_| channel.hear().0).collect();
            assert!(answers.iter().all(|b| [DIAL, REFUSED].contains(b)) && answers.contains(&DIAL));
        });
        assert!(
            std::iter::repeat_with(|| channel.dial())
                .take(100_000)
                .any(|s| s.is_some())
        );
    }

    #[test]
    fn thousands_of_dials_leave_nothing_behind() {
        let channel = Channel::new(16);
        for _ in 0..5000 {
            let stream = std::iter::repeat_with(|| channel.dial())
                .take(100_000)
                .find_map(|s| s);
            drop(stream.unwrap());
        }
        assert!(channel.crew.dismiss(std::time::Duration::from_secs(10)));
        assert!(channel.dial().is_none(), "a dismissed crew takes no more");
    }

    #[test]
    fn the_end_of_the_channel_ends_the_thread() {
        let mut channel = Channel::new(8);
        channel.say(b"");
        assert_eq!(channel.hear().0, REFUSED);
        let stream = channel.dial().unwrap();
        let thread = channel.thread.take().unwrap();
        drop(channel);
        thread.join().unwrap();
        assert!(is_served(&stream), "streams outlive the channel");
    }
}
