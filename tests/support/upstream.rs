//! A real upstream: a listener on loopback, plain or TLS, one thread per connection.
//!
//! [`Upstream::scripted`] hands each connection to the test's own code, byte for byte, so that an
//! upstream can be as wrong as the test needs. [`Upstream::api`] (in api.rs) is a correct one.

use std::any::Any;
use std::collections::VecDeque;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use rustls::ServerConfig;

use super::{Ca, Conn, DEADLINE, Recorded};

/// A listening upstream. Dropping it ends every connection and joins every thread; a script that
/// panicked fails the test then.
pub struct Upstream {
    ca: Option<Ca>,
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    pub(super) changed: Condvar,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) stopping: bool,
    connections: usize,
    failed_handshakes: usize,
    /// Connections whose script has not returned.
    served: usize,
    pub(super) requests: Vec<Recorded>,
    pub(super) live: Vec<(usize, TcpStream)>,
    workers: Vec<JoinHandle<()>>,
    panics: Vec<Box<dyn Any + Send>>,
    /// Bytes that the test hands to a handler that waits for them, oldest first.
    pub(super) gate: VecDeque<Vec<u8>>,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `ready` gives something or the deadline passes.
    pub(super) fn wait<T>(&self, mut ready: impl FnMut(&mut State) -> Option<T>) -> Option<T> {
        let end = Instant::now() + DEADLINE;
        let mut state = self.lock();
        loop {
            if let Some(value) = ready(&mut state) {
                return Some(value);
            }
            let left = end.checked_duration_since(Instant::now())?;
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

impl Upstream {
    /// An upstream whose every connection is served by `script`, in a thread of its own. What the
    /// script leaves open is closed cleanly when it returns.
    pub fn scripted(tls: bool, script: impl Fn(&mut Conn) + Send + Sync + 'static) -> Upstream {
        let ca = tls.then(Ca::new);
        let config = ca.as_ref().map(|ca| ca.server_config(&[]));
        Upstream::listen(ca, config, script)
    }

    /// As `scripted`, with an authority and a configuration of the test's own.
    pub fn listen(
        ca: Option<Ca>,
        config: Option<Arc<ServerConfig>>,
        script: impl Fn(&mut Conn) + Send + Sync + 'static,
    ) -> Upstream {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen on loopback");
        let address = listener.local_addr().expect("the listener has an address");
        let shared = Arc::new(Shared::default());
        let script = Arc::new(script);
        let acceptor = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                for tcp in listener.incoming() {
                    let Ok(tcp) = tcp else { continue };
                    if shared.lock().stopping {
                        return;
                    }
                    spawn_worker(&shared, tcp, config.clone(), Arc::clone(&script));
                }
            }
        });
        Upstream {
            ca,
            address,
            shared,
            acceptor: Some(acceptor),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Its origin by address, without a trailing slash.
    pub fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme(), self.port())
    }

    /// Its origin by name.
    pub fn url_by_name(&self) -> String {
        format!("{}://localhost:{}", self.scheme(), self.port())
    }

    fn scheme(&self) -> &'static str {
        if self.ca.is_some() { "https" } else { "http" }
    }

    /// The authority of a TLS upstream.
    pub fn ca(&self) -> Option<&Ca> {
        self.ca.as_ref()
    }

    /// How many connections were accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.lock().connections
    }

    /// How many of them never finished their TLS handshake.
    pub fn failed_handshakes(&self) -> usize {
        self.shared.lock().failed_handshakes
    }

    /// Waits until at least `count` connections were accepted.
    pub fn wait_connections(&self, count: usize) {
        let seen = self
            .shared
            .wait(|state| (state.connections >= count).then_some(()));
        assert!(
            seen.is_some(),
            "{} of {count} connections within the deadline",
            self.connections()
        );
    }

    /// Every request head seen so far.
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.lock().requests.clone()
    }

    /// Waits until at least `count` request heads were seen, and gives them all.
    pub fn wait_requests(&self, count: usize) -> Vec<Recorded> {
        let seen = self
            .shared
            .wait(|state| (state.requests.len() >= count).then(|| state.requests.clone()));
        seen.unwrap_or_else(|| panic!("fewer than {count} requests within the deadline"))
    }

    /// Waits until no connection is being served any more.
    pub fn wait_idle(&self) {
        let idle = self.shared.wait(|state| (state.served == 0).then_some(()));
        assert!(idle.is_some(), "connections are still open at the deadline");
    }

    /// Hands `bytes` to the handler that waits for them next (see [`Conn::wait_gate`]).
    pub fn open_gate(&self, bytes: impl Into<Vec<u8>>) {
        self.shared.lock().gate.push_back(bytes.into());
        self.shared.changed.notify_all();
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        let (live, workers) = {
            let mut state = self.shared.lock();
            state.stopping = true;
            (
                std::mem::take(&mut state.live),
                std::mem::take(&mut state.workers),
            )
        };
        self.shared.changed.notify_all();
        for (_, tcp) in live {
            let _ = tcp.shutdown(Shutdown::Both);
        }
        // Wakes the acceptor, which then sees that it has to stop.
        let _ = TcpStream::connect(self.address);
        for thread in self.acceptor.take().into_iter().chain(workers) {
            let _ = thread.join();
        }
        let panicked = self.shared.lock().panics.pop();
        if let Some(payload) = panicked.filter(|_| !thread::panicking()) {
            std::panic::resume_unwind(payload);
        }
    }
}

fn spawn_worker(
    shared: &Arc<Shared>,
    tcp: TcpStream,
    config: Option<Arc<ServerConfig>>,
    script: Arc<impl Fn(&mut Conn) + Send + Sync + 'static>,
) {
    let _ = tcp.set_nodelay(true);
    let _ = tcp.set_read_timeout(Some(DEADLINE));
    let _ = tcp.set_write_timeout(Some(DEADLINE));
    let mut state = shared.lock();
    let index = state.connections;
    state.connections += 1;
    state.served += 1;
    let handle = tcp.try_clone().expect("duplicate a connection");
    state.live.push((index, handle));
    let worker = thread::spawn({
        let shared = Arc::clone(shared);
        move || {
            let served = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let Some(mut conn) = Conn::accept(index, tcp, config, &shared) else {
                    shared.lock().failed_handshakes += 1;
                    return;
                };
                script(&mut conn);
                conn.close_cleanly();
            }));
            if let Err(payload) = served {
                shared.lock().panics.push(payload);
            }
            let mut state = shared.lock();
            state.live.retain(|(live, _)| *live != index);
            state.served -= 1;
            drop(state);
            shared.changed.notify_all();
        }
    });
    state.workers.push(worker);
    drop(state);
    shared.changed.notify_all();
}
