//! `--user` runs the command as another user and as nothing else: ids, groups and capabilities are
//! that user's, and the command is otherwise as it would have been.
#![cfg(target_os = "linux")]

mod support;

use std::os::unix::process::{CommandExt, ExitStatusExt};

use support::session::binary;
use support::{Broker, Key, Place, TempDir, calls, skipped};

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn without_root(test: &str) -> bool {
    if !is_root() {
        skipped(test, "only root can run a command as another user");
    }
    !is_root()
}

/// What a script prints that runs as this user.
fn output(user: &str, script: &str) -> String {
    let key = Key::random();
    let finished = Broker::new()
        .args(["-u", "https://api.example.com", "-k", "env:API_KEY"])
        .args(["--user", user])
        .env("API_KEY", key.as_str())
        .bash(script)
        .succeeded();
    assert_eq!(finished.stderr, "");
    finished.stdout.trim_end().to_owned()
}

/// The values of these lines of /proc/self/status.
const STATUS: &str = "while read -r n v; do case $n in Uid:|Gid:|Groups:|Cap[IPEA]*) echo $n $v;; esac; done </proc/self/status";

#[test]
fn every_id_is_the_users_and_no_capability_is_left() {
    if without_root("every_id_is_the_users_and_no_capability_is_left") {
        return;
    }
    let none = "0000000000000000";
    let want = |uid, gid, groups: &str| {
        format!(
            "Uid: {uid} {uid} {uid} {uid}\nGid: {gid} {gid} {gid} {gid}\nGroups: {groups}\n\
             CapInh: {none}\nCapPrm: {none}\nCapEff: {none}\nCapAmb: {none}"
        )
    };
    assert_eq!(output("65534:65534", STATUS), want(65534, 65534, "65534"));
    assert_eq!(output("4242:4343", STATUS), want(4242, 4343, "4343"));
}

#[test]
fn a_name_brings_its_groups_as_setpriv_has_them() {
    let test = "a_name_brings_its_groups_as_setpriv_has_them";
    if without_root(test) {
        return;
    }
    let passwd = std::fs::read_to_string("/etc/passwd").expect("read /etc/passwd");
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    // Whoever is listed as a member somewhere, and somebody who is not.
    let members = groups.lines().filter_map(|line| line.rsplit(':').next());
    let member = members.flat_map(|m| m.split(',')).find(|m| !m.is_empty());
    let names = member.into_iter().chain(["nobody", "daemon"]);
    let known = |name: &&str| passwd.lines().any(|l| l.starts_with(&format!("{name}:")));
    let mut compared = 0;
    for name in names.filter(known) {
        let mut reference = std::process::Command::new("setpriv");
        reference.args(["--reuid", name, "--init-groups", "--regid"]);
        let line = passwd.lines().find(|l| l.starts_with(&format!("{name}:")));
        let gid = line.and_then(|l| l.split(':').nth(3)).expect("a group");
        reference.args([gid, "id", "-G"]);
        let Ok(reference) = reference.output() else {
            return skipped(test, "setpriv(1) is absent");
        };
        assert!(reference.status.success(), "{reference:?}");
        let sort = |text: &str| {
            let mut groups: Vec<_> = text.split_whitespace().map(str::to_owned).collect();
            groups.sort();
            groups
        };
        let ours = sort(&output(name, "id -G"));
        assert_eq!(
            ours,
            sort(&String::from_utf8_lossy(&reference.stdout)),
            "{name}"
        );
        compared += 1;
    }
    if compared == 0 {
        skipped(test, "/etc/passwd has nobody to compare with");
    }
}

#[test]
fn the_environment_and_the_directory_stay_as_they_are() {
    if without_root("the_environment_and_the_directory_stay_as_they_are") {
        return;
    }
    let said = output("65534:65534", "echo $HOME $USER; pwd");
    let home = std::env::var("HOME").unwrap_or_default();
    let user = std::env::var("USER").unwrap_or_default();
    let here = std::env::current_dir().expect("a working directory");
    let want = format!("{home} {user}");
    assert_eq!(
        said.lines().collect::<Vec<_>>(),
        [want.trim(), here.to_str().expect("a plain path")]
    );
}

