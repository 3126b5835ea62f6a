//! One run: the credential is loaded, the control channel opened, the command started, its requests
//! served; when the command ends, everything ends.
//!
//! A program that starts commands itself uses the same three steps as the binary:
//!
//! ```no_run
//! use broker_exec::child::{Command, Exit};
//! use broker_exec::run::Broker;
//! use broker_exec::service::Service;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Hardens this process (prctl(2), PR_SET_DUMPABLE), then reads the key.
//! let service = Service::load(
//!     "example",
//!     "https://api.example.com",
//!     "file:/run/keys/api".as_ref(),
//!     "query:app_key",
//! )?;
//! let command = Command::new("bash").arg("-c").arg("my-client --fd $BROKER_EXEC_FD");
//! let mut run = Broker::new(service).spawn(command)?;
//! assert_eq!(run.wait()?, Exit::Code(0));
//! # Ok(())
//! # }
//! ```
//!
//! `Run::stop` ends a command that has not ended by itself; dropping a `Run` closes the channel and
//! every stream and leaves the command alone.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::net::{Shutdown, shutdown};

use crate::child::{self, Child, Command, Exit, User};
use crate::cli::{self, Invocation, Options};
use crate::closure;
use crate::config;
use crate::door::control;
use crate::error::{Error, Result, say};
use crate::forward::crew::{Crew, Serve};
use crate::forward::{Forwarder, Limits};
use crate::service::{Reach, Service};

mod template;

use template::Placeholder;

/// How long the end of a run waits for its threads. Every wait of theirs is cut, so only a name
/// lookup that hangs in libc could take longer; the process ends without it.
const TEAR_DOWN: Duration = Duration::from_millis(900);

/// The stack of the thread that answers dials.
const CONTROL_STACK: usize = 64 * 1024;

/// A run that is being prepared.
#[derive(Debug)]
pub struct Broker {
    service: Service,
    limits: Limits,
    max_connections: usize,
    roots: Vec<PathBuf>,
    fd: Option<RawFd>,
    allow_new_privs: bool,
    env: Vec<(OsString, OsString)>,
    warn: bool,
    strict: bool,
    narrate: bool,
}

impl Broker {
    /// A broker for one service, with the defaults of the command line.
    #[must_use]
    pub fn new(service: Service) -> Broker {
        let limits = Limits {
            connect: Duration::from_secs(10),
            response_header: Duration::from_secs(60),
            idle: None,
        };
        Broker {
            service,
            limits,
            max_connections: 256,
            roots: Vec::new(),
            fd: None,
            allow_new_privs: false,
            env: Vec::new(),
            warn: false,
            strict: false,
            narrate: false,
        }
    }

    /// How long a connection to the upstream may take to be made, TLS included (default 10 s).
    #[must_use]
    pub fn connect_timeout(mut self, limit: Duration) -> Broker {
        self.limits.connect = limit;
        self
    }

    /// How long the upstream may take for its response head, once it has the request (default 60 s).
    #[must_use]
    pub fn response_header_timeout(mut self, limit: Duration) -> Broker {
        self.limits.response_header = limit;
        self
    }

    /// How long a stream may be without a byte either way (default: no limit).
    #[must_use]
    pub fn idle_timeout(mut self, limit: Option<Duration>) -> Broker {
        self.limits.idle = limit;
        self
    }

    /// The most streams at a time (default 256). A dial past it is refused.
    #[must_use]
    pub fn max_connections(mut self, limit: usize) -> Broker {
        self.max_connections = limit;
        self
    }

    /// A PEM file of CA certificates that are trusted beside the built-in ones.
    #[must_use]
    pub fn roots(mut self, pem: impl Into<PathBuf>) -> Broker {
        self.roots.push(pem.into());
        self
    }

    /// Insists on a number for the control descriptor.
    #[must_use]
    pub fn fd(mut self, number: RawFd) -> Broker {
        self.fd = Some(number);
        self
    }

    /// Lets an upstream that is given by name have a private, loopback or otherwise special address.
    #[must_use]
    pub fn allow_private(mut self, allow: bool) -> Broker {
        let origin = &mut self.service.origin;
        origin.reach = if allow {
            Reach::Anywhere
        } else {
            Reach::of(&origin.host)
        };
        self
    }

    /// Lets the command gain privileges by executing set-user-ID programs.
    #[must_use]
    pub fn allow_new_privs(mut self, allow: bool) -> Broker {
        self.allow_new_privs = allow;
        self
    }

