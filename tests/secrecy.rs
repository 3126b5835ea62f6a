//! Attacks on a running broker that holds a key: by a second process of the same user, by the
//! command itself, and by a command that is root.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use support::session::{binary, wait_with_deadline};
use support::{DEADLINE, Key, Place, Rule, TempDir, Upstream, skipped};

/// Everything that attack.py tries.
const WAYS: [&str; 13] = [
    "environ",
    "maps",
    "smaps",
    "auxv",
    "syscall",
    "mem",
    "fd links",
    "fd contents",
    "map_files",
    "process_vm_readv",
    "pidfd_getfd",
    "PTRACE_SEIZE",
    "PTRACE_ATTACH",
];

/// Recent kernels let a reader with CAP_PERFMON or CAP_SYS_ADMIN pass the check of these files
/// (mm_access() in kernel/fork.c; measured on 6.18) without CAP_SYS_PTRACE. They show addresses and
/// the environment block, so the block must not hold the key; memory and descriptors stay closed.
const OPEN_TO_AN_ADMINISTRATOR: [&str; 4] = ["environ", "maps", "smaps", "auxv"];

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// How a run leaves root, if it has to.
#[derive(Clone, Copy, PartialEq)]
enum User {
    /// Whoever runs the tests, root included.
    Same,
    /// Whoever runs the tests, unless that is root: then the unprivileged user 65534.
    Unprivileged,
}

impl User {
    /// A command that runs `program` as this user; setpriv(1) executes it in its own process.
    fn command(self, program: impl Into<std::ffi::OsString>) -> Command {
        let program = program.into();
        if self == User::Same || !is_root() {
            return Command::new(program);
        }
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
            .arg(program);
        command
    }

    /// Whether this machine can do it; said aloud if not.
    fn available(self, test: &str) -> bool {
        let can = self
            .command("true")
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        if !can {
            skipped(
                test,
                "we are root and setpriv(1) cannot make us another user",
            );
        }
        can
    }
}

/// A broker that has read its key from its environment, the most exposed of all sources, and has
/// served a request; its command waits.
struct Target {
    broker: Child,
    key: Key,
    leash: UnixStream,
    said: BufReader<UnixStream>,
    /// The scripts and the binary, where any user can get at them.
    dir: TempDir,
    _upstream: Upstream,
}

