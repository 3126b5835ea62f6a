//! The limit: the control channel and a byte relay, with no idea of HTTP. `relay ADDR:PORT COMMAND [ARG...]` gives
//! each dialled stream a TCP connection of its own, opened on the first byte, and one thread that waits for either
//! side, reads and writes. (A thread per direction saves the poll and costs a switch: measured, no faster.)
//! What a broker loses against this is the price of understanding the messages.

use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode};
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
    SocketType, recv, sendmsg, socketpair,
};

const BUFFER: usize = 256 * 1024;
const STACK: usize = 64 * 1024;

fn main() -> ExitCode {
    match run() {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("relay: {error}");
            ExitCode::from(125)
        }
    }
}

fn run() -> Result<u8, Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let usage = "usage: relay ADDR:PORT COMMAND [ARG...]";
    let upstream = arguments
        .next()
        .and_then(|text| text.into_string().ok())
        .ok_or(usage)?
        .parse()?;
    let command = arguments.next().ok_or(usage)?;

    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    fcntl_setfd(&theirs, FdFlags::empty())?;
    let mut child = Command::new(command)
        .args(arguments)
        .env("BROKER_EXEC_FD", theirs.as_raw_fd().to_string())
        .spawn()?;
    drop(theirs);

    thread::spawn(move || {
        if let Err(error) = serve_dials(&ours, upstream) {
            eprintln!("relay: control channel: {error}");
        }
    });
    let status = child.wait()?;
    Ok(status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(125))
}

fn serve_dials(channel: &OwnedFd, upstream: SocketAddr) -> io::Result<()> {
    let mut datagram = [0; 2];
    loop {
        match recv(channel, &mut datagram, RecvFlags::empty())?.0 {
            0 => return Ok(()),
            1 if datagram[0] == 1 => {}
            _ => {
                rustix::net::send(channel, &[0xff], SendFlags::NOSIGNAL)?;
                continue;
            }
        }
        let Ok(peer) = prepare(upstream) else {
            rustix::net::send(channel, &[0xff], SendFlags::NOSIGNAL)?;
            continue;
        };
        let descriptors = [peer.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        sendmsg(
            channel,
            &[IoSlice::new(&[1])],
            &mut control,
            SendFlags::NOSIGNAL,
        )?;
    }
}

/// Our end is served before the peer's leaves, as the broker has to.
fn prepare(upstream: SocketAddr) -> io::Result<UnixStream> {
    let (ours, theirs) = UnixStream::pair()?;
    thread::Builder::new().stack_size(STACK).spawn(move || {
        // A broken end shows as a closed stream; the load generator reports it.
        let _ = relay(ours, upstream);
    })?;
    Ok(theirs)
}

fn relay(mut down: UnixStream, upstream: SocketAddr) -> io::Result<()> {
    let mut first = vec![0; BUFFER];
    let count = down.read(&mut first)?;
    if count == 0 {
        return Ok(());
    }
    let mut up = TcpStream::connect(upstream)?;
    up.set_nodelay(true)?;
    up.write_all(&first[..count])?;

    let (mut down_open, mut buffer) = (true, first);
    loop {
        let down_events = if down_open {
            PollFlags::IN
        } else {
            PollFlags::empty()
        };
        let mut ready = [
            PollFd::new(&up, PollFlags::IN),
            PollFd::new(&down, down_events),
        ];
        poll(&mut ready, None)?;
        let [up_ready, down_ready] = ready.map(|fd| !fd.revents().is_empty());
        if down_ready && down_open {
            down_open = pass(&mut down, &mut up, &mut buffer)?;
            if !down_open {
                up.shutdown(Shutdown::Write)?;
            }
        } else if down_ready {
            return Ok(()); // the peer is gone altogether: POLLHUP or POLLERR
        }
        if up_ready && !pass(&mut up, &mut down, &mut buffer)? {
            return Ok(());
        }
    }
}

/// One read and its write; false at the end of the stream.
fn pass(from: &mut impl Read, to: &mut impl Write, buffer: &mut [u8]) -> io::Result<bool> {
    let count = from.read(buffer)?;
    to.write_all(&buffer[..count])?;
    Ok(count > 0)
}
