//! Signals reach the command once, as it would have got them from its caller.

use std::os::unix::process::ExitStatusExt;

use crate::support::{Running, Under, same_for_both, send, until_state};

/// Takes signals one by one and says which; ends at signal 50.
const LISTENER: &str = "
import os, signal
wanted = set(range(1, 65)) - {9, 19, 17, 32, 33, 34}
signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
print(os.getpid(), flush=True)
while True:
    info = signal.sigwaitinfo(wanted)
    print(info.si_signo, flush=True)
    if info.si_signo == 50: break
";

const END: i32 = 50;

#[test]
fn every_signal_sent_to_us_reaches_the_command_exactly_once() {
    let mut running = Running::start(Under::Wrapper.run(&["python3", "-c", LISTENER]));
    running.process();
    let sent = [
        1, 2, 3, 10, 12, 13, 14, 15, 18, 20, 21, 22, 23, 26, 28, 29, 30, 35, 40, 64,
    ];
    for signal in sent {
        send(running.id(), signal);
        // Nothing else may come in between.
        assert_eq!(running.line(), signal.to_string());
    }
    send(running.id(), END);
    assert_eq!(running.rest(), [END.to_string()]);
    assert_eq!(running.exit().code(), Some(0));
}

#[test]
fn queued_real_time_signals_keep_their_order_and_number() {
    let mut running = Running::start(Under::Wrapper.run(&["python3", "-c", LISTENER]));
    let command = running.process();
    send(command, 19);
    until_state(command, 'T');
    for signal in [40, 40, 41, 40] {
        send(running.id(), signal);
    }
    send(running.id(), END);
    send(command, 18);
    // The lowest first (signal(7)); the 18 is our own.
    assert_eq!(running.rest(), ["18", "40", "40", "40", "41", "50"]);
}

#[test]
fn a_terminated_command_terminates_us_the_same_way() {
    let mut running = Running::start(Under::Wrapper.run(&["sh", "-c", "echo $$; exec sleep 600"]));
    running.process();
    send(running.id(), 15);
    assert_eq!(running.exit().signal(), Some(15));
}

#[test]
fn a_command_that_handles_a_signal_decides_how_it_ends() {
    let script = "trap 'echo cleaned; exit 7' TERM; echo ready; while :; do sleep 0.01; done";
    let mut running = Running::start(Under::Wrapper.run(&["sh", "-c", script]));
    assert_eq!(running.line(), "ready");
    send(running.id(), 15);
    assert_eq!(running.rest(), ["cleaned"]);
    assert_eq!(running.exit().code(), Some(7));
}

#[test]
fn a_script_without_job_control_can_stop_us() {
    // The script, we and the command share one process group.
    let scratch = crate::support::Scratch::new();
    let script = "mkfifo fifo
WRAP sh -c 'trap \"exit 5\" TERM; echo ready >fifo; while :; do sleep 0.01; done' &
read line <fifo; kill -TERM $!; wait $!";
    let output = Under::Wrapper
        .script(script)
        .current_dir(&scratch.0)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(5), "{output:?}");
}

