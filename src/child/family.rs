//! Whether a process belongs to the command: it is the command or descends from it.

use std::fs;

/// How far up a process is followed. Far more than any real tree; ids may be reused while we walk.
const GENERATIONS: usize = 4096;

/// Whether `process` is `ancestor` or one of its descendants.
///
/// A process that is gone, was adopted by another or is hidden from us counts as a stranger.
pub(super) fn descends(process: i32, ancestor: i32) -> bool {
    let mut process = process;
    for _ in 0..GENERATIONS {
        if process == ancestor {
            return true;
        }
        if process <= 1 {
            return false;
        }
        let Some(parent) = parent(process) else {
            return false;
        };
        process = parent;
    }
    false
}

fn parent(process: i32) -> Option<i32> {
    parse_parent(&fs::read(format!("/proc/{process}/stat")).ok()?)
}

/// The fourth field of proc_pid_stat(5). The second is the program's name in parentheses, in which
/// anything may stand, so the fields are counted from the last parenthesis.
fn parse_parent(stat: &[u8]) -> Option<i32> {
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let fields = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    fields.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_pass_for_other_fields() {
        assert_eq!(parse_parent(b"7 (sh) S 3 7 7 0"), Some(3));
        assert_eq!(parse_parent(b"7 (a) S 1 (b) R 3 7"), Some(3));
        assert_eq!(parse_parent(b"7 (sh) S x"), None);
        assert_eq!(parse_parent(b"7 (sh)"), None);
        assert_eq!(parse_parent(b""), None);
    }

    #[test]
    fn we_descend_from_our_parent_and_not_the_other_way_round() {
        let own = i32::try_from(std::process::id()).unwrap();
        let above = parent(own).unwrap();
        assert!(descends(own, own));
        assert!(descends(own, above) || above <= 1);
        assert!(!descends(above, own));
    }
}
