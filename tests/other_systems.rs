//! What the program says where it cannot run. It has no part of the library there, so it can be
//! tried here as well.

#[path = "../src/unsupported.rs"]
#[allow(dead_code, reason = "its main is the one of other systems")]
mod unsupported;

use std::ffi::OsStr;

fn answer(option: &str) -> Option<String> {
    unsupported::answer(Some(OsStr::new(option)))
}

#[test]
fn a_runner_is_told_that_there_is_no_broker() {
    let version = env!("CARGO_PKG_VERSION");
    let want = format!("{{\"name\":\"broker-exec\",\"version\":\"{version}\",\"broker\":false}}\n");
    assert_eq!(answer("--capabilities"), Some(want));
}

#[test]
fn help_and_version_are_given() {
    for option in ["-h", "--help", "-V", "--version"] {
        assert!(answer(option).is_some_and(|text| text.contains("broker-exec")));
    }
}

#[test]
fn everything_else_is_refused() {
    assert_eq!(unsupported::answer(None), None);
    for option in ["-u", "true", "--", "--upstream=https://a", ""] {
        assert_eq!(answer(option), None, "{option}");
    }
}
