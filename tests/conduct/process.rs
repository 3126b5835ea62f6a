//! What else the command inherits, and what it may not have.

use std::process::Command;

use crate::support::{
    Running, Scratch, Under, eventually, is_root, same_for_both, send, skipped, state,
    status_field, stdout,
};

#[test]
fn limits_umask_directory_and_niceness_are_the_callers() {
    let program = "import os, resource as r
print([(n, r.getrlimit(getattr(r, n))) for n in sorted(dir(r)) if n.startswith('RLIMIT_')])
print(os.umask(0), os.getcwd(), os.nice(0), os.getpriority(os.PRIO_PROCESS, 0))";
    let script = "cd /usr; umask 027; ulimit -S -n 123; ulimit -S -c 0; ulimit -S -s 4096
exec nice -n 3 WRAP python3 -c \"$PROGRAM\"";
    let output = same_for_both(|under| {
        let mut command = under.script(script);
        command.env("PROGRAM", program);
        command
    });
    assert!(
        output.contains("23 /usr") && output.contains("(123, "),
        "{output}"
    );
}

#[test]
fn our_own_core_limit_is_not_the_commands() {
    let script = "ulimit -S -c $(ulimit -H -c); WRAP sh -c 'ulimit -S -c; ulimit -H -c'";
    same_for_both(|under| under.script(script));
    let mut running = Running::start(Under::Wrapper.script(
        "ulimit -S -c $(ulimit -H -c); ulimit -H -c; exec WRAP sh -c 'echo $$; read line'",
    ));
    let hard = running.line();
    running.process();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", running.id())).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .unwrap();
    let values: Vec<&str> = core.split_ascii_whitespace().skip(4).take(2).collect();
    assert_eq!(values[0], "0");
    assert_eq!(values[1] == "unlimited", hard == "unlimited");
}

#[test]
fn arguments_reach_the_command_as_they_are() {
    let words = [
        "python3",
        "-c",
        "import sys; print(sys.argv[1:], open('/proc/self/cmdline').read().split('\\0')[0])",
    ];
    let args = ["", "--", "--help", "-x", "a b", "*", "\u{e9}\n"];
    same_for_both(|under| under.run(&[&words[..], &args].concat()));
}

#[test]
fn the_environment_is_the_callers_but_for_our_own_variables() {
    let (wrapped, bare) = crate::support::both(|under| {
        let mut command = under.run(&[
            "python3",
            "-c",
            "import os
for name in sorted(os.environb): print(name, os.environb[name])",
        ]);
        command.env("EMPTY", "").env("LINES_", "a\nb=c");
        command
    });
    let ours = |line: &&str| !line.starts_with("b'BROKER_EXEC_") && !line.starts_with("b'K'");
    let wrapped: Vec<&str> = stdout(&wrapped).lines().filter(ours).collect();
    let bare: Vec<&str> = stdout(&bare).lines().filter(ours).collect();
    assert_eq!(wrapped, bare);
}

#[test]
fn the_command_outlives_us_if_we_are_killed() {
    let mut running =
        Running::start(Under::Wrapper.run(&["sh", "-c", "echo $$; read line; echo still here"]));
    let command = running.process();
    let input = running.child.stdin.take();
    running.child.kill().unwrap();
    running.child.wait().unwrap();
    drop(input);
    assert_eq!(running.line(), "still here");
    eventually("the end of the command", || {
        matches!(state(command), None | Some('Z')).then_some(())
    });
}

#[test]
fn orphans_of_the_command_are_not_adopted_by_us() {
    let script = "sh -c 'sleep 600 >/dev/null & echo $!'; echo $$; read line";
    let mut running = Running::start(Under::Wrapper.run(&["sh", "-c", script]));
    let orphan = running.process();
    running.process();
    assert_ne!(status_field(orphan, "PPid"), running.id().to_string());
}

#[test]
fn the_command_gains_no_privileges() {
    let output = Under::Wrapper
        .run(&["grep", "NoNewPrivs", "/proc/self/status"])
        .output()
        .unwrap();
    assert_eq!(stdout(&output), "NoNewPrivs:\t1\n");
}

