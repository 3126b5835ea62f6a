//! What the command is told through its environment.

use std::ffi::{OsStr, OsString};
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use crate::error::{Error, Result};

/// Device and inode of the control socket, so that a client can tell a stale descriptor number.
pub(super) fn identity(fd: &OwnedFd) -> Result<String> {
    let stat = rustix::fs::fstat(fd)
        .map_err(|e| Error::System("identify the control socket".into(), e.into()))?;
    Ok(format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// What the templates of `--env` expand to.
pub(super) struct Placeholder {
    pub(super) fd: RawFd,
    pub(super) host: String,
}

impl Placeholder {
    /// A word in braces must be one of ours; any other brace stands for itself.
    pub(super) fn expand(&self, template: &OsStr) -> Result<OsString> {
        let mut out = Vec::new();
        let mut rest = template.as_bytes();
        while let Some(open) = rest.iter().position(|&b| b == b'{') {
            out.extend_from_slice(&rest[..open]);
            rest = &rest[open..];
            let word = rest
                .iter()
                .position(|&b| b == b'}')
                .map(|close| &rest[1..close]);
            match word {
                Some(b"fd") => out.extend_from_slice(self.fd.to_string().as_bytes()),
                Some(b"host") => out.extend_from_slice(self.host.as_bytes()),
                Some(b"url") => out.extend_from_slice(format!("http://{}", self.host).as_bytes()),
                Some(word) if !word.is_empty() && word.iter().all(u8::is_ascii_lowercase) => {
                    return Err(Error::Usage(format!(
                        "--env: {{{}}} is not known; there are {{fd}}, {{url}} and {{host}}",
                        String::from_utf8_lossy(word)
                    )));
                }
                _ => {
                    out.push(b'{');
                    rest = &rest[1..];
                    continue;
                }
            }
            rest = &rest[word.map_or(1, |word| word.len() + 2)..];
        }
        out.extend_from_slice(rest);
        Ok(OsString::from_vec(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_expand_only_what_they_know() {
        let placeholder = Placeholder {
            fd: 3,
            host: "x.broker.local".into(),
        };
        let expand = |t: &str| {
            placeholder
                .expand(t.as_ref())
                .map(|s| s.into_string().unwrap())
        };
        assert_eq!(expand("{fd}").unwrap(), "3");
        assert_eq!(
            expand("a{url}/v1{host}").unwrap(),
            "ahttp://x.broker.local/v1x.broker.local"
        );
        assert_eq!(expand("{\"a\":{fd}} {} { }").unwrap(), "{\"a\":3} {} { }");
        assert!(matches!(expand("{ticket}"), Err(Error::Usage(_))));
    }
}
