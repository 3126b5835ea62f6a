//! The chunked decoder: however the bytes are cut, the result is the same, and what it lets through
//! means the same to another decoder.
#![no_main]

use broker_exec::http::body::{BodyError, Chunked, Event};
use libfuzzer_sys::fuzz_target;

/// How a body that was given in full ended.
#[derive(Debug, PartialEq)]
enum Outcome {
    /// Data, trailer section, and how many bytes of the input belong to the body.
    Whole(Vec<u8>, Vec<u8>, usize),
    /// The data so far.
    Unfinished(Vec<u8>),
    Refused(BodyError),
}

/// Decodes as a connection would, the input arriving in pieces of these sizes, over and over.
fn decode(input: &[u8], sizes: &[usize]) -> Outcome {
    let mut chunked = Chunked::default();
    let (mut waiting, mut data) = (Vec::new(), Vec::new());
    let (mut arrived, mut turn) = (0, 0);
    loop {
        loop {
            let (consumed, event) = match chunked.step(&waiting) {
                Ok(step) => step,
                Err(e) => return Outcome::Refused(e),
            };
            match event {
                Event::More => {
                    waiting.drain(..consumed);
                    break;
                }
                Event::Data(n) => {
                    assert!(n > 0, "an empty piece of data would make no progress");
                    data.extend_from_slice(&waiting[consumed..consumed + n]);
                    waiting.drain(..consumed + n);
                }
                Event::End(n) => {
                    let section = waiting[consumed - n..consumed].to_vec();
                    let length = arrived - (waiting.len() - consumed);
                    assert_eq!(chunked.step(b"5\r\n"), Ok((0, Event::End(0))));
                    return Outcome::Whole(data, section, length);
                }
            }
        }
        if arrived == input.len() {
            return Outcome::Unfinished(data);
        }
        let size = sizes[turn % sizes.len()].clamp(1, input.len() - arrived);
        turn += 1;
        waiting.extend_from_slice(&input[arrived..arrived + size]);
        arrived += size;
    }
}

/// Another decoder, for a body that is known to be valid: httparse reads the sizes.
fn decode_again(mut body: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    loop {
        let Ok(httparse::Status::Complete((line, size))) = httparse::parse_chunk_size(body) else {
            panic!("httparse reads no size");
        };
        body = &body[line..];
        if size == 0 {
            return data;
        }
        let (chunk, rest) = body.split_at(usize::try_from(size).unwrap());
        data.extend_from_slice(chunk);
        body = rest.strip_prefix(b"\r\n").expect("data ends in CR LF");
    }
}

fuzz_target!(|input: &[u8]| {
    let whole = decode(input, &[usize::MAX]);
    // Cuts that differ from input to input, and are the same for the same one.
    let cuts: Vec<usize> = input
        .iter()
        .take(32)
        .map(|&b| usize::from(b % 11))
        .collect();
    for sizes in [&[1][..], &[2], &[3, 1], &cuts] {
        if sizes.is_empty() {
            continue;
        }
        match (&whole, decode(input, sizes)) {
            // Which fault is found first may depend on how much has arrived.
            (Outcome::Refused(_), Outcome::Refused(_)) => {}
            (whole, other) => assert_eq!(*whole, other, "in pieces of {sizes:?}"),
        }
    }
    if let Outcome::Whole(data, section, length) = whole {
        assert_eq!(data, decode_again(&input[..length]));
        let mut again = Vec::new();
        for chunk in data.chunks(7) {
            again.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            again.extend_from_slice(chunk);
            again.extend_from_slice(b"\r\n");
        }
        again.extend_from_slice(b"0\r\n");
        again.extend_from_slice(&section);
        let length = again.len();
        assert_eq!(
            decode(&again, &[usize::MAX]),
            Outcome::Whole(data, section, length)
        );
    }
});