#[test]
fn the_command_cannot_trace_us_even_as_root() {
    const PTRACE: u64 = 1 << 19;
    let sets = |under: Under| -> Vec<u64> {
        let output = under
            .run(&["grep", "^Cap", "/proc/self/status"])
            .output()
            .unwrap();
        let value = |line: &str| u64::from_str_radix(line.split_once('\t').unwrap().1, 16).unwrap();
        stdout(&output).lines().map(value).collect()
    };
    let (wrapped, bare) = (sets(Under::Wrapper), sets(Under::Bare));
    if !is_root() {
        skipped("only root has CAP_SYS_PTRACE to lose");
        assert_eq!(wrapped, bare);
        return;
    }
    assert!(wrapped.iter().all(|set| set & PTRACE == 0), "{wrapped:x?}");
    let others: Vec<u64> = bare.iter().map(|set| set & !PTRACE).collect();
    assert_eq!(wrapped, others);

    // Not environ and maps: since Linux 6.16 CAP_PERFMON or CAP_SYS_ADMIN is enough to read those.
    let script =
        "! readlink /proc/$PPID/fd/0 && ! readlink /proc/$PPID/exe && ! : </proc/$PPID/mem";
    let output = Under::Wrapper
        .run(&["bash", "-c", script])
        .output()
        .unwrap();
    assert_eq!(stdout(&output), "", "{output:?}");
}

#[test]
fn ambient_and_inheritable_capabilities_are_no_way_around() {
    let probe = Under::Bare.run(&["setpriv", "--help"]).output();
    if !is_root() || !probe.is_ok_and(|probe| probe.status.success()) {
        skipped("needs root and setpriv(1)");
        return;
    }
    let script = "exec setpriv --inh-caps +sys_ptrace,+kill --ambient-caps +sys_ptrace,+kill WRAP grep ^Cap /proc/self/status";
    let output = Under::Wrapper.script(script).output().unwrap();
    for line in stdout(&output).lines() {
        let set = u64::from_str_radix(line.split_once('\t').unwrap().1, 16).unwrap();
        assert_eq!(set & 1 << 19, 0, "{line}");
        assert_ne!(set & 1 << 5, 0, "{line}");
    }
}

#[test]
fn a_set_id_installation_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    if !is_root() {
        skipped("only root can make a program that runs as another user");
        return;
    }
    let scratch = Scratch::new();
    let copy = scratch.0.join("set-id");
    let wrapper = Under::Wrapper.command();
    for (user, group, mode) in [(Some(65534), None, 0o4755), (None, Some(65534), 0o2755)] {
        // By another process, for the reason that `Scratch::file` gives.
        let copied = Command::new("cp")
            .arg(wrapper.get_program())
            .arg(&copy)
            .status()
            .unwrap();
        assert!(copied.success());
        std::os::unix::fs::chown(&copy, user, group).unwrap();
        std::fs::set_permissions(&copy, PermissionsExt::from_mode(mode)).unwrap();
        let mut command = Under::Wrapper.outer(&[copy.to_str().unwrap()]);
        let output = command
            .args(wrapper.get_args())
            .args(["echo", "ran"])
            .output()
            .unwrap();
        assert_eq!(
            output.status.code(),
            Some(125),
            "is the file system mounted nosuid? {output:?}"
        );
        assert!(String::from_utf8_lossy(&output.stderr).contains("set-user-ID"));
        assert!(output.stdout.is_empty());
        std::fs::remove_file(&copy).unwrap();
    }
}

#[test]
fn a_command_that_was_continued_by_its_id_goes_on_under_us() {
    // A supervisor without a terminal stops and continues one process; we go on meanwhile.
    let mut session = Under::Wrapper.outer(&["setsid"]);
    let wrapper = Under::Wrapper.command();
    session.arg(wrapper.get_program()).args(wrapper.get_args());
    session.args([
        "sh",
        "-c",
        "trap 'echo usr1' USR1; echo $$; while :; do read line && exit 4; done",
    ]);
    let mut running = Running::start(session);
    let command = running.process();
    send(command, 19);
    crate::support::until_state(command, 'T');
    send(running.id(), 10);
    let pending = 1u64 << (10 - 1);
    eventually("the signal to be passed on", || {
        let set = u64::from_str_radix(&status_field(command, "ShdPnd"), 16).unwrap();
        (set & pending != 0).then_some(())
    });
    assert_eq!(state(running.id()), Some('S'));
    send(command, 18);
    assert_eq!(running.line(), "usr1");
    // Stopped again, and continued through us.
    send(command, 19);
    crate::support::until_state(command, 'T');
    send(running.id(), 18);
    drop(
        running
            .child
            .stdin
            .take()
            .map(|mut input| std::io::Write::write_all(&mut input, b"\n").map(|()| input)),
    );
    assert_eq!(running.exit().code(), Some(4));
}
