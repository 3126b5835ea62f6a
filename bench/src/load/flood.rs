//! Requests per second on kept connections: one epoll thread, one request in flight on each.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};

use crate::target::Stream;
use crate::{Failure, PATIENCE, Plan};

/// Not counted: connections to the upstream are opened, pools and caches filled.
const WARM_UP: Duration = Duration::from_millis(200);

struct Connection {
    stream: Stream,
    answer: [u8; 4096],
    filled: usize,
}

pub fn run(plan: &Plan) -> Result<String, Failure> {
    let request = plan.get();
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut connections = Vec::new();
    for number in 0..plan.conns {
        let stream = plan.target.dial()?;
        stream.set_nonblocking(true)?;
        epoll::add(
            &poll,
            &stream,
            epoll::EventData::new_u64(number as u64),
            epoll::EventFlags::IN,
        )?;
        connections.push(Connection {
            stream,
            answer: [0; 4096],
            filled: 0,
        });
    }
    for connection in &mut connections {
        connection.stream.write_all(&request)?;
    }

    let mut start = Instant::now() + WARM_UP;
    let (mut warm, mut done) = (false, 0_u64);
    let wait = Timespec::try_from(PATIENCE)?;
    let mut events = Vec::with_capacity(connections.len().max(1));
    loop {
        events.clear();
        epoll::wait(
            &poll,
            rustix::buffer::spare_capacity(&mut events),
            Some(&wait),
        )?;
        if events.is_empty() {
            return Err("no answer in time".into());
        }
        for event in &events {
            let index = event.data.u64() as usize;
            done += u64::from(serve(plan, &mut connections[index], &request)?);
        }
        let now = Instant::now();
        if !warm && now >= start {
            (warm, start, done) = (true, now, 0);
        }
        if warm && now - start >= plan.period {
            let rate = done as f64 / (now - start).as_secs_f64();
            return Ok(format!("{{\"rate\":{rate:.1},\"requests\":{done}}}"));
        }
    }
}

/// Takes what has arrived; when that completes the answer, sends the next request and says so.
fn serve(plan: &Plan, connection: &mut Connection, request: &[u8]) -> Result<bool, Failure> {
    let Connection {
        stream,
        answer,
        filled,
    } = connection;
    match stream.read(&mut answer[*filled..])? {
        0 => return Err("connection closed, or an answer too long".into()),
        count => *filled += count,
    }
    if !plan.complete(&answer[..*filled])? {
        return Ok(false);
    }
    *filled = 0;
    // Nothing else is in flight, so a request that doesn't fit is a fault and not back-pressure.
    stream.write_all(request)?;
    Ok(true)
}
