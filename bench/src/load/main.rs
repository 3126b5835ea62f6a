//! Load generator: one thread, one request in flight per connection, the same for every rival. It prints one JSON
//! line and exits with 0 only if every answer was what the upstream gave, to the byte.

mod flood;
mod idle;
mod series;
mod target;
mod transfer;

use std::io::Read;
use std::process::ExitCode;
use std::time::Duration;

use target::{Stream, Target};

/// Why a run gave no number.
type Failure = Box<dyn std::error::Error>;

/// No single wait is longer: a rival that hangs is a failure, not a slow one.
const PATIENCE: Duration = Duration::from_secs(20);

const USAGE: &str = "usage: load MODE [--target fd|unix:PATH|tcp:ADDR:PORT] [OPTIONS]
  rps       requests on --conns kept connections for --secs
  dial      dial + close for --secs
  dialreq   dial + request + close for --secs
  download  GET --path, expect --bytes of the known pattern
  upload    POST --bytes of the known pattern to --path
  idle      --conns connections, one request each, then resident memory of --pids (default: our parent)
options: --conns N  --secs S  --bytes N  --path P  --body TEXT (expected)  --header 'NAME: VALUE'  --pids A,B";

/// What the command line asks for.
#[derive(Debug)]
struct Plan {
    target: Target,
    conns: usize,
    period: Duration,
    bytes: u64,
    path: String,
    body: Vec<u8>,
    header: String,
    pids: Vec<u32>,
}

fn main() -> ExitCode {
    match run() {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("load: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<String, Failure> {
    let mut arguments = std::env::args().skip(1);
    let mode = arguments.next().ok_or(USAGE)?;
    let plan = parse(arguments)?;
    match mode.as_str() {
        "rps" => flood::run(&plan),
        "dial" => series::dials(&plan),
        "dialreq" => series::requests(&plan),
        "download" => transfer::download(&plan),
        "upload" => transfer::upload(&plan),
        "idle" => idle::run(&plan),
        _ => Err(USAGE.into()),
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Plan, Failure> {
    let mut plan = Plan {
        target: Target::Absent,
        conns: 32,
        period: Duration::from_secs(1),
        bytes: 0,
        path: "/small".into(),
        body: Vec::new(),
        header: String::new(),
        pids: vec![std::os::unix::process::parent_id()],
    };
    while let Some(option) = arguments.next() {
        let value = arguments.next().ok_or(USAGE)?;
        match option.as_str() {
            "--target" => plan.target = Target::parse(&value)?,
            "--conns" => plan.conns = value.parse()?,
            "--secs" => plan.period = Duration::from_secs_f64(value.parse()?),
            "--bytes" => plan.bytes = value.parse()?,
            "--path" => plan.path = value,
            "--body" => plan.body = value.into_bytes(),
            "--header" => plan.header = format!("{value}\r\n"),
            "--pids" => plan.pids = value.split(',').map(str::parse).collect::<Result<_, _>>()?,
            _ => return Err(USAGE.into()),
        }
    }
    Ok(plan)
}

impl Plan {
    /// The small request, ready to be sent as it is.
    fn get(&self) -> Vec<u8> {
        let Self { path, header, .. } = self;
        format!("GET {path} HTTP/1.1\r\nHost: placeholder\r\nUser-Agent: load\r\nAccept: */*\r\n{header}\r\n")
            .into()
    }

    /// Whether `answer` is complete and right; an answer that is wrong or too long is an error.
    fn complete(&self, answer: &[u8]) -> Result<bool, Failure> {
        let Some(head) = bench::head(answer)? else {
            return Ok(false);
        };
        if !head.line.starts_with("HTTP/1.1 200") {
            return Err(format!("answered {:?}", head.line).into());
        }
        let body = &answer[head.length..];
        if head.body != self.body.len() as u64
            || body.len() > self.body.len()
            || body != &self.body[..body.len()]
        {
            return Err(format!("wrong body: {:?}", String::from_utf8_lossy(body)).into());
        }
        Ok(body.len() == self.body.len())
    }

    /// Reads the whole answer to a small request.
    fn answer(&self, stream: &mut Stream) -> Result<(), Failure> {
        let (mut answer, mut filled) = ([0; 4096], 0);
        while !self.complete(&answer[..filled])? {
            match stream.read(&mut answer[filled..])? {
                0 => return Err("connection closed, or an answer too long".into()),
                count => filled += count,
            }
        }
        Ok(())
    }
}
