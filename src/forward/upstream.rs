//! Connections to the upstream: one kind for plain and TLS, and a pool of idle ones.
//!
//! Neither a poll nor a system call is made while the pool is locked, and a connection is handed out
//! only when nothing has arrived on it since its last response: bytes that come unasked would be
//! taken for the next answer.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use super::dial::{DialError, Dialer, Patience};
use super::proxy;
use super::tls::{self, Tls, TlsError};
use super::wait::{self, Received};
use crate::error::{Error, Result};
use crate::service::Origin;

/// Idle connections that are kept.
const IDLE: usize = 64;
/// How long one is kept: below the keep-alive time of common servers.
const IDLE_AGE: Duration = Duration::from_secs(20);

/// One connection to the upstream.
#[derive(Debug)]
pub struct Upstream {
    socket: OwnedFd,
    tls: Option<Box<Tls>>,
    /// Whether it has carried an exchange before.
    pub reused: bool,
}

impl Upstream {
    /// Takes bytes to be sent and sends what the socket takes without blocking.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => wait::send(self.socket.as_fd(), bytes),
            Some(tls) => tls.send(self.socket.as_fd(), bytes),
        }
    }

    /// Whether what is sent goes through TLS.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether all that was taken has been sent.
    pub fn is_flushed(&self) -> bool {
        self.tls.as_ref().is_none_or(|tls| tls.is_flushed())
    }

    /// Sends what was taken before.
    pub fn flush(&mut self) -> io::Result<bool> {
        self.tls
            .as_mut()
            .map_or(Ok(true), |tls| tls.flush(self.socket.as_fd()))
    }

    /// Reads what is there; with `block`, waits a moment for it.
    pub fn receive(&mut self, buf: &mut [u8], block: bool) -> io::Result<Received> {
        match &mut self.tls {
            None => wait::receive(self.socket.as_fd(), buf, block),
            Some(tls) => tls.read(self.socket.as_fd(), buf, block),
        }
    }

    /// Whether nothing has arrived since the last response.
    pub fn is_quiet(&mut self) -> bool {
        match &mut self.tls {
            None => matches!(
                wait::receive(self.socket.as_fd(), &mut [0; 1], false),
                Ok(Received::Nothing)
            ),
            Some(tls) => tls.is_flushed() && tls.is_drained(self.socket.as_fd()),
        }
    }

    /// The descriptor, to be polled.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Ends our direction and keeps the other one open.
    pub fn finish_sending(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.close(self.socket.as_fd());
        }
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Write);
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.close(self.socket.as_fd());
        }
    }
}

/// Why there is no connection to the upstream.
#[derive(Debug)]
pub enum ConnectError {
    /// No transport.
    Dial(DialError),
    /// No TLS over it.
    Tls(TlsError),
}

/// Opens connections to one origin, and keeps idle ones.
#[derive(Debug)]
pub struct Pool {
    dialer: Dialer,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    connect_timeout: Duration,
    idle: Mutex<VecDeque<(Instant, Upstream)>>,
    #[cfg(fuzzing)]
    given: Mutex<VecDeque<OwnedFd>>,
}

impl Pool {
    /// Reads the proxy settings and the extra roots; connects to nothing yet.
    pub fn new(origin: &Origin, roots: &[PathBuf], connect_timeout: Duration) -> Result<Pool> {
        let scheme = if origin.tls { "https" } else { "http" };
        let uri = ureq::http::Uri::builder()
            .scheme(scheme)
            .authority(origin.authority.as_str())
            .path_and_query("/")
            .build()
            .map_err(|e| Error::Usage(format!("--upstream: {e}")))?;
        let proxy = proxy::from_env(&uri, origin.tls)?;
        let tls = if origin.tls {
            let name = ServerName::try_from(origin.host.clone()).map_err(|_| {
                Error::Usage("--upstream: the host is not a valid TLS server name".into())
            })?;
            Some((tls::config(roots)?, name))
        } else {
            None
        };
        let dialer = Dialer::new(uri, origin, proxy);
        Ok(Pool {
            dialer,
            tls,
            connect_timeout,
            idle: Mutex::default(),
            #[cfg(fuzzing)]
            given: Mutex::default(),
        })
    }

    /// An idle connection on which nothing has happened, the youngest first.
    pub fn take(&self) -> Option<Upstream> {
        loop {
            let (since, mut upstream) = self.idle().pop_back()?;
            if since.elapsed() < IDLE_AGE && upstream.is_quiet() {
                return Some(upstream);
            }
        }
    }

    /// Keeps a connection that stands between two messages.
    pub fn put(&self, mut upstream: Upstream) {
        if let Some(tls) = &mut upstream.tls {
            tls.rest();
        }
        let mut expired = Vec::new();
        let mut idle = self.idle();
        while idle.len() >= IDLE
            || idle
                .front()
                .is_some_and(|(since, _)| since.elapsed() >= IDLE_AGE)
        {
            expired.extend(idle.pop_front());
        }
        idle.push_back((Instant::now(), upstream));
        drop(idle);
        // Closed here, when the pool is no longer locked.
        drop(expired);
    }

    /// A new connection, TLS included, within the connect timeout.
    pub fn connect(&self, client: BorrowedFd<'_>) -> std::result::Result<Upstream, ConnectError> {
        let patience = Patience {
            client,
            deadline: Instant::now() + self.connect_timeout,
        };
        #[cfg(fuzzing)]
        if let Some(socket) = self.given.lock().ok().and_then(|mut g| g.pop_front()) {
            return Ok(Upstream {
                socket,
                tls: None,
                reused: false,
            });
        }
        let socket = self.dialer.dial(patience).map_err(|e| {
            self.dialer.forget();
            ConnectError::Dial(e)
        })?;
        let tls = match &self.tls {
            None => None,
            Some((config, name)) => {
                let tls = Tls::connect(config.clone(), name.clone(), socket.as_fd(), patience);
                Some(Box::new(tls.map_err(ConnectError::Tls)?))
            }
        };
        Ok(Upstream {
            socket,
            tls,
            reused: false,
        })
    }

    /// Has the next connections be these; what was left of the last ones is closed.
    #[cfg(fuzzing)]
    pub fn give(&self, sockets: Vec<OwnedFd>) {
        if let Ok(mut given) = self.given.lock() {
            *given = sockets.into();
        }
    }

    /// Closes every idle connection.
    pub fn clear(&self) {
        let idle = std::mem::take(&mut *self.idle());
        drop(idle);
    }

    fn idle(&self) -> MutexGuard<'_, VecDeque<(Instant, Upstream)>> {
        self.idle.lock().unwrap_or_else(|e| e.into_inner())
    }
}
