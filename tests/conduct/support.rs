//! The program under test, and ways to run it and to wait for what it does.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, PipeWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// So long that only a failure takes it.
const DEADLINE: Duration = Duration::from_secs(30);

/// The program under test, up to where the command's own words follow.
pub fn wrapper() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_broker-exec"));
    // Nothing is ever dialled: the upstream need not be there.
    command.args(["-u", "http://127.0.0.1:9", "-k", "env:K", "--"]);
    command.env("K", "0123456789abcdef");
    command
}

/// The wrapper or, for comparison, what changes nothing: `env`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Under {
    Wrapper,
    Bare,
}

impl Under {
    pub fn command(self) -> Command {
        let mut command = match self {
            Under::Wrapper => wrapper(),
            Under::Bare => Command::new("env"),
        };
        command.env("PATH", path());
        command
    }

    /// A program and arguments run under it.
    pub fn run(self, words: &[&str]) -> Command {
        let mut command = self.command();
        command.args(words);
        command
    }

    /// A POSIX shell script in which `WRAP` stands for it.
    pub fn script(self, text: &str) -> Command {
        self.outer(&["sh", "-c", &self.expand(text)])
    }

    /// A Python program in which `WRAP` stands for its words, each a string with a comma after it.
    pub fn python(self, text: &str) -> Command {
        let words: String = self
            .words()
            .iter()
            .map(|word| format!("{word:?},"))
            .collect();
        self.outer(&["python3", "-c", &text.replace("WRAP", &words)])
    }

    /// The text with `WRAP` written out for a shell.
    pub fn expand(self, text: &str) -> String {
        let words: Vec<String> = self
            .words()
            .iter()
            .map(|word| format!("'{word}'"))
            .collect();
        text.replace("WRAP", &words.join(" "))
    }

    fn words(self) -> Vec<String> {
        let command = self.command();
        let quiet = (self == Under::Wrapper).then(|| OsStr::new("-q"));
        std::iter::once(command.get_program())
            .chain(quiet)
            .chain(command.get_args())
            .map(|word| word.to_str().unwrap().to_owned())
            .collect()
    }

    /// Another program that runs it somewhere inside, with the variables that it needs. That program
    /// has the key in its environment then, so it needs a wrapper that does not warn of it.
    pub fn outer(self, words: &[&str]) -> Command {
        let inner = self.command();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        for (name, value) in inner.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        command
    }
}

/// `PATH` with the real Python in front: a version manager's stand-in for it takes far longer to start
/// than all that a test does.
fn path() -> &'static OsStr {
    static PATH: OnceLock<OsString> = OnceLock::new();
    PATH.get_or_init(|| {
        let ask = [
            "-c",
            "import os, sys; print(os.path.dirname(sys.executable), end='')",
        ];
        let answer = Command::new("python3")
            .args(ask)
            .output()
            .expect("python3 is needed for the tests");
        let mut path = OsString::from_vec(answer.stdout);
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        path
    })
}

/// The output of the wrapper and of `env` for the same thing.
pub fn both(build: impl Fn(Under) -> Command) -> (Output, Output) {
    let run = |under| build(under).stdin(Stdio::null()).output().unwrap();
    (run(Under::Wrapper), run(Under::Bare))
}

/// Standard output, for a command that must succeed.
pub fn stdout(output: &Output) -> &str {
    assert!(output.status.success(), "{output:?}");
    std::str::from_utf8(&output.stdout).unwrap()
}

/// Both outputs must be equal and successful.
pub fn same_for_both(build: impl Fn(Under) -> Command) -> String {
    let (wrapped, bare) = both(build);
    assert_eq!(stdout(&wrapped), stdout(&bare));
    assert_eq!(
        String::from_utf8_lossy(&wrapped.stderr),
        String::from_utf8_lossy(&bare.stderr)
    );
    stdout(&bare).to_owned()
}

/// Asks until there is an answer.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(started.elapsed() < DEADLINE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The state letter of a process, `None` once it is gone.
pub fn state(process: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

pub fn until_state(process: i32, wanted: char) {
    eventually(&format!("process {process} in state {wanted}"), || {
        (state(process) == Some(wanted)).then_some(())
    });
}

/// A field of `/proc/PID/status`.
pub fn status_field(process: i32, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with(&format!("{field}:")))
        .unwrap();
    line.split_once(':').unwrap().1.trim().to_owned()
}

pub fn send(process: i32, signal: i32) {
    assert!(process > 1, "{process} is no process of a test");
    // rustix names no real-time signals; kill(1) of the shell does.
    let sent = Command::new("sh")
        .args(["-c", &format!("kill -{signal} {process}")])
        .status()
        .unwrap();
    assert!(sent.success());
}

/// A running process whose output is read line by line. It is killed when dropped.
pub struct Running {
    pub child: Child,
    lines: Receiver<String>,
    /// Further processes to kill.
    pub others: Vec<i32>,
}

impl Running {
    pub fn start(mut command: Command) -> Running {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Running {
            child,
            lines,
            others: Vec::new(),
        }
    }

    pub fn id(&self) -> i32 {
        self.child.id().try_into().unwrap()
    }

    /// The next line.
    pub fn line(&self) -> String {
        self.lines.recv_timeout(DEADLINE).expect("a line of output")
    }

