//! One thread per live stream, and a few that wait for the next.
//!
//! A waiting thread has its stream made already and sleeps on our end of it: to dial is to give the
//! other end away, and what wakes the thread is the first request. So a stream that nobody serves
//! cannot come to be, and a dial neither starts nor wakes a thread as long as one waits.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, shutdown, socketpair};

use super::wait::{Woken, wait};
use crate::audit::Refusal;

/// The stack of a serving thread. Only touched pages cost memory; the deepest known use, a TLS
/// handshake in an unoptimised build, stays below half of it.
const STACK: usize = 256 * 1024;
/// Threads that are kept waiting with a stream each.
const WAITING: usize = 8;
/// How long one waits for a dial before it leaves.
const LINGER: Duration = Duration::from_secs(1);

/// What is done with the streams.
pub trait Serve: Send + Sync + 'static {
    /// Serves one stream, which has this number, to its end.
    fn serve(&self, number: u64, stream: &OwnedFd);

    /// The last thread has left: nobody dials just now.
    fn rest(&self) {}
}

impl<S: Serve> Serve for Arc<S> {
    fn serve(&self, number: u64, stream: &OwnedFd) {
        S::serve(self, number, stream);
    }

    fn rest(&self) {
        S::rest(self);
    }
}

/// The threads that serve streams.
pub struct Crew {
    shared: Arc<Shared>,
}

struct Shared {
    service: Box<dyn Serve>,
    /// The most streams at a time.
    limit: usize,
    /// How long a dialled stream may wait for its first byte.
    idle: Option<Duration>,
    state: Mutex<State>,
    /// Told when the last thread has gone.
    empty: Condvar,
}

#[derive(Default)]
struct State {
    /// One for each thread; `None` while it has no stream.
    seats: Vec<Option<Seat>>,
    /// Those that no thread has.
    vacant: Vec<usize>,
    /// The ends to give away, with the seats of their threads, the last to be made first.
    waiting: Vec<(usize, OwnedFd)>,
    threads: usize,
    /// Streams that are dialled and not ended.
    live: usize,
    /// Streams that were ever dialled.
    dialled: u64,
    closing: bool,
}

struct Seat {
    /// Our end of the stream.
    stream: Arc<OwnedFd>,
    /// When the other end was given away, if it was.
    dialled: Option<Instant>,
    /// Which dial that was, from 1 up.
    number: u64,
}

impl std::fmt::Debug for Crew {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Crew")
    }
}

impl Crew {
    pub fn new(limit: usize, idle: Option<Duration>, service: impl Serve) -> Crew {
        let shared = Shared {
            service: Box::new(service),
            limit,
            idle,
            state: Mutex::default(),
            empty: Condvar::new(),
        };
        Crew {
            shared: Arc::new(shared),
        }
    }

    /// The peer's end of a stream that is served already, and its number; refused when the limit is
    /// reached, or no descriptor or thread can be had. Dropping it ends the stream.
    pub fn dial(&self) -> Result<(u64, OwnedFd), Refusal> {
        let mut state = self.shared.state();
        if state.closing || state.live >= self.shared.limit {
            return Err(Refusal::Limit);
        }
        let number = state.dialled + 1;
        if let Some((seat, theirs)) = state.waiting.pop() {
            state.live += 1;
            state.dialled = number;
            if let Some(seat) = &mut state.seats[seat] {
                seat.dialled = Some(Instant::now());
                seat.number = number;
            }
            return Ok((number, theirs));
        }
        let (ours, theirs) = pair().ok_or(Refusal::Resources)?;
        let seat = state.sit(Seat {
            stream: ours,
            dialled: Some(Instant::now()),
            number,
        });
        state.live += 1;
        state.dialled = number;
        state.threads += 1;
        drop(state);
        let shared = self.shared.clone();
        let builder = std::thread::Builder::new()
            .name("stream".into())
            .stack_size(STACK);
        if builder.spawn(move || shared.work(seat)).is_err() {
            self.shared.leave(seat);
            return Err(Refusal::Resources);
        }
        Ok((number, theirs))
    }

