//! A key file is followed as it changes, and fails closed when it goes away.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use broker_exec::credential::Credential;

use super::{Dir, KEY, bearer, file, load, make_fifo, refusal};

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
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
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
