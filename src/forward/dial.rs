//! A connection to the upstream's host: name, address, TCP, and the proxy on the way out.
//!
//! Proxy settings and the CONNECT handshake are ureq's; it asks us for name resolution and for the
//! transport below it through its connector traits. Ours can be cancelled and keeps its deadline,
//! and its socket comes back to us when the tunnel stands. Nothing here has seen the credential.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use ureq::Proxy;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectProxyConnector, ConnectionDetails, Connector, LazyBuffers, NextTimeout,
    Transport, time,
};

use super::wait::{self, Received, Woken, wait};
use crate::service::{Origin, Reach};

/// How long a name's addresses are used without asking again.
const NAME_CACHE: Duration = Duration::from_secs(10);
/// Addresses of one name that are tried.
const ADDRESSES: usize = 16;

/// Why there is no connection.
#[derive(Debug)]
pub enum DialError {
    /// The name has no address.
    Name(String),
    /// Every address of the name is one that it must not have: one of them, and its kind.
    Prohibited(IpAddr, &'static str),
    /// No address accepted the connection; the last error.
    Connect(io::Error),
    /// The deadline passed first.
    Late,
    /// The client has gone.
    Gone,
    /// The proxy on the way out did not open the tunnel.
    Proxy(String),
}

/// Who is waiting, and until when.
#[derive(Debug, Clone, Copy)]
pub struct Patience<'a> {
    /// The client's stream: its hang-up cancels.
    pub client: BorrowedFd<'a>,
    /// The end of the wait.
    pub deadline: Instant,
}

/// Dials one host and port.
pub struct Dialer {
    uri: Uri,
    host: String,
    port: u16,
    reach: Reach,
    config: Option<Config>,
    cache: Mutex<Option<(Instant, Vec<SocketAddr>)>>,
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The proxy's URL may hold a password.
        write!(f, "Dialer({}:{})", self.host, self.port)
    }
}

impl Dialer {
    /// A dialer for this origin; `proxy` is the one from the environment that applies to it.
    pub fn new(uri: Uri, origin: &Origin, proxy: Option<Proxy>) -> Dialer {
        let config = proxy.map(|proxy| Config::builder().proxy(Some(proxy)).user_agent("").build());
        Dialer {
            uri,
            host: origin.host.clone(),
            port: origin.port,
            reach: origin.reach,
            config,
            cache: Mutex::new(None),
        }
    }

    /// Connects, through the proxy if there is one.
    pub fn dial(&self, patience: Patience<'_>) -> Result<OwnedFd, DialError> {
        let Some(config) = &self.config else {
            let addresses = self.addresses(patience)?;
            return connect_any(&addresses, self.reach, patience);
        };
        self.tunnel(config, patience)
    }

    fn addresses(&self, patience: Patience<'_>) -> Result<Vec<SocketAddr>, DialError> {
        if let Ok(ip) = self.host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, self.port)]);
        }
        {
            let cache = self.cache.lock().unwrap_or_else(|e| e.into_inner());
            if let Some((at, addresses)) = &*cache
                && at.elapsed() < NAME_CACHE
            {
                return Ok(addresses.clone());
            }
        }
        let addresses = resolve(&self.host, self.port, patience)?;
        *self.cache.lock().unwrap_or_else(|e| e.into_inner()) =
            Some((Instant::now(), addresses.clone()));
        Ok(addresses)
    }

    /// Forgets the addresses: none of them answered.
    pub fn forget(&self) {
        *self.cache.lock().unwrap_or_else(|e| e.into_inner()) = None;
    }

    /// Runs ureq's CONNECT handshake over a socket of ours and takes the socket back.
    fn tunnel(&self, config: &Config, patience: Patience<'_>) -> Result<OwnedFd, DialError> {
        // ureq's transports are 'static and cannot borrow: the client's descriptor is duplicated.
        let client = patience
            .client
            .try_clone_to_owned()
            .map_err(DialError::Connect)?;
        let shared = Arc::new(Shared {
            client,
            deadline: patience.deadline,
            socket: Mutex::new(None),
            failure: Mutex::new(None),
        });
        let for_proxy = shared.clone();
        let details = ConnectionDetails {
            uri: &self.uri,
            // Names behind a proxy are the proxy's to resolve.
            addrs: NamesOf(shared.clone()).empty(),
            config,
            request_level: false,
            resolver: &NamesOf(shared.clone()),
            now: time::Instant::now(),
            timeout: NextTimeout::default(),
            current_time: Arc::new(time::Instant::now),
            run_connector: Arc::new(move |details| for_proxy.connect(details)),
            register_shutdown: Arc::new(|_| Ok(())),
        };
        let tunnel = Connector::<()>::connect(&ConnectProxyConnector::default(), &details, None);
        let own = shared
            .failure
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .take();
        match (tunnel, own) {
            (_, Some(failure)) => Err(failure),
            (Ok(Some(mut transport)), None) => {
                if transport.buffers().can_use_input() || !transport.buffers().input().is_empty() {
                    return Err(DialError::Proxy(
                        "the proxy sent data before the upstream could".into(),
                    ));
                }
                drop(transport);
                let socket = shared
                    .socket
                    .lock()
                    .unwrap_or_else(|e| e.into_inner())
                    .take();
                let socket = socket.and_then(Arc::into_inner);
                socket.ok_or_else(|| DialError::Proxy("the proxy's connection was lost".into()))
            }
            (Ok(None), None) => Err(DialError::Proxy(
                "the proxy is of a kind that is not supported".into(),
            )),
            // The text is a status or a protocol error, never a credential.
            (Err(e), None) => Err(DialError::Proxy(e.to_string())),
        }
    }
}

