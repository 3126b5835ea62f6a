//! The clients: well-behaved ones that check every byte, and others that the broker has to bear.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use crate::body;
use crate::support::{Http, Response, Session};
use crate::upstream::{FAULTS, Fault};

/// What the clients share.
pub struct Load<'s> {
    session: &'s Session,
    /// A dial and its answer belong together only while nobody else dials: not for the broker, for
    /// which streams are interchangeable, but for who counts refusals.
    dialling: Mutex<()>,
    next: AtomicU64,
    pub requests: AtomicU64,
    pub faults: AtomicU64,
    pub vanished: AtomicU64,
    pub wrong: AtomicU64,
}

/// A request of a client that checks the answer.
struct Ask {
    id: u64,
    length: usize,
    fault: Fault,
    /// The length of the request body, and whether it goes in chunks.
    body: Option<(usize, bool)>,
}

impl<'s> Load<'s> {
    pub fn new(session: &'s Session) -> Load<'s> {
        Load {
            session,
            dialling: Mutex::new(()),
            next: AtomicU64::new(1),
            requests: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            vanished: AtomicU64::new(0),
            wrong: AtomicU64::new(0),
        }
    }

    /// Sends about this many requests from that many clients at a time.
    pub fn run(&self, requests: u64, clients: u64) {
        let enough = self.requests.load(Relaxed) + requests;
        thread::scope(|scope| {
            for client in 0..clients {
                scope.spawn(move || {
                    let mut random = (client + enough) * 2_654_435_761 + 1;
                    while self.requests.load(Relaxed) < enough {
                        self.one_stream(&mut random);
                    }
                });
            }
        });
    }

    fn dial(&self) -> UnixStream {
        let _alone = self
            .dialling
            .lock()
            .expect("no client panics while it dials");
        self.session.dial()
    }

    fn one_stream(&self, random: &mut u64) {
        let kind = body::next(random) % 100;
        match kind {
            0..50 => self.keep_alive(random, 40),
            50..60 => self.keep_alive(random, 1),
            60..76 => self.pipelined(random),
            76..80 => self.slow_reader(random),
            80..86 => self.half_closer(random),
            86..90 => self.dribbler(random),
            _ => self.vanishes(random),
        }
    }

    /// Mostly small, mostly without a fault.
    fn ask(&self, random: &mut u64) -> Ask {
        let dice = body::next(random);
        let length = match dice % 64 {
            0 => (dice >> 8) as usize % body::LARGEST,
            1..8 => (dice >> 8) as usize % 20_000,
            _ => (dice >> 8) as usize % 300,
        };
        let fault = match (dice >> 40) % 32 {
            0 => FAULTS[(dice >> 48) as usize % FAULTS.len()],
            1..4 => Fault::Chunked,
            _ => Fault::None,
        };
        let size = match (dice >> 36) % 16 {
            0 => (dice >> 20) as usize % 100_000,
            _ => (dice >> 20) as usize % 500,
        };
        let body = match (dice >> 32) % 8 {
            0 => Some((size, false)),
            1 => Some((size, true)),
            _ => None,
        };
        // 413 is for who sends a body.
        let fault = if fault == Fault::Early && body.is_none() {
            Fault::Silent
        } else {
            fault
        };
        Ask {
            id: self.next.fetch_add(1, Relaxed),
            length,
            fault,
            body,
        }
    }

    fn head(&self, ask: &Ask) -> String {
        let Ask {
            id,
            length,
            fault,
            body,
        } = ask;
        let method = if body.is_some() { "POST" } else { "GET" };
        let fault = FAULTS.iter().position(|f| f == fault).unwrap_or(0);
        let framing = match body {
            None => String::new(),
            Some((_, true)) => "Transfer-Encoding: chunked\r\n".into(),
            Some((size, false)) => format!("Content-Length: {size}\r\n"),
        };
        format!(
            "{method} /r/{id}/{length}/{fault} HTTP/1.1\r\nHost: api.local\r\nX-Key: placeholder\r\n\
             X-Id: {id}\r\n{framing}\r\n"
        )
    }

    fn message(&self, ask: &Ask) -> Vec<u8> {
        let mut message = self.head(ask).into_bytes();
        match ask.body {
            None => {}
            Some((size, false)) => message.extend_from_slice(&body::of(!ask.id, size)),
            Some((size, true)) => {
                for chunk in body::of(!ask.id, size).chunks(4000) {
                    message.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    message.extend_from_slice(chunk);
                    message.extend_from_slice(b"\r\n");
                }
                message.extend_from_slice(b"0\r\n\r\n");
            }
        }
        message
    }

    /// Whether the answer is what it has to be, and whether the stream goes on.
    fn judge(&self, ask: &Ask, answer: &Response) -> bool {
        self.requests.fetch_add(1, Relaxed);
        let expected = body::of(ask.id, ask.length);
        let ours = answer
            .header("proxy-status")
            .is_some_and(|status| status.starts_with("broker-exec; error="));
        let refused = ours && answer.status == 502 && answer.complete;
        let right = match ask.fault {
            fault if fault.spares_the_answer() => {
                let whole = answer.complete && answer.status == 200 && answer.body == expected;
                // An idle connection that ends just when a body is sent on it: never sent twice.
                whole || (refused && ask.body.is_some())
            }
            Fault::Early => {
                let whole = answer.complete && answer.status == 413 && answer.body == b"large";
                whole || refused
            }
            Fault::Cut | Fault::CutChunks | Fault::Reset => {
                let empty = ask.fault != Fault::CutChunks && ask.length == 0;
                let cut = !answer.complete || (empty && answer.body.is_empty());
                refused || (cut && expected.starts_with(&answer.body))
            }
            _ => refused,
        };
        if ask.fault != Fault::None && ask.fault != Fault::Chunked {
            self.faults.fetch_add(1, Relaxed);
        }
        // The first few say it all.
        if !right && self.wrong.fetch_add(1, Relaxed) < 5 {
            eprintln!(
                "soak: client: wrong: request {} of {} bytes, {:?}, body {:?}: status {}, complete: {}, {} bytes\n{}",
                ask.id,
                ask.length,
                ask.fault,
                ask.body,
                answer.status,
                answer.complete,
                answer.body.len(),
                if ours { answer.text() } else { String::new() },
            );
        }
        answer.complete && answer.header("connection") != Some("close")
    }

    fn keep_alive(&self, random: &mut u64, most: u64) {
        let mut http = Http::new(self.dial());
        for _ in 0..1 + body::next(random) % most {
            let ask = self.ask(random);
            // A refusal may come before all of the body has gone.
            let _ = http.try_send(self.message(&ask));
            if !self.judge(&ask, &http.read_response()) {
                return;
            }
        }
    }

    fn pipelined(&self, random: &mut u64) {
        let mut http = Http::new(self.dial());
        let mut asks: Vec<Ask> = (0..2 + body::next(random) % 14)
            .map(|_| self.ask(random))
            .collect();
        for ask in &mut asks {
            ask.body = ask.body.map(|(size, chunked)| (size % 500, chunked));
            if ask.fault == Fault::Early {
                ask.fault = Fault::None;
            }
        }
        let messages: Vec<Vec<u8>> = asks.iter().map(|ask| self.message(ask)).collect();
        let _ = http.try_send(messages.concat());
        for ask in &asks {
            if !self.judge(ask, &http.read_response()) {
                return;
            }
        }
    }

    fn slow_reader(&self, random: &mut u64) {
        let mut stream = self.dial();
        let mut ask = self.ask(random);
        (ask.length, ask.fault, ask.body) = (400_000, Fault::None, None);
        let sent = stream.write_all(&self.message(&ask));
        let expected = body::of(ask.id, ask.length);
        let (mut got, mut some) = (Vec::new(), [0; 40_000]);
        // The end of the right answer; one that ends otherwise ends with the read's timeout.
        while !got.ends_with(&expected[expected.len() - 100..]) {
            thread::sleep(Duration::from_millis(1));
            match stream.read(&mut some) {
                Ok(n @ 1..) => got.extend_from_slice(&some[..n]),
                _ => break,
            }
        }
        let right = sent.is_ok() && got.ends_with(&expected);
        self.requests.fetch_add(1, Relaxed);
        if !right && self.wrong.fetch_add(1, Relaxed) < 5 {
            eprintln!("soak: a slow reader got {} bytes, not its own", got.len());
        }
    }

    fn half_closer(&self, random: &mut u64) {
        let mut http = Http::new(self.dial());
        let ask = self.ask(random);
        let _ = http.try_send(self.message(&ask));
        http.finish_sending();
        self.judge(&ask, &http.read_response());
    }

    fn dribbler(&self, random: &mut u64) {
        let mut http = Http::new(self.dial());
        let mut ask = self.ask(random);
        ask.body = ask.body.map(|(size, chunked)| (size % 500, chunked));
        if ask.fault == Fault::Early {
            ask.fault = Fault::Slow;
        }
        for piece in self
            .message(&ask)
            .chunks(1 + body::next(random) as usize % 30)
        {
            let _ = http.try_send(piece);
            thread::yield_now();
        }
        self.judge(&ask, &http.read_response());
    }

    /// A client that goes: before, in the middle of or after its request, or during the answer.
    fn vanishes(&self, random: &mut u64) {
        let mut stream = self.dial();
        self.vanished.fetch_add(1, Relaxed);
        let ask = self.ask(random);
        let message = self.message(&ask);
        let dice = body::next(random);
        match dice % 5 {
            0 => {}
            1 => {
                let part = (dice >> 8) as usize % message.len();
                let _ = stream.write_all(&message[..part]);
            }
            2 => {
                let _ = stream.write_all(&message);
            }
            3 => {
                let _ = stream.write_all(&message);
                let _ = stream.read(&mut [0; 40]);
            }
            _ => {
                let _ = stream.write_all(&message);
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }

    /// One GET without a fault, after which the upstream closes its connection.
    pub fn last_word(&self) {
        let mut http = Http::new(self.dial());
        let ask = Ask {
            id: self.next.fetch_add(1, Relaxed),
            length: 100,
            fault: Fault::ByClose,
            body: None,
        };
        http.send(self.message(&ask));
        self.judge(&ask, &http.read_response());
    }

    /// Dials all at once and keeps every stream: how many came, how many were refused. Each stream
    /// that came is used.
    pub fn burst(&self, dials: usize) -> (usize, usize) {
        let mut streams = Vec::new();
        thread::scope(|scope| {
            scope.spawn(|| (0..dials).for_each(|_| self.session.send_control(&[1])));
            for _ in 0..dials {
                match self.session.receive_control() {
                    (answer, Some(stream)) if answer == [0x01] => streams.push(stream),
                    (answer, None) if answer == [0xFF] => {}
                    other => panic!("an impossible answer: {other:?}"),
                }
            }
        });
        let accepted = streams.len();
        let mut streams: Vec<Http> = streams
            .into_iter()
            .map(|fd| Http::new(UnixStream::from(fd)))
            .collect();
        let asks: Vec<Ask> = (0..accepted)
            .map(|_| Ask {
                id: self.next.fetch_add(1, Relaxed),
                length: 200,
                fault: Fault::None,
                body: None,
            })
            .collect();
        for (http, ask) in streams.iter_mut().zip(&asks) {
            http.send(self.message(ask));
        }
        for (http, ask) in streams.iter_mut().zip(&asks) {
            self.judge(ask, &http.read_response());
        }
        (accepted, dials - accepted)
    }

    /// Dials and lets go at once, again and again; a refusal is one that has not recovered in time.
    pub fn churn(&self, dials: usize) {
        for _ in 0..dials {
            let end = Instant::now() + Duration::from_secs(10);
            while self.session.try_dial().is_none() {
                assert!(Instant::now() < end, "dials are refused for good");
                thread::yield_now();
            }
        }
    }
}
