//! Against other parsers: h11 (Python) and llhttp (Node.js). What either of them reads differently
//! from us, we refuse; and what we send on, both read exactly as we meant it.
//!
//! Two things are no disagreement: llhttp knows registered methods only, which is no matter of
//! framing; and behind a request that a reader takes for the last, what stands there is nobody's.

mod corpus;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::support::key::hex;
use crate::support::{Conn, Http, Session, Upstream, skipped};
use crate::wire::{read_chunked, read_counted, session};

/// A request as a reader understood it.
#[derive(Clone, Debug, PartialEq)]
struct Understood {
    method: String,
    target: Vec<u8>,
    body: Vec<u8>,
}

/// How a reader left a connection.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    /// Every byte was understood.
    Ok,
    /// A request was the last.
    Closed,
    /// Refused, or incomplete.
    Error,
}

type Reading = (Vec<Understood>, End);

/// What has gone up: as the upstream understood it, and its bytes.
type Log = Arc<Mutex<(Vec<Understood>, Vec<u8>)>>;

#[test]
fn what_h11_reads_differently_is_refused() {
    let test = "what_h11_reads_differently_is_refused";
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/hostile/differential/h11_reader.py"
    );
    let Some(path) = h11() else {
        return skipped(test, "h11 is neither installed nor to be had by pip");
    };
    compare(
        |_| true,
        |cases| {
            let mut command = Command::new("python3");
            command.arg(script).env("PYTHONDONTWRITEBYTECODE", "1");
            if let Some(path) = &path {
                command.env("PYTHONPATH", path);
            }
            readings(command, cases)
        },
    );
}

#[test]
fn what_llhttp_reads_differently_is_refused() {
    let test = "what_llhttp_reads_differently_is_refused";
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/hostile/differential/llhttp_reader.js"
    );
    let works = |command: &mut Command| {
        let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
        quiet.status().is_ok_and(|status| status.success())
    };
    if !works(Command::new("node").args(["-e", "process.versions.llhttp || process.exit(1)"])) {
        return skipped(test, "node is absent, or too old to have llhttp");
    }
    let registered = |method: &str| REGISTERED.contains(&method);
    compare(registered, |cases| {
        let mut command = Command::new("node");
        command.arg(script);
        readings(command, cases)
    });
}

