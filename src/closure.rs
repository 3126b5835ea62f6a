//! What would let the command have the key without us: it is looked for at the start, and said.
//!
//! A key that the command can fetch by itself is not protected, however well it is kept here. What
//! is found is told in sentences that name the weakness and the way out, and never a byte of the key.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use zeroize::Zeroizing;

use crate::child::{Command, User};
use crate::credential::Source;
use crate::service::Service;
use crate::sys::fd;

/// Bytes of an environment that are looked at at a time.
const CHUNK: usize = 64 * 1024;
/// A key shorter than this stands in many texts by chance.
const TELLING: usize = 8;

/// Everything that weakens this run, one sentence each.
#[must_use]
pub fn weaknesses(service: &Service, command: &Command) -> Vec<String> {
    let mut found = Vec::new();
    // Root may be anybody, so it does not count as another user.
    let ours = rustix::process::geteuid().as_raw();
    let user = command
        .other_user()
        .filter(|user| user.uid() != 0 && user.uid() != ours);
    found.extend(in_the_clear(service));
    if let Some(file) = service.key_file() {
        found.extend(readable(service.source(), file, user));
        found.extend(inherited(service.source(), file));
    }
    if matches!(service.source(), Source::Exec(_)) && user.is_none() {
        found.push(
            "the command can run what exec: runs; run it as another user (--user), or hand the key over \
             by a pipe (fd:N)"
                .to_owned(),
        );
    }
    // Without a key there are no requests, and nothing to look for.
    if let Ok(loaded) = service.credential() {
        let key = Needle::new(loaded.key.expose());
        found.extend(in_command(command, &key));
        found.extend(in_ancestors(&key, user));
    }
    found
}

/// Whether the credential can be read on the network.
#[must_use]
pub fn in_the_clear(service: &Service) -> Option<String> {
    let origin = &service.origin;
    (!origin.tls && !origin.is_loopback()).then(|| {
        "the upstream is plain http: the credential crosses the network unencrypted; use https"
            .to_owned()
    })
}

/// Whether the command can open the file that the key was read from.
fn readable(source: &Source, file: &Path, user: Option<&User>) -> Option<String> {
    let Some(user) = user else {
        // We have read it, and the command is who we are.
        return Some(if rustix::process::geteuid().is_root() {
            format!(
                "the command is root, who can read the key from {source}; run it as another user (--user)"
            )
        } else {
            format!(
                "the command can read the key from {source}; run it as another user (--user), or hand the key \
                 over by a pipe (fd:N)"
            )
        });
    };
    // An owner can give itself the right to read.
    let owns = fs::metadata(file).is_ok_and(|file| file.uid() == user.uid());
    match user.can_read(file) {
        Ok(false) if !owns => None,
        Ok(_) => Some(format!(
            "the command's user, {user}, can read the key from {source}; chmod 600 and chown it to another"
        )),
        Err(err) => Some(format!(
            "whether the command's user, {user}, can read the key from {source} cannot be found out: {err}"
        )),
    }
}

/// Whether a descriptor that the command inherits is open on the file: it can be read from its start
/// again, whoever reads.
fn inherited(source: &Source, file: &Path) -> Option<String> {
    let wanted = fs::metadata(file).ok()?;
    let same = |number: RawFd| {
        let open = fs::metadata(format!("/proc/self/fd/{number}"));
        open.is_ok_and(|open| (open.dev(), open.ino()) == (wanted.dev(), wanted.ino()))
    };
    let number = fs::read_dir("/proc/self/fd")
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<RawFd>().ok())
        .find(|&number| !fd::is_free_after_exec(number) && same(number))?;
    Some(format!(
        "descriptor {number}, which the command inherits, is open on the key of {source}; close it ({number}<&-)"
    ))
}

/// Whether the command is started with the key in its hands.
fn in_command(command: &Command, key: &Needle<'_>) -> Vec<String> {
    let (mut args, env) = command.words();
    let mut found: Vec<String> = env
        .iter()
        .filter(|(_, value)| key.is_in_value(value.as_bytes()))
        .map(|(name, _)| {
            let name = name.to_string_lossy();
            format!(
                "${} in the command's environment holds the key; unset it",
                name.escape_default()
            )
        })
        .collect();
    let own = std::env::args_os().any(|arg| key.is_in_text(arg.as_bytes()));
    if own || args.any(|arg: &OsStr| key.is_in_text(arg.as_bytes())) {
        found.push(
            "an argument holds the key, where every process can read it; leave it out".to_owned(),
        );
    }
    found
}

