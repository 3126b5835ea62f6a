//! Where a key comes from, that it is kept current, and that no copy of it stays behind.
//!
//! What looks at a whole process (its environment, its standard input, its memory) runs in one of
//! its own: the test starts itself again.
#![cfg(target_os = "linux")]

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use broker_exec::Error;
use broker_exec::credential::{Credential, DEADLINE, Render, Secret, Source, memory_tier};

const KEY: &str = "key-0123456789abcdef";
const LIMIT: Duration = Duration::from_secs(30);

// --- what is accepted ---

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

// --- files ---

#[test]
fn an_unchanged_file_gives_the_same_value() {
    let dir = Dir::new();
    let credential = load(file(dir.write("key", KEY))).unwrap();
    let first = credential.current().unwrap();
    for _ in 0..1000 {
        assert!(Arc::ptr_eq(&first, &credential.current().unwrap()));
    }
}

#[test]
fn a_key_written_in_place_is_used_at_once() {
    let dir = Dir::new();
    let path = dir.write("key", "key-0000");
    let credential = load(file(&path)).unwrap();
    let writer = File::options().write(true).open(&path).unwrap();
    // Same inode, same size, and many times within one tick of the kernel's clock.
    for round in 1..500 {
        let key = format!("key-{round:04}");
        writer.write_all_at(key.as_bytes(), 0).unwrap();
        assert_eq!(credential.current().unwrap().key.expose(), key.as_bytes());
    }
}

#[test]
fn a_key_renamed_into_place_is_used_at_once() {
    let dir = Dir::new();
    let path = dir.write("key", "key-0000");
    let credential = load(file(&path)).unwrap();
    for round in 1..500 {
        let key = format!("key-{round:04}");
        fs::rename(dir.write("new", &key), &path).unwrap();
        assert_eq!(credential.current().unwrap().key.expose(), key.as_bytes());
        assert_eq!(
            credential.current().unwrap().rendered.expose(),
            format!("Bearer {key}").as_bytes()
        );
    }
}

#[test]
fn a_key_is_never_torn_while_it_is_rotated() {
    let dir = Dir::new();
    let keys = [vec![b'a'; 50_000], vec![b'b'; 50_000]];
    let path = dir.write("key", &keys[0]);
    let credential = load(file(&path)).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let loaded = credential.current().unwrap();
                    assert!(
                        keys.iter().any(|key| key == loaded.key.expose()),
                        "a torn key"
                    );
                }
            });
        }
        for round in 0..200 {
            fs::rename(dir.write("new", &keys[round % 2]), &path).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_removed_key_is_not_used_until_it_is_back() {
    let dir = Dir::new();
    let path = dir.write("key", KEY);
    let credential = load(file(&path)).unwrap();
    let old = Arc::downgrade(&credential.current().unwrap());
    fs::remove_file(&path).unwrap();
    for _ in 0..3 {
        let problem = credential.current().unwrap_err();
        assert!(
            problem.starts_with(&format!("file:{}: cannot be read", path.display())),
            "{problem}"
        );
        assert!(!problem.contains(KEY), "{problem}");
    }
    assert!(old.upgrade().is_none(), "the old key is still in memory");
    dir.write("key", "another-key");
    assert_eq!(credential.current().unwrap().key.expose(), b"another-key");
}

#[test]
fn a_key_that_became_invalid_is_not_used() {
    let dir = Dir::new();
    let path = dir.write("key", KEY);
    let credential = load(file(&path)).unwrap();
    for (content, reason) in [
        ("", "is empty"),
        ("a\nb", "a line break"),
        ("a\0b", "a NUL byte"),
    ] {
        dir.write("key", content);
        for _ in 0..3 {
            let problem = credential.current().unwrap_err();
            assert!(problem.contains(reason), "{problem}");
        }
    }
    dir.write("key", KEY);
    assert_eq!(credential.current().unwrap().key.expose(), KEY.as_bytes());
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(
        credential
            .current()
            .unwrap_err()
            .contains("is a directory now")
    );
    fs::remove_dir(&path).unwrap();
    make_fifo(&path);
    assert!(credential.current().unwrap_err().contains("is a FIFO now"));
}

#[test]
fn a_key_that_became_unreadable_is_not_used() {
    let dir = Dir::new();
    let path = dir.write("key", KEY);
    let credential = load(file(&path)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0)).unwrap();
    if File::open(&path).is_ok() {
        println!("SKIPPED: a file of mode 000 is readable here (root): no refusal to be seen");
        return;
    }
    let problem = credential.current().unwrap_err();
    assert!(problem.contains("Permission denied"), "{problem}");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(credential.current().unwrap().key.expose(), KEY.as_bytes());
}

#[test]
fn a_missing_file_or_a_directory_is_refused_at_start() {
    let dir = Dir::new();
    let message = refusal(file(dir.0.join("nothing")));
    assert!(message.contains("No such file"), "{message}");
    let message = refusal(file(&dir.0));
    assert!(
        message.contains("is a directory, not a file with a key"),
        "{message}"
    );
}

