//! What would let the command fetch the key by itself is said at the start, and refused with
//! `--strict`; a set-up without such a weakness is started in silence.
#![cfg(target_os = "linux")]

mod support;

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use support::{Broker, Finished, Key, TempDir, skipped};

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A broker whose command needs nothing; the upstream is never dialled.
fn broker(options: &[&str]) -> Broker {
    Broker::new()
        .args(["-u", "https://api.example.com"])
        .args(options.iter().copied())
}

/// The lines that it says, less its name.
fn said(key: &Key, finished: &Finished) -> Vec<String> {
    key.assert_absent(&finished.stderr, "what was said on standard error");
    let lines = finished.stderr.lines();
    lines
        .map(|line| line.trim_start_matches("broker-exec: ").to_owned())
        .collect()
}

/// Runs `true` with these options: with `-v`, as they are, with `--strict` and with `-q`. Each
/// warning has to hold one of these words, in order, and to become a refusal. Unasked, a run that
/// goes well says nothing, but for a credential that crosses the network in the clear.
#[track_caller]
fn warns(key: &Key, expected: &[&[&str]], run: impl Fn(&[&str]) -> Finished) {
    let warnings = |options| {
        let finished = run(options);
        assert!(finished.status.success(), "{finished:?}");
        let mut lines = said(key, &finished);
        lines.retain(|line| line.starts_with("warning: "));
        lines
    };
    let lines = warnings(&["-v"]);
    let unasked = warnings(&[]);
    assert!(
        unasked.iter().all(|line| line.contains("plain http")),
        "{unasked:?}"
    );
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for (line, words) in lines.iter().zip(expected) {
        for word in *words {
            assert!(line.contains(word), "{word}: {line}");
        }
    }
    let strict = run(&["--strict"]);
    if expected.is_empty() {
        assert!(strict.status.success(), "{strict:?}");
        assert_eq!(strict.stderr, "");
    } else {
        assert_eq!(strict.status.code(), Some(125), "{strict:?}");
        let refused = said(key, &strict);
        assert!(refused[0].starts_with("--strict: "), "{refused:?}");
        // Process ids are others each time.
        let alike = |line: &str| line.replace(|c: char| c.is_ascii_digit(), "");
        let listed: Vec<_> = refused[1..].iter().map(|l| alike(l.trim())).collect();
        let warned: Vec<_> = lines
            .iter()
            .map(|line| alike(&line["warning: ".len()..]))
            .collect();
        assert_eq!(listed, warned);
    }
    let quiet = run(&["-q"]);
    assert!(quiet.status.success(), "{quiet:?}");
    assert_eq!(quiet.stderr, "");
}

#[test]
fn a_pipe_leaves_nothing_to_warn_of() {
    let key = Key::random();
    warns(&key, &[], |more| {
        let (reader, mut writer) = std::io::pipe().expect("make a pipe");
        std::io::Write::write_all(&mut writer, key.as_str().as_bytes()).expect("write the key");
        drop(writer);
        broker(&["-k", "fd:0"])
            .args(more.iter().copied())
            .with(|command| {
                command.stdin(Stdio::from(reader));
            })
            .args(["--", "true"])
            .run()
    });
}

#[test]
fn a_variable_that_nobody_else_has_leaves_nothing_to_warn_of() {
    let key = Key::random();
    warns(&key, &[], |more| {
        let broker = broker(&["-k", "env:API_KEY"]).env("API_KEY", key.as_str());
        broker.args(more.iter().copied()).args(["--", "true"]).run()
    });
}

