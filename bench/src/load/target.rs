//! Where connections come from: a control channel, a Unix socket or a TCP port. All give a blocking stream.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, recvmsg, send};

use crate::{Failure, PATIENCE};

/// Any connected stream socket. `UnixStream` adds no address to the descriptor, so a TCP one fits in it.
pub type Stream = UnixStream;

/// What is dialled.
#[derive(Debug)]
pub enum Target {
    /// None was named.
    Absent,
    /// A control channel (version 1: one byte 0x01 each way, one descriptor back).
    Channel(OwnedFd),
    /// A listening Unix socket.
    Unix(PathBuf),
    /// A listening TCP port.
    Tcp(SocketAddr),
}

impl Target {
    /// `fd` (the number in `BROKER_EXEC_FD`), `unix:PATH` or `tcp:ADDR:PORT`.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        if let Some(path) = text.strip_prefix("unix:") {
            Ok(Self::Unix(path.into()))
        } else if let Some(address) = text.strip_prefix("tcp:") {
            Ok(Self::Tcp(address.parse()?))
        } else if text == "fd" {
            let number = std::env::var("BROKER_EXEC_FD")
                .map_err(|_| "BROKER_EXEC_FD is not set")?
                .parse()?;
            if number < 3 {
                return Err("BROKER_EXEC_FD names a standard stream".into());
            }
            // SAFETY: whoever started us says that this descriptor is ours; nothing else in this process, which
            // has opened nothing that it keeps, holds or closes it. Called once.
            Ok(Self::Channel(unsafe { OwnedFd::from_raw_fd(number) }))
        } else {
            Err("target is neither fd, unix:PATH nor tcp:ADDR:PORT".into())
        }
    }

    /// One new stream, with a deadline on every read and write; `None` if the broker refused (0xFF).
    pub fn try_dial(&self) -> Result<Option<Stream>, Failure> {
        let stream = match self {
            Self::Absent => return Err("no --target".into()),
            Self::Unix(path) => UnixStream::connect(path)?,
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                OwnedFd::from(stream).into()
            }
            Self::Channel(channel) => match receive(channel)? {
                Some(stream) => stream.into(),
                None => return Ok(None),
            },
        };
        Ok(Some(stream))
    }

    /// One new stream that must not be refused.
    pub fn dial(&self) -> Result<Stream, Failure> {
        let stream = self.try_dial()?.ok_or("dial refused")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }
}

fn receive(channel: &OwnedFd) -> Result<Option<OwnedFd>, Failure> {
    send(channel, &[1], SendFlags::NOSIGNAL)?;
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = recvmsg(
        channel,
        &mut [IoSliceMut::new(&mut byte)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let stream = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    match (message.bytes, byte, stream) {
        (1, [1], Some(stream)) => Ok(Some(stream)),
        (1, [0xff], None) => Ok(None),
        (0, ..) => Err("control channel closed".into()),
        (_, byte, stream) => {
            Err(format!("dial answered {byte:?}, descriptor: {}", stream.is_some()).into())
        }
    }
}
