//! Where a secret comes from: a file, a descriptor, the environment or a command.
//!
//! No key is read before the process is hardened: `Credential::load` hardens first, so there is no
//! order in which a caller could get it wrong. A key that its source no longer has is never used
//! again.

mod command;
mod file;
mod read;
mod secret;
mod source;

pub use secret::Secret;
pub use source::Source;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::sys;
use file::{Content, Stamp};
use read::{CAPACITY, Deadline, Raw};

/// How long a source may take to give its key.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// A secret and the form in which it goes into a request (percent-encoded, in a header value, ...).
#[derive(Debug)]
pub struct Loaded {
    /// The credential as it was read, one trailing newline removed.
    pub key: Secret,
    /// What is written into the request in its place.
    pub rendered: Secret,
    /// Rises with each key that is read: tells a new one from the one before.
    pub serial: u64,
}

/// Turns a key into its rendered form, or says why it does not fit its place.
pub type Render = Box<dyn Fn(&[u8]) -> std::result::Result<Secret, String> + Send + Sync>;

/// How secrets are protected in memory on this host: `memfd_secret`, `mlock` or `none`.
#[must_use]
pub fn memory_tier() -> &'static str {
    sys::memory::best_tier().name()
}

/// A credential that is kept current with its source.
pub struct Credential {
    source: Source,
    /// The regular file that the key was read from, by the name that it had then.
    file: Option<PathBuf>,
    render: Render,
    kept: Kept,
}

enum Kept {
    /// Read once, for good.
    Fixed(Arc<Loaded>),
    /// From a regular file, compared with it at every use.
    Watched(RwLock<Watched>),
}

struct Watched {
    /// The state of the file that `loaded` is of; `None` when the file has to be read again anyway.
    stamp: Option<Stamp>,
    loaded: Outcome,
}

/// A credential, or what to tell the user instead.
type Outcome = std::result::Result<Arc<Loaded>, String>;

impl Credential {
    /// Hardens the process, reads the source and renders the key.
    ///
    /// A descriptor is closed by this and a variable wiped. Meant for start-up, before there is a
    /// second thread (the environment has no lock), and before signals are blocked (a command of
    /// `exec:` inherits the mask).
    ///
    /// # Errors
    /// `Error::Protection` when the process can't be hardened, before anything is read;
    /// `Error::Credential` when the key can't be had within 30 s, is empty, is larger than 64 KiB,
    /// has a control character in it, or is refused by `render`.
    pub fn load(source: Source, render: Render) -> Result<Credential> {
        Credential::load_within(source, render, DEADLINE)
    }

    /// `load` with another limit than 30 s on what the source may take.
    pub fn load_within(source: Source, render: Render, limit: Duration) -> Result<Credential> {
        let mut loaded = Credential::load_all(vec![(source, render)], limit)?;
        // One goes in, one comes out.
        loaded
            .pop()
            .ok_or_else(|| Error::Credential("no source was given".to_owned()))
    }

    /// Loads several, in their order. The limit is for each source.
    ///
    /// A source that can be read only once may be given several times. The environment is read and
    /// wiped before any command runs, so that no command inherits the key of another source.
    pub fn load_all(sources: Vec<(Source, Render)>, limit: Duration) -> Result<Vec<Credential>> {
        sys::process::harden().map_err(|err| {
            Error::Protection(format!(
                "this process cannot be made unreadable to others: {err}"
            ))
        })?;
        let hidden: Vec<OsString> = sources
            .iter()
            .filter_map(|(source, _)| source.env_name())
            .map(OsStr::to_owned)
            .collect();
        let mut waiting: Vec<(usize, (Source, Render))> = sources.into_iter().enumerate().collect();
        waiting.sort_by_key(|(_, (source, _))| turn(source));
        let mut loaded: Vec<(usize, Credential)> = Vec::with_capacity(waiting.len());
        for (index, (source, render)) in waiting {
            let twin = loaded.iter().find(|(_, other)| other.source == source);
            let file = match twin {
                Some((_, twin)) => twin.file.clone(),
                None => source.regular_file(),
            };
            let kept = match twin.map(|(_, other)| &other.kept) {
                Some(Kept::Fixed(twin)) => render_key(twin.key.expose(), &render).map(Kept::Fixed),
                _ => Kept::read(&source, &render, &hidden, &Deadline::after(limit)),
            };
            let kept = kept.map_err(|problem| Error::Credential(format!("{source}: {problem}")))?;
            loaded.push((
                index,
                Credential {
                    source,
                    file,
                    render,
                    kept,
                },
            ));
        }
        loaded.sort_by_key(|(index, _)| *index);
        Ok(loaded
            .into_iter()
            .map(|(_, credential)| credential)
            .collect())
    }