#[test]
fn a_signal_that_the_command_sent_is_not_sent_back() {
    let program = format!(
        "
import os, signal, subprocess, sys
wanted = set(range(1, 65)) - {{9, 19, 17, 32, 33, 34}}
signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
wrapper = os.getppid()
for number in (1, 2, 10, 15, 18, 28, 40):
    os.kill(wrapper, number)
# A grandchild that lives on until it is known who it was.
grandchild = subprocess.Popen([sys.executable, '-c', 'import os, sys\\nos.kill(int(sys.argv[1]), 12)\\nprint(1, flush=True)\\nsys.stdin.read()', str(wrapper)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
grandchild.stdout.readline()
print(os.getpid(), flush=True)
while True:
    info = signal.sigwaitinfo(wanted)
    print(info.si_signo, flush=True)
    if info.si_signo == {END}: break
grandchild.communicate()
"
    );
    let mut running = Running::start(Under::Wrapper.run(&["python3", "-c", &program]));
    running.process();
    send(running.id(), END);
    assert_eq!(running.rest(), [END.to_string()]);
    assert_eq!(running.exit().code(), Some(0));
}

#[test]
fn a_timer_that_was_set_for_us_goes_off_in_the_command() {
    let program = "
import os, signal
signal.setitimer(signal.ITIMER_REAL, 0.2)
words = [WRAP 'sleep', '600']
os.execvp(words[0], words)";
    let mut running = Running::start(Under::Wrapper.python(program));
    assert_eq!(running.exit().signal(), Some(14));
}

/// Sets dispositions and a mask, then executes.
fn with_signals(
    under: Under,
    ignored: &[i32],
    blocked: &[i32],
    words: &str,
) -> std::process::Command {
    under.python(&format!(
        "
import os, signal
for number in range(1, 65):
    if number not in (9, 19, 32, 33, 34): signal.signal(number, signal.SIG_IGN if number in {ignored:?} else signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_SETMASK, {{*{blocked:?}}})
words = [WRAP {words}]
os.execvp(words[0], words)"
    ))
}

const GREP: &str = "'grep', '-E', '^Sig(Blk|Ign|Cgt)', '/proc/self/status'";

#[test]
fn ignored_signals_stay_ignored_sigpipe_and_sigchld_among_them() {
    let is_ignored = |output: &str, number: i32| {
        let line = output
            .lines()
            .find_map(|line| line.strip_prefix("SigIgn:\t"))
            .unwrap();
        u64::from_str_radix(line, 16).unwrap() & 1 << (number - 1) != 0
    };
    for ignored in [13, 17, 1, 2, 3, 10, 15, 18, 28, 40] {
        let output = same_for_both(|under| with_signals(under, &[ignored], &[], GREP));
        assert!(is_ignored(&output, ignored), "{ignored}: {output}");
    }
    let output = same_for_both(|under| with_signals(under, &[], &[], GREP));
    assert!(
        !is_ignored(&output, 13) && !is_ignored(&output, 17),
        "{output}"
    );
    same_for_both(|under| with_signals(under, &[1, 13, 15, 17, 20, 28], &[], GREP));
}

#[test]
fn the_signal_mask_is_the_callers() {
    for blocked in [
        &[][..],
        &[13],
        &[17],
        &[2, 15],
        &[1, 2, 3, 10, 12, 13, 14, 15, 17, 18, 20, 28, 40, 64],
    ] {
        same_for_both(|under| with_signals(under, &[], blocked, GREP));
    }
}

#[test]
fn the_exit_status_survives_a_caller_that_ignores_sigchld() {
    let output = with_signals(Under::Wrapper, &[17], &[], "'sh', '-c', 'exit 9'")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(9), "{output:?}");
}

#[test]
fn a_signal_that_the_caller_blocked_still_kills_with_the_command() {
    let words = "'python3', '-c', 'import os, signal; signal.pthread_sigmask(signal.SIG_UNBLOCK, {15}); os.kill(os.getpid(), 15)'";
    let output = with_signals(Under::Wrapper, &[15], &[15], "'sh', '-c', 'kill -9 $$'")
        .output()
        .unwrap();
    assert_eq!(output.status.signal(), Some(9));
    let output = with_signals(Under::Wrapper, &[], &[15], words)
        .output()
        .unwrap();
    assert_eq!(output.status.signal(), Some(15));
}

#[test]
fn a_broken_pipe_ends_the_command_as_without_us() {
    let script = "{ WRAP yes; echo $? >&2; } | head -n 1";
    let (wrapped, bare) = crate::support::both(|under| under.script(script));
    assert_eq!(wrapped.stderr, b"141\n");
    assert_eq!((wrapped.stdout, wrapped.stderr), (bare.stdout, bare.stderr));
}
