//! What a server keeps resident for connections that have had one request each and now do nothing.

use std::io::{Read, Write};
use std::time::Duration;

use crate::{Failure, Plan};

/// Requests that are in flight at once while the connections are opened.
const WAVE: usize = 32;
/// After the last answer, before memory is read: time to put buffers away.
const SETTLE: Duration = Duration::from_millis(300);

pub fn run(plan: &Plan) -> Result<String, Failure> {
    let request = plan.get();
    let before = resident(&plan.pids)?;
    let mut held = Vec::with_capacity(plan.conns);
    while held.len() < plan.conns {
        let start = held.len();
        for _ in 0..WAVE.min(plan.conns - start) {
            let mut stream = plan.target.dial()?;
            stream.write_all(&request)?;
            held.push(stream);
        }
        for stream in &mut held[start..] {
            plan.answer(stream)?;
        }
    }
    std::thread::sleep(SETTLE);
    let after = resident(&plan.pids)?;
    for stream in &held {
        stream.set_nonblocking(true)?;
        if !matches!((&*stream).read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
        {
            return Err("an idle connection was closed".into());
        }
    }
    let each = (after as f64 - before as f64) / plan.conns as f64;
    Ok(format!(
        "{{\"rate\":{each:.2},\"before_kib\":{before},\"after_kib\":{after}}}"
    ))
}

/// KiB, all processes together. `status` is readable even when the process is not dumpable (proc(5)).
fn resident(pids: &[u32]) -> Result<u64, Failure> {
    let mut sum = 0;
    for pid in pids {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .ok_or("no VmRSS")?;
        sum += line.trim().trim_end_matches(" kB").parse::<u64>()?;
    }
    Ok(sum)
}
