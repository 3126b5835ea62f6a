//! The limit: the control channel and a byte relay, with no idea of HTTP. `relay ADDR:PORT COMMAND [ARG...]` gives
//! each dialled stream a TCP connection of its own, opened on the first byte, and one thread per direction that
//! only reads and writes. What a broker loses against this is the price of understanding the messages.

use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode};
use std::thread;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
    SocketType, recv, sendmsg, socketpair,
};

/// The first size is enough for a small exchange; a read that fills it moves to the second.
const SMALL: usize = 16 * 1024;
const LARGE: usize = 256 * 1024;
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
    let mut first = vec![0; SMALL];
    let count = down.read(&mut first)?;
    if count == 0 {
        return Ok(());
    }
    let mut up = TcpStream::connect(upstream)?;
    up.set_nodelay(true)?;
    up.write_all(&first[..count])?;

    let (mut back_from, mut back_to) = (up.try_clone()?, down.try_clone()?);
    thread::Builder::new().stack_size(STACK).spawn(move || {
        let _ = copy(&mut back_from, &mut back_to, vec![0; SMALL]);
        let _ = back_to.shutdown(Shutdown::Both);
    })?;
    let result = copy(&mut down, &mut up, first);
    up.shutdown(Shutdown::Write)?;
    result
}

fn copy(from: &mut impl Read, to: &mut impl Write, mut buffer: Vec<u8>) -> io::Result<()> {
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..count])?;
        if count == SMALL && buffer.len() == SMALL {
            buffer.resize(LARGE, 0);
        }
    }
}
