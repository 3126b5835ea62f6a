//! The completions, in the shells that this machine has.
#![cfg(target_os = "linux")]

use std::ffi::OsString;
use std::io::Write;
use std::process::{Command, Stdio};

use broker_exec::cli::{self, Invocation};

fn script(shell: &str) -> String {
    match cli::parse(["--completions", shell].map(OsString::from)) {
        Ok(Invocation::Print(text)) => text,
        other => panic!("{shell}: {other:?}"),
    }
}

/// What bash would offer for the last of these words, which stand as bash splits them.
fn offers(words: &[&str]) -> Vec<String> {
    let driver = r#"
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        compopt() { :; }
        _broker_exec
        printf '%s\n' "${COMPREPLY[@]}""#;
    let mut bash = Command::new("bash");
    bash.env_remove("BASH_ENV");
    let output = bash
        .args(["--norc", "-c", &(script("bash") + driver), "bash"])
        .args(words)
        .output();
    let output = output.expect("bash runs");
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
    let text = String::from_utf8(output.stdout).expect("plain text");
    text.lines()
        .filter(|line| !line.is_empty())
        .map(String::from)
        .collect()
}

/// Runs the shell over a script from standard input, or says aloud that there is none.
fn syntax(shell: &str, option: &str) {
    let mut command = Command::new(shell);
    command.arg(option).stdin(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => {
            // Not by a macro: those are captured, and a test that is skipped says so aloud.
            let _ = writeln!(
                std::io::stderr(),
                "skipped: there is no {shell} on this machine"
            );
            return;
        }
        Err(err) => panic!("{shell}: {err}"),
    };
    let mut stdin = child.stdin.take().expect("a pipe was asked for");
    stdin.write_all(script(shell).as_bytes()).expect(shell);
    drop(stdin);
    assert!(
        child.wait().expect(shell).success(),
        "{shell} rejects its script"
    );
}

#[test]
fn bash_accepts_its_script() {
    syntax("bash", "-n");
}

#[test]
fn zsh_accepts_its_script() {
    syntax("zsh", "-n");
}

#[test]
fn fish_accepts_its_script() {
    syntax("fish", "--no-execute");
}

#[test]
fn bash_completes_options_and_their_values() {
    assert_eq!(offers(&["broker-exec", "--up"]), ["--upstream"]);
    assert_eq!(offers(&["broker-exec", "-q", "--cac"]), ["--cacert"]);
    assert_eq!(
        offers(&["broker-exec", "-k", ""]),
        ["file:", "fd:", "env:", "exec:"]
    );
    assert_eq!(offers(&["broker-exec", "--completions", "=", "z"]), ["zsh"]);
    assert_eq!(
        offers(&["broker-exec", "--completions", "="]),
        ["bash", "zsh", "fish"]
    );
    assert_eq!(offers(&["broker-exec", "-s", "fl"]), ["flashduty"]);
    assert!(offers(&["broker-exec", "--cacert", "/et"]).contains(&String::from("/etc")));
    assert!(offers(&["broker-exec", "--fd", ""]).is_empty());
}

#[test]
fn bash_sees_values_that_it_has_split() {
    let head = [
        "broker-exec",
        "-u",
        "https",
        ":",
        "//a",
        "-k",
        "file",
        ":",
        "/key",
    ];
    let after = |tail: &[&str]| offers(&[&head, tail].concat());
    assert_eq!(after(&["--inj"]), ["--inject"]);
    assert_eq!(after(&["--env", "A", "=", "{fd}", "-s", ""]), ["flashduty"]);
    assert!(after(&["-i", "query", ":"]).is_empty());
    assert!(after(&["-i", "query", ":", "b"]).is_empty());
}

#[test]
fn bash_hands_over_to_the_command() {
    assert!(offers(&["broker-exec", "-q", "tru"]).contains(&String::from("true")));
    assert!(offers(&["broker-exec", "-q", "--", "tru"]).contains(&String::from("true")));
    // Past the command, an option is the command's own.
    assert!(offers(&["broker-exec", "-q", "true", "--up"]).is_empty());
    assert!(offers(&["broker-exec", "--", "true", "--up"]).is_empty());
}
