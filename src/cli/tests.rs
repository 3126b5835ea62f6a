//! What a command line means, one promise per test.

use super::*;

fn parse_words(words: &[&str]) -> Result<Invocation> {
    parse(words.iter().map(OsString::from))
}

fn run(words: &[&str]) -> Options {
    match parse_words(words) {
        Ok(Invocation::Run(options)) => *options,
        other => panic!("{words:?}: {other:?}"),
    }
}

/// A run with these options in front of a complete rest.
fn run_with(words: &[&str]) -> Options {
    run(&[words, &["-u", "https://a", "-k", "fd:9", "true"]].concat())
}

fn refusal(words: &[&str]) -> String {
    match parse_words(words) {
        Err(err @ Error::Usage(_)) => {
            assert_eq!(err.exit_status(), 125);
            let text = err.to_string();
            assert!(text.ends_with("\ntry 'broker-exec --help'"), "{text}");
            text
        }
        other => panic!("{words:?}: {other:?}"),
    }
}

fn refusal_with(words: &[&str]) -> String {
    refusal(&[words, &["-u", "https://a", "-k", "fd:9", "true"]].concat())
}

fn print(words: &[&str]) -> String {
    match parse_words(words) {
        Ok(Invocation::Print(text)) => text,
        other => panic!("{words:?}: {other:?}"),
    }
}

#[test]
fn every_option_reaches_its_field() {
    let got = run(&[
        "-u",
        "https://a.example",
        "--key=env:K",
        "-i",
        "query:k",
        "--service",
        "flashduty",
        "--env",
        "A={fd}",
        "--env=B=x=y",
        "--env",
        "C=",
        "--fd",
        "7",
        "--connect-timeout",
        "500ms",
        "--response-header-timeout=5m",
        "--idle-timeout",
        "1h",
        "--scrub=fail",
        "--user",
        "build:ci",
        "--allow-private",
        "--allow-new-privs",
        "--strict",
        "--max-connections",
        "65536",
        "--cacert",
        "a.pem",
        "--cacert=b.pem",
        "--audit",
        "log",
        "--audit=fd:9",
        "--audit-required",
        "-v",
        "--",
        "cmd",
        "arg",
    ]);
    let pair = |name: &str, value: &str| (OsString::from(name), OsString::from(value));
    let want = Options {
        upstream: Some("https://a.example".into()),
        key: Some("env:K".into()),
        inject: Some("query:k".into()),
        service: Some("flashduty".into()),
        env: vec![pair("A", "{fd}"), pair("B", "x=y"), pair("C", "")],
        fd: Some(7),
        connect_timeout: Duration::from_millis(500),
        response_header_timeout: Duration::from_secs(300),
        idle_timeout: Some(Duration::from_secs(3600)),
        scrub: Scrub::Fail,
        user: Some("build:ci".into()),
        allow_private: true,
        allow_new_privs: true,
        strict: true,
        max_connections: 65536,
        cacert: vec!["a.pem".into(), "b.pem".into()],
        audit: Some(Target::Fd(9)),
        audit_required: true,
        verbosity: 1,
        command: vec!["cmd".into(), "arg".into()],
    };
    assert_eq!(got, want);
}

#[test]
fn the_defaults_are_those_of_the_table() {
    let default = |long: &str| {
        let flag = FLAGS.iter().find(|flag| flag.long == long);
        flag.and_then(|flag| flag.default).expect(long)
    };
    let options = run_with(&[]);
    let duration = |long| value::duration(default(long)).expect(long);
    assert_eq!(options.connect_timeout, duration("connect-timeout"));
    assert_eq!(
        options.response_header_timeout,
        duration("response-header-timeout")
    );
    assert_eq!(default("idle-timeout"), "none");
    assert_eq!(options.idle_timeout, None);
    assert_eq!(default("scrub"), "redact");
    assert_eq!(options.scrub, Scrub::Redact);
    let connections = default("max-connections").parse();
    assert_eq!(Ok(options.max_connections), connections);
    let others = FLAGS.iter().filter(|flag| flag.default.is_some());
    assert_eq!(others.count(), 6, "a default that this test does not know");
}

#[test]
fn the_table_names_each_option_once() {
    for (at, flag) in FLAGS.iter().enumerate() {
        for other in &FLAGS[..at] {
            assert_ne!(flag.id, other.id, "{}", flag.long);
            assert_ne!(flag.long, other.long);
            assert!(flag.short.is_none() || flag.short != other.short);
        }
    }
}

#[test]
fn options_stop_at_the_first_operand() {
    let head = ["-u", "https://a", "-k", "fd:9"];
    let command = |tail: &[&str]| run(&[&head, tail].concat()).command;
    assert_eq!(command(&["cmd", "--help"]), ["cmd", "--help"]);
    assert_eq!(command(&["cmd", "-q", "--", "x"]), ["cmd", "-q", "--", "x"]);
    assert_eq!(command(&["-"]), ["-"]);
}

