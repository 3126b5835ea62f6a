//! The command has the caller's descriptors, all of them, and one more.

use std::collections::BTreeMap;

use crate::support::{Running, Under, same_for_both, stdout};

/// Prints each open descriptor with what it is, but for those that the program opened itself.
const LIST: &str = "
import os
for name in sorted(os.listdir('/proc/self/fd'), key=int):
    try: s = os.fstat(int(name))
    except OSError: continue
    print(name, s.st_dev, s.st_ino, s.st_rdev)
";

/// Closes 3 to 9, which whoever runs the tests may have left open.
const CLOSE: &str = "exec 3<&- 4<&- 5<&- 6<&- 7<&- 8<&- 9<&-;";

fn number(script: &str) -> String {
    let script = format!(
        "{CLOSE} {script} WRAP sh -c 'echo $BROKER_EXEC_FD; test -S /proc/self/fd/$BROKER_EXEC_FD'"
    );
    stdout(&Under::Wrapper.script(&script).output().unwrap())
        .trim()
        .to_owned()
}

#[test]
fn the_control_descriptor_is_3_when_3_is_free() {
    assert_eq!(number(""), "3");
}

#[test]
fn the_control_descriptor_steps_aside_for_the_callers() {
    // As make's jobserver, bats and systemd's sockets have them.
    assert_eq!(number("exec 3</dev/null 4</dev/null;"), "5");
    assert_eq!(
        number("exec 3</dev/null 4</dev/null 5</dev/null 7</dev/null;"),
        "6"
    );
}

#[test]
fn past_9_any_number_will_do() {
    let taken: String = (3..10)
        .map(|number| format!("{number}</dev/null "))
        .collect();
    let number: i32 = number(&format!("exec {taken};")).parse().unwrap();
    assert!(number > 9);
}

#[test]
fn every_descriptor_of_the_caller_passes_through_and_one_is_added() {
    let table = |under: Under| -> BTreeMap<String, String> {
        let script = format!(
            "{CLOSE} exec 4</dev/null 7</dev/zero 8>&1; exec WRAP python3 -c \"$LIST\" </dev/null"
        );
        let output = under
            .script(&script)
            .env("LIST", LIST)
            .stderr(std::process::Stdio::null())
            .output()
            .unwrap();
        let lines = stdout(&output).lines();
        lines
            .map(|line| line.split_once(' ').unwrap())
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .collect()
    };
    let (mut wrapped, mut bare) = (table(Under::Wrapper), table(Under::Bare));
    assert!(wrapped.remove("3").is_some());
    for pipe in ["1", "8"] {
        // Each run has an output pipe of its own.
        assert_eq!(wrapped.remove(pipe).is_some(), bare.remove(pipe).is_some());
    }
    assert_eq!(wrapped, bare);
    assert!(bare.contains_key("4") && bare.contains_key("7"));
}

#[test]
fn common_programs_hand_the_control_descriptor_on() {
    let check = "test -S /proc/self/fd/$BROKER_EXEC_FD && echo kept";
    for words in [
        &["sh", "-c", check][..],
        &["bash", "-c", check],
        &["env", "sh", "-c", check],
        &["xargs", "sh", "-c", check],
        &["find", "/dev/null", "-exec", "sh", "-c", check, ";"],
        &[
            "python3",
            "-c",
            "import os,sys; os.execvp('sh', ['sh', '-c', sys.argv[1]])",
            check,
        ],
        &[
            "python3",
            "-c",
            "import os,subprocess,sys
subprocess.run(['sh', '-c', sys.argv[1]], pass_fds=[int(os.environ['BROKER_EXEC_FD'])])",
            check,
        ],
    ] {
        let output = Under::Wrapper
            .run(words)
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        assert_eq!(stdout(&output), "kept\n", "{words:?}");
    }
}

#[test]
fn a_closed_standard_descriptor_stays_closed() {
    for number in 0..3 {
        for under in [Under::Wrapper, Under::Bare] {
            let script = format!("WRAP sh -c 'test -e /proc/self/fd/{number}' {number}<&-");
            let status = under.script(&script).status().unwrap();
            assert_eq!(status.code(), Some(1), "{number} under {under:?}");
        }
    }
    let all = "WRAP sh -c 'for n in 0 1 2; do test -e /proc/self/fd/$n && exit 1; done; exit 0' <&- >&- 2>&-";
    assert_eq!(Under::Wrapper.script(all).status().unwrap().code(), Some(0));
}

#[test]
fn a_standard_descriptor_on_dev_null_stays_there() {
    let script = "exec 9>&1; WRAP sh -c 'for n in 0 1 2; do x=$(readlink /proc/$$/fd/$n); echo \"$x\" >&9; done' </dev/null >/dev/null 2>&1";
    let output = same_for_both(|under| under.script(script));
    assert_eq!(output, "/dev/null\n/dev/null\n/dev/null\n");
}

#[test]
fn standard_descriptors_are_the_callers_own() {
    let script = "exec 2>&1 </dev/zero; WRAP readlink /proc/self/fd/0";
    assert_eq!(same_for_both(|under| under.script(script)), "/dev/zero\n");
    let script = "{ echo one; echo two; } | { WRAP sh -c 'read a; echo $a'; read b; echo $b; }";
    assert_eq!(same_for_both(|under| under.script(script)), "one\ntwo\n");
}

#[test]
fn nothing_of_ours_is_printed_on_success() {
    let output = Under::Wrapper
        .run(&["sh", "-c", "echo out; echo err >&2"])
        .output()
        .unwrap();
    assert_eq!(
        (&*output.stdout, &*output.stderr),
        (&b"out\n"[..], &b"err\n"[..])
    );
}

#[test]
fn sockets_that_were_meant_for_us_are_meant_for_the_command() {
    let program = "
import os
os.environ['LISTEN_PID'] = str(os.getpid())
os.environ['LISTEN_PIDFDID'] = '12345'
os.environ['LISTEN_FDS'] = '1'
words = [WRAP 'sh', '-c', 'echo $LISTEN_PID $$ $LISTEN_FDS ${LISTEN_PIDFDID-unset}']
os.execvp(words[0], words)";
    let running = Running::start(Under::Wrapper.python(program));
    let line = running.line();
    let words: Vec<&str> = line.split(' ').collect();
    assert_eq!(words[0], words[1]);
    assert_ne!(words[0], running.id().to_string());
    assert_eq!(words[2..], ["1", "unset"]);
}

#[test]
fn sockets_that_were_meant_for_another_process_stay_so() {
    let script = "LISTEN_PID=1 LISTEN_PIDFDID=7 WRAP sh -c 'echo $LISTEN_PID $LISTEN_PIDFDID'";
    assert_eq!(same_for_both(|under| under.script(script)), "1 7\n");
}