    /// Sets a variable of the command's environment; `{fd}`, `{url}` and `{host}` expand.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, template: impl Into<OsString>) -> Broker {
        self.env.push((name.into(), template.into()));
        self
    }

    /// Says on standard error what would let the command have the key by itself.
    #[must_use]
    pub fn warn(mut self, warn: bool) -> Broker {
        self.warn = warn;
        self
    }

    /// Refuses to start anything when there is something to warn of.
    #[must_use]
    pub fn strict(mut self, strict: bool) -> Broker {
        self.strict = strict;
        self
    }

    /// Says on standard error what happens to each request.
    #[must_use]
    pub fn narrate(mut self, narrate: bool) -> Broker {
        self.narrate = narrate;
        self
    }

    /// Starts the command. Everything that can fail is prepared before.
    pub fn spawn(self, command: Command) -> Result<Run> {
        crate::sys::process::raise_nofile(3 * self.max_connections as u64 + 64);
        let (ours, theirs) =
            control::channel().map_err(Error::system("make the control socket"))?;
        let number = child::free_number(self.fd)?;
        let mut command = command
            .env("BROKER_EXEC_FD", number.to_string())
            .env("BROKER_EXEC_FD_ID", identity(&theirs)?);
        if let Some(name) = self.service.source().env_name() {
            command = command.env_remove(name);
        }
        let placeholder = Placeholder {
            fd: number,
            host: format!("{}.broker.local", self.service.name),
        };
        for (name, template) in &self.env {
            command = command.env(name, placeholder.expand(template)?);
        }
        let weaknesses = closure::weaknesses(&self.service, &command);
        if self.strict && !weaknesses.is_empty() {
            return Err(Error::Protection(format!(
                "--strict: nothing was started, because\n  {}",
                weaknesses.join("\n  ")
            )));
        }
        if self.warn {
            for weakness in &weaknesses {
                say(&format!("warning: {weakness}"));
            }
        }

        let forwarder = Forwarder::new(self.service, &self.roots, self.limits, self.narrate)?;
        let forwarder = Arc::new(forwarder);
        let crew = Arc::new(Crew::new(
            self.max_connections,
            self.limits.idle,
            forwarder.clone(),
        ));
        // The command is started first: a fork copies one thread, and there is only one yet. Its
        // dials wait in the socket until the next lines have run.
        let child = Child::spawn(command, theirs.as_fd(), number, self.allow_new_privs)?;
        drop(theirs);
        let control = Arc::new(ours);
        let mut run = Run {
            child,
            control: control.clone(),
            thread: None,
            crew: crew.clone(),
            forwarder,
            weaknesses,
        };
        let thread = std::thread::Builder::new()
            .name("control".into())
            .stack_size(CONTROL_STACK);
        match thread.spawn(move || control::serve(&control, &crew)) {
            Ok(thread) => run.thread = Some(thread),
            Err(e) => {
                // A command whose dials nobody answers must not go on.
                let _ = run.child.signal(libc::SIGKILL);
                let _ = run.child.wait();
                return Err(Error::System("start a thread".into(), e));
            }
        }
        Ok(run)
    }
}