#[test]
fn a_fifo_is_waited_for_and_read_once() {
    let dir = Dir::new();
    let path = dir.0.join("fifo");
    make_fifo(&path);
    let writer = thread::spawn({
        let path = path.clone();
        move || {
            // Opening waits for the reader; the key comes in two pieces.
            let mut fifo = File::options().write(true).open(path).unwrap();
            fifo.write_all(b"key-").unwrap();
            fifo.write_all(b"abc\n").unwrap();
        }
    });
    let credential = load(file(&path)).unwrap();
    writer.join().unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!(credential.current().unwrap().key.expose(), b"key-abc");
}

#[test]
fn a_fifo_without_a_writer_ends_at_the_deadline() {
    let dir = Dir::new();
    let path = dir.0.join("fifo");
    make_fifo(&path);
    let err =
        Credential::load_within(file(&path), bearer(), Duration::from_millis(50)).unwrap_err();
    assert!(err.to_string().contains("did not end within 50ms"), "{err}");
}

#[test]
fn the_pipe_of_a_process_substitution_is_read() {
    let (reader, mut writer) = io::pipe().unwrap();
    writer.write_all(b"key-abc\n").unwrap();
    drop(writer);
    let credential = load(file(format!("/dev/fd/{}", reader.as_raw_fd()))).unwrap();
    drop(reader);
    assert_eq!(credential.current().unwrap().key.expose(), b"key-abc");
}

// --- descriptors ---

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
    let name = "standard_input_is_at_its_end_afterwards";
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

// --- the environment ---