/// Looks a name up on a thread of its own, because getaddrinfo(3) can be neither timed nor cancelled.
fn resolve(host: &str, port: u16, patience: Patience<'_>) -> Result<Vec<SocketAddr>, DialError> {
    let name = host.to_string();
    let (done, signal) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|e| DialError::Connect(e.into()))?;
    let answer = Arc::new(Mutex::new(None));
    let slot = answer.clone();
    let started = std::thread::Builder::new()
        .name("resolver".into())
        .stack_size(256 * 1024)
        .spawn(move || {
            let found = (name.as_str(), port)
                .to_socket_addrs()
                .map(|a| a.take(ADDRESSES).collect::<Vec<_>>());
            *slot.lock().unwrap_or_else(|e| e.into_inner()) = Some(found);
            drop(signal);
        });
    started.map_err(DialError::Connect)?;
    let woken = wait(
        patience.client,
        PollFlags::empty(),
        Some((done.as_fd(), PollFlags::IN)),
        Some(patience.deadline),
    );
    match woken.map_err(DialError::Connect)? {
        Woken::Late => return Err(DialError::Late),
        Woken::Gone => return Err(DialError::Gone),
        Woken::Ready => {}
    }
    let found = answer.lock().unwrap_or_else(|e| e.into_inner()).take();
    match found {
        Some(Ok(addresses)) if !addresses.is_empty() => Ok(addresses),
        Some(Err(e)) => Err(DialError::Name(format!("{host}: {e}"))),
        _ => Err(DialError::Name(format!("{host}: no address"))),
    }
}

/// Tries the addresses in turn. Each but the last gets half of the time that is left.
///
/// Whether an address may be dialled is asked here, about the very one that connect(2) gets next: a
/// check of an earlier answer would say nothing about a later one.
fn connect_any(
    addresses: &[SocketAddr],
    reach: Reach,
    patience: Patience<'_>,
) -> Result<OwnedFd, DialError> {
    let mut last = None;
    for (i, address) in addresses.iter().enumerate() {
        if let Some(kind) = reach.refuses(address.ip()) {
            last.get_or_insert(DialError::Prohibited(address.ip(), kind));
            continue;
        }
        let left = patience.deadline.saturating_duration_since(Instant::now());
        let share = if i + 1 == addresses.len() {
            left
        } else {
            left / 2
        };
        match connect(
            address,
            Patience {
                deadline: Instant::now() + share,
                ..patience
            },
        ) {
            Err(DialError::Gone) => return Err(DialError::Gone),
            Err(e) => last = Some(e),
            done => return done,
        }
    }
    Err(last.unwrap_or(DialError::Late))
}

fn connect(address: &SocketAddr, patience: Patience<'_>) -> Result<OwnedFd, DialError> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let failed = |e: Errno| DialError::Connect(e.into());
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket =
        rustix::net::socket_with(family, SocketType::STREAM, flags, None).map_err(failed)?;
    sockopt::set_tcp_nodelay(&socket, true).map_err(failed)?;
    match rustix::net::connect(&socket, address) {
        Ok(()) => {}
        Err(Errno::INPROGRESS | Errno::INTR) => {
            let upstream = Some((socket.as_fd(), PollFlags::OUT));
            match wait(
                patience.client,
                PollFlags::empty(),
                upstream,
                Some(patience.deadline),
            ) {
                Ok(Woken::Ready) => {}
                Ok(Woken::Late) => return Err(DialError::Late),
                Ok(Woken::Gone) => return Err(DialError::Gone),
                Err(e) => return Err(DialError::Connect(e)),
            }
            sockopt::socket_error(&socket)
                .map_err(failed)?
                .map_err(failed)?;
        }
        Err(e) => return Err(failed(e)),
    }
    // From here on single calls say whether they may block.
    rustix::io::ioctl_fionbio(&socket, false).map_err(failed)?;
    wait::prepare(&socket).map_err(DialError::Connect)?;
    Ok(socket)
}

