//! A broker whose control descriptor the test holds itself.
//!
//! The broker's command is a donor: this test program again, entered at its `donate` test, which
//! hands its control descriptor to the test by SCM_RIGHTS and then becomes a shell that waits to be
//! told its exit status. From there on the test alone holds the command's end of the channel.

use std::ffi::OsString;
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, send, sendmsg,
};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::{DEADLINE, Http, Key, Place, TempDir, Upstream};

/// The variable that turns the `donate` test into the donor: the path of the test's socket.
const DONATE_TO: &str = "BROKER_EXEC_TEST_DONATE_TO";

/// The binary under test: the one cargo built, or the one that `BROKER_EXEC` names, so that the very
/// file that is released can be put through the same tests.
pub fn binary() -> PathBuf {
    let built = option_env!("CARGO_BIN_EXE_broker-exec").map(OsString::from);
    std::env::var_os("BROKER_EXEC")
        .or(built)
        .expect("cargo names the binary to integration tests")
        .into()
}

/// A running broker around a donor. Dropping it kills what is left.
pub struct Session {
    child: Child,
    control: Option<OwnedFd>,
    /// To the donor; it ends when this closes or when a line with its exit status comes.
    leash: Option<UnixStream>,
    donor: i32,
    dir: TempDir,
}

impl Session {
    /// Starts the binary with these options (without the command, which is the donor).
    pub fn start<I, S>(options: I) -> Session
    where
        I: IntoIterator<Item = S>,
        S: Into<OsString>,
    {
        Session::start_with(options, |_| {})
    }

    /// Starts the binary towards `upstream` with `key` in `place`, and these further options.
    pub fn to<I, S>(upstream: &Upstream, key: &Key, place: &Place, options: I) -> Session
    where
        I: IntoIterator<Item = S>,
        S: Into<OsString>,
    {
        let dir = TempDir::new();
        let mut all: Vec<OsString> = vec![
            "-u".into(),
            upstream.url().into(),
            "-k".into(),
            key.file_source(&dir).into(),
        ];
        all.extend(["-i".into(), place.inject().into()]);
        if let Some(ca) = upstream.ca() {
            all.extend(["--cacert".into(), ca.pem_file().into()]);
        }
        all.extend(options.into_iter().map(Into::into));
        Session::launch(dir, all, |_| {})
    }

    /// As `start`, with a last word on the broker's `Command` (environment, directory, stdin).
    pub fn start_with<I, S>(options: I, adjust: impl FnOnce(&mut Command)) -> Session
    where
        I: IntoIterator<Item = S>,
        S: Into<OsString>,
    {
        Session::launch(
            TempDir::new(),
            options.into_iter().map(Into::into).collect(),
            adjust,
        )
    }

    fn launch(dir: TempDir, options: Vec<OsString>, adjust: impl FnOnce(&mut Command)) -> Session {
        let listener = UnixListener::bind(dir.join("donor")).expect("listen for the donor");
        let file =
            |name: &str| std::fs::File::create(dir.join(name)).expect("create an output file");
        // The shell puts the descriptor, whatever its number, on the donor's stdin, where safe Rust
        // can take it up.
        let shell = r#"eval "exec \"\$0\" --exact donate --nocapture <&$BROKER_EXEC_FD $BROKER_EXEC_FD>&-""#;
        let mut command = Command::new(binary());
        command.args(options).args(["--", "/bin/sh", "-c", shell]);
        command.arg(std::env::current_exe().expect("the test program has a path"));
        command.env(DONATE_TO, dir.join("donor"));
        command
            .stdin(Stdio::null())
            .stdout(file("stdout"))
            .stderr(file("stderr"));
        adjust(&mut command);
        let child = command.spawn().expect("start the broker");
        let mut session = Session {
            child,
            control: None,
            leash: None,
            donor: 0,
            dir,
        };
        session.receive_donation(&listener);
        session
    }

    fn receive_donation(&mut self, listener: &UnixListener) {
        let broker =
            pidfd_open(self.pid_of_broker(), PidfdFlags::empty()).expect("open the broker's pidfd");
        let mut fds = [
            PollFd::new(listener, PollFlags::IN),
            PollFd::new(&broker, PollFlags::IN),
        ];
        let wait = Timespec {
            tv_sec: DEADLINE.as_secs() as i64,
            tv_nsec: 0,
        };
        poll(&mut fds, Some(&wait)).expect("wait for the donor");
        if !fds[0].revents().contains(PollFlags::IN) {
            panic!(
                "no donor came; the broker said: {}{}",
                self.stderr(),
                self.stdout()
            );
        }
        let (mut leash, _) = listener.accept().expect("accept the donor");
        leash
            .set_read_timeout(Some(DEADLINE))
            .expect("set a timeout");
        let (greeting, control) = receive_with_descriptor(leash.as_fd());
        assert_eq!(greeting, b"c", "the donor's greeting");
        let mut pid = [0; 4];
        leash
            .read_exact(&mut pid)
            .expect("the donor's process number");
        self.donor = i32::from_ne_bytes(pid);
        let control = control.expect("the donor's control descriptor");
        set_socket_timeout(&control, Timeout::Recv, Some(DEADLINE)).expect("set a timeout");
        self.control = Some(control);
        self.leash = Some(leash);
    }

