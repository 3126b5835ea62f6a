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

mod announce;
mod invoke;

pub use invoke::{capabilities, command_line};

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::net::{Shutdown, shutdown};

use crate::audit::{Audit, Start};
use crate::child::{self, Child, Command, Exit};
use crate::closure;
use crate::door::control;
use crate::error::{Error, Result, say};
pub use crate::forward::Scrub;
use crate::forward::crew::{Crew, Serve};
use crate::forward::{Forwarder, Limits};
use crate::service::{Reach, Service};
use announce::{Placeholder, identity};

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
    scrub: Scrub,
    warn: bool,
    strict: bool,
    narrate: bool,
    audit: Option<Audit>,
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
            scrub: Scrub::default(),
            warn: false,
            strict: false,
            narrate: false,
            audit: None,
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

    /// What is done with a credential that an upstream repeats (default: it is masked). Unless this
    /// is `Scrub::Off`, `spawn` refuses a key of fewer than 8 bytes.
    #[must_use]
    pub fn scrub(mut self, scrub: Scrub) -> Broker {
        self.scrub = scrub;
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

    /// Writes a line for each request and each event of the run.
    #[must_use]
    pub fn audit(mut self, audit: Audit) -> Broker {
        self.audit = Some(audit);
        self
    }

    /// Starts the command. Everything that can fail is prepared before.
    pub fn spawn(mut self, command: Command) -> Result<Run> {
        let audit = self.audit.take().map(Arc::new);
        let run = self.spawn_audited(command, audit.clone());
        if let (Some(audit), Err(err)) = (&audit, &run) {
            audit.fail(err);
        }
        run
    }

    fn spawn_audited(self, command: Command, audit: Option<Arc<Audit>>) -> Result<Run> {
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
        let weaknesses = self.weaknesses(&command, audit.is_some())?;
        let serial = match &audit {
            Some(audit) => self.begin_audit(audit, &weaknesses)?,
            None => 0,
        };
        let mut forwarder = Forwarder::new(
            self.service,
            &self.roots,
            self.limits,
            self.scrub,
            self.narrate,
        )?;
        if let Some(audit) = &audit {
            forwarder.audit(audit.clone(), serial);
        }
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
        if let Some(audit) = &audit {
            audit.command(child.id());
        }
        let control = Arc::new(ours);
        let mut run = Run {
            child,
            control: control.clone(),
            thread: None,
            crew: crew.clone(),
            forwarder,
            audit: audit.clone(),
        };
        let thread = std::thread::Builder::new()
            .name("control".into())
            .stack_size(CONTROL_STACK);
        match thread.spawn(move || control::serve(&control, &crew, audit.as_deref())) {
            Ok(thread) => run.thread = Some(thread),
            Err(e) => {
                // A command whose dials nobody answers must not go on.
                let _ = run.child.signal(libc::SIGKILL);
                let _ = run.child.wait();
                // Our caller writes the end of it.
                run.audit = None;
                return Err(Error::System("start a thread".into(), e));
            }
        }
        Ok(run)
    }

    /// What would let the command have the key by itself, told and refused as was asked for. A run
    /// that goes well says nothing, so it is looked for only when somebody wants to know: that takes
    /// as long as all the rest of a start.
    fn weaknesses(&self, command: &Command, audited: bool) -> Result<Vec<String>> {
        let wanted = self.strict || self.narrate || audited;
        let found: Vec<String> = if wanted {
            closure::weaknesses(&self.service, command)
        } else {
            closure::in_the_clear(&self.service).into_iter().collect()
        };
        if self.strict && !found.is_empty() {
            return Err(Error::Protection(format!(
                "--strict: nothing was started, because\n  {}",
                found.join("\n  ")
            )));
        }
        let clear = closure::in_the_clear(&self.service);
        let told =
            |weakness: &&String| self.narrate || (self.warn && Some(*weakness) == clear.as_ref());
        for weakness in found.iter().filter(told) {
            say(&format!("warning: {weakness}"));
        }
        Ok(found)
    }

    /// Writes the first line. Returns the serial of the key that it is about.
    fn begin_audit(&self, audit: &Audit, weaknesses: &[String]) -> Result<u64> {
        let service = &self.service;
        let credential = service.credential().map_err(Error::Credential)?;
        audit.start(&Start {
            service: &service.name,
            upstream: &service.origin.to_string(),
            key: &service.source().to_string(),
            no_new_privs: !self.allow_new_privs,
            secret_memory: credential.key.tier(),
            scrub: self.scrub.name(),
            warnings: weaknesses,
        })?;
        Ok(credential.serial)
    }
}

/// A command that runs under the broker.
#[derive(Debug)]
pub struct Run {
    child: Child,
    control: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
    crew: Arc<Crew>,
    forwarder: Arc<Forwarder>,
    audit: Option<Arc<Audit>>,
}

impl Run {
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
        self.end(exit);
        Ok(exit)
    }

    /// `wait` that passes signals on to the command and stops with it, for a program that does
    /// nothing else. `child::relay::block` is to be called before the run is started.
    pub fn wait_relaying(&mut self) -> io::Result<Exit> {
        let exit = child::relay::wait_relaying(&mut self.child)?;
        self.end(exit);
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

    /// Closes what is open, and the audit after it.
    fn end(&mut self, exit: Exit) {
        self.close();
        if let Some(audit) = self.audit.take() {
            match exit {
                Exit::Code(status) => audit.exit(Some(status), None, None),
                Exit::Signal(signal) => audit.exit(None, Some(signal), None),
            }
            audit.finish();
        }
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
        if let Some(audit) = &self.audit {
            audit.finish();
        }
    }
}
