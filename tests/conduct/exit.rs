//! The exit status is the command's own, and a failure of ours cannot be taken for one.

use std::os::unix::process::ExitStatusExt;
use std::process::Output;

use crate::support::{Running, Scratch, Under, both, is_root, skipped, state, stdout};

fn run(words: &[&str]) -> Output {
    Under::Wrapper.run(words).output().unwrap()
}

fn fails_with(words: &[&str], status: i32, text: &str) {
    let output = run(words);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{words:?}: {message}");
    assert!(message.contains(text), "{words:?}: {message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(output.stdout.is_empty());
}

#[test]
fn every_exit_status_passes_through() {
    for status in [0, 1, 2, 42, 124, 125, 126, 127, 128, 130, 255] {
        let output = run(&["sh", "-c", &format!("exit {status}")]);
        assert_eq!(output.status.code(), Some(status));
        assert!(output.stderr.is_empty() && output.stdout.is_empty());
    }
}

#[test]
fn a_command_that_does_not_exist_is_127() {
    fails_with(&["no-such-command-here"], 127, "no-such-command-here");
    fails_with(&["/no/such/command"], 127, "/no/such/command");
    fails_with(&[""], 127, "not found");
}

#[test]
fn a_script_whose_interpreter_is_missing_is_127() {
    let scratch = Scratch::new();
    let script = scratch.file("script", "#!/no/such/interpreter\n", 0o755);
    fails_with(&[&script], 127, &script);
}

#[test]
fn what_exists_and_cannot_be_executed_is_126() {
    let scratch = Scratch::new();
    let plain = scratch.file("plain", "#!/bin/sh\n", 0o644);
    fails_with(&[scratch.path()], 126, "Permission denied");
    fails_with(&[&plain], 126, "Permission denied");
    fails_with(&[&format!("{plain}/below")], 126, "Not a directory");
}

#[test]
fn the_search_goes_on_past_what_is_denied_and_remembers_it() {
    let (denied, granted) = (Scratch::new(), Scratch::new());
    denied.file("found", "#!/bin/sh\necho denied", 0o644);
    granted.file("found", "#!/bin/sh\necho granted", 0o755);
    denied.file("only-denied", "#!/bin/sh\n", 0o644);
    let path = format!("/nowhere:{}:{}", denied.path(), granted.path());
    let output = Under::Wrapper
        .run(&["found"])
        .env("PATH", &path)
        .output()
        .unwrap();
    assert_eq!(stdout(&output), "granted\n");
    let output = Under::Wrapper
        .run(&["only-denied"])
        .env("PATH", &path)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(126));
}

#[test]
fn entries_of_path_that_are_no_directories_find_nothing() {
    let output = Under::Wrapper
        .run(&["sh"])
        .env("PATH", "/etc/passwd")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(127));
}

#[test]
fn a_script_without_an_interpreter_line_is_run_by_the_shell() {
    let scratch = Scratch::new();
    let script = scratch.file("plain-script", "echo \"$0:$#:$2\"; exit 5", 0o755);
    let (wrapped, bare) = both(|under| under.run(&[&script, "a", "b c"]));
    assert_eq!(
        String::from_utf8_lossy(&wrapped.stdout),
        format!("{script}:2:b c\n")
    );
    assert_eq!(
        (wrapped.stdout, wrapped.status.code()),
        (bare.stdout, Some(5))
    );

    let path = format!("{}:{}", scratch.path(), std::env::var("PATH").unwrap());
    let found = Under::Wrapper
        .run(&["plain-script", "a", "b c"])
        .env("PATH", path)
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&found.stdout),
        format!("{script}:2:b c\n")
    );
}

#[test]
fn a_command_killed_by_a_signal_takes_us_with_it() {
    for signal in [1, 2, 3, 6, 9, 10, 11, 13, 14, 15, 24, 31, 40, 64] {
        let output = run(&["sh", "-c", &format!("ulimit -c 0; kill -{signal} $$")]);
        assert_eq!(output.status.signal(), Some(signal), "{output:?}");
        assert!(output.stderr.is_empty(), "{output:?}");
    }
}

#[test]
fn there_is_no_second_core() {
    let scratch = Scratch::new();
    let mut script = Under::Wrapper
        .script("ulimit -c $(ulimit -H -c); exec WRAP sh -c 'ulimit -c 0; kill -ABRT $$'");
    let output = script.current_dir(&scratch.0).output().unwrap();
    assert_eq!(output.status.signal(), Some(6));
    assert!(!output.status.core_dumped());
    assert_eq!(std::fs::read_dir(&scratch.0).unwrap().count(), 0);
}

#[test]
fn we_end_with_the_command_even_if_its_children_live_on() {
    // The grandchild keeps the control descriptor and lets go of the output.
    let script = "sleep 600 >/dev/null 2>&1 & echo $!; exit 3";
    let mut running = Running::start(Under::Wrapper.run(&["sh", "-c", script]));
    let grandchild = running.process();
    assert_eq!(running.exit().code(), Some(3));
    assert_eq!(running.rest(), [""; 0]);
    assert!(state(grandchild).is_some());
}

#[test]
fn the_first_process_of_a_container_reports_a_signal_as_a_status() {
    let probe = Under::Bare
        .run(&["unshare", "--pid", "--fork", "true"])
        .output();
    if !is_root() || !probe.is_ok_and(|probe| probe.status.success()) {
        skipped("a pid namespace needs root and unshare(1)");
        return;
    }
    let script = "exec unshare --pid --fork WRAP sh -c 'kill -TERM $$'";
    let output = Under::Wrapper.script(script).output().unwrap();
    assert_eq!(output.status.code(), Some(128 + 15), "{output:?}");
}