#[test]
fn only_the_first_double_dash_is_eaten() {
    let head = ["-u", "https://a", "-k", "fd:9", "--"];
    let command = |tail: &[&str]| run(&[&head, tail].concat()).command;
    assert_eq!(command(&["cmd", "--", "--help"]), ["cmd", "--", "--help"]);
    assert_eq!(command(&["--", "x"]), ["--", "x"]);
    assert_eq!(command(&["-q"]), ["-q"]);
}

#[test]
fn arguments_need_not_be_utf8() {
    use std::os::unix::ffi::OsStringExt;
    let odd = || OsString::from_vec(b"\xff=\xfe".to_vec());
    let words = ["-u", "https://a", "-k"].map(OsString::from);
    let rest = [odd(), "--env".into(), odd(), "cmd".into(), odd()];
    match parse(words.into_iter().chain(rest)) {
        Ok(Invocation::Run(options)) => {
            assert_eq!(options.key, Some(odd()));
            let pair = (
                OsString::from_vec(vec![0xff]),
                OsString::from_vec(vec![0xfe]),
            );
            assert_eq!(options.env, [pair]);
            assert_eq!(options.command, ["cmd".into(), odd()]);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn short_options_cluster_and_take_attached_values() {
    let options = run(&["-qvuhttps://a", "-kfd:9", "-i=bearer", "true"]);
    assert_eq!(options.verbosity, 1);
    assert_eq!(options.upstream.as_deref(), Some("https://a"));
    assert_eq!(options.key, Some("fd:9".into()));
    assert_eq!(options.inject.as_deref(), Some("bearer"));
}

#[test]
fn the_last_of_a_repeated_option_counts() {
    let options = run_with(&["--fd", "4", "--fd", "5", "-v", "-q", "-u", "https://b"]);
    assert_eq!(options.fd, Some(5));
    assert_eq!(options.verbosity, -1);
    assert_eq!(options.upstream.as_deref(), Some("https://a"));
}

#[test]
fn a_second_service_is_refused() {
    let text = refusal_with(&["-s", "flashduty", "-s", "flashduty"]);
    assert!(text.starts_with("--service: only one"), "{text}");
}

#[test]
fn an_unknown_service_is_answered_with_the_known_ones() {
    let text = refusal_with(&["-s", "flash"]);
    assert!(text.contains("--service: no such service"), "{text}");
    assert!(text.contains("flashduty"), "{text}");
}

#[test]
fn what_a_run_needs_is_asked_for_by_name() {
    let upstream = refusal(&["-k", "fd:9", "true"]);
    assert!(upstream.contains("no upstream") && upstream.contains("-u") && upstream.contains("-s"));
    let key = refusal(&["-u", "https://a", "true"]);
    assert!(key.contains("no credential") && key.contains("-k"), "{key}");
    let key = refusal(&["-s", "flashduty", "true"]);
    assert!(key.contains("no credential"), "{key}");
    assert!(refusal(&["-u", "https://a", "-k", "fd:9"]).contains("no command"));
    assert!(refusal(&["-u", "https://a", "-k", "fd:9", "--"]).contains("no command"));
    assert!(refusal(&[]).contains("no command"));
}

#[test]
fn a_service_stands_in_for_the_upstream() {
    let options = run(&["-s", "flashduty", "-k", "fd:9", "true"]);
    assert_eq!(options.service.as_deref(), Some("flashduty"));
    assert_eq!(options.upstream, None);
}

#[test]
fn unknown_options_are_named() {
    assert!(refusal_with(&["--bogus=1"]).starts_with("unknown option --bogus\n"));
    assert!(refusal_with(&["-x"]).starts_with("unknown option -x\n"));
    assert!(refusal_with(&["-qx"]).starts_with("unknown option -x\n"));
    // Abbreviations would turn every new option into a change of meaning.
    assert!(refusal_with(&["--upst", "x"]).starts_with("unknown option --upst\n"));
}

#[test]
fn a_missing_or_empty_value_names_its_option() {
    assert!(refusal(&["--key"]).starts_with("--key: needs a value\n"));
    assert!(refusal(&["-u"]).starts_with("--upstream: needs a value\n"));
    assert!(refusal_with(&["-k", ""]).starts_with("--key: the value is empty\n"));
    assert!(refusal_with(&["--cacert="]).starts_with("--cacert: the value is empty\n"));
}

#[test]
fn a_value_that_may_be_a_secret_is_never_repeated() {
    for words in [
        &["--quiet=hunter2"][..],
        &["--verbose=hunter2", "true"],
        &["--env", "hunter2"],
        &["--env", "=hunter2"],
        &["--fd", "hunter2"],
        &["--idle-timeout", "hunter2"],
        &["--max-connections", "hunter2"],
        &["-s", "hunter2"],
        &["--completions", "hunter2"],
        &["-u", "hunter2", "true"],
        &["-k", "hunter2", "true"],
    ] {
        let text = refusal(words);
        assert!(!text.contains("hunter2"), "{words:?}: {text}");
    }
}

#[test]
fn a_switch_takes_no_value() {
    assert!(refusal_with(&["--quiet=yes"]).starts_with("--quiet takes no value\n"));
}

#[test]
fn durations_have_a_unit_and_a_sane_length() {
    let ok = |text: &str| run_with(&["--idle-timeout", text]).idle_timeout;
    assert_eq!(ok("1ms"), Some(Duration::from_millis(1)));
    assert_eq!(ok("060s"), Some(Duration::from_secs(60)));
    assert_eq!(ok("168h"), Some(Duration::from_secs(7 * 24 * 3600)));
    for junk in [
        "x", "s", "ms", "-1s", "+1s", "1 s", " 1s", "1s ", "1.5s", "1sec", "1S", "1d", "1h30m",
        "٣s", "0x1s",
    ] {
        let text = refusal_with(&["--idle-timeout", junk]);
        assert!(text.starts_with("--idle-timeout: not a duration"), "{text}");
    }
    for zero in ["0s", "0ms", "000h"] {
        let text = refusal_with(&["--connect-timeout", zero]);
        assert!(text.starts_with("--connect-timeout: must be more than 0"));
    }
    assert!(refusal_with(&["--connect-timeout", "10"]).contains("needs a unit"));
    let long = [
        "169h",
        "18446744073709551615h",
        "18446744073709551616ms",
        "99999999999999999999s",
    ];
    for long in long {
        let text = refusal_with(&["--response-header-timeout", long]);
        assert!(
            text.starts_with("--response-header-timeout: too long"),
            "{text}"
        );
    }
}

#[test]
fn numbers_stay_within_their_bounds() {
    for bad in ["0", "2", "-1", "+3", "x", "3.0", "2147483648", "1e3", " 3"] {
        let text = refusal_with(&["--fd", bad]);
        assert!(
            text.starts_with("--fd: not a number from 3"),
            "{bad}: {text}"
        );
    }
    for bad in ["0", "65537", "-1", "many", "18446744073709551616"] {
        let text = refusal_with(&["--max-connections", bad]);
        assert!(text.starts_with("--max-connections: not a number from 1 to 65536"));
    }
    assert_eq!(run_with(&["--max-connections", "1"]).max_connections, 1);
    assert_eq!(run_with(&["--fd", "3"]).fd, Some(3));
}

#[test]
fn an_audit_goes_to_a_file_or_a_descriptor_that_is_nobody_elses() {
    let file = run_with(&["--audit", "fd"]).audit;
    assert_eq!(file, Some(Target::File("fd".into())));
    for bad in [
        "fd:",
        "fd:x",
        "fd:+9",
        "fd:-1",
        "fd:0",
        "fd:1",
        "fd:2",
        "fd:99999999999",
    ] {
        let text = refusal_with(&["--audit", bad]);
        assert!(text.starts_with("--audit: "), "{text}");
    }
    let text = refusal_with(&["--audit-required"]);
    assert!(text.starts_with("--audit-required: say with --audit"));
    let text = refusal_with(&["-k", "fd:9", "--audit", "fd:09"]);
    assert!(text.starts_with("--audit: the key is read"), "{text}");
}

#[test]
fn variables_that_we_announce_cannot_be_overwritten() {
    for name in ["BROKER_EXEC_FD", "BROKER_EXEC_FD_ID"] {
        let text = refusal_with(&["--env", &format!("{name}=3")]);
        assert!(text.starts_with("--env: "), "{text}");
    }
}

#[test]
fn help_fits_a_screen_of_eighty_columns() {
    let help = print(&["--help"]);
    assert_eq!(help, print(&["-h"]));
    for line in help.lines() {
        assert!(line.chars().count() <= 79, "{line}");
    }
    assert!(help.lines().count() < 40);
}

#[test]
fn version_and_services_are_plain_text() {
    assert_eq!(
        print(&["-V"]),
        concat!("broker-exec ", env!("CARGO_PKG_VERSION"), "\n")
    );
    let services = print(&["--services"]);
    for preset in CATALOGUE {
        let line = format!("{}  {}  {}\n", preset.name, preset.upstream, preset.inject);
        assert!(services.contains(&line));
    }
    assert!(services.contains("sets FLASHDUTY_CRED_FD={fd}\n"));
    assert!(services.contains("removes FLASHDUTY_APP_KEY\n"));
}

#[test]
fn capabilities_need_no_command() {
    assert!(matches!(
        parse_words(&["--capabilities"]),
        Ok(Invocation::Capabilities)
    ));
}

#[test]
fn every_shell_gets_completions_and_no_other_word_does() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(print(&["--completions", shell]).contains("broker-exec"));
    }
    assert!(refusal(&["--completions", "tcsh"]).contains("one of bash, zsh, fish"));
}
