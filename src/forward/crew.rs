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

/// What is done with each stream, which comes with its number.
type Serve = dyn Fn(u64, &OwnedFd) + Send + Sync;

/// The threads that serve streams.
pub struct Crew {
    shared: Arc<Shared>,
}

struct Shared {
    serve: Box<Serve>,
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
    pub fn new(
        limit: usize,
        idle: Option<Duration>,
        serve: impl Fn(u64, &OwnedFd) + Send + Sync + 'static,
    ) -> Crew {
        let shared = Shared {
            serve: Box::new(serve),
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
            if self.is_wanted(seat, &current) {
                (self.serve)(self.number(seat), &current);
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

    /// Waits for the first byte; false when none comes in time.
    fn is_wanted(&self, seat: usize, stream: &OwnedFd) -> bool {
        let mut deadline = self.idle.map(|idle| Instant::now() + idle);
        loop {
            match wait(stream.as_fd(), PollFlags::IN, None, deadline) {
                // A hang-up still lets what was sent before be read.
                Ok(Woken::Ready | Woken::Gone) => return true,
                Err(_) => return false,
                // The time counts from the dial on.
                Ok(Woken::Late) => {
                    let dialled = self.state().seats[seat]
                        .as_ref()
                        .and_then(|seat| seat.dialled);
                    let end = dialled.unwrap_or_else(Instant::now) + self.idle.unwrap_or_default();
                    if end <= Instant::now() {
                        return false;
                    }
                    deadline = Some(end);
                }
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
        }
    }
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
