//! The user that the command runs as: `USER[:GROUP]`, by names or by numbers.
//!
//! /etc/passwd and /etc/group are read here, because a static program has no NSS: a user whom only
//! a directory service knows is given by numbers.

use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::process::{Gid, Uid};

use crate::error::{Error, Result};
use crate::sys::ids::{self, Ids};

/// Another user to run the command as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    given: String,
    ids: Ids,
}

impl User {
    /// Looks `USER[:GROUP]` up. The supplementary groups are those of initgroups(3): every group that
    /// lists the user as a member, and the primary one.
    ///
    /// # Errors
    /// `Error::Usage` for a user or group that is not known, or a number without a group.
    pub fn parse(given: &str) -> Result<User> {
        let read = |path: &str| match std::fs::read(path) {
            // Neither file is there in an empty container: numbers will do.
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(err) => Err(Error::System(format!("read {path}"), err)),
        };
        User::find(given, &read("/etc/passwd")?, &read("/etc/group")?)
    }

    fn find(given: &str, passwd: &str, group: &str) -> Result<User> {
        let refuse = |why: String| Error::Usage(format!("--user {given}: {why}"));
        let (user, wanted) = match given.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (given, None),
        };
        if user.is_empty() || wanted == Some("") {
            return Err(refuse("give it as USER or USER:GROUP".into()));
        }
        // A name comes before a number, as for chown(1).
        let entries = || lines(passwd, 7);
        let number = id(user);
        let entry = entries().find(|entry| entry[0] == user).or_else(|| {
            let number = number?;
            entries().find(|entry| id(entry[2]) == Some(number))
        });
        let uid = match &entry {
            Some(entry) => id(entry[2]).ok_or_else(|| {
                refuse("its entry in /etc/passwd has no number that can be used".into())
            })?,
            None => {
                number.ok_or_else(|| refuse(format!("there is no user {user} in /etc/passwd")))?
            }
        };
        let primary = entry.as_ref().and_then(|entry| id(entry[3]));
        let gid = match wanted {
            None => primary.ok_or_else(|| {
                refuse(format!(
                    "{user} has no entry in /etc/passwd: name a group too, {user}:GROUP"
                ))
            })?,
            Some(name) => lines(group, 4)
                .find(|entry| entry[0] == name)
                .and_then(|entry| id(entry[2]))
                .or_else(|| id(name))
                .ok_or_else(|| refuse(format!("there is no group {name} in /etc/group")))?,
        };
        let mut groups = vec![gid];
        if let Some(entry) = &entry {
            let of = lines(group, 4).filter(|line| line[3].split(',').any(|m| m == entry[0]));
            for number in of.filter_map(|line| id(line[2])) {
                if !groups.contains(&number) {
                    groups.push(number);
                }
            }
        }
        Ok(User {
            given: given.to_owned(),
            ids: Ids {
                uid: Uid::from_raw(uid),
                gid: Gid::from_raw(gid),
                groups: groups.into_iter().map(Gid::from_raw).collect(),
            },
        })
    }

    /// Whether this process may run a command as another user at all.
    #[must_use]
    pub fn may_change() -> bool {
        ids::may_change()
    }

    /// The number.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.ids.uid.as_raw()
    }

    /// Whether this user could open the file for reading, now.
    ///
    /// # Errors
    /// When it cannot be found out.
    pub fn can_read(&self, path: &Path) -> io::Result<bool> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        ids::can_read(&self.ids, &path)
    }

    pub(super) fn into_ids(self) -> Ids {
        self.ids
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.given)
    }
}

/// The entries of a file of this many fields (passwd(5), group(5)). Others are passed over, and so
/// are comments and the `+` and `-` of NIS.
fn lines(text: &str, fields: usize) -> impl Iterator<Item = Vec<&str>> {
    text.lines()
        .filter(|line| !line.starts_with(['#', '+', '-']))
        .map(|line| line.split(':').collect::<Vec<_>>())
        .filter(move |entry| entry.len() == fields && !entry[0].is_empty())
}

/// A user's or group's number. The largest one means "leave it as it is" to setresuid(2).
fn id(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number: Option<u32> = digits.then(|| text.parse().ok()).flatten();
    number.filter(|&number| number != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# a comment:x:9:9:::\n\
        build:x:1000:100:Build:/home/build:/bin/sh\n1000:x:2000:200::/:/bin/sh\n\
        broken:x:1001\nodd:x:-1:5::/:/bin/sh\nmax:x:4294967295:5::/:/bin/sh\n+::::::\n";
    const GROUP: &str = "root:x:0:\nusers:x:100:\ndocker:x:998:other,build\nci:x:997:build\n\
        twice:x:998:build\nbuildx:x:996:buildx\n300:x:301:\n";

    fn found(given: &str) -> std::result::Result<(u32, u32, Vec<u32>), String> {
        let user = User::find(given, PASSWD, GROUP).map_err(|err| err.to_string())?;
        let groups = user.ids.groups.iter().map(|gid| gid.as_raw()).collect();
        Ok((user.uid(), user.ids.gid.as_raw(), groups))
    }

    #[test]
    fn a_user_is_found_by_name_or_number_with_all_groups() {
        assert_eq!(found("build"), Ok((1000, 100, vec![100, 998, 997])));
        assert_eq!(found("build:ci"), Ok((1000, 997, vec![997, 998])));
        assert_eq!(found("build:5"), Ok((1000, 5, vec![5, 998, 997])));
        assert_eq!(found("0"), Ok((0, 0, vec![0])));
        assert_eq!(found("root:users"), Ok((0, 100, vec![100])));
        assert_eq!(found("4000:4001"), Ok((4000, 4001, vec![4001])));
    }

    #[test]
    fn a_name_of_digits_comes_before_the_number() {
        assert_eq!(found("1000"), Ok((2000, 200, vec![200])));
        assert_eq!(found("root:300"), Ok((0, 301, vec![301])));
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        for (given, why) in [
            ("nobody", "no user nobody"),
            ("", "USER:GROUP"),
            (":users", "USER:GROUP"),
            ("build:", "USER:GROUP"),
            ("build:nogroup", "no group nogroup"),
            ("4000", "4000:GROUP"),
            ("broken", "no user broken"),
            ("odd", "no number"),
            ("max", "no number"),
            ("4294967295:1", "no user"),
            ("4294967296:1", "no user"),
            ("build:4294967295", "no group"),
            ("-1:1", "no user"),
            ("+", "no user"),
            ("# a comment", "no user"),
        ] {
            let refused = found(given).unwrap_err();
            assert!(
                refused.starts_with(&format!("--user {given}: ")),
                "{refused}"
            );
            assert!(refused.contains(why), "{given}: {refused}");
        }
    }
}