#[test]
fn a_file_that_the_command_can_read_is_told() {
    let key = Key::random();
    let dir = TempDir::new();
    let source = key.file_source(&dir);
    let who = if is_root() { "root" } else { "can read" };
    let expected: &[&[&str]] = &[&[who, &source, "--user"]];
    warns(&key, expected, |more| {
        let broker = broker(&["-k", &source]);
        broker.args(more.iter().copied()).args(["--", "true"]).run()
    });
    // By number the same file is no better, until its name is gone.
    let path = source.strip_prefix("file:").expect("a file");
    let by_number = |more: &[&str]| {
        let file = fs::File::open(path).expect("open the key");
        if more.contains(&"unlinked") {
            fs::remove_file(path).expect("remove the key");
        }
        let options = more.iter().copied().filter(|&word| word != "unlinked");
        broker(&["-k", "fd:0"])
            .args(options)
            .with(|command| {
                command.stdin(Stdio::from(file));
            })
            .args(["--", "true"])
            .run()
    };
    warns(&key, &[&[who, "fd:0"]], by_number);
    let finished = by_number(&["unlinked", "--strict"]).succeeded();
    assert_eq!(finished.stderr, "");
}

#[test]
fn a_command_as_a_source_is_told() {
    let key = Key::random();
    let dir = TempDir::new();
    let path = dir.write("key", key.as_str());
    let source = format!("exec:cat {}", path.display());
    warns(&key, &[&["exec:", "--user"]], |more| {
        let broker = broker(&["-k", &source]);
        broker.args(more.iter().copied()).args(["--", "true"]).run()
    });
}

/// A shell around the broker, which stays its parent.
fn under_a_shell(script: &str, broker: Broker) -> Finished {
    broker
        .with(|command| {
            let mut shell = Command::new("sh");
            // The shell must not become the broker: something has to follow.
            shell.args(["-c", &format!("{script}; status=$?; exit $status"), "sh"]);
            shell.arg(command.get_program()).args(command.get_args());
            for (name, value) in command.get_envs() {
                shell.env(name, value.unwrap_or_default());
            }
            shell.stdin(Stdio::null());
            *command = shell;
        })
        .run()
}

#[test]
fn a_key_in_the_environment_of_a_shell_above_is_told() {
    let key = Key::random();
    for value in [key.as_str(), "s3cr3t-k"] {
        warns(&key, &[&["environment of sh (", "unset"]], |more| {
            let broker = broker(&["-k", "env:API_KEY"])
                .env("API_KEY", value)
                .args(more.iter().copied());
            under_a_shell("\"$@\"", broker.args(["--", "true"]))
        });
    }
    // What the shell sets only later is in its memory and not in its environment block.
    let late = |more: &[&str]| {
        let dir = TempDir::new();
        let path = dir.write("key", key.as_str());
        let script = format!(
            "read -r API_KEY <'{}'; export API_KEY; \"$@\"",
            path.display()
        );
        let broker = broker(&["-k", "env:API_KEY"]).args(more.iter().copied());
        under_a_shell(&script, broker.args(["--", "true"]))
    };
    warns(&key, &[], late);
}

#[test]
fn a_key_in_the_commands_own_environment_is_told() {
    let key = Key::random();
    let source = OsString::from("env:API_KEY");
    warns(&key, &[&["$COPY", "unset"]], |more| {
        broker(&[])
            .arg("-k")
            .arg(source.clone())
            .env("API_KEY", key.as_str())
            .env("COPY", format!("Bearer {}", key.as_str()))
            .args(more.iter().copied())
            .args(["--", "true"])
            .run()
    });
}

#[test]
fn a_key_in_an_argument_is_told() {
    let key = Key::random();
    warns(&key, &[&["an argument holds the key"]], |more| {
        broker(&["-k", "env:API_KEY"])
            .env("API_KEY", key.as_str())
            .args(more.iter().copied())
            .args(["--", "true", &format!("--token={}", key.as_str())])
            .run()
    });
}

#[test]
fn an_upstream_without_tls_is_told() {
    let key = Key::random();
    let with = |url: &'static str| {
        let key = key.clone();
        move |more: &[&str]| {
            Broker::new()
                .args(["-u", url, "-k", "env:API_KEY"])
                .env("API_KEY", key.as_str())
                .args(more.iter().copied())
                .args(["--", "true"])
                .run()
        }
    };
    for url in ["http://api.example.com", "http://10.0.0.1"] {
        warns(&key, &[&["plain http", "https"]], with(url));
    }
    for url in [
        "http://127.0.0.1:9",
        "http://localhost",
        "http://[::1]",
        "http://a.localhost",
    ] {
        warns(&key, &[], with(url));
    }
}

