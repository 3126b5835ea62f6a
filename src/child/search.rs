//! Which files a program name means: the search of execvp(3), over the command's own `PATH`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// What execvp(3) searches where there is no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Whether the name is looked up in `PATH`: only a name without a slash is.
pub(super) fn is_searched(program: &OsStr) -> bool {
    !program.as_bytes().contains(&b'/')
}

/// The files to try, in order. None for an empty name.
pub(super) fn candidates(program: &OsStr, path: Option<&OsStr>) -> Vec<OsString> {
    let name = program.as_bytes();
    if name.is_empty() {
        return Vec::new();
    }
    if !is_searched(program) {
        return vec![no_option(name)];
    }
    let path = path.unwrap_or(OsStr::new(DEFAULT_PATH)).as_bytes();
    path.split(|&byte| byte == b':')
        // An empty entry is the current directory (environ(7)).
        .map(|directory| {
            if directory.is_empty() {
                b"."
            } else {
                directory
            }
        })
        .map(|directory| no_option(&[directory, b"/", name].concat()))
        .collect()
}

/// A script without `#!` is given to the shell by name: it must not look like an option there.
fn no_option(path: &[u8]) -> OsString {
    let path = if path.starts_with(b"-") {
        [b"./", path].concat()
    } else {
        path.to_vec()
    };
    OsString::from_vec(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_search_is_that_of_execvp() {
        for (program, path, want) in [
            ("ls", Some("/a:/b"), &["/a/ls", "/b/ls"][..]),
            ("ls", Some(":/b:"), &["./ls", "/b/ls", "./ls"]),
            ("ls", Some(""), &["./ls"]),
            ("ls", None, &["/usr/local/bin/ls", "/usr/bin/ls", "/bin/ls"]),
            ("ls", Some("-d"), &["./-d/ls"]),
            ("./ls", Some("/a"), &["./ls"]),
            ("-x/ls", Some("/a"), &["./-x/ls"]),
            ("/bin/ls", None, &["/bin/ls"]),
            ("", Some("/a"), &[]),
        ] {
            assert_eq!(
                candidates(program.as_ref(), path.map(OsStr::new)),
                want,
                "{program} in {path:?}"
            );
        }
    }
}
