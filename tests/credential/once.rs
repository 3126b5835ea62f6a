//! Sources that are read once: streams, descriptors, the environment, commands.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::IntoRawFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use broker_exec::credential::{Credential, DEADLINE, Source};

use super::{Dir, KEY, bearer, contains, is_alone, load, refusal, run_alone};

#[test]
fn a_descriptor_is_read_to_its_end_and_closed() {
    let (reader, mut writer) = io::pipe().unwrap();
    writer.write_all(b"key-abc\r\n").unwrap();
    let held = writer.try_clone().unwrap();
    let number = reader.into_raw_fd();
    let loading = thread::spawn(move || load(Source::Fd(number)).unwrap());
    drop(writer);
    drop(held);
    assert_eq!(
        loading.join().unwrap().current().unwrap().key.expose(),
        b"key-abc"
    );
}

#[test]
fn a_descriptor_is_closed_after_an_error_too() {
    let (reader, mut writer) = io::pipe().unwrap();
    writer.write_all(b"a\0b").unwrap();
    let number = reader.into_raw_fd();
    let err = Credential::load_within(Source::Fd(number), bearer(), Duration::from_millis(50))
        .unwrap_err();
    assert!(err.to_string().contains("did not end within 50ms"), "{err}");
    // Its only reader is gone. (By its number it could be somebody else's by now.)
    assert_eq!(
        writer.write_all(b"more").unwrap_err().kind(),
        io::ErrorKind::BrokenPipe
    );
}

#[test]
fn a_descriptor_that_is_not_open_is_refused() {
    let message = refusal(Source::Fd(i32::MAX - 1));
    assert!(message.contains("is not an open descriptor"), "{message}");
}

#[test]
fn standard_input_is_at_its_end_afterwards() {
    let name = "once::standard_input_is_at_its_end_afterwards";
    if !is_alone(name) {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(KEY.as_bytes()).unwrap();
        drop(writer);
        run_alone(name, |command| command.stdin(reader));
        return;
    }
    let loaded = load(Source::Fd(0)).unwrap().current().unwrap();
    assert_eq!(loaded.key.expose(), KEY.as_bytes());
    assert_eq!(
        fs::read_link("/proc/self/fd/0").unwrap(),
        Path::new("/dev/null")
    );
    let mut rest = Vec::new();
    io::stdin().read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
}

#[test]
fn a_variable_is_read_and_wiped_from_the_environment_block() {
    let name = "once::a_variable_is_read_and_wiped_from_the_environment_block";
    if !is_alone(name) {
        run_alone(name, |command| {
            command.env("API_KEY", KEY).env("API_KEY_2", "stays")
        });
        return;
    }
    // Opened before we harden: afterwards an unprivileged user could not.
    let mut environ = File::open("/proc/self/environ").unwrap();
    let credential = load(Source::Env("API_KEY".into())).unwrap();
    assert_eq!(credential.current().unwrap().key.expose(), KEY.as_bytes());
    let mut block = Vec::new();
    environ.read_to_end(&mut block).unwrap();
    assert!(
        contains(&block, b"API_KEY_2=stays\0"),
        "the block was not read"
    );
    assert!(
        contains(&block, b"API_KEY=\0"),
        "the variable is not where it was"
    );
    assert!(
        !contains(&block, KEY.as_bytes()),
        "the key is still in /proc/self/environ"
    );
    assert_eq!(std::env::var("API_KEY").as_deref(), Ok(""));
    assert_eq!(std::env::var("API_KEY_2").as_deref(), Ok("stays"));
    let child = Command::new("/bin/sh")
        .args(["-c", "env"])
        .output()
        .unwrap();
    assert!(!contains(&child.stdout, KEY.as_bytes()));
}