#[test]
fn every_weakness_is_listed() {
    let key = Key::random();
    let dir = TempDir::new();
    let source = key.file_source(&dir);
    let expected: &[&[&str]] = &[
        &["plain http"],
        &["read the key"],
        &["$COPY"],
        &["environment of sh ("],
    ];
    warns(&key, expected, |more| {
        let broker = Broker::new()
            .args(["-u", "http://api.example.com", "-k", &source])
            .env("COPY", key.as_str())
            .args(more.iter().copied());
        under_a_shell("\"$@\"", broker.args(["--", "true"]))
    });
}

#[test]
fn another_user_who_cannot_open_the_file_closes_it() {
    let test = "another_user_who_cannot_open_the_file_closes_it";
    if !is_root() {
        return skipped(test, "only root can run a command as another user");
    }
    let key = Key::random();
    let dir = TempDir::new();
    dir.open_to_all();
    let path = dir.write("key", key.as_str());
    let source = format!("file:{}", path.display());
    let run = |more: &[&str]| {
        broker(&["-k", &source, "--user", "65534:65534"])
            .args(more.iter().copied())
            .args(["--", "true"])
            .run()
    };
    let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
    let readable: &[&[&str]] = &[&["65534", &source, "chmod"]];
    warns(&key, &[], run);
    mode(0o644);
    warns(&key, readable, run);
    // A closed directory on the way closes the file.
    let door =
        |mode| fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).expect("chmod");
    door(0o700);
    warns(&key, &[], run);
    door(0o755);
    // An owner can open what is closed.
    mode(0o000);
    std::os::unix::fs::chown(&path, Some(65534), None).expect("chown");
    warns(&key, readable, run);
}

#[test]
fn a_descriptor_of_the_file_is_told_even_to_another_user() {
    let test = "a_descriptor_of_the_file_is_told_even_to_another_user";
    if !is_root() {
        return skipped(test, "only root can run a command as another user");
    }
    let key = Key::random();
    let dir = TempDir::new();
    let path = dir.write("key", key.as_str());
    for source in [
        "file:/dev/fd/0".to_owned(),
        format!("file:{}", path.display()),
    ] {
        warns(&key, &[&["descriptor 0", "0<&-"]], |more| {
            let file = fs::File::open(&path).expect("open the key");
            broker(&["-k", &source, "--user", "65534:65534"])
                .with(|command| {
                    command.stdin(Stdio::from(file));
                })
                .args(more.iter().copied())
                .args(["--", "true"])
                .run()
        });
    }
}

#[test]
fn what_only_root_holds_is_closed_to_another_user() {
    let test = "what_only_root_holds_is_closed_to_another_user";
    if !is_root() {
        return skipped(test, "only root can run a command as another user");
    }
    let key = Key::random();
    let dir = TempDir::new();
    let path = dir.write("key", key.as_str());
    let exec = format!("exec:cat {}", path.display());
    warns(&key, &[], |more| {
        let broker = broker(&["-k", &exec, "--user", "65534:65534"]).args(more.iter().copied());
        broker.args(["--", "true"]).run()
    });
    warns(&key, &[], |more| {
        let broker = broker(&["-k", "env:API_KEY", "--user", "65534:65534"])
            .env("API_KEY", key.as_str())
            .args(more.iter().copied());
        under_a_shell("\"$@\"", broker.args(["--", "true"]))
    });
    // Root by another name is no other user.
    warns(&key, &[&["exec:"]], |more| {
        let broker = broker(&["-k", &exec, "--user", "0:12"]).args(more.iter().copied());
        broker.args(["--", "true"]).run()
    });
}