impl Target {
    /// `script` runs in bash once the request was served, with the attack in `$ATTACK`; after it the
    /// command says `ready` and waits for a line.
    fn start(user: User, options: &[&str], script: &str) -> Target {
        let key = Key::random();
        let upstream = Upstream::api(true, Rule::new(Place::Bearer, &key));
        let ca = upstream.ca().expect("a TLS upstream has an authority");
        ca.open_to_all();
        let dir = public_copies();
        let (leash, stdin) = socket();
        let (said, stdout) = socket();
        let script = format!(
            "python3 \"${{ATTACK%/*}}/get.py\" /; {script}\necho ready; read -r status; exit $status"
        );
        let broker = user
            .command(dir.join("broker-exec"))
            .args(["-u", &upstream.url(), "-k", "env:API_KEY", "--cacert"])
            .arg(ca.pem_file())
            .args(options)
            .args(["--", "bash", "-c", &script])
            .env("API_KEY", key.as_str())
            .env("ATTACK", dir.join("attack.py"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .current_dir(dir.path())
            .stdin(stdin)
            .stdout(stdout)
            .spawn()
            .expect("start the broker");
        let mut target = Target {
            broker,
            key,
            leash,
            said: BufReader::new(said),
            dir,
            _upstream: upstream,
        };
        let served = target.line();
        assert!(
            served.starts_with("200 "),
            "a request is served before the attack: {served:?}"
        );
        target
    }

    /// The next line from the command.
    fn line(&mut self) -> String {
        let mut line = String::new();
        let length = self
            .said
            .read_line(&mut line)
            .expect("a line within the deadline");
        assert!(length > 0, "the command ended early");
        self.key.assert_absent(&line, "the command's output");
        line.trim_end().to_owned()
    }

    /// Every line that the script prints.
    fn lines(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            match self.line().as_str() {
                "ready" => return lines,
                "" => {}
                line => lines.push(line.to_owned()),
            }
        }
    }

    /// Attacks `pid` from a second process of this user, outside the command's tree.
    fn attacked_from_outside(&self, user: User, pid: u32) -> Vec<String> {
        // Through a shell: setpriv(1) itself would still find a python3 that only root can reach.
        let mut attack = user.command("sh");
        attack.args(["-c", "exec python3 \"$0\" \"$1\""]);
        attack.arg(self.dir.join("attack.py")).arg(pid.to_string());
        let output = attack
            .env_remove("API_KEY")
            .output()
            .expect("run the attack");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(str::to_owned)
            .collect()
    }

    fn finish(mut self) -> ExitStatus {
        self.leash.write_all(b"0\n").expect("let the command end");
        wait_with_deadline(&mut self.broker)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.broker.kill();
        let _ = self.broker.wait();
    }
}

/// Two ends: ours, with a deadline, and one for a child.
fn socket() -> (UnixStream, OwnedFd) {
    let (ours, theirs) = UnixStream::pair().expect("make a socket pair");
    ours.set_read_timeout(Some(DEADLINE))
        .expect("set a timeout");
    (ours, theirs.into())
}

/// The binary and the scripts in a directory that every user may read: the tests may well run in a
/// home directory that is closed to others.
fn public_copies() -> TempDir {
    let dir = TempDir::new();
    dir.open_to_all();
    let scripts = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients"));
    let sources = ["attack.py", "get.py", "dial.py"]
        .map(|name| scripts.join(name))
        .into_iter();
    for source in sources.chain([binary()]) {
        let name = source.file_name().expect("a file has a name");
        let copy = if source == binary() {
            dir.join("broker-exec")
        } else {
            dir.path().join(name)
        };
        fs::copy(&source, &copy).expect("copy a file");
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("chmod");
    }
    dir
}

fn all_denied() -> Vec<String> {
    WAYS.iter().map(|way| format!("denied {way}")).collect()
}

#[test]
fn a_second_process_of_the_same_user_cannot_look_into_the_broker() {
    if !User::Unprivileged
        .available("a_second_process_of_the_same_user_cannot_look_into_the_broker")
    {
        return;
    }
    let mut target = Target::start(User::Unprivileged, &[], "");
    target.lines();
    assert_eq!(
        target.attacked_from_outside(User::Unprivileged, target.broker.id()),
        all_denied()
    );
    assert!(target.finish().success());
}

#[test]
fn the_attack_works_on_a_process_that_does_not_hide() {
    if !User::Unprivileged.available("the_attack_works_on_a_process_that_does_not_hide") {
        return;
    }
    // Otherwise a typing error in the attack would pass for a protection. The command itself is such
    // a process: it must be dumpable again, or its own tools (gdb, /proc/self) would fail in it.
    let mut target = Target::start(User::Unprivileged, &[], "echo $$");
    let command: u32 = target.lines()[0].parse().expect("a process number");
    let outcome = target.attacked_from_outside(User::Unprivileged, command);
    for way in ["environ", "maps", "fd links"] {
        assert!(outcome.contains(&format!("OPEN {way}")), "{outcome:?}");
    }
    match fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope") {
        Ok(scope) if scope.trim() != "0" => {
            skipped(
                "the_attack_works_on_a_process_that_does_not_hide",
                "Yama restricts ptrace to ancestors",
            );
        }
        _ => {
            for way in [
                "mem",
                "process_vm_readv",
                "pidfd_getfd",
                "PTRACE_ATTACH",
                "PTRACE_SEIZE",
            ] {
                assert!(outcome.contains(&format!("OPEN {way}")), "{outcome:?}");
            }
        }
    }
}

#[test]
fn the_command_itself_cannot_look_into_the_broker() {
    if !User::Unprivileged.available("the_command_itself_cannot_look_into_the_broker") {
        return;
    }
    let mut target = Target::start(User::Unprivileged, &[], "python3 $ATTACK $PPID");
    assert_eq!(target.lines(), all_denied());
    assert!(target.finish().success());
}

#[test]
fn a_command_that_is_root_cannot_look_into_the_broker() {
    if !is_root() {
        return skipped(
            "a_command_that_is_root_cannot_look_into_the_broker",
            "we are not root",
        );
    }
    let mut target = Target::start(User::Same, &[], "python3 $ATTACK $PPID environ.seen");
    for line in target.lines() {
        let open = line.strip_prefix("OPEN ");
        assert!(
            open.is_none_or(|way| OPEN_TO_AN_ADMINISTRATOR.contains(&way)),
            "{line}"
        );
    }
    let environ = fs::read(target.dir.join("environ.seen")).unwrap_or_default();
    target
        .key
        .assert_absent(environ, "the broker's environment block");
    assert!(target.finish().success());
}

#[test]
fn a_command_of_another_user_cannot_look_into_a_broker_of_root() {
    let test = "a_command_of_another_user_cannot_look_into_a_broker_of_root";
    if !is_root() {
        return skipped(test, "we are not root");
    }
    // What root itself gets to see, its command no longer does: the environment and the maps too.
    let options = ["--user", "65534:65534"];
    let mut target = Target::start(User::Same, &options, "python3 $ATTACK $PPID");
    assert_eq!(target.lines(), all_denied());
    assert_eq!(
        target.attacked_from_outside(User::Unprivileged, target.broker.id()),
        all_denied()
    );
    assert!(target.finish().success());
}