#[test]
fn a_variable_that_is_unset_or_empty_is_refused() {
    let name = "once::a_variable_that_is_unset_or_empty_is_refused";
    if !is_alone(name) {
        run_alone(name, |command| {
            command
                .env("EMPTY", "")
                .env("BAD", "abc\ndef")
                .env_remove("UNSET")
        });
        return;
    }
    assert_eq!(
        refusal(Source::Env("UNSET".into())),
        "env:UNSET: is not set"
    );
    assert_eq!(refusal(Source::Env("EMPTY".into())), "env:EMPTY: is empty");
    assert!(refusal(Source::Env("BAD".into())).starts_with("env:BAD: holds a line break"));
    assert_eq!(
        std::env::var("BAD").as_deref(),
        Ok(""),
        "wiped although it is refused"
    );
}

#[test]
fn no_command_inherits_the_variable_of_another_source() {
    let name = "once::no_command_inherits_the_variable_of_another_source";
    if !is_alone(name) {
        run_alone(name, |command| command.env("API_KEY", KEY));
        return;
    }
    let command = Source::Exec(
        "echo found-${API_KEY-nothing}; ! grep -q 0123456789abcdef /proc/$$/environ".into(),
    );
    let variable = || Source::Env("API_KEY".into());
    // The command comes first here, and one variable serves two.
    let sources = vec![
        (command, bearer()),
        (variable(), bearer()),
        (variable(), bearer()),
    ];
    let loaded = Credential::load_all(sources, DEADLINE).unwrap();
    let keys: Vec<_> = loaded
        .iter()
        .map(|credential| credential.current().unwrap())
        .collect();
    assert_eq!(keys[0].key.expose(), b"found-nothing");
    assert_eq!(keys[1].key.expose(), KEY.as_bytes());
    assert_eq!(keys[2].key.expose(), KEY.as_bytes());
}

#[test]
fn the_output_of_a_command_is_the_key() {
    let credential = load(Source::Exec("printf 'key-%s\\n' abc".into())).unwrap();
    assert_eq!(credential.current().unwrap().key.expose(), b"key-abc");
    assert_eq!(credential.source().to_string(), "exec: command");
}

#[test]
fn a_command_has_no_input_and_its_errors_are_shown() {
    let name = "once::a_command_has_no_input_and_its_errors_are_shown";
    if !is_alone(name) {
        let output = run_alone(name, |command| command.stdin(Stdio::piped()));
        assert!(contains(&output.stderr, b"please unlock"), "{output:?}");
        return;
    }
    let credential = load(Source::Exec(
        "echo please unlock >&2; readlink /proc/self/fd/0".into(),
    ))
    .unwrap();
    assert_eq!(credential.current().unwrap().key.expose(), b"/dev/null");
}

#[test]
fn a_command_that_fails_is_refused_whatever_it_printed() {
    for (command, reason) in [
        ("echo abc; exit 3", "failed with exit status 3"),
        ("echo abc; kill -9 $$", "was killed by signal 9"),
        ("exec /nothing 2>/dev/null", "failed with exit status 127"),
        ("true", "is empty"),
        (
            "head -c 100000 /dev/zero | tr '\\0' a",
            "larger than 64 KiB",
        ),
        ("yes abc 2>/dev/null | tr -d '\\n'", "larger than 64 KiB"),
    ] {
        let message = refusal(Source::Exec(command.into()));
        assert!(
            message.starts_with("exec: command: ") && message.contains(reason),
            "{command}: {message}"
        );
        assert!(!message.contains("abc"), "{message}");
    }
}

#[test]
fn a_command_that_holds_its_output_is_killed_at_the_deadline() {
    check_killed("exec sleep 1000");
}

#[test]
fn a_command_that_closes_its_output_and_stays_is_killed_at_the_deadline() {
    check_killed("exec >&-; exec sleep 1000");
}

fn check_killed(rest: &str) {
    let dir = Dir::new();
    let pid = dir.0.join("pid");
    let command = format!("echo $$ >{}; echo abc; {rest}", pid.display());
    let source = Source::Exec(command.into());
    let err = Credential::load_within(source, bearer(), Duration::from_secs(2)).unwrap_err();
    assert_eq!(err.to_string(), "exec: command: did not end within 2s");
    let pid = fs::read_to_string(pid).unwrap();
    let process = Path::new("/proc").join(pid.trim());
    assert!(!process.exists(), "it is still there");
}
