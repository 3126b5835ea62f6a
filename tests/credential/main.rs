//! Where a key comes from, that it is kept current, and that no copy of it stays behind.
//!
//! What looks at a whole process (its environment, its standard input, its memory) runs in one of
//! its own: the test starts itself again.
#![cfg(target_os = "linux")]

mod file;
mod memory;
mod once;
mod source;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use broker_exec::Error;
use broker_exec::credential::{Credential, Render, Secret, Source};

const KEY: &str = "key-0123456789abcdef";

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
fn run_alone(test: &str, set_up: impl FnOnce(&mut Command) -> &mut Command) -> Output {
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