/// Whether a process that led to this one still shows the key to the command.
fn in_ancestors(key: &Needle<'_>, user: Option<&User>) -> Vec<String> {
    let (mut environments, mut arguments) = (Vec::new(), Vec::new());
    let mut parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
    while let Some(pid) = parent.filter(|&pid| pid > 0) {
        let dir = format!("/proc/{pid}");
        let Ok(stat) = fs::read(format!("{dir}/stat")) else {
            break;
        };
        let (name, above) = parse_stat(&stat);
        parent = above;
        let holder = format!("{} ({pid})", name.escape_default());
        // Only its own user can look into another process's environment (ptrace(2)); what we
        // cannot read ourselves, a command with no more rights cannot either.
        let open_to = |user: &User| fs::metadata(&dir).is_ok_and(|dir| dir.uid() == user.uid());
        if user.is_none_or(open_to) && key.is_in_environment(&format!("{dir}/environ")) {
            environments.push(holder.clone());
        }
        if key.is_in_arguments(&format!("{dir}/cmdline")) {
            arguments.push(holder);
        }
    }
    let mut found = Vec::new();
    if !environments.is_empty() {
        found.push(format!(
            "the command can read the key in the environment of {}; unset it there, and keep it in a file \
             of another user",
            environments.join(", ")
        ));
    }
    if !arguments.is_empty() {
        found.push(format!(
            "the arguments of {} hold the key, where every process can read it; leave it out",
            arguments.join(", ")
        ));
    }
    found
}

/// The name and the parent of a process (proc_pid_stat(5)). The name stands in parentheses and may
/// hold some itself.
fn parse_stat(stat: &[u8]) -> (String, Option<i32>) {
    let text = String::from_utf8_lossy(stat);
    let open = text.find('(').map_or(0, |at| at + 1);
    let close = text.rfind(')').unwrap_or(open).max(open);
    let parent = text[close..].split_ascii_whitespace().nth(2);
    (
        text[open..close].to_owned(),
        parent.and_then(|parent| parent.parse().ok()),
    )
}

/// The key, to be looked for.
struct Needle<'k> {
    key: &'k [u8],
    /// A whole variable's value, from the `=` to the NUL, for a key that is too short to be told.
    value: Zeroizing<Vec<u8>>,
}

impl Needle<'_> {
    fn new(key: &[u8]) -> Needle<'_> {
        let mut value = Zeroizing::new(Vec::with_capacity(key.len() + 2));
        value.push(b'=');
        value.extend_from_slice(key);
        value.push(0);
        Needle { key, value }
    }

    fn is_telling(&self) -> bool {
        self.key.len() >= TELLING
    }

    fn is_in_value(&self, value: &[u8]) -> bool {
        value == self.key || self.is_in_text(value)
    }

    fn is_in_text(&self, text: &[u8]) -> bool {
        self.is_telling() && contains(text, self.key)
    }

    fn is_in_environment(&self, file: &str) -> bool {
        let wanted = if self.is_telling() {
            self.key
        } else {
            &self.value
        };
        is_in_file(file, wanted)
    }

    fn is_in_arguments(&self, file: &str) -> bool {
        self.is_telling() && is_in_file(file, self.key)
    }
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    text.windows(wanted.len()).any(|window| window == wanted)
}

/// Whether these bytes stand in a file that can be read. The buffer, which may hold them then, is
/// wiped, and never grows.
fn is_in_file(file: &str, wanted: &[u8]) -> bool {
    let Ok(mut file) = File::open(file) else {
        return false;
    };
    let mut buffer = Zeroizing::new(vec![0; CHUNK + wanted.len()]);
    let mut kept = 0;
    loop {
        let filled = match file.read(&mut buffer[kept..]) {
            Ok(0) | Err(_) => return false,
            Ok(count) => kept + count,
        };
        if contains(&buffer[..filled], wanted) {
            return true;
        }
        // What stands across two reads is found in the second.
        kept = filled.min(wanted.len().saturating_sub(1));
        buffer.copy_within(filled - kept..filled, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_may_have_any_name() {
        for (stat, name, parent) in [
            ("12 (bash) S 7 12 12", "bash", Some(7)),
            ("12 (a) S 99 (b) R 7 1", "a) S 99 (b", Some(7)),
            ("1 (init) S 0 1", "init", Some(0)),
            ("12 (", "", None),
            ("", "", None),
            (")(", "", None),
        ] {
            assert_eq!(
                parse_stat(stat.as_bytes()),
                (name.to_owned(), parent),
                "{stat}"
            );
        }
    }

    #[test]
    fn a_key_is_found_wherever_it_stands_in_a_file() {
        let path = std::env::temp_dir().join(format!("closure-{}", std::process::id()));
        let name = path.to_str().unwrap();
        let key = b"0123456789abcdef";
        for at in [0, 1, CHUNK - 8, CHUNK, CHUNK + 8, 2 * CHUNK + 15, 3 * CHUNK] {
            let mut text = vec![b'0'; at];
            text.extend_from_slice(key);
            fs::write(&path, &text).unwrap();
            assert!(is_in_file(name, key), "{at}");
            text.pop();
            fs::write(&path, &text).unwrap();
            assert!(!is_in_file(name, key), "{at}");
        }
        fs::remove_file(&path).unwrap();
        assert!(!is_in_file(name, key));
    }

    #[test]
    fn a_short_key_counts_only_as_a_whole_value() {
        let key = Needle::new(b"on");
        assert!(key.is_in_value(b"on"));
        assert!(!key.is_in_value(b"long") && !key.is_in_text(b"on"));
        let key = Needle::new(b"longenough");
        assert!(key.is_in_value(b"a longenough b"));
    }
}
