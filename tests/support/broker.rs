//! The binary run to its end around a real command, with what it left behind.

use std::ffi::OsString;
use std::fs::File;
use std::process::{Child, Command, ExitStatus, Stdio};

use super::session::{binary, wait_with_deadline};
use super::{Key, Place, TempDir, Upstream};

/// A run of the binary in the making.
pub struct Broker {
    command: Command,
    dir: TempDir,
}

/// A run that has ended.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    /// Insists on status 0, and shows what was said otherwise.
    pub fn succeeded(self) -> Finished {
        assert!(
            self.status.success(),
            "{}\nstdout: {}\nstderr: {}",
            self.status,
            self.stdout,
            self.stderr
        );
        self
    }
}

impl Broker {
    /// The binary, without options yet.
    pub fn new() -> Broker {
        let mut command = Command::new(binary());
        command.stdin(Stdio::null());
        Broker {
            command,
            dir: TempDir::new(),
        }
    }

    /// Towards `upstream`, with the key in a file and its place; trusting the upstream's authority.
    pub fn to(upstream: &Upstream, key: &Key, place: &Place) -> Broker {
        let broker = Broker::new();
        let source = key.file_source(&broker.dir);
        broker
            .towards(upstream)
            .args(["-k", &source, "-i", &place.inject()])
    }

    /// `--upstream` and, for TLS, `--cacert`.
    pub fn towards(self, upstream: &Upstream) -> Broker {
        let broker = self.args(["-u", &upstream.url()]);
        match upstream.ca() {
            Some(ca) => broker.arg("--cacert").arg(ca.pem_file()),
            None => broker,
        }
    }

    pub fn arg(mut self, arg: impl Into<OsString>) -> Broker {
        self.command.arg(arg.into());
        self
    }

    pub fn args<I, S>(mut self, args: I) -> Broker
    where
        I: IntoIterator<Item = S>,
        S: Into<OsString>,
    {
        self.command.args(args.into_iter().map(Into::into));
        self
    }

    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Broker {
        self.command.env(name, value.into());
        self
    }

    /// A last word on the `Command`.
    pub fn with(mut self, adjust: impl FnOnce(&mut Command)) -> Broker {
        adjust(&mut self.command);
        self
    }

    /// A directory for the test's own files, removed with this run.
    pub fn dir(&self) -> &TempDir {
        &self.dir
    }

    /// Runs `bash -c SCRIPT` to its end.
    pub fn bash(self, script: &str) -> Finished {
        self.args(["--", "bash", "-c", script]).run()
    }

    /// Runs it to its end.
    pub fn run(self) -> Finished {
        self.start().finish()
    }

    /// Starts it and lets it go on.
    pub fn start(mut self) -> Running {
        let file = |name: &str| File::create(self.dir.join(name)).expect("create an output file");
        self.command.stdout(file("stdout")).stderr(file("stderr"));
        let child = self.command.spawn().expect("start the broker");
        Running {
            child,
            dir: self.dir,
        }
    }
}

/// A run that goes on. Dropping it kills the broker.
pub struct Running {
    child: Child,
    dir: TempDir,
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn dir(&self) -> &TempDir {
        &self.dir
    }

    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// What was written on standard output so far.
    pub fn stdout(&self) -> String {
        self.output("stdout")
    }

    /// What was written on standard error so far.
    pub fn stderr(&self) -> String {
        self.output("stderr")
    }

    fn output(&self, name: &str) -> String {
        String::from_utf8_lossy(&std::fs::read(self.dir.join(name)).unwrap_or_default())
            .into_owned()
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Finished {
        let status = wait_with_deadline(&mut self.child);
        Finished {
            status,
            stdout: self.stdout(),
            stderr: self.stderr(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
