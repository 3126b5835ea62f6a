//! A bare listener before an upstream: what happens below TLS and before it is scripted here.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::support::DEADLINE;

/// Hands every connection to `script`, with its number from 0, in a thread of its own. They end with
/// their peers; the listener stays until the test program ends.
pub fn front(
    address: &str,
    script: impl Fn(usize, TcpStream) + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind(address).expect("listen on loopback");
    let own = listener.local_addr().expect("the listener has an address");
    let script = Arc::new(script);
    thread::spawn(move || {
        for (number, tcp) in listener.incoming().enumerate() {
            let Ok(tcp) = tcp else { continue };
            let _ = tcp.set_nodelay(true);
            let _ = tcp.set_read_timeout(Some(DEADLINE));
            let script = Arc::clone(&script);
            thread::spawn(move || script(number, tcp));
        }
    });
    own
}

/// Joins a connection to another address until both have ended.
pub fn relay(tcp: TcpStream, to: SocketAddr) {
    let Ok(other) = TcpStream::connect(to) else {
        return;
    };
    let _ = other.set_nodelay(true);
    // A pooled connection is silent for longer than any single wait of a test.
    let _ = tcp.set_read_timeout(None);
    let pair = (
        tcp.try_clone().expect("duplicate a connection"),
        other.try_clone().expect("duplicate a connection"),
    );
    let back = thread::spawn(move || one_way(pair.1, pair.0));
    one_way(tcp, other);
    let _ = back.join();
}

fn one_way(mut from: TcpStream, mut to: TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

/// Reads up to the end of a head; what is missing when the peer ended first.
pub fn read_head(tcp: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && matches!(tcp.read(&mut byte), Ok(1)) {
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// Sends one byte at a time, at this pace, for as long as the peer takes them.
pub fn dribble(tcp: &mut TcpStream, bytes: &[u8], pace: Duration) -> bool {
    bytes
        .iter()
        .all(|byte| tcp.write_all(&[*byte]).is_ok() && paced(tcp, pace))
}

/// Lets this time pass unless the peer ends first. What it sends is of no interest.
pub fn paced(tcp: &mut TcpStream, pace: Duration) -> bool {
    tcp.set_read_timeout(Some(pace)).expect("set a timeout");
    match tcp.read(&mut [0; 4096]) {
        Err(err) => err.kind() == io::ErrorKind::WouldBlock,
        Ok(read) => read > 0,
    }
}

/// Whether the peer closes, within the deadline.
pub fn peer_closed(tcp: &mut TcpStream) -> bool {
    let _ = tcp.set_read_timeout(Some(DEADLINE));
    let mut scrap = [0; 16 * 1024];
    loop {
        match tcp.read(&mut scrap) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(err) => return err.kind() != io::ErrorKind::WouldBlock,
        }
    }
}
