//! One after the other: dial and close, or dial, request and close.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::target::Stream;
use crate::{Failure, PATIENCE, Plan};

pub fn dials(plan: &Plan) -> Result<String, Failure> {
    series(plan, |_| Ok(()))
}

pub fn requests(plan: &Plan) -> Result<String, Failure> {
    let request = plan.get();
    series(plan, |stream| {
        stream.write_all(&request)?;
        plan.answer(stream)
    })
}

/// Counts served dials only. A refusal (the limit, while closed streams are still being cleared) is tried again.
fn series(
    plan: &Plan,
    each: impl Fn(&mut Stream) -> Result<(), Failure>,
) -> Result<String, Failure> {
    let start = Instant::now();
    let (mut done, mut refused, mut last) = (0_u64, 0_u64, start);
    loop {
        let now = Instant::now();
        if now - start >= plan.period && done > 0 {
            let rate = done as f64 / (now - start).as_secs_f64();
            return Ok(format!(
                "{{\"rate\":{rate:.1},\"dials\":{done},\"refused\":{refused}}}"
            ));
        }
        if let Some(mut stream) = plan.target.try_dial()? {
            each(&mut stream)?;
            (done, last) = (done + 1, now);
        } else if now - last > PATIENCE {
            return Err("every dial refused".into());
        } else {
            refused += 1;
            std::thread::sleep(Duration::from_micros(100));
        }
    }
}