/// Where Python finds h11: `None` inside when it is installed.
fn h11() -> Option<Option<PathBuf>> {
    let has_it = |path: Option<&Path>| {
        let mut command = Command::new("python3");
        command.args(["-c", "import h11"]).stderr(Stdio::null());
        if let Some(path) = path {
            command.env("PYTHONPATH", path);
        }
        command.status().is_ok_and(|status| status.success())
    };
    if has_it(None) {
        return Some(None);
    }
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("h11");
    if !has_it(Some(&path)) {
        let install = [
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ];
        let _ = Command::new("python3")
            .args(install)
            .args(["--no-deps", "--upgrade", "--target"])
            .arg(&path)
            .arg("h11>=0.16,<0.17")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
    has_it(Some(&path)).then_some(Some(path))
}

/// The methods of the corpus that llhttp knows.
const REGISTERED: &[&str] = &["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"];

fn compare(knows: impl Fn(&str) -> bool, read: impl Fn(&[Vec<u8>]) -> Vec<Reading>) {
    let cases = corpus::cases();
    let ours = our_readings(&cases);
    let theirs = read(&cases);
    assert_eq!(theirs.len(), cases.len(), "one reading for each case");
    let mut accepted = 0;
    let mut differences = Vec::new();
    for ((case, (our, up)), their) in cases.iter().zip(&ours).zip(&theirs) {
        // What we send on is what they understood, in the same order; and all of it where we took
        // the whole connection.
        let all = our.0.iter().all(|request| knows(&request.method));
        let known = our.0.iter().take_while(|request| knows(&request.method));
        let common = match their.1 {
            End::Closed => known.count().min(their.0.len()),
            _ => known.count(),
        };
        let agree = our.0[..common].iter().eq(their.0.iter().take(common));
        let whole = our.1 == End::Ok && their.1 != End::Closed && all;
        if !agree || (whole && our != their) {
            let case = case.escape_ascii();
            differences.push(format!("{case}\n  ours: {our:?}\n  theirs: {their:?}"));
        }
        accepted += usize::from(our.1 == End::Ok);
        assert_eq!(up.is_empty(), our.0.is_empty());
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    // A corpus of which nothing passes would prove nothing, nor would one of which all does.
    assert!(accepted >= 50, "{accepted} of {} pass", cases.len());
    assert!(cases.len() - accepted >= 100);

    let (sent, meant): (Vec<Vec<u8>>, Vec<Vec<Understood>>) = ours
        .into_iter()
        .filter(|(our, _)| !our.0.is_empty() && our.0.iter().all(|r| knows(&r.method)))
        .map(|(our, up)| (up, our.0))
        .unzip();
    for ((up, meant), read) in sent.iter().zip(&meant).zip(read(&sent)) {
        let shown = String::from_utf8_lossy(up).len();
        assert_eq!((meant, End::Ok), (&read.0, read.1), "{shown} bytes went up");
    }
}

/// Puts every case through the broker: what went up, and whether it took all of it.
fn our_readings(cases: &[Vec<u8>]) -> Vec<(Reading, Vec<u8>)> {
    let log: Log = Arc::default();
    let kept = log.clone();
    let upstream = Upstream::scripted(false, move |conn| {
        while let Some((understood, bytes)) = understand(conn) {
            let mut log = kept.lock().expect("no script fails");
            log.0.push(understood);
            log.1.extend(bytes);
            drop(log);
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let session: Session = session(&upstream, &[]);
    let read = |case: &Vec<u8>| {
        let mut http: Http = session.http();
        let _ = http.try_send(case);
        http.finish_sending();
        let answers = String::from_utf8(http.read_to_end()).expect("answers in UTF-8");
        let end = if answers.contains("\r\nProxy-Status: broker-exec") {
            End::Error
        } else if answers.contains("\r\nConnection: close") {
            End::Closed
        } else {
            End::Ok
        };
        let (understood, bytes) = std::mem::take(&mut *log.lock().expect("no script fails"));
        ((understood, end), bytes)
    };
    cases.iter().map(read).collect()
}

/// Keeps what is read through it.
struct Tee<'a>(&'a mut Conn, Vec<u8>);

impl Read for Tee<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let count = self.0.read(into)?;
        self.1.extend_from_slice(&into[..count]);
        Ok(count)
    }
}

fn understand(conn: &mut Conn) -> Option<(Understood, Vec<u8>)> {
    let head = conn.read_head()?;
    let mut tee = Tee(conn, head.head.clone());
    let body = match (
        head.header("content-length"),
        head.header("transfer-encoding"),
    ) {
        (None, None) => Vec::new(),
        (Some(length), None) => read_counted(&mut tee, length.parse().expect("a number"))?,
        (None, Some("chunked")) => read_chunked(&mut tee)?.0,
        _ => panic!("ambiguous framing went upstream"),
    };
    let understood = Understood {
        method: head.method,
        target: head.target.into_bytes(),
        body,
    };
    Some((understood, tee.1))
}

/// Has another reader read every case.
fn readings(mut command: Command, cases: &[Vec<u8>]) -> Vec<Reading> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start the other reader");
    let mut stdin = child.stdin.take().expect("a pipe");
    let lines: String = cases.iter().map(|case| hex(case) + "\n").collect();
    let writing = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let output = child.wait_with_output().expect("the other reader's output");
    writing.join().expect("a writer").expect("it reads all");
    assert!(output.status.success(), "the other reader failed");
    let output = String::from_utf8(output.stdout).expect("text");
    output.lines().map(reading).collect()
}

fn reading(line: &str) -> Reading {
    let mut words: Vec<&str> = line.split(' ').collect();
    let end = match words.pop() {
        Some("ok") => End::Ok,
        Some("closed") => End::Closed,
        Some("error") => End::Error,
        _ => panic!("not a reading: {line}"),
    };
    let understood = words.iter().map(|word| {
        let parts: Vec<&str> = word.split(',').collect();
        let [method, target, body] = parts[..] else {
            panic!("not a request: {word}");
        };
        Understood {
            method: method.to_owned(),
            target: path_of(unhex(target)),
            body: unhex(body),
        }
    });
    (understood.collect(), end)
}

/// Of an absolute-form, what we take of it.
fn path_of(target: Vec<u8>) -> Vec<u8> {
    let text = String::from_utf8_lossy(&target);
    match text.split_once("://") {
        Some((scheme, rest)) if scheme.bytes().all(|b| b.is_ascii_alphabetic()) => {
            let path = rest.find('/').map_or("/", |at| &rest[at..]);
            path.as_bytes().to_vec()
        }
        _ => target,
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).expect("ASCII");
        u8::from_str_radix(pair, 16).expect("hexadecimal")
    };
    digits.map(byte).collect()
}
