//! TLS over one of our sockets, without blocking: rustls does the protocol, we move the bytes.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use rustix::event::PollFlags;

use super::dial::Patience;
use super::wait::{self, Received, Woken, wait};
use crate::error::{Error, Result};

/// The most that one read takes from the socket: several records, so that a large body costs few
/// calls.
const CIPHERTEXT: usize = 128 * 1024;
/// What one read takes during a handshake.
const HANDSHAKE: usize = 8 * 1024;
/// What a record adds to its plaintext, with room to spare (RFC 8446 section 5.2): a read that is
/// asked for as much as a record holds gets the record.
const OVERHEAD: usize = 512;
/// Plaintext that may wait to be encrypted and sent.
const OUTGOING: usize = 64 * 1024;

/// The client's side of the protocol: the built-in roots plus those of these PEM files.
pub fn config(extra: &[PathBuf]) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    for path in extra {
        add_roots(path, &mut roots)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::Protection(format!("TLS cannot be set up: {e}")))?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Adds every certificate of a PEM file; a file without any is an error, not an empty set.
fn add_roots(path: &Path, roots: &mut RootCertStore) -> Result<()> {
    let bad = |why: String| Error::Usage(format!("CA certificates {}: {why}", path.display()));
    let before = roots.len();
    let pem = std::fs::read(path).map_err(|e| bad(e.to_string()))?;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|e| bad(format!("not PEM: {e}")))?;
        // A bundle may hold a certificate that webpki cannot use; the others still count.
        let _ = roots.add(certificate);
    }
    if roots.len() == before {
        Err(bad("no usable certificate in it".into()))
    } else {
        Ok(())
    }
}

/// Why there is no TLS connection.
#[derive(Debug)]
pub enum TlsError {
    /// The upstream's certificate is not acceptable.
    Certificate(String),
    /// Any other failure of the protocol.
    Protocol(String),
    /// The transport failed, or ended in the middle.
    Transport(io::Error),
    /// The deadline passed first.
    Late,
    /// The client has gone.
    Gone,
}

/// One TLS connection.
pub struct Tls {
    session: ClientConnection,
    /// Ciphertext that has been read and not yet given to rustls.
    input: Vec<u8>,
    start: usize,
    end: usize,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// Shakes hands within the deadline.
    pub fn connect(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        socket: BorrowedFd<'_>,
        patience: Patience<'_>,
    ) -> std::result::Result<Tls, TlsError> {
        let mut session =
            ClientConnection::new(config, name).map_err(|e| TlsError::Protocol(e.to_string()))?;
        session.set_buffer_limit(Some(OUTGOING));
        let mut tls = Tls {
            session,
            input: Vec::new(),
            start: 0,
            end: 0,
        };
        while tls.session.is_handshaking() {
            let sent = tls.flush(socket).map_err(TlsError::Transport)?;
            let received = if tls.session.wants_read() {
                tls.receive(socket, false, HANDSHAKE)
                    .map_err(TlsError::from)?
            } else {
                Received::Nothing
            };
            match received {
                Received::Data(_) => continue,
                Received::End => {
                    return Err(TlsError::Transport(io::ErrorKind::UnexpectedEof.into()));
                }
                Received::Nothing if !tls.session.is_handshaking() => break,
                Received::Nothing => {}
            }
            let mut flags = PollFlags::IN;
            flags.set(PollFlags::OUT, !sent);
            match wait(
                patience.client,
                PollFlags::empty(),
                Some((socket, flags)),
                Some(patience.deadline),
            ) {
                Ok(Woken::Ready) => {}
                Ok(Woken::Late) => return Err(TlsError::Late),
                Ok(Woken::Gone) => return Err(TlsError::Gone),
                Err(e) => return Err(TlsError::Transport(e)),
            }
        }
        Ok(tls)
    }

    /// Takes plaintext to be sent and sends what the socket takes; returns how much was taken.
    pub fn send(&mut self, socket: BorrowedFd<'_>, plain: &[u8]) -> io::Result<usize> {
        let taken = if self.session.wants_write() && !self.flush(socket)? {
            0
        } else {
            self.session.writer().write(plain)?
        };
        self.flush(socket)?;
        Ok(taken)
    }

