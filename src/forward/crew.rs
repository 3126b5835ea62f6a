//! One thread per live stream, and a few that wait for the next.
//!
//! A thread is reserved before the peer gets its descriptor: a stream that nobody serves cannot come
//! to be. Starting a thread costs more than all the rest of a dial, so a thread that has served one
//! stream waits a while for another.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::{Shutdown, shutdown};

/// The stack of a serving thread. Only touched pages cost memory; the deepest known use, a TLS
/// handshake in an unoptimised build, stays below half of it.
const STACK: usize = 256 * 1024;
/// How long a thread waits for another stream.
const LINGER: Duration = Duration::from_secs(5);

/// What is done with each stream.
type Serve = dyn Fn(&OwnedFd) + Send + Sync;

/// The threads that serve streams.
pub struct Crew {
    shared: Arc<Shared>,
}

struct Shared {
    serve: Box<Serve>,
    /// The most streams at a time.
    limit: usize,
    state: Mutex<State>,
    /// Told when the last thread has gone.
    empty: Condvar,
}

#[derive(Default)]
struct State {
    /// Every thread.
    posts: Vec<Arc<Post>>,
    /// Those that wait for a stream, the last to come back at the end.
    idle: Vec<Arc<Post>>,
    /// Streams that are reserved or served.
    live: usize,
    closing: bool,
}

/// Where a thread gets its streams.
#[derive(Default)]
struct Post {
    order: Mutex<Order>,
    called: Condvar,
}

#[derive(Default)]
struct Order {
    stream: Option<Arc<OwnedFd>>,
    dismissed: bool,
}

impl std::fmt::Debug for Crew {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Crew")
    }
}

impl Crew {
    pub fn new(limit: usize, serve: impl Fn(&OwnedFd) + Send + Sync + 'static) -> Crew {
        let shared = Shared {
            serve: Box::new(serve),
            limit,
            state: Mutex::default(),
            empty: Condvar::new(),
        };
        Crew {
            shared: Arc::new(shared),
        }
    }

    /// A thread that is ready for a stream; `None` when the limit is reached or none can be started.
    pub fn reserve(&self) -> Option<Reservation> {
        let mut state = self.shared.state();
        if state.closing || state.live >= self.shared.limit {
            return None;
        }
        state.live += 1;
        if let Some(post) = state.idle.pop() {
            return Some(Reservation {
                shared: self.shared.clone(),
                post: Some(post),
            });
        }
        let post = Arc::new(Post::default());
        state.posts.push(post.clone());
        drop(state);
        let (shared, own) = (self.shared.clone(), post.clone());
        let builder = std::thread::Builder::new()
            .name("stream".into())
            .stack_size(STACK);
        if builder.spawn(move || shared.work(&own)).is_err() {
            let mut state = self.shared.state();
            state.live -= 1;
            state.forget(&post);
            return None;
        }
        Some(Reservation {
            shared: self.shared.clone(),
            post: Some(post),
        })
    }

    /// Cuts every stream and waits for the threads, at most this long; true when all have gone.
    pub fn dismiss(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut state = self.shared.state();
        state.closing = true;
        for post in &state.posts {
            let mut order = post.order();
            order.dismissed = true;
            if let Some(stream) = &order.stream {
                // Every wait of the thread looks at the client's hang-up.
                let _ = shutdown(stream.as_fd(), Shutdown::Both);
            }
            drop(order);
            post.called.notify_one();
        }
        while !state.posts.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self
                .shared
                .empty
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        true
    }
}

/// A thread that waits for its stream.
pub struct Reservation {
    shared: Arc<Shared>,
    post: Option<Arc<Post>>,
}

impl Reservation {
    /// Has the thread serve this stream.
    pub fn serve(mut self, stream: OwnedFd) {
        if let Some(post) = self.post.take() {
            let mut order = post.order();
            if order.dismissed {
                let _ = shutdown(&stream, Shutdown::Both);
            }
            order.stream = Some(Arc::new(stream));
            drop(order);
            post.called.notify_one();
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(post) = self.post.take() {
            let mut state = self.shared.state();
            state.live -= 1;
            state.idle.push(post);
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, post: &Arc<Post>) {
        while let Some(stream) = self.next(post) {
            (self.serve)(&stream);
            // Before the stream counts as ended: whoever sees the place free finds it free.
            let order = post.order().stream.take();
            drop((order, stream));
            let mut state = self.state();
            state.live -= 1;
            state.idle.push(post.clone());
        }
        let mut state = self.state();
        state.forget(post);
        if state.posts.is_empty() {
            self.empty.notify_all();
        }
    }

    /// The next stream; `None` when the thread is to end.
    fn next(&self, post: &Arc<Post>) -> Option<Arc<OwnedFd>> {
        let mut order = post.order();
        loop {
            if let Some(stream) = &order.stream {
                return Some(stream.clone());
            }
            if order.dismissed {
                return None;
            }
            let (next, waited) = post
                .called
                .wait_timeout(order, LINGER)
                .unwrap_or_else(PoisonError::into_inner);
            order = next;
            if waited.timed_out() && order.stream.is_none() && !order.dismissed {
                drop(order);
                // Only a thread that nobody has reserved may leave.
                if self.state().leave(post) {
                    return None;
                }
                order = post.order();
            }
        }
    }
}

impl State {
    fn leave(&mut self, post: &Arc<Post>) -> bool {
        let found = self.idle.iter().position(|p| Arc::ptr_eq(p, post));
        found.map(|at| self.idle.remove(at)).is_some()
    }

    fn forget(&mut self, post: &Arc<Post>) {
        self.leave(post);
        self.posts.retain(|p| !Arc::ptr_eq(p, post));
    }
}

impl Post {
    fn order(&self) -> MutexGuard<'_, Order> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