    /// The next line as the id of a process that must not survive the test.
    pub fn process(&mut self) -> i32 {
        let process = self.line().trim().parse().unwrap();
        assert!(process > 1);
        self.others.push(process);
        process
    }

    pub fn exit(&mut self) -> std::process::ExitStatus {
        let child = &mut self.child;
        eventually("the end of the process", || child.try_wait().unwrap())
    }

    /// All lines up to the end of the output.
    pub fn rest(&self) -> Vec<String> {
        std::iter::from_fn(|| self.lines.recv_timeout(DEADLINE).ok()).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for process in self
            .others
            .iter()
            .filter_map(|&process| Pid::from_raw(process))
        {
            let _ = rustix::process::kill_process(process, Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A terminal of its own, with a session whose leader is the command.
pub struct Terminal {
    master: File,
    /// Ends when `reading` is dropped.
    reader: JoinHandle<()>,
    reading: PipeWriter,
    pub leader: Running,
    seen: String,
}

impl Terminal {
    pub fn start(command: &Command) -> Terminal {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave: OwnedFd = rustix::fs::open(
            &*name,
            rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )
        .unwrap();
        // setsid(1) makes the terminal the new session's.
        let mut session = Command::new("setsid");
        session
            .arg("-c")
            .arg(command.get_program())
            .args(command.get_args());
        for (name, value) in command.get_envs() {
            session.env(name, value.unwrap_or_default());
        }
        let child = session
            .stdin(slave.try_clone().unwrap())
            .stdout(slave.try_clone().unwrap())
            .stderr(slave)
            .spawn()
            .unwrap();
        let master = File::from(master);
        let mut output = master.try_clone().unwrap();
        let (stop, reading) = std::io::pipe().unwrap();
        let (sender, lines) = channel();
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                let mut ready = [
                    PollFd::new(&output, PollFlags::IN),
                    PollFd::new(&stop, PollFlags::IN),
                ];
                let polled = poll(&mut ready, None);
                if polled.is_err() || !ready[1].revents().is_empty() {
                    return;
                }
                // EIO when the last process has closed the terminal.
                let Ok(count @ 1..) = output.read(&mut buffer) else {
                    return;
                };
                let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
                if sender.send(text).is_err() {
                    return;
                }
            }
        });
        Terminal {
            master,
            reader,
            reading,
            leader: Running {
                child,
                lines,
                others: Vec::new(),
            },
            seen: String::new(),
        }
    }

    /// An interactive bash, at its prompt, without the user's settings.
    pub fn bash(under: Under) -> Terminal {
        let mut shell = under.outer(&["bash", "--norc", "--noprofile", "--noediting", "-i"]);
        shell.env("PS1", "prompt> ").env_remove("PROMPT_COMMAND");
        let mut terminal = Terminal::start(&shell);
        terminal.expect("prompt> ");
        terminal
    }

    /// Closes the terminal's other end, as a window does.
    pub fn hang_up(self) -> Running {
        drop(self.reading);
        self.reader.join().unwrap();
        drop(self.master);
        self.leader
    }

    pub fn resize(&self) {
        let mut size = rustix::termios::tcgetwinsize(&self.master).unwrap();
        size.ws_col += 1;
        rustix::termios::tcsetwinsize(&self.master, size).unwrap();
    }

    pub fn keys(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    pub fn enter(&mut self, line: &str) {
        self.keys(&format!("{line}\n"));
    }

    /// Reads up to and including this text. Returns what came before it.
    pub fn expect(&mut self, text: &str) -> String {
        let started = Instant::now();
        loop {
            if let Some(at) = self.seen.find(text) {
                let before = self.seen[..at].to_owned();
                self.seen.drain(..at + text.len());
                return before;
            }
            let left = DEADLINE.saturating_sub(started.elapsed());
            match self.leader.lines.recv_timeout(left) {
                Ok(more) => self.seen.push_str(&more),
                Err(_) => panic!("no {text:?} in {:?}", self.seen),
            }
        }
    }

    /// The number that the command prints as `pid=N;`, as a process to kill at the end.
    pub fn process(&mut self) -> i32 {
        let process = loop {
            self.expect("pid=");
            // What was typed is echoed, and holds no number.
            if let Ok(process) = self.expect(";").parse() {
                break process;
            }
        };
        assert!(process > 1);
        self.leader.others.push(process);
        process
    }
}

/// A directory of one test.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Scratch {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("conduct-{}-{count}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    /// A file with these permissions.
    ///
    /// Another process writes it: a child that another test forks in this moment would keep a file of
    /// ours open for writing, and then nobody can execute it (ETXTBSY).
    pub fn file(&self, name: &str, content: &str, mode: u32) -> String {
        let path = self.0.join(name);
        let script = "printf %s \"$2\" >\"$1\" && chmod \"$3\" \"$1\"";
        let mut write = Command::new("sh");
        write
            .args(["-c", script, "sh"])
            .arg(&path)
            .args([content, &format!("{mode:o}")]);
        assert!(write.status().unwrap().success());
        path.to_str().unwrap().to_owned()
    }

    pub fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Says on standard error, past the test harness, which keeps back what a passing test prints.
pub fn skipped(why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