/// What ureq's connector and our transport below it share.
struct Shared {
    client: OwnedFd,
    deadline: Instant,
    socket: Mutex<Option<Arc<OwnedFd>>>,
    /// What really went wrong; ureq's error types cannot carry it.
    failure: Mutex<Option<DialError>>,
}

impl Shared {
    fn patience(&self) -> Patience<'_> {
        Patience {
            client: self.client.as_fd(),
            deadline: self.deadline,
        }
    }

    fn fail(&self, failure: DialError) -> ureq::Error {
        *self.failure.lock().unwrap_or_else(|e| e.into_inner()) = Some(failure);
        ureq::Error::ConnectionFailed
    }

    fn connect(
        self: &Arc<Self>,
        details: &ConnectionDetails<'_>,
    ) -> Result<Box<dyn Transport>, ureq::Error> {
        let addresses: Vec<SocketAddr> = details.addrs.iter().copied().collect();
        // The proxy is where the user's own setting says.
        let socket =
            connect_any(&addresses, Reach::Anywhere, self.patience()).map_err(|e| self.fail(e))?;
        let socket = Arc::new(socket);
        *self.socket.lock().unwrap_or_else(|e| e.into_inner()) = Some(socket.clone());
        let buffers = LazyBuffers::new(4096, 4096);
        Ok(Box::new(Pipe {
            socket,
            buffers,
            shared: self.clone(),
        }))
    }
}

/// Resolves the proxy's own name.
struct NamesOf(Arc<Shared>);

impl fmt::Debug for NamesOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NamesOf")
    }
}

impl Resolver for NamesOf {
    fn resolve(
        &self,
        uri: &Uri,
        _: &Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri
            .host()
            .unwrap_or_default()
            .trim_start_matches('[')
            .trim_end_matches(']');
        let port = uri.port_u16().unwrap_or(80);
        let found = match host.parse::<IpAddr>() {
            Ok(ip) => vec![SocketAddr::new(ip, port)],
            Err(_) => resolve(host, port, self.0.patience()).map_err(|e| self.0.fail(e))?,
        };
        let mut addresses = self.empty();
        found
            .into_iter()
            .take(ADDRESSES)
            .for_each(|a| addresses.push(a));
        Ok(addresses)
    }
}

/// The transport that ureq speaks CONNECT over.
struct Pipe {
    socket: Arc<OwnedFd>,
    buffers: LazyBuffers,
    shared: Arc<Shared>,
}

impl fmt::Debug for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pipe")
    }
}

impl Pipe {
    fn ready(&self, flags: PollFlags) -> Result<(), ureq::Error> {
        let patience = self.shared.patience();
        let upstream = Some((self.socket.as_fd(), flags));
        match wait(
            patience.client,
            PollFlags::empty(),
            upstream,
            Some(patience.deadline),
        ) {
            Ok(Woken::Ready) => Ok(()),
            Ok(Woken::Late) => Err(self.shared.fail(DialError::Late)),
            Ok(Woken::Gone) => Err(self.shared.fail(DialError::Gone)),
            Err(e) => Err(self.shared.fail(DialError::Connect(e))),
        }
    }
}

impl Transport for Pipe {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), ureq::Error> {
        let mut sent = 0;
        while sent < amount {
            let output = &self.buffers.output()[sent..amount];
            match wait::send(self.socket.as_fd(), output) {
                Ok(0) => self.ready(PollFlags::OUT)?,
                Ok(n) => sent += n,
                Err(e) => return Err(self.shared.fail(DialError::Connect(e))),
            }
        }
        Ok(())
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, ureq::Error> {
        loop {
            // One byte at a time: what follows the proxy's answer belongs to the upstream, and the
            // socket goes on without this buffer.
            let Some(room) = self.buffers.input_append_buf().get_mut(..1) else {
                return Err(self
                    .shared
                    .fail(DialError::Proxy("the proxy's answer is too long".into())));
            };
            match wait::receive(self.socket.as_fd(), room, false) {
                Ok(Received::Data(n)) => {
                    self.buffers.input_appended(n);
                    return Ok(true);
                }
                Ok(Received::Nothing) => self.ready(PollFlags::IN)?,
                Ok(Received::End) => return Ok(false),
                Err(e) => return Err(self.shared.fail(DialError::Connect(e))),
            }
        }
    }

    fn is_open(&mut self) -> bool {
        true
    }
}