/// Device and inode of the control socket, so that a client can tell a stale descriptor number.
fn identity(fd: &OwnedFd) -> Result<String> {
    let stat = rustix::fs::fstat(fd)
        .map_err(|e| Error::System("identify the control socket".into(), e.into()))?;
    Ok(format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// A command that runs under the broker.
#[derive(Debug)]
pub struct Run {
    child: Child,
    control: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
    crew: Arc<Crew>,
    forwarder: Arc<Forwarder>,
    weaknesses: Vec<String>,
}

impl Run {
    /// What would let the command have the key by itself, one sentence each; found at the start.
    #[must_use]
    pub fn weaknesses(&self) -> &[String] {
        &self.weaknesses
    }

    /// The command's process id.
    #[must_use]
    pub fn id(&self) -> i32 {
        self.child.id()
    }

    /// Sends the command a signal.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        self.child.signal(signal)
    }

    /// Waits for the command to end, then ends the run: streams are cut and requests cancelled, even
    /// if processes that the command left behind still hold the channel.
    pub fn wait(&mut self) -> io::Result<Exit> {
        let exit = self.child.wait()?;
        self.close();
        Ok(exit)
    }

    /// `wait` that passes signals on to the command and stops with it, for a program that does
    /// nothing else. `child::relay::block` is to be called before the run is started.
    pub fn wait_relaying(&mut self) -> io::Result<Exit> {
        let exit = child::relay::wait_relaying(&mut self.child)?;
        self.close();
        Ok(exit)
    }

    /// Asks the command to end (SIGTERM), and after `grace` makes it (SIGKILL).
    pub fn stop(&mut self, grace: Duration) -> io::Result<Exit> {
        // A command that has ended by itself needs none.
        let _ = self.signal(libc::SIGTERM);
        if self.child.wait_timeout(grace)?.is_none() {
            let _ = self.signal(libc::SIGKILL);
        }
        self.wait()
    }

    /// Closes the channel and every stream, and waits for the threads.
    fn close(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        // Ends the thread's read, or its write to a peer that reads no answers.
        let _ = shutdown(&*self.control, Shutdown::Both);
        let gone = self.crew.dismiss(TEAR_DOWN);
        if gone {
            let _ = thread.join();
        }
        self.forwarder.rest();
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.close();
    }
}

/// Does what a command line asks for: the exit of the command, or `None` when none was to be run.
pub fn command_line(args: impl IntoIterator<Item = OsString>) -> Result<Option<Exit>> {
    let options = match cli::parse(args)? {
        Invocation::Run(options) => options,
        Invocation::Print(text) => return print(&text),
        Invocation::Capabilities => return print(&capabilities()),
    };
    let Options { mut command, .. } = *options.clone();
    let preset = options.service.as_deref().and_then(config::preset);
    let upstream = options
        .upstream
        .as_deref()
        .or(preset.map(|p| p.upstream))
        .unwrap_or_default();
    let inject = options
        .inject
        .as_deref()
        .or(preset.map(|p| p.inject))
        .unwrap_or("bearer");
    let key = options.key.as_deref().unwrap_or_default();
    let user = options.user.as_deref().map(User::parse).transpose()?;
    if user.is_some() && !User::may_change() {
        return Err(Error::Protection(
            "--user: only root can run the command as another user".into(),
        ));
    }
    // Signals still have their usual effect: Ctrl-C ends us while a slow source is being read.
    let service = Service::load(preset.map_or("api", |p| p.name), upstream, key, inject)?;
    let mut broker = Broker::new(service)
        .connect_timeout(options.connect_timeout)
        .response_header_timeout(options.response_header_timeout)
        .idle_timeout(options.idle_timeout)
        .max_connections(options.max_connections)
        .allow_private(options.allow_private)
        .allow_new_privs(options.allow_new_privs)
        .warn(options.verbosity >= 0)
        .strict(options.strict)
        .narrate(options.verbosity > 0);
    broker.fd = options.fd;
    let from_env = std::env::var_os("SSL_CERT_FILE")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from);
    broker.roots = options.cacert.iter().cloned().chain(from_env).collect();
    let mut child = Command::new(command.remove(0));
    for arg in command {
        child = child.arg(arg);
    }
    if let Some(user) = user {
        child = child.user(user);
    }
    for name in preset.map_or(&[][..], |p| p.env_remove) {
        child = child.env_remove(name);
    }
    for (name, template) in preset.map_or(&[][..], |p| p.env) {
        broker = broker.env(name, template);
    }
    for (name, template) in &options.env {
        broker = broker.env(name, template);
    }
    if options.verbosity > 0 {
        say(&format!("requests go to {}", broker.service.origin));
        say(&format!(
            "secret memory: {}",
            crate::credential::memory_tier()
        ));
    }
    // Before there is a second thread: it would take the signals.
    let guard = child::relay::block();
    let exit = broker.spawn(child)?.wait_relaying();
    // What is still pending must not end us before we end as the command did.
    std::mem::forget(guard);
    exit.map(Some)
        .map_err(Error::system("wait for the command"))
}

fn print(text: &str) -> Result<Option<Exit>> {
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(Error::system("write to standard output"))?;
    Ok(None)
}

/// What this build offers on this host, as one JSON line, so that a runner can negotiate.
#[must_use]
pub fn capabilities() -> String {
    let hardened = crate::sys::process::harden().is_ok();
    format!(
        "{{\"name\":\"broker-exec\",\"version\":\"{}\",\"broker\":{hardened},\"protocols\":[1],\"doors\":[\"fd\"],\
         \"protections\":{{\"dumpable\":{hardened},\"no_new_privs\":true,\"secret_memory\":\"{}\"}}}}\n",
        env!("CARGO_PKG_VERSION"),
        crate::credential::memory_tier(),
    )
}
