//! An upstream that does what each request's target asks of it, faults included, and checks every
//! request that reaches it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::body;

/// What the upstream does with a request. The names stand in the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Answers with a length.
    None,
    /// Answers in chunks.
    Chunked,
    /// Answers without a length and closes.
    ByClose,
    /// Answers with a length and closes without a word of it, as servers do with idle connections.
    Leaves,
    /// Answers in small pieces, slowly, after an interim response.
    Slow,
    /// Answers 413 before it has read the body.
    Early,
    /// Ends the connection in the middle of the body.
    Cut,
    /// Ends the connection in the middle of a chunked body.
    CutChunks,
    /// Resets the connection in the middle of the body.
    Reset,
    /// Ends the connection in the middle of the head.
    CutHead,
    /// Closes without an answer.
    Silent,
    /// Answers with what is no HTTP.
    Nonsense,
}

pub const FAULTS: [Fault; 12] = [
    Fault::None,
    Fault::Chunked,
    Fault::ByClose,
    Fault::Leaves,
    Fault::Slow,
    Fault::Early,
    Fault::Cut,
    Fault::CutChunks,
    Fault::Reset,
    Fault::CutHead,
    Fault::Silent,
    Fault::Nonsense,
];

impl Fault {
    /// Whether the answer reaches the client in full.
    pub fn spares_the_answer(self) -> bool {
        use Fault::{ByClose, Chunked, Leaves, None, Slow};
        matches!(self, None | Chunked | ByClose | Leaves | Slow)
    }
}

/// The upstream. Its threads end with the program.
pub struct Upstream {
    pub url: String,
    shared: Arc<Shared>,
}

struct Shared {
    key: String,
    live: Mutex<Vec<(u64, TcpStream)>>,
    requests: AtomicU64,
    wrong: AtomicU64,
}

impl Upstream {
    pub fn start(key: &str, tls: Option<Arc<ServerConfig>>) -> io::Result<Upstream> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr()?);
        let shared = Arc::new(Shared {
            key: key.to_owned(),
            live: Mutex::default(),
            requests: AtomicU64::new(0),
            wrong: AtomicU64::new(0),
        });
        let served = shared.clone();
        thread::spawn(move || {
            for (number, tcp) in (0..).zip(listener.incoming()) {
                let Ok(tcp) = tcp else { continue };
                let (shared, tls) = (served.clone(), tls.clone());
                thread::spawn(move || shared.serve(number, tcp, tls));
            }
        });
        Ok(Upstream { url, shared })
    }

    /// Requests that were read in full.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Relaxed)
    }

    /// Requests with a byte in them that no client sent, or without the credential.
    pub fn wrong(&self) -> u64 {
        self.shared.wrong.load(Relaxed)
    }

    /// Ends every connection.
    pub fn close_all(&self) {
        for (_, tcp) in self.shared.live().iter() {
            let _ = tcp.shutdown(Shutdown::Both);
        }
    }
}

/// A connection, plain or not.
enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Stream {
    fn tcp(&self) -> &TcpStream {
        match self {
            Stream::Plain(tcp) => tcp,
            Stream::Tls(tls) => &tls.sock,
        }
    }

    /// Ends our direction as it should be ended, and waits for the peer to end its own.
    fn end(&mut self) {
        if let Stream::Tls(tls) = self {
            tls.conn.send_close_notify();
            let _ = tls.flush();
        }
        let _ = self.tcp().shutdown(Shutdown::Write);
        let _ = io::copy(&mut self.tcp().take(1 << 24), &mut io::sink());
    }

    /// Ends our direction without a goodbye.
    fn cut(&mut self) {
        let _ = self.tcp().shutdown(Shutdown::Write);
        let _ = io::copy(&mut self.tcp().take(1 << 24), &mut io::sink());
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(tcp) => tcp.read(buf),
            Stream::Tls(tls) => tls.read(buf),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(tcp) => tcp.write(buf),
            Stream::Tls(tls) => tls.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(tcp) => tcp.flush(),
            Stream::Tls(tls) => tls.flush(),
        }
    }
}

/// A request head.
struct Head {
    id: u64,
    length: usize,
    fault: Fault,
    framing: Option<Framing>,
}

enum Framing {
    Length(usize),
    Chunked,
}

