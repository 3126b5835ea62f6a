//! Where the lines go: a descriptor that is written to without ever waiting for it, unless the audit
//! is required.
//!
//! Whole lines only: each is one write(2). What the system took a part of (a disk that was about to
//! be full) is completed before anything else is written. A line that cannot be written is counted.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags, fcntl_getfl, fstat, open};
use rustix::io::Errno;
use rustix::net::SendFlags;

use crate::error::say;
use crate::sys;

/// How long a line that must be written may wait for its reader.
const PATIENCE: Duration = Duration::from_millis(500);

/// An open audit. Its descriptor is close-on-exec: the command never has it.
#[derive(Debug)]
pub struct Sink {
    fd: OwnedFd,
    kind: Kind,
    state: Mutex<State>,
}

/// How a write is kept from waiting.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// O_NONBLOCK, on an open file description that is ours alone.
    Own,
    /// MSG_DONTWAIT.
    Socket,
    /// Asked before each write: O_NONBLOCK would hold for everybody who shares the description.
    Shared,
}

#[derive(Debug, Default)]
struct State {
    /// The end of a line of which the system took only the beginning.
    rest: Vec<u8>,
    lost: u64,
    said: bool,
    /// The last line was lost: who must write does not wait in vain again.
    failing: bool,
}

impl Sink {
    /// Opens a file to append to; one that does not exist is created for its owner alone.
    pub fn open(path: &Path) -> io::Result<Sink> {
        let flags = flags() | OFlags::CREATE;
        let fd = open(path, flags, Mode::RUSR | Mode::WUSR)?;
        Ok(Sink::new(fd, Kind::Own))
    }

    /// Takes over a descriptor that this process was started with.
    pub fn claim(number: RawFd) -> io::Result<Sink> {
        let fd = sys::inherited::claim(number)?;
        if FileType::from_raw_mode(fstat(&fd)?.st_mode) == FileType::Socket {
            return Ok(Sink::new(fd, Kind::Socket));
        }
        if fcntl_getfl(&fd)? & OFlags::RWMODE == OFlags::RDONLY {
            return Err(io::Error::other("it is not open for writing"));
        }
        // The same file once more, described by flags of its own (proc_pid_fd(5)).
        let again = format!("/proc/self/fd/{}", fd.as_raw_fd());
        Ok(match open(again, flags(), Mode::empty()) {
            Ok(own) => Sink::new(own, Kind::Own),
            Err(_) => Sink::new(fd, Kind::Shared),
        })
    }

    fn new(fd: OwnedFd, kind: Kind) -> Sink {
        Sink {
            fd,
            kind,
            state: Mutex::default(),
        }
    }