/// The value of a line of /proc/self/status as the command sees it.
fn status_of_command(options: &[&str], name: &str) -> String {
    let mut target = Target::start(
        User::Same,
        options,
        &format!("grep ^{name}: /proc/self/status"),
    );
    target
        .lines()
        .remove(0)
        .split_once(':')
        .expect("a name and a value")
        .1
        .trim()
        .to_owned()
}

fn own_status(name: &str) -> String {
    let status = fs::read_to_string("/proc/self/status").expect("read our own status");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.expect("the kernel says it").trim().to_owned()
}

#[test]
fn the_command_gets_no_new_privileges_unless_that_is_lifted() {
    assert_eq!(status_of_command(&[], "NoNewPrivs"), "1");
    assert_eq!(
        status_of_command(&["--allow-new-privs"], "NoNewPrivs"),
        own_status("NoNewPrivs")
    );
}

#[test]
fn the_bounding_set_of_a_root_command_lacks_ptrace_and_only_that() {
    const CAP_SYS_PTRACE: u64 = 1 << 19;
    if !is_root() {
        return skipped(
            "the_bounding_set_of_a_root_command_lacks_ptrace_and_only_that",
            "we are not root",
        );
    }
    let parse = |text: String| u64::from_str_radix(&text, 16).expect("a mask in hexadecimal");
    let before = parse(own_status("CapBnd"));
    for options in [&[][..], &["--allow-new-privs"]] {
        let after = parse(status_of_command(options, "CapBnd"));
        assert_eq!(after, before & !CAP_SYS_PTRACE);
    }
    assert_eq!(parse(status_of_command(&[], "CapEff")) & CAP_SYS_PTRACE, 0);
}

#[test]
fn a_set_user_id_program_gains_nothing() {
    let test = "a_set_user_id_program_gains_nothing";
    if !is_root() {
        return skipped(
            test,
            "only root can make a program that is set-user-id root",
        );
    }
    if !User::Unprivileged.available(test) {
        return;
    }
    let dir = TempDir::new();
    dir.open_to_all();
    let program = dir.join("id");
    fs::copy("/usr/bin/id", &program).expect("copy id(1)");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).expect("chmod");
    let plain = User::Unprivileged
        .command(&program)
        .arg("-u")
        .output()
        .expect("run id(1)");
    if plain.stdout != b"0\n" {
        return skipped(
            test,
            "set-user-id does not work in the temporary directory, with or without us",
        );
    }
    let id = format!("{} -u", program.display());
    assert_eq!(
        Target::start(User::Unprivileged, &[], &id).lines(),
        ["65534"]
    );
    assert_eq!(
        Target::start(User::Unprivileged, &["--allow-new-privs"], &id).lines(),
        ["0"]
    );
}

#[test]
fn a_crash_of_the_broker_leaves_no_core_and_the_command_keeps_its_limit() {
    let limit = |options: &str| {
        let output = Command::new("bash")
            .args(["-c", &format!("ulimit {options}")])
            .output()
            .expect("run bash");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let hard = limit("-H -c");
    if hard == "0" {
        skipped(
            "a_crash_of_the_broker_leaves_no_core",
            "cores are forbidden here anyway: only half is shown",
        );
    }
    let key = Key::random();
    let dir = public_copies();
    let (said, stdout) = socket();
    let mut broker = Command::new("bash")
        .args(["-c", "ulimit -S -c $(ulimit -H -c); exec \"$@\"", "bash"])
        .arg(dir.join("broker-exec"))
        .args([
            "-u",
            "https://127.0.0.1:1",
            "-k",
            "env:API_KEY",
            "--",
            "bash",
            "-c",
        ])
        .arg("ulimit -S -c; echo ready; exec sleep 60")
        .env("API_KEY", key.as_str())
        .current_dir(dir.path())
        .stdout(stdout)
        .stdin(Stdio::null())
        .spawn()
        .expect("start the broker");
    let mut lines = BufReader::new(said)
        .lines()
        .map(|line| line.expect("a line within the deadline"));
    assert_eq!(
        lines.next(),
        Some(hard),
        "the command's own limit is the caller's"
    );
    assert_eq!(lines.next().as_deref(), Some("ready"));
    let limits = fs::read_to_string(format!("/proc/{}/limits", broker.id()))
        .expect("read the broker's limits");
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .expect("the limit is listed");
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    let pid = rustix::process::Pid::from_child(&broker);
    // Not SEGV: the standard library's handler takes the first of those for a stack overflow.
    rustix::process::kill_process(pid, rustix::process::Signal::ILL).expect("crash the broker");
    let status = wait_with_deadline(&mut broker);
    assert!(
        status.signal().is_some() || status.code().is_some_and(|code| code != 0),
        "{status}"
    );
    assert!(!status.core_dumped(), "{status}");
    for entry in fs::read_dir(dir.path()).expect("list the directory") {
        let name = entry.expect("an entry").file_name();
        assert!(
            !name.to_string_lossy().contains("core"),
            "a core file: {}",
            name.display()
        );
    }
}