#[test]
fn a_variable_is_read_and_wiped_from_the_environment_block() {
    let name = "a_variable_is_read_and_wiped_from_the_environment_block";
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
    let name = "a_variable_that_is_unset_or_empty_is_refused";
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
    let name = "no_command_inherits_the_variable_of_another_source";
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

// --- commands ---

#[test]
fn the_output_of_a_command_is_the_key() {
    let credential = load(Source::Exec("printf 'key-%s\\n' abc".into())).unwrap();
    assert_eq!(credential.current().unwrap().key.expose(), b"key-abc");
    assert_eq!(credential.source().to_string(), "exec: command");
}

#[test]
fn a_command_has_no_input_and_its_errors_are_shown() {
    let name = "a_command_has_no_input_and_its_errors_are_shown";
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
fn a_command_that_does_not_end_is_killed() {
    // One holds its output open, the other closes it and stays.
    for rest in ["exec sleep 1000", "exec >&-; exec sleep 1000"] {
        let dir = Dir::new();
        let pid = dir.0.join("pid");
        let command = format!("echo $$ >{}; echo abc; {rest}", pid.display());
        let started = Instant::now();
        let err = Credential::load_within(
            Source::Exec(command.into()),
            bearer(),
            Duration::from_secs(2),
        )
        .unwrap_err();
        assert_eq!(err.to_string(), "exec: command: did not end within 2s");
        assert!(started.elapsed() < LIMIT);
        let pid = fs::read_to_string(pid).unwrap();
        assert!(
            !Path::new(&format!("/proc/{}", pid.trim())).exists(),
            "it is still there"
        );
    }
}

// --- memory ---

#[test]
fn taking_a_secret_wipes_where_it_came_from() {
    let mut bytes = *b"s3cret";
    let secret = Secret::take(&mut bytes).unwrap();
    assert_eq!(secret.expose(), b"s3cret");
    assert_eq!(bytes, [0; 6]);
}

#[test]
fn nothing_is_printed_of_a_secret() {
    let dir = Dir::new();
    let credential = load(file(dir.write("key", KEY))).unwrap();
    let loaded = credential.current().unwrap();
    for text in [
        format!("{:?}", loaded.key),
        format!("{loaded:#?}"),
        format!("{credential:?}"),
    ] {
        assert!(!text.contains("0123"), "{text}");
    }
}

#[test]
fn a_secret_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Secret>();
    shared::<Credential>();
}

#[test]
fn the_tier_is_told() {
    let secret = Secret::take(&mut [b'x'; 8]).unwrap();
    println!("secrets are protected by: {}", memory_tier());
    assert!(["memfd_secret", "mlock", "none"].contains(&memory_tier()));
    assert_eq!(secret.tier(), memory_tier());
}

#[test]
fn no_copy_of_a_key_stays_in_memory() {
    let name = "no_copy_of_a_key_stays_in_memory";
    if !is_alone(name) {
        // Random, so that it is in no binary; written by us, so that the other never held it.
        let dir = Dir::new();
        let path = dir.write("key", "");
        let script = "head -c 16 /dev/urandom | od -An -v -tx1 | tr -d ' \\n' >$0 && echo >>$0";
        assert!(
            Command::new("/bin/sh")
                .args(["-c", script])
                .arg(&path)
                .status()
                .unwrap()
                .success()
        );
        run_alone(name, |command| {
            command
                .env("KEY_FILE", &path)
                .env("API_KEY", fs::read_to_string(&path).unwrap().trim())
        });
        return;
    }
    let memory = Memory::open();
    let path = PathBuf::from(std::env::var_os("KEY_FILE").unwrap());
    let masked = masked_key(&path);

    let mut planted: Vec<u8> = masked.iter().map(|byte| byte ^ MASK).collect();
    // That one, and the variable: the search does find what there is.
    assert_eq!(memory.copies(&masked), 2);
    planted.fill(0);
    std::hint::black_box(&planted);

    // The variable first: a command would inherit it.
    let sources = [
        Source::Env("API_KEY".into()),
        Source::File(path.clone()),
        Source::Exec(format!("cat {}", path.display()).into()),
    ];
    for source in sources {
        let credential = load(source).unwrap();
        let loaded = credential.current().unwrap();
        // The key, and the rendered form that contains it.
        let live = if loaded.key.tier() == "memfd_secret" {
            0
        } else {
            2
        };
        assert_eq!(
            memory.copies(&masked),
            live,
            "while it is loaded from {}",
            credential.source()
        );
        drop(loaded);
        drop(credential);
        assert_eq!(memory.copies(&masked), 0, "after it was dropped");
    }
}

const MASK: u8 = 0x5a;

/// The key of the file with each byte masked, read byte by byte so that no copy of it is made.
fn masked_key(path: &Path) -> Vec<u8> {
    let file = File::open(path).unwrap();
    (0..32)
        .map(|offset| {
            let mut byte = [0];
            file.read_exact_at(&mut byte, offset).unwrap();
            byte[0] ^ MASK
        })
        .collect()
}

/// Our own memory as root would see it.
struct Memory {
    mem: File,
    maps: File,
}

impl Memory {
    /// To be called before a key is loaded: afterwards an unprivileged user is refused.
    fn open() -> Memory {
        let open = |name: &str| File::open(format!("/proc/self/{name}")).unwrap();
        Memory {
            mem: open("mem"),
            maps: open("maps"),
        }
    }

    /// How often the key that `masked` stands for is in writable memory.
    fn copies(&self, masked: &[u8]) -> usize {
        const CHUNK: usize = 64 * 1024;
        let mut maps = String::new();
        let mut reader = &self.maps;
        io::Seek::rewind(&mut reader).unwrap();
        reader.read_to_string(&mut maps).unwrap();
        let mut chunk = vec![0_u8; CHUNK];
        let own = chunk.as_ptr() as u64..chunk.as_ptr() as u64 + CHUNK as u64;
        let mut found = 0;
        for line in maps.lines().filter(|line| {
            line.split(' ')
                .nth(1)
                .is_some_and(|mode| mode.starts_with("rw"))
        }) {
            let (low, high) = line.split(' ').next().unwrap().split_once('-').unwrap();
            let mut at = u64::from_str_radix(low, 16).unwrap();
            let high = u64::from_str_radix(high, 16).unwrap();
            while at < high {
                if own.contains(&at) {
                    // Reading the chunk into itself would multiply what is in it.
                    at = own.end;
                    continue;
                }
                let high = if at < own.start {
                    high.min(own.start)
                } else {
                    high
                };
                let length = CHUNK.min(usize::try_from(high - at).unwrap());
                let Ok(count) = self.mem.read_at(&mut chunk[..length], at) else {
                    // memfd_secret pages give EIO even here; nothing else may.
                    assert!(line.contains("secretmem"), "unreadable: {line}");
                    break;
                };
                let bytes = &chunk[..count];
                found += bytes
                    .windows(masked.len())
                    .filter(|window| window.iter().zip(masked).all(|(a, b)| a ^ MASK == *b))
                    .count();
                let overlap = if at + (count as u64) < high {
                    masked.len() - 1
                } else {
                    0
                };
                at += (count - overlap) as u64;
            }
        }
        chunk.fill(0);
        std::hint::black_box(&chunk);
        found
    }
}

// --- helpers ---

/// The common render: it goes into `Authorization`.
fn bearer() -> Render {
    Box::new(|key| {
        let mut rendered = Vec::with_capacity(7 + key.len());
        rendered.extend(b"Bearer ");
        rendered.extend(key);
        Secret::take(&mut rendered).map_err(|err| err.to_string())
    })
}

fn load(source: Source) -> Result<Credential, Error> {
    Credential::load(source, bearer())
}

fn refusal(source: Source) -> String {
    match load(source) {
        Err(Error::Credential(text)) => text,
        other => panic!("not refused: {other:?}"),
    }
}

fn file(path: impl Into<PathBuf>) -> Source {
    Source::File(path.into())
}

fn make_fifo(path: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

/// Whether we are the process that `run_alone` started for this test.
fn is_alone(test: &str) -> bool {
    std::env::var_os("TEST_ALONE").is_some_and(|name| name == test)
}

/// Runs one test of this binary in a process of its own.
fn run_alone(
    test: &str,
    set_up: impl FnOnce(&mut Command) -> &mut Command,
) -> std::process::Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env("TEST_ALONE", test)
        .stdin(Stdio::null());
    let output = set_up(&mut command).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// A directory of the test's own, removed afterwards.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Dir {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!(
            "broker-exec-credential-{}-{number}",
            std::process::id()
        ));
        fs::create_dir(&path).unwrap();
        Dir(path)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