    /// Writes a line. With `must`, waits a moment for a reader that does not keep up.
    ///
    /// # Errors
    /// Why it was not written in full, as the end of a sentence. It has been counted.
    pub fn write(&self, line: &str, must: bool) -> Result<(), String> {
        let mut deadline = None;
        loop {
            let mut state = self.state();
            let error = match self.attempt(&mut state, line.as_bytes()) {
                Ok(()) => {
                    state.failing = false;
                    return Ok(());
                }
                Err(error) => error,
            };
            if error == Errno::AGAIN && must && !state.failing && state.rest.is_empty() {
                drop(state);
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + PATIENCE);
                if self.is_writable(deadline.saturating_duration_since(Instant::now())) {
                    continue;
                }
                state = self.state();
            }
            state.failing = true;
            state.lost += 1;
            let said = std::mem::replace(&mut state.said, true);
            drop(state);
            let why = describe(error);
            if !said {
                say(&format!("audit: 1 line lost so far: {why}"));
            }
            return Err(why);
        }
    }

    /// Says how many lines were lost, if any were.
    pub fn finish(&self) {
        let mut state = self.state();
        // What can still be completed is not lost.
        let _ = self.attempt(&mut state, b"");
        match state.lost {
            0 => {}
            1 => say("audit: 1 line lost"),
            lost => say(&format!("audit: {lost} lines lost")),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what is left of the last line, then this one.
    fn attempt(&self, state: &mut State, line: &[u8]) -> Result<(), Errno> {
        while !state.rest.is_empty() {
            let taken = self.put(&state.rest)?;
            state.rest.drain(..taken);
            if state.rest.is_empty() {
                // It was counted when it was cut.
                state.lost = state.lost.saturating_sub(1);
            }
        }
        let mut left = line;
        while !left.is_empty() {
            match self.put(left) {
                Ok(taken) => left = &left[taken..],
                Err(error) => {
                    if left.len() < line.len() {
                        state.rest = left.to_vec();
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// One write that does not wait; never 0 bytes.
    fn put(&self, bytes: &[u8]) -> Result<usize, Errno> {
        loop {
            let written = match self.kind {
                Kind::Own => rustix::io::write(&self.fd, bytes),
                Kind::Socket => {
                    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                    rustix::net::send(&self.fd, bytes, flags)
                }
                Kind::Shared if !self.is_writable(Duration::ZERO) => Err(Errno::AGAIN),
                Kind::Shared => rustix::io::write(&self.fd, bytes),
            };
            match written {
                Ok(0) => return Err(Errno::IO),
                Err(Errno::INTR) => {}
                written => return written,
            }
        }
    }

    /// Whether the descriptor takes a line within this time.
    fn is_writable(&self, patience: Duration) -> bool {
        let patience = Timespec {
            tv_sec: 0,
            tv_nsec: patience.subsec_nanos().into(),
        };
        let mut fds = [PollFd::new(&self.fd, PollFlags::OUT)];
        poll(&mut fds, Some(&patience)).is_ok_and(|ready| ready > 0)
    }
}

fn flags() -> OFlags {
    OFlags::WRONLY | OFlags::APPEND | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC
}

fn describe(error: Errno) -> String {
    match error {
        Errno::AGAIN => "its reader does not keep up".into(),
        Errno::PIPE => "its reader has gone".into(),
        error => io::Error::from(error).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::IntoRawFd;
    use std::os::unix::net::UnixStream;

    /// As a caller would have handed it down.
    fn claimed(fd: impl IntoRawFd) -> Sink {
        Sink::claim(fd.into_raw_fd()).unwrap()
    }

    fn line(number: usize) -> String {
        format!("{number} {}\n", "x".repeat(3000))
    }

    #[test]
    fn a_pipe_and_a_file_are_opened_anew_and_the_original_is_left_as_it_was() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let shared = writer.try_clone().unwrap();
        let sink = claimed(writer);
        assert!(matches!(sink.kind, Kind::Own));
        assert!(!fcntl_getfl(&shared).unwrap().contains(OFlags::NONBLOCK));
        sink.write("a\n", false).unwrap();
        drop((sink, shared));
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "a\n");
    }

    #[test]
    fn a_shared_pipe_is_not_waited_for_either() {
        let (_reader, writer) = std::io::pipe().unwrap();
        let sink = Sink::new(writer.into(), Kind::Shared);
        let taken = (0..1000).take_while(|&n| sink.write(&line(n), false).is_ok());
        assert!((1..1000).contains(&taken.count()));
    }

    #[test]
    fn a_socket_is_never_waited_for_and_its_peer_gets_whole_lines() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let writer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut reader, _) = listener.accept().unwrap();
        let sink = claimed(writer);
        assert!(matches!(sink.kind, Kind::Socket));
        // Until the system takes no more, which is in the middle of a line.
        let count = (0..).take_while(|&n| sink.write(&line(n), false).is_ok());
        let count = count.count();
        assert_eq!(sink.state().lost, 1);
        let cut = !sink.state().rest.is_empty();
        let reading = std::thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            text
        });
        // The reader makes room: the cut line is completed before another one goes out.
        let deadline = Instant::now() + Duration::from_secs(10);
        while sink.write("last\n", false).is_err() {
            assert!(Instant::now() < deadline);
            sink.is_writable(Duration::from_millis(100));
        }
        drop(sink);
        let text = reading.join().unwrap();
        let mut want: String = (0..count + usize::from(cut)).map(line).collect();
        want += "last\n";
        assert!(text == want, "{} of {} bytes", text.len(), want.len());
    }

    #[test]
    fn a_peer_that_has_gone_is_an_error_and_no_signal() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let sink = claimed(ours);
        drop(theirs);
        assert_eq!(sink.write("a\n", true).unwrap_err(), "its reader has gone");
    }
}