    /// Cuts every stream and waits for the threads, at most this long; true when all have gone.
    pub fn dismiss(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut state = self.shared.state();
        state.closing = true;
        state.waiting.clear();
        for seat in state.seats.iter().flatten() {
            // Every wait of a thread looks at the client's hang-up.
            let _ = shutdown(seat.stream.as_fd(), Shutdown::Both);
        }
        while state.threads > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.shared.empty.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life of a thread: a stream, and then perhaps another.
    fn work(&self, seat: usize) {
        let mut stream = self.stream(seat);
        while let Some(current) = stream {
            match self.await_first_byte(seat, &current) {
                First::Byte => self.service.serve(self.number(seat), &current),
                First::Never => {}
                First::NoDial => break,
            }
            stream = self.next(seat, current);
        }
        self.leave(seat);
    }

    fn stream(&self, seat: usize) -> Option<Arc<OwnedFd>> {
        self.state().seats[seat]
            .as_ref()
            .map(|seat| seat.stream.clone())
    }

    fn number(&self, seat: usize) -> u64 {
        let state = self.state();
        state.seats[seat].as_ref().map_or(0, |seat| seat.number)
    }

    fn await_first_byte(&self, seat: usize, stream: &OwnedFd) -> First {
        let mut deadline = Some(Instant::now() + LINGER);
        loop {
            match wait(stream.as_fd(), PollFlags::IN, None, deadline) {
                // A hang-up still lets what was sent before be read.
                Ok(Woken::Ready | Woken::Gone) => return First::Byte,
                Err(_) => return First::Never,
                Ok(Woken::Late) => {}
            }
            let mut state = self.state();
            let Some(dialled) = state.seats[seat].as_ref().and_then(|seat| seat.dialled) else {
                // From here on nobody can dial it.
                state.withdraw(seat);
                return First::NoDial;
            };
            drop(state);
            // The peer's silence counts from the dial on.
            deadline = self.idle.map(|idle| dialled + idle);
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return First::Never;
            }
        }
    }

    /// Ends a stream and makes the next, unless enough threads wait already. No system call is made
    /// while the state is locked: every dial needs it.
    fn next(&self, seat: usize, ended: Arc<OwnedFd>) -> Option<Arc<OwnedFd>> {
        let mut state = self.state();
        let old = state.seats[seat].take();
        let unused = state
            .waiting
            .iter()
            .position(|(waiting, _)| *waiting == seat);
        let unused = unused.map(|at| state.waiting.swap_remove(at));
        let enough = state.has_enough();
        drop(state);
        // Whoever then sees the place free finds the descriptor closed.
        let dialled = old.as_ref().is_some_and(|old| old.dialled.is_some());
        drop((old, ended, unused));
        let next = if enough { None } else { pair() };
        let mut state = self.state();
        state.live -= usize::from(dialled);
        if state.closing {
            return None;
        }
        let (ours, theirs) = next?;
        state.seats[seat] = Some(Seat {
            stream: ours.clone(),
            dialled: None,
            number: 0,
        });
        state.waiting.push((seat, theirs));
        Some(ours)
    }

    /// A thread ends, or never began.
    fn leave(&self, seat: usize) {
        let mut state = self.state();
        if let Some(unused) = state.seats[seat].take() {
            state.live -= usize::from(unused.dialled.is_some());
        }
        state.vacant.push(seat);
        state.threads -= 1;
        if state.threads == 0 {
            self.empty.notify_all();
            drop(state);
            self.service.rest();
        }
    }
}

/// What a waiting thread is woken by.
enum First {
    /// The first byte, or a hang-up.
    Byte,
    /// Neither, for as long as a stream may be silent.
    Never,
    /// Nobody has dialled.
    NoDial,
}

impl State {
    /// A seat for a new thread.
    fn sit(&mut self, seat: Seat) -> usize {
        let at = self.vacant.pop().unwrap_or(self.seats.len());
        if at == self.seats.len() {
            self.seats.push(None);
        }
        self.seats[at] = Some(seat);
        at
    }

    /// Takes a stream back that nobody has dialled.
    fn withdraw(&mut self, seat: usize) -> Option<(usize, OwnedFd)> {
        let at = self
            .waiting
            .iter()
            .position(|(waiting, _)| *waiting == seat)?;
        Some(self.waiting.swap_remove(at))
    }

    fn has_enough(&self) -> bool {
        self.closing || self.waiting.len() >= WAITING
    }
}

/// Both ends of a stream: ours, and the peer's.
fn pair() -> Option<(Arc<OwnedFd>, OwnedFd)> {
    let pair = socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    );
    let (ours, theirs) = pair.ok()?;
    Some((Arc::new(ours), theirs))
}
