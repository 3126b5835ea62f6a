//! One connection of an upstream: bytes both ways, heads recorded, and every way of ending it.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::DEADLINE;
use super::upstream::Shared;

/// A request head as the upstream saw it.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Which connection it came on, from 0.
    pub connection: usize,
    pub method: String,
    pub target: String,
    /// Names in lower case, in order.
    pub headers: Vec<(String, String)>,
    /// Every byte of it, with the empty line.
    pub head: Vec<u8>,
    /// Whether the credential stood in its place, once and right (an `api` upstream only).
    pub authorized: bool,
}

impl Recorded {
    /// The values of every field of this name.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
            .collect()
    }

    /// The value of the first field of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }
}

/// One accepted connection, with the handshake done.
pub struct Conn {
    index: usize,
    wire: Wire,
    /// Read already, not yet handed out.
    ahead: Vec<u8>,
    shared: Arc<Shared>,
    closed: bool,
}

enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ServerConnection, TcpStream>>),
    /// Reset by us.
    Gone,
}

impl Conn {
    pub(super) fn accept(
        index: usize,
        tcp: TcpStream,
        config: Option<Arc<ServerConfig>>,
        shared: &Arc<Shared>,
    ) -> Option<Conn> {
        let wire = match config {
            None => Wire::Plain(tcp),
            Some(config) => {
                let mut stream = StreamOwned::new(ServerConnection::new(config).ok()?, tcp);
                while stream.conn.is_handshaking() {
                    stream.conn.complete_io(&mut stream.sock).ok()?;
                }
                Wire::Tls(Box::new(stream))
            }
        };
        Some(Conn {
            index,
            wire,
            ahead: Vec::new(),
            shared: Arc::clone(shared),
            closed: false,
        })
    }

    /// Which connection of its upstream this is, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The socket below, for options; `None` after `close_abruptly`.
    pub fn tcp(&self) -> Option<&TcpStream> {
        match &self.wire {
            Wire::Plain(tcp) => Some(tcp),
            Wire::Tls(stream) => Some(&stream.sock),
            Wire::Gone => None,
        }
    }

    /// Reads a request head and records it. `None` when the peer closed before its first byte.
    /// Bytes past the head stay for the next read.
    pub fn read_head(&mut self) -> Option<Recorded> {
        let length = loop {
            if let Some(at) = self.ahead.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            let mut some = [0; 16 * 1024];
            match self.read_wire(&mut some) {
                Ok(0) | Err(_) if self.ahead.is_empty() => return None,
                Ok(0) => panic!("the peer closed within a request head"),
                Err(err) => panic!("read a request head: {err}"),
                Ok(count) => self.ahead.extend_from_slice(&some[..count]),
            }
        };
        let head: Vec<u8> = self.ahead.drain(..length).collect();
        let recorded = parse_head(self.index, head);
        self.shared.lock().requests.push(recorded.clone());
        self.shared.changed.notify_all();
        Some(recorded)
    }

    /// Marks this connection's newest request as carrying the right credential.
    pub fn mark_authorized(&mut self) {
        let mut state = self.shared.lock();
        let newest = state
            .requests
            .iter_mut()
            .rev()
            .find(|request| request.connection == self.index);
        if let Some(request) = newest {
            request.authorized = true;
        }
    }

    /// Sends bytes at once. A peer that is gone is no failure of the script.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.write_all(bytes.as_ref())
            .and_then(|()| self.flush())
            .is_ok()
    }

    /// Waits for the bytes that the test hands over by [`Upstream::open_gate`]; `None` when the
    /// upstream is being dropped or the deadline passed.
    pub fn wait_gate(&mut self) -> Option<Vec<u8>> {
        let waited = self.shared.wait(|state| match state.gate.pop_front() {
            Some(bytes) => Some(Some(bytes)),
            None => state.stopping.then_some(None),
        });
        waited.flatten()
    }

    /// Waits until the peer has closed or reset the connection, discarding what it still sends.
    /// False when the deadline passed first.
    pub fn peer_closed(&mut self) -> bool {
        let end = Instant::now() + DEADLINE;
        let mut scrap = [0; 16 * 1024];
        while Instant::now() < end {
            match self.read(&mut scrap) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(err) if is_timeout(&err) => return false,
                Err(_) => return true,
            }
        }
        false
    }

    /// Ends the connection with a reset.
    pub fn close_abruptly(&mut self) {
        self.closed = true;
        let Some(tcp) = self.tcp() else { return };
        let _ = rustix::net::sockopt::set_socket_linger(tcp, Some(Duration::ZERO));
        // The reset goes out when the last descriptor closes: the upstream's own copy, then ours.
        self.shared
            .lock()
            .live
            .retain(|(live, _)| *live != self.index);
        self.wire = Wire::Gone;
    }

    /// Ends the connection with a FIN but no TLS `close_notify`: to a reader by the book, a cut.
    pub fn close_without_notify(&mut self) {
        if !std::mem::replace(&mut self.closed, true) {
            self.finish();
        }
    }

    /// Ends the connection as a correct server does: `close_notify`, then FIN.
    pub fn close_cleanly(&mut self) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        if let Wire::Tls(stream) = &mut self.wire {
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
        self.finish();
    }

    /// Sends FIN and reads on for a moment, as servers do: closing over unread bytes would reset the
    /// connection and could destroy a response on its way.
    fn finish(&mut self) {
        let Some(tcp) = self.tcp() else { return };
        let _ = tcp.shutdown(Shutdown::Write);
        let _ = tcp.set_read_timeout(Some(Duration::from_secs(1)));
        let end = Instant::now() + DEADLINE;
        let mut scrap = [0; 16 * 1024];
        while Instant::now() < end && matches!((&*tcp).read(&mut scrap), Ok(1..)) {}
    }

    fn read_wire(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match &mut self.wire {
            Wire::Plain(tcp) => tcp.read(into),
            Wire::Tls(stream) => stream.read(into),
            Wire::Gone => Ok(0),
        }
    }
}

impl Read for Conn {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.ahead.is_empty() {
            return self.read_wire(into);
        }
        let count = self.ahead.len().min(into.len());
        into[..count].copy_from_slice(&self.ahead[..count]);
        self.ahead.drain(..count);
        Ok(count)
    }
}

impl Write for Conn {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.wire {
            Wire::Plain(tcp) => tcp.write(bytes),
            Wire::Tls(stream) => stream.write(bytes),
            Wire::Gone => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.wire {
            Wire::Plain(tcp) => tcp.flush(),
            Wire::Tls(stream) => stream.flush(),
            Wire::Gone => Ok(()),
        }
    }
}

fn is_timeout(err: &io::Error) -> bool {
    matches!(
        err.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// Strict, so that the broker cannot send a malformed head unnoticed.
fn parse_head(connection: usize, head: Vec<u8>) -> Recorded {
    // A field may hold obs-text (RFC 9110 section 5.5); who cares for it has `head`.
    let text = String::from_utf8_lossy(&head).into_owned();
    let mut lines = text.trim_end_matches("\r\n").split("\r\n");
    let line = lines.next().expect("split gives at least one line");
    let mut words = line.split(' ');
    let (Some(method), Some(target), Some("HTTP/1.1"), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        panic!("not a request line of HTTP/1.1");
    };
    let headers = lines.map(|line| {
        let (name, value) = line.split_once(':').expect("a field line has a colon");
        (
            name.to_ascii_lowercase(),
            value.trim_matches([' ', '\t']).to_owned(),
        )
    });
    Recorded {
        connection,
        method: method.to_owned(),
        target: target.to_owned(),
        headers: headers.collect(),
        authorized: false,
        head,
    }
}