    /// The command's end of the control channel. Nobody else holds it.
    pub fn control(&self) -> BorrowedFd<'_> {
        self.control
            .as_ref()
            .expect("the control descriptor was not closed by the test")
            .as_fd()
    }

    /// Closes the command's end of the control channel.
    pub fn close_control(&mut self) {
        self.control = None;
    }

    /// Sends one datagram on the control channel, empty ones included.
    pub fn send_control(&self, datagram: &[u8]) {
        let sent = send(self.control(), datagram, SendFlags::NOSIGNAL)
            .expect("send on the control channel");
        assert_eq!(sent, datagram.len());
    }

    /// Receives one reply: its bytes and its descriptor, if it has one.
    pub fn receive_control(&self) -> (Vec<u8>, Option<OwnedFd>) {
        receive_with_descriptor(self.control())
    }

    /// Dials; `None` when the broker refused with 0xFF.
    pub fn try_dial(&self) -> Option<UnixStream> {
        self.send_control(&[1]);
        match self.receive_control() {
            (reply, Some(fd)) if reply == [1] => {
                let stream = UnixStream::from(fd);
                stream
                    .set_read_timeout(Some(DEADLINE))
                    .expect("set a timeout");
                stream
                    .set_write_timeout(Some(DEADLINE))
                    .expect("set a timeout");
                Some(stream)
            }
            (reply, None) if reply == [0xFF] => None,
            (reply, fd) => panic!(
                "an impossible reply: {reply:02x?}, descriptor: {}",
                fd.is_some()
            ),
        }
    }

    /// Dials and insists on a stream.
    pub fn dial(&self) -> UnixStream {
        self.try_dial()
            .unwrap_or_else(|| panic!("the dial was refused; the broker said: {}", self.stderr()))
    }

    /// Dials, for HTTP.
    pub fn http(&self) -> Http {
        Http::new(self.dial())
    }

    /// The broker's process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The command's process number.
    pub fn donor_pid(&self) -> i32 {
        self.donor
    }

    /// A directory for the test's own files, removed with the session.
    pub fn dir(&self) -> &TempDir {
        &self.dir
    }

    /// What the broker and its command wrote on standard error so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.dir.join("stderr")).unwrap_or_default())
            .into_owned()
    }

    /// What they wrote on standard output so far: the donor's test harness says a little.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.dir.join("stdout")).unwrap_or_default())
            .into_owned()
    }

    /// Lets the command end with status 0 and waits for the broker to follow.
    pub fn finish(&mut self) -> ExitStatus {
        self.finish_with(0)
    }

    /// Lets the command end with this status and waits for the broker to follow.
    pub fn finish_with(&mut self, status: u8) -> ExitStatus {
        if let Some(mut leash) = self.leash.take() {
            let _ = leash.write_all(format!("{status}\n").as_bytes());
        }
        self.wait()
    }

    /// Waits for the broker to end.
    pub fn wait(&mut self) -> ExitStatus {
        wait_with_deadline(&mut self.child)
    }

    fn pid_of_broker(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.control = None;
        self.leash = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for a child, and kills it and fails the test when the deadline passes.
pub fn wait_with_deadline(child: &mut Child) -> ExitStatus {
    let start = Instant::now();
    let pidfd =
        pidfd_open(Pid::from_child(child), PidfdFlags::empty()).expect("open a pidfd of a child");
    while start.elapsed() < DEADLINE {
        let wait = Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        };
        // Interrupted or early is no matter: try_wait decides.
        let _ = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&wait));
        if let Some(status) = child.try_wait().expect("wait for a child") {
            return status;
        }
    }
    let _ = child.kill();
    panic!("the process did not end within the deadline");
}

/// Receives one message with at most one descriptor, as a client of the control channel does.
pub fn receive_with_descriptor(socket: BorrowedFd<'_>) -> (Vec<u8>, Option<OwnedFd>) {
    let mut bytes = [0; 16];
    // Room for more than one, so that an excess is seen instead of cut off.
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let message = recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )
    .expect("receive a message within the deadline");
    let mut fds: Vec<OwnedFd> = Vec::new();
    for part in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            fds.extend(rights);
        }
    }
    assert!(fds.len() <= 1, "more than one descriptor in a reply");
    (bytes[..message.bytes].to_vec(), fds.pop())
}

/// The donor: hands its stdin over and waits to be told its exit status. Returns at once in an
/// ordinary run of the tests.
pub fn donate_if_asked() {
    let Some(path) = std::env::var_os(DONATE_TO) else {
        return;
    };
    let mut stream = UnixStream::connect(path).expect("reach the test");
    let stdin = std::io::stdin();
    let rights = [stdin.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(
        ancillary.push(SendAncillaryMessage::ScmRights(&rights)),
        "room for one descriptor"
    );
    sendmsg(
        &stream,
        &[IoSlice::new(b"c")],
        &mut ancillary,
        SendFlags::empty(),
    )
    .expect("hand the descriptor over");
    stream
        .write_all(&(std::process::id() as i32).to_ne_bytes())
        .expect("say who we are");
    // The shell takes the place of this process, and the test's socket that of its stdin: so the
    // control channel has one holder, the test.
    let wait = "read -r status; exit \"${status:-0}\"";
    let failed = Command::new("/bin/sh")
        .args(["-c", wait])
        .stdin(OwnedFd::from(stream))
        .exec();
    panic!("cannot become a shell: {failed}");
}
