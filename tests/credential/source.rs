//! What is accepted as a source and as a key.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use broker_exec::Error;
use broker_exec::credential::{Credential, Render, Source};

use super::{Dir, KEY, file, load, refusal};

#[test]
fn a_source_is_one_of_four_forms() {
    let parse = |text: &str| Source::parse(OsStr::new(text)).unwrap();
    assert_eq!(
        parse("file:/run/keys/api"),
        Source::File("/run/keys/api".into())
    );
    assert_eq!(parse("fd:5"), Source::Fd(5));
    assert_eq!(parse("fd:0"), Source::Fd(0));
    assert_eq!(parse("env:API_KEY"), Source::Env("API_KEY".into()));
    assert_eq!(
        parse("exec:pass show api"),
        Source::Exec("pass show api".into())
    );
    let odd = OsString::from_vec(b"file:/tmp/\xff".to_vec());
    assert_eq!(
        Source::parse(&odd).unwrap(),
        Source::File(OsStr::from_bytes(b"/tmp/\xff").into())
    );
    assert_eq!(parse("env:API_KEY").env_name(), Some(OsStr::new("API_KEY")));
    assert_eq!(parse("fd:5").env_name(), None);
}

#[test]
fn a_pasted_key_is_refused_without_being_echoed() {
    for text in [
        "sk-live-abcdef",
        "",
        "FILE:/x",
        "sk:live",
        "fd:sk-live",
        "fd:-1",
        "fd:+5",
        "fd:",
        "fd:99999999999",
        "env:",
        "env:sk-live=x",
        "file:",
        "exec: ",
    ] {
        let err = Source::parse(OsStr::new(text)).unwrap_err();
        assert!(matches!(err, Error::Usage(_)), "{text}: {err:?}");
        assert_eq!(err.exit_status(), 125);
        let message = err.to_string();
        assert!(message.starts_with("--key: "), "{message}");
        assert!(!message.contains("live"), "{message}");
    }
    let message = Source::parse(OsStr::new("sk-live-abcdef"))
        .unwrap_err()
        .to_string();
    for form in [
        "file:PATH",
        "fd:N",
        "env:NAME",
        "exec:COMMAND",
        "can't be given as an argument",
    ] {
        assert!(message.contains(form), "{message}");
    }
}

#[test]
fn a_key_is_not_read_from_our_output() {
    for text in ["fd:1", "fd:2"] {
        let message = Source::parse(OsStr::new(text)).unwrap_err().to_string();
        assert!(message.contains("standard output"), "{message}");
    }
}

#[test]
fn a_source_is_shown_without_its_command() {
    let show = |text: &str| Source::parse(OsStr::new(text)).unwrap().to_string();
    assert_eq!(show("file:/run/keys/api"), "file:/run/keys/api");
    assert_eq!(show("file:/a\nb\u{1b}"), "file:/a\\nb\\u{1b}");
    assert_eq!(show("fd:5"), "fd:5");
    assert_eq!(show("env:NAME"), "env:NAME");
    assert_eq!(show("exec:curl -u me:hunter2 vault"), "exec: command");
    let debug = format!(
        "{:?}",
        Source::parse(OsStr::new("exec:curl -u me:hunter2")).unwrap()
    );
    assert!(!debug.contains("hunter2"), "{debug}");
}

#[test]
fn exactly_one_newline_is_stripped() {
    for (content, key) in [
        (&b"abc"[..], &b"abc"[..]),
        (b"abc\n", b"abc"),
        (b"abc\r\n", b"abc"),
        (b" abc ", b" abc "),
        (b"\xc3\xa9\xff", b"\xc3\xa9\xff"),
    ] {
        let dir = Dir::new();
        assert_eq!(
            load(file(dir.write("key", content)))
                .unwrap()
                .current()
                .unwrap()
                .key
                .expose(),
            key
        );
    }
}

#[test]
fn what_cannot_be_a_key_is_refused_with_its_reason() {
    for (content, reason) in [
        (&b""[..], "is empty"),
        (b"\n", "is empty"),
        (b"\r\n", "is empty"),
        (b"abc\n\n", "a line break (at offset 3)"),
        (b"abc\r", "a line break (at offset 3)"),
        (b"one\ntwo\n", "a line break (at offset 3)"),
        (b"ab\0c", "a NUL byte (at offset 2)"),
        (b"\tabc", "a control character (at offset 0)"),
        (b"abc\x7f", "a control character (at offset 3)"),
        (&[b'a'; 64 * 1024 + 1], "larger than 64 KiB"),
        (&[b'a'; 1024 * 1024], "larger than 64 KiB"),
    ] {
        let dir = Dir::new();
        let path = dir.write("key", content);
        let message = refusal(file(&path));
        assert!(
            message.starts_with(&format!("file:{}: ", path.display())),
            "{message}"
        );
        assert!(message.contains(reason), "{message}");
        assert!(
            !message.contains("abc") && !message.contains("two"),
            "{message}"
        );
    }
}

#[test]
fn a_key_of_64_kib_is_accepted_with_its_newline() {
    let dir = Dir::new();
    let mut content = vec![b'a'; 64 * 1024];
    content.extend(b"\r\n");
    let loaded = load(file(dir.write("key", &content)))
        .unwrap()
        .current()
        .unwrap();
    assert_eq!(loaded.key.expose().len(), 64 * 1024);
}

#[test]
fn a_key_that_does_not_fit_its_place_is_refused() {
    let dir = Dir::new();
    let render: Render = Box::new(|_| Err("does not fit a header field".to_owned()));
    let err = Credential::load(file(dir.write("key", KEY)), render).unwrap_err();
    assert!(matches!(err, Error::Credential(_)));
    assert!(
        err.to_string()
            .ends_with("key: does not fit a header field"),
        "{err}"
    );
}

#[test]
fn the_rendered_form_is_kept_beside_the_key() {
    let dir = Dir::new();
    let loaded = load(file(dir.write("key", "abc")))
        .unwrap()
        .current()
        .unwrap();
    assert_eq!(loaded.rendered.expose(), b"Bearer abc");
}