#[test]
fn a_call_of_another_user_is_served() {
    if without_root("a_call_of_another_user_is_served") {
        return;
    }
    let (key, rule, upstream) = calls::api(Place::Query("app_key"));
    // The scripts may lie where only root gets at them.
    let dir = TempDir::new();
    dir.open_to_all();
    for name in ["get.py", "dial.py"] {
        let from = format!("{}/tests/clients/{name}", env!("CARGO_MANIFEST_DIR"));
        let to = dir.join(name);
        std::fs::copy(from, &to).expect("copy a script");
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        std::fs::set_permissions(to, open).expect("chmod");
    }
    let finished = Broker::to(&upstream, &key, &rule.place)
        .args(["--user", "65534:65534", "--strict"])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("SCRIPTS", dir.path())
        .with(|command| {
            command.current_dir("/");
        })
        .bash("PATH=/usr/local/bin:/usr/bin:/bin; python3 $SCRIPTS/get.py /")
        .succeeded();
    assert!(finished.stdout.starts_with("200 "), "{finished:?}");
    calls::assert_silent(&key, &finished);
    calls::assert_all_authorized(&upstream, 1);
}

#[test]
fn signals_reach_a_command_of_another_user() {
    if without_root("signals_reach_a_command_of_another_user") {
        return;
    }
    let key = Key::random();
    let mut running = Broker::new()
        .args(["-u", "https://api.example.com", "-k", "env:API_KEY"])
        .args(["--user", "65534:65534", "--", "bash", "-c"])
        .arg("trap 'kill $!; exit 42' TERM; sleep 60 & echo ready; wait")
        .env("API_KEY", key.as_str())
        .start();
    let start = std::time::Instant::now();
    while running.stdout() != "ready\n" {
        assert!(start.elapsed() < support::DEADLINE, "{}", running.stderr());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let pid = rustix::process::Pid::from_child(running.child());
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signal the broker");
    let finished = running.finish();
    assert_eq!(finished.status.code(), Some(42), "{finished:?}");
    assert_eq!(finished.status.signal(), None);
}

#[test]
fn the_program_is_executed_as_that_user() {
    if without_root("the_program_is_executed_as_that_user") {
        return;
    }
    let dir = TempDir::new();
    let program = dir.write("program", "#!/bin/sh\necho ran\n");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, open).expect("chmod");
    let key = Key::random();
    let run = |user: &[&str]| {
        Broker::new()
            .args(["-u", "https://api.example.com", "-k", "env:API_KEY"])
            .args(user.iter().copied())
            .env("API_KEY", key.as_str())
            .arg("--")
            .arg(&program)
            .run()
    };
    assert_eq!(run(&[]).succeeded().stdout, "ran\n");
    // The directory is closed to others.
    let refused = run(&["--user", "65534:65534"]);
    assert_eq!(refused.status.code(), Some(126), "{refused:?}");
}

#[test]
fn a_user_that_cannot_be_had_is_our_own_failure() {
    let run = |user: &str| {
        Broker::new()
            .args(["-u", "https://api.example.com", "-k", "env:API_KEY"])
            .args(["--user", user, "--", "echo", "ran"])
            .env("API_KEY", "0123456789abcdef")
            .run()
    };
    for user in [
        "no-such-user",
        "4294967295:1",
        "root:no-such-group",
        ":",
        "12345678",
    ] {
        let finished = run(user);
        assert_eq!(finished.status.code(), Some(125), "{finished:?}");
        assert!(finished.stderr.contains("--user"), "{finished:?}");
        assert_eq!(finished.stdout, "");
    }
    // Without the right to change users, there is no other way to run it. The binary may lie where
    // only root gets at it.
    let dir = TempDir::new();
    dir.open_to_all();
    let copy = dir.join("broker-exec");
    std::fs::copy(binary(), &copy).expect("copy the binary");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&copy, open).expect("chmod");
    let finished = Broker::new()
        .with(|command| {
            *command = std::process::Command::new(&copy);
            if is_root() {
                command.uid(65534).gid(65534).current_dir("/");
            }
        })
        .args(["-u", "https://api.example.com", "-k", "env:API_KEY"])
        .args(["--user", "4242:4242", "--", "echo", "ran"])
        .env("API_KEY", "0123456789abcdef")
        .run();
    assert_eq!(finished.status.code(), Some(125), "{finished:?}");
    assert!(
        finished.stderr.contains("--user: only root"),
        "{finished:?}"
    );
    assert_eq!(finished.stdout, "");
}