impl Shared {
    fn live(&self) -> std::sync::MutexGuard<'_, Vec<(u64, TcpStream)>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, number: u64, tcp: TcpStream, tls: Option<Arc<ServerConfig>>) {
        let _ = tcp.set_nodelay(true);
        let Ok(handle) = tcp.try_clone() else { return };
        self.live().push((number, handle));
        let stream = match tls {
            None => Some(Stream::Plain(tcp)),
            Some(config) => ServerConnection::new(config)
                .ok()
                .map(|session| Stream::Tls(Box::new(StreamOwned::new(session, tcp)))),
        };
        if let Some(stream) = stream {
            let mut stream = BufReader::with_capacity(32 * 1024, stream);
            // An error is a peer that has gone, which clients and faults make it do.
            while self.exchange(&mut stream).unwrap_or(false) {}
        }
        self.live().retain(|(other, _)| *other != number);
    }

    /// One request and its answer; whether another may follow.
    fn exchange(&self, stream: &mut BufReader<Stream>) -> io::Result<bool> {
        let Some(head) = self.read_head(stream)? else {
            return Ok(false);
        };
        if head.fault == Fault::Early {
            let answer = b"HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\n\r\nlarge";
            stream.get_mut().write_all(answer)?;
            stream.get_mut().end();
            return Ok(false);
        }
        let sent = match head.framing {
            None => Vec::new(),
            Some(Framing::Length(length)) => {
                let mut sent = vec![0; length];
                stream.read_exact(&mut sent)?;
                sent
            }
            Some(Framing::Chunked) => read_chunks(stream)?,
        };
        if sent != body::of(!head.id, sent.len()) {
            self.complain(&format!("the body of request {}", head.id));
        }
        self.requests.fetch_add(1, Relaxed);
        answer(stream.get_mut(), &head)
    }

    fn read_head(&self, stream: &mut BufReader<Stream>) -> io::Result<Option<Head>> {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let target = line.split(' ').nth(1).unwrap_or_default();
        let mut parts = target.split('/').skip(2);
        let mut number = || parts.next().and_then(|part| part.parse::<u64>().ok());
        let (Some(id), Some(length), Some(fault)) = (number(), number(), number()) else {
            self.complain(&format!("request line {line:?}"));
            return Ok(None);
        };
        let mut head = Head {
            id,
            length: length as usize,
            fault: FAULTS[fault as usize % FAULTS.len()],
            framing: None,
        };
        let (mut keys, mut ids) = (0, 0);
        loop {
            line.clear();
            if stream.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                break;
            };
            match name.to_ascii_lowercase().as_str() {
                "x-key" if value == self.key => keys += 1,
                "x-key" => keys += 2,
                "x-id" if value == id.to_string() => ids += 1,
                "x-id" => ids += 2,
                "content-length" => head.framing = value.parse().ok().map(Framing::Length),
                "transfer-encoding" => head.framing = Some(Framing::Chunked),
                _ => {}
            }
        }
        if (keys, ids) != (1, 1) {
            self.complain(&format!("the head of request {id}"));
        }
        Ok(Some(head))
    }

    fn complain(&self, what: &str) {
        // The first few say it all.
        if self.wrong.fetch_add(1, Relaxed) < 5 {
            eprintln!("soak: upstream: wrong: {what}");
        }
    }
}

fn read_chunks(stream: &mut BufReader<Stream>) -> io::Result<Vec<u8>> {
    let (mut all, mut line) = (Vec::new(), String::new());
    loop {
        line.clear();
        stream.read_line(&mut line)?;
        let size = usize::from_str_radix(line.trim_end(), 16)
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        let start = all.len();
        all.resize(start + size + 2, 0);
        stream.read_exact(&mut all[start..])?;
        if !all.ends_with(b"\r\n") {
            return Err(io::ErrorKind::InvalidData.into());
        }
        all.truncate(start + size);
        if size == 0 {
            return Ok(all);
        }
    }
}

fn answer(stream: &mut Stream, head: &Head) -> io::Result<bool> {
    let whole = body::of(head.id, head.length);
    let half = &whole[..whole.len() / 2];
    let with_length = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", whole.len());
    let in_chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    match head.fault {
        Fault::None | Fault::Leaves => {
            let mut all = with_length.into_bytes();
            all.extend_from_slice(&whole);
            stream.write_all(&all)?;
            if head.fault == Fault::Leaves {
                stream.end();
                return Ok(false);
            }
            return Ok(true);
        }
        Fault::Chunked => {
            stream.write_all(&[&in_chunks[..], &chunks(&whole, 3000), b"0\r\n\r\n"].concat())?;
            return Ok(true);
        }
        Fault::ByClose => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
            stream.write_all(&whole)?;
            stream.end();
        }
        Fault::Slow => {
            stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")?;
            stream.write_all(with_length.as_bytes())?;
            for piece in whole.chunks(whole.len() / 4 + 1) {
                thread::sleep(Duration::from_millis(1));
                stream.write_all(piece)?;
            }
            return Ok(true);
        }
        Fault::Cut => {
            stream.write_all(with_length.as_bytes())?;
            stream.write_all(half)?;
            stream.cut();
        }
        Fault::CutChunks => {
            stream.write_all(&[&in_chunks[..], &chunks(half, 500)].concat())?;
            stream.cut();
        }
        Fault::Reset => {
            stream.write_all(with_length.as_bytes())?;
            stream.write_all(half)?;
            // The last close then resets (socket(7), SO_LINGER).
            set_socket_linger(stream.tcp(), Some(Duration::ZERO))?;
        }
        Fault::CutHead => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Le")?;
            stream.cut();
        }
        Fault::Nonsense => {
            stream.write_all(
                b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            )?;
            stream.end();
        }
        Fault::Silent | Fault::Early => stream.end(),
    }
    Ok(false)
}

fn chunks(bytes: &[u8], size: usize) -> Vec<u8> {
    let mut all = Vec::with_capacity(bytes.len() + 64);
    for chunk in bytes.chunks(size) {
        all.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        all.extend_from_slice(chunk);
        all.extend_from_slice(b"\r\n");
    }
    all
}