    /// The key as its source has it now. A file that changed is read again; one that is gone,
    /// unreadable or no longer valid gives an error, never the old key.
    ///
    /// The error text names the source and the problem and is fit for a response body.
    pub fn current(&self) -> std::result::Result<Arc<Loaded>, String> {
        match (&self.kept, &self.source) {
            (Kept::Fixed(loaded), _) => Ok(Arc::clone(loaded)),
            (Kept::Watched(watched), Source::File(path)) => self
                .watch(watched, path)
                .map_err(|problem| format!("{}: {problem}", self.source)),
            // Only files are watched.
            (Kept::Watched(_), _) => Err(format!("{}: cannot be read again", self.source)),
        }
    }

    fn watch(&self, watched: &RwLock<Watched>, path: &Path) -> Outcome {
        let now = Stamp::of(path);
        if let Ok(now) = &now {
            // A panic is an abort (in tests it is not, and they keep the invariants too).
            let watched = watched.read().unwrap_or_else(PoisonError::into_inner);
            if watched.stamp.as_ref() == Some(now) {
                return watched.loaded.clone();
            }
        }
        let mut watched = watched.write().unwrap_or_else(PoisonError::into_inner);
        // Somebody else may have read it while we waited for the lock.
        let fresh = match Stamp::of(path) {
            Ok(now) if watched.stamp == Some(now) => return watched.loaded.clone(),
            Ok(_) => file::read(path, &Deadline::after(DEADLINE)),
            Err(problem) => Err(problem),
        };
        let (raw, stamp) = match fresh {
            Ok(Content::File(raw, stamp)) => (Ok(raw), stamp),
            Ok(Content::Stream(_)) => (Err("is no longer a regular file".to_owned()), None),
            Err(problem) => (Err(problem), None),
        };
        let loaded = raw.and_then(|raw| {
            let key = raw.key()?;
            match &watched.loaded {
                // Touched, or read once more because it was young: whoever holds on to the value
                // that they have need not build anything anew.
                Ok(old) if old.key.expose() == key => Ok(Arc::clone(old)),
                _ => render_key(key, &self.render),
            }
        });
        *watched = Watched {
            stamp,
            loaded: loaded.clone(),
        };
        loaded
    }

    /// The regular file that the key was read from, if there was one: where others may find it too.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The source, for messages.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }
}

impl Kept {
    fn read(
        source: &Source,
        render: &Render,
        hidden: &[OsString],
        deadline: &Deadline,
    ) -> std::result::Result<Kept, String> {
        let raw = match source {
            Source::File(path) => match file::read(path, deadline)? {
                Content::File(raw, stamp) => {
                    let loaded = Ok(render_key(raw.key()?, render)?);
                    return Ok(Kept::Watched(RwLock::new(Watched { stamp, loaded })));
                }
                Content::Stream(raw) => raw,
            },
            Source::Fd(number) => read_fd(*number, deadline)?,
            Source::Env(name) => read_env(name)?,
            Source::Exec(command) => command::read(command, hidden, deadline)?,
        };
        Ok(Kept::Fixed(render_key(raw.key()?, render)?))
    }
}

/// The environment first, because a command inherits it: wiped by then.
fn turn(source: &Source) -> u8 {
    match source {
        Source::Env(_) => 0,
        Source::File(_) | Source::Fd(_) => 1,
        Source::Exec(_) => 2,
    }
}

fn read_fd(number: i32, deadline: &Deadline) -> std::result::Result<Raw, String> {
    let fd =
        sys::inherited::claim(number).map_err(|err| format!("is not an open descriptor: {err}"))?;
    let mut raw = Raw::new(CAPACITY)?;
    raw.fill(&fd, deadline)?;
    Ok(raw)
}

fn read_env(name: &OsStr) -> std::result::Result<Raw, String> {
    let value = sys::inherited::copy_env(name).map_err(read::no_memory)?;
    sys::inherited::wipe_env(name);
    value
        .map(Raw::complete)
        .ok_or_else(|| "is not set".to_owned())
}

fn render_key(key: &[u8], render: &Render) -> Outcome {
    static SERIAL: AtomicU64 = AtomicU64::new(1);
    let rendered = render(key)?;
    let key = Secret::copy(key).map_err(read::no_memory)?;
    Ok(Arc::new(Loaded {
        key,
        rendered,
        serial: SERIAL.fetch_add(1, Ordering::Relaxed),
    }))
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({})", self.source)
    }
}
