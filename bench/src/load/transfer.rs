//! One large body down or up, every byte compared with the pattern that both sides know.

use std::io::{Read, Write};
use std::time::Instant;

use bench::Pattern;

use crate::{Failure, Plan};

const BUFFER: usize = 256 * 1024;

pub fn download(plan: &Plan) -> Result<String, Failure> {
    let pattern = Pattern::new();
    let mut stream = plan.target.dial()?;
    let mut buffer = vec![0; BUFFER];
    let start = Instant::now();
    stream.write_all(&plan.get())?;

    let mut filled = 0;
    let head = loop {
        match stream.read(&mut buffer[filled..])? {
            0 => return Err("closed before the head ended".into()),
            count => filled += count,
        }
        if let Some(head) = bench::head(&buffer[..filled])? {
            break head;
        }
    };
    if !head.line.starts_with("HTTP/1.1 200") || head.body != plan.bytes {
        return Err(format!("answered {:?} with {} bytes", head.line, head.body).into());
    }

    let first = &buffer[head.length..filled];
    let mut got = first.len() as u64;
    if !pattern.holds(0, first) {
        return Err("wrong byte at the start".into());
    }
    while got < plan.bytes {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(format!("body ended after {got} bytes").into());
        }
        if !pattern.holds(got, &buffer[..count]) {
            return Err(format!("wrong byte after {got}").into());
        }
        got += count as u64;
    }
    if got > plan.bytes {
        return Err("more bytes than announced".into());
    }
    Ok(report(plan.bytes, start))
}

pub fn upload(plan: &Plan) -> Result<String, Failure> {
    let pattern = Pattern::new();
    let mut stream = plan.target.dial()?;
    let Plan {
        path,
        header,
        bytes,
        ..
    } = plan;
    let start = Instant::now();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: placeholder\r\nUser-Agent: load\r\nContent-Length: {bytes}\r\n{header}\r\n"
    );
    stream.write_all(head.as_bytes())?;
    let mut sent = 0;
    let mut broken = None;
    while sent < *bytes {
        let piece = pattern.at(sent, bytes - sent);
        if let Err(error) = stream.write_all(piece) {
            // An early answer says more than a broken pipe.
            broken = Some(error);
            break;
        }
        sent += piece.len() as u64;
    }
    plan.answer(&mut stream)?;
    match broken {
        Some(error) => Err(error.into()),
        None => Ok(report(plan.bytes, start)),
    }
}

fn report(bytes: u64, start: Instant) -> String {
    let rate = bytes as f64 / 1e6 / start.elapsed().as_secs_f64();
    format!("{{\"rate\":{rate:.1},\"bytes\":{bytes}}}")
}
