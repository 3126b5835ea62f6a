//! A key file: read whole or not at all, and recognised when it changes.
//!
//! Rotation is either a rename over the file or a write in place, and we may be reading meanwhile.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::read::{CAPACITY, Deadline, Raw};

/// How long after a change a file may change once more without its times showing it: they move
/// with the tick of the kernel's clock, 10 ms at the most. The rest is margin.
const TICK: Duration = Duration::from_millis(100);

/// How often a file that changes under our eyes is read again before we give up.
/// A rename over it changes the one that we have open too: it loses a link.
const ATTEMPTS: usize = 100;

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    /// Can't be set back by utimensat(2), as the time of modification can.
    changed: (i64, i64),
}

impl Stamp {
    /// The state of the file that the path names now: one stat(2).
    pub fn of(path: &Path) -> Result<Stamp, String> {
        let metadata = fs::metadata(path).map_err(|err| format!("cannot be read: {err}"))?;
        if metadata.is_file() {
            Ok(Stamp::from(&metadata))
        } else {
            Err(format!("is {} now", kind(&metadata)))
        }
    }

    /// Whether a file read at `moment` has to look different when it changes after that.
    fn is_settled(&self, moment: SystemTime) -> bool {
        let moment = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
        let latest = self.modified.max(self.changed);
        let (Ok(seconds), Ok(nanos)) = (u64::try_from(latest.0), u32::try_from(latest.1)) else {
            // Before 1970: no clock of this machine makes such a time.
            return true;
        };
        // A time to come never settles: that file is read for every request, which is slow and right.
        Duration::new(seconds, nanos)
            .checked_add(TICK)
            .is_some_and(|safe| safe < moment)
    }
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Stamp {
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// What `read` found.
pub enum Content {
    /// A regular file, and the stamp to know it by unless it had changed only just now.
    File(Raw, Option<Stamp>),
    /// A FIFO, the `/dev/fd/N` of a process substitution, a terminal: it can be read once.
    Stream(Raw),
}

/// Reads the file that the path names.
pub fn read(path: &Path, deadline: &Deadline) -> Result<Content, String> {
    for _ in 0..ATTEMPTS {
        let moment = SystemTime::now();
        let file = open(path)?;
        let before = metadata(&file)?;
        if !before.is_file() {
            if before.is_dir() || before.file_type().is_block_device() {
                return Err(format!("is {}, not a file with a key", kind(&before)));
            }
            let mut raw = Raw::new(CAPACITY)?;
            raw.fill(&file, deadline)?;
            return Ok(Content::Stream(raw));
        }
        // One byte more than there should be shows a file that grows.
        let size = usize::try_from(before.size()).unwrap_or(CAPACITY);
        let mut raw = Raw::new(size.saturating_add(1))?;
        raw.fill(&file, deadline)?;
        let stamp = Stamp::from(&before);
        if stamp == Stamp::from(&metadata(&file)?) && (!raw.is_full() || size >= CAPACITY) {
            return Ok(Content::File(
                raw,
                stamp.is_settled(moment).then_some(stamp),
            ));
        }
        if deadline.is_over() {
            break;
        }
    }
    Err("changes all the time, so that it can't be read whole".to_owned())
}

/// Never the controlling terminal, never waiting for a writer (`Raw::fill` does that, with a limit).
fn open(path: &Path) -> Result<File, String> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK)
        .open(path)
        .map_err(|err| format!("cannot be opened: {err}"))
}

fn metadata(file: &File) -> Result<Metadata, String> {
    file.metadata()
        .map_err(|err: io::Error| format!("cannot be read: {err}"))
}

fn kind(metadata: &Metadata) -> &'static str {
    let kind = metadata.file_type();
    if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}