    /// Sends what is waiting; true when nothing is left.
    pub fn flush(&mut self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut Socket(socket)) {
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    /// Whether ciphertext waits for the socket.
    pub fn is_flushed(&self) -> bool {
        !self.session.wants_write()
    }

    /// Reads plaintext. An end without close_notify is an error: somebody cut the connection.
    pub fn read(
        &mut self,
        socket: BorrowedFd<'_>,
        buf: &mut [u8],
        block: bool,
    ) -> io::Result<Received> {
        let mut filled = 0;
        loop {
            match self.session.reader().read(&mut buf[filled..]) {
                Ok(0) if filled == 0 => return Ok(Received::End),
                Ok(0) => return Ok(Received::Data(filled)),
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) if filled == 0 => return Err(e),
                // It is there again at the next read.
                Err(_) => return Ok(Received::Data(filled)),
            }
            // Whole records that have arrived are worth decrypting before anything is passed on;
            // more is not waited for.
            if filled == buf.len() || (filled > 0 && self.start == self.end) {
                return Ok(Received::Data(filled));
            }
            let want = (buf.len() + OVERHEAD).min(CIPHERTEXT);
            match self.receive(socket, block && filled == 0, want) {
                Ok(Received::Nothing) => return Ok(Received::Nothing),
                // The next read tells a clean end from a cut.
                Ok(Received::Data(_) | Received::End) => {}
                Err(e) if filled == 0 => return Err(e),
                // rustls repeats its errors.
                Err(_) => return Ok(Received::Data(filled)),
            }
        }
    }

    /// Gives rustls more ciphertext, from the socket when none is left over.
    fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        block: bool,
        want: usize,
    ) -> io::Result<Received> {
        if self.start == self.end {
            if self.input.len() < want {
                self.input = vec![0; want];
            }
            (self.start, self.end) = (0, 0);
            match wait::receive(socket, &mut self.input, block)? {
                Received::Data(n) => self.end = n,
                Received::Nothing => return Ok(Received::Nothing),
                Received::End => {
                    self.session.read_tls(&mut io::empty())?;
                    return Ok(Received::End);
                }
            }
        }
        let mut ciphertext = &self.input[self.start..self.end];
        let n = self.session.read_tls(&mut ciphertext)?;
        self.start += n;
        if let Err(e) = self.session.process_new_packets() {
            // The alert that says why is worth one attempt.
            let _ = self.flush(socket);
            return Err(io::Error::new(io::ErrorKind::InvalidData, e));
        }
        Ok(Received::Data(n))
    }

    /// Whether nothing that was received waits to be read: the connection stands between messages.
    pub fn is_drained(&mut self, socket: BorrowedFd<'_>) -> bool {
        // Session tickets are read off here; data or an end show up as something other than Nothing.
        matches!(self.read(socket, &mut [0; 1], false), Ok(Received::Nothing))
    }

    /// Gives back the memory that an idle connection does not need.
    pub fn rest(&mut self) {
        if self.start == self.end {
            self.input = Vec::new();
            (self.start, self.end) = (0, 0);
        }
    }

    /// Says goodbye, once, without waiting.
    pub fn close(&mut self, socket: BorrowedFd<'_>) {
        self.session.send_close_notify();
        let _ = self.flush(socket);
    }
}

impl From<io::Error> for TlsError {
    fn from(e: io::Error) -> TlsError {
        match e
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        {
            Some(rustls::Error::InvalidCertificate(why)) => TlsError::Certificate(format!("{why}")),
            Some(other) => TlsError::Protocol(other.to_string()),
            None => TlsError::Transport(e),
        }
    }
}

/// A socket as rustls wants to write to it.
struct Socket<'a>(BorrowedFd<'a>);

impl Write for Socket<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match wait::send(self.0.as_fd(), buf)? {
            0 if !buf.is_empty() => Err(io::ErrorKind::WouldBlock.into()),
            n => Ok(n),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
