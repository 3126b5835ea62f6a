//! A directory that goes away with its owner.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory of our own under the system's temporary directory, mode 0700, removed on drop.
#[derive(Debug)]
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> TempDir {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        loop {
            let name = format!(
                "broker-exec-{}-{}",
                std::process::id(),
                COUNT.fetch_add(1, Ordering::Relaxed)
            );
            let path = std::env::temp_dir().join(name);
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return TempDir(path),
                // Left behind by an earlier process of the same number that was killed.
                Err(err) if err.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(err) => panic!("cannot create {}: {err}", path.display()),
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The path of `name` inside.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file inside, mode 0600, and returns its path. An existing file is replaced in one
    /// step by rename(2), as a rotation of a key is.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        let fresh = self.join(&format!(".{name}.new"));
        fs::write(&fresh, content).expect("write a file in the temporary directory");
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600)).expect("chmod");
        fs::rename(&fresh, &path).expect("rename");
        path
    }

    /// Lets another user in, for a test that leaves root.
    pub fn open_to_all(&self) {
        fs::set_permissions(&self.0, fs::Permissions::from_mode(0o755)).expect("chmod");
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
