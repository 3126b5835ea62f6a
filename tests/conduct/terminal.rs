//! On a terminal: Ctrl-C, Ctrl-Z, the foreground, a hang-up.

use crate::support::{
    Scratch, Terminal, Under, eventually, send, state, status_field, until_state,
};

const CTRL_C: &str = "\x03";
const CTRL_Z: &str = "\x1a";
const CTRL_BACKSLASH: &str = "\x1c";

#[test]
fn ctrl_c_ends_a_loop_of_the_shell() {
    let mut terminal = Terminal::bash(Under::Wrapper);
    terminal.enter(
        &Under::Wrapper.expand("while :; do WRAP sh -c 'echo \"pid=$$;\"; exec sleep 600'; done"),
    );
    let command = terminal.process();
    terminal.keys(CTRL_C);
    let between = terminal.expect("prompt> ");
    assert!(!between.contains("pid="), "the loop went on: {between:?}");
    assert!(!matches!(state(command), Some('S' | 'R')));
    terminal.enter("echo status $?");
    terminal.expect("status 130");
}

#[test]
fn ctrl_c_lets_the_command_finish() {
    let mut terminal = Terminal::bash(Under::Wrapper);
    // Short sleeps: a Ctrl-C that finds bash between fork and exec is lost on the child, and bash
    // takes it only when that child has ended.
    let script = "trap 'echo clean\"\"ing; read line; echo \"had <$line>\"; exit 3' INT; echo \"pid=$$;\"; while :; do sleep 0.05; done";
    terminal
        .enter(&Under::Wrapper.expand(&format!("WRAP bash -c '{}'", script.replace("'", "'\\''"))));
    terminal.process();
    terminal.keys(CTRL_C);
    terminal.expect("cleaning");
    // The command still has the terminal to itself.
    terminal.enter("word");
    terminal.expect("had <word>");
    terminal.expect("prompt> ");
    terminal.enter("echo status $?");
    terminal.expect("status 3");
}

/// Counts what arrives until SIGUSR1, which is passed on after everything before it.
const COUNTER: &str = "
import collections, os, signal
wanted = {2, 3, 10, 18, 20, 28}
signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
seen = collections.Counter()
os.write(1, b'pid=%d;' % os.getpid())
while True:
    number = signal.sigwaitinfo(wanted).si_signo
    seen[number] += 1
    print('have %d of %d.' % (seen[number], number), flush=True)
    if number == 10: break
print('total', sorted(seen.items()), flush=True)
";

#[test]
fn a_key_reaches_the_command_once() {
    for (key, signal) in [(CTRL_C, 2), (CTRL_BACKSLASH, 3)] {
        let mut terminal = Terminal::start(&Under::Wrapper.run(&["python3", "-c", COUNTER]));
        terminal.process();
        let wrapper = terminal.leader.id();
        terminal.keys(key);
        terminal.expect(&format!("have 1 of {signal}."));
        send(wrapper, 10);
        terminal.expect(&format!("total [({signal}, 1), (10, 1)]"));
    }
}

#[test]
fn ctrl_z_stops_both_and_fg_continues_both() {
    let mut terminal = Terminal::bash(Under::Wrapper);
    terminal.enter(
        &Under::Wrapper
            .expand("WRAP sh -c 'echo \"pid=$$;\"; read line; echo \"had <$line>\"; exit 6'"),
    );
    let command = terminal.process();
    let wrapper: i32 = status_field(command, "PPid").parse().unwrap();
    for _ in 0..3 {
        terminal.keys(CTRL_Z);
        terminal.expect("Stopped");
        terminal.expect("prompt> ");
        until_state(wrapper, 'T');
        until_state(command, 'T');
        terminal.enter("fg");
        until_state(wrapper, 'S');
        until_state(command, 'S');
    }
    terminal.enter("word");
    terminal.expect("had <word>");
    terminal.expect("prompt> ");
    terminal.enter("echo status $?");
    terminal.expect("status 6");
}

#[test]
fn a_stopped_job_can_go_on_in_the_background() {
    let mut terminal = Terminal::bash(Under::Wrapper);
    terminal.enter(&Under::Wrapper.expand("WRAP sh -c 'echo \"pid=$$;\"; exec sleep 600'"));
    let command = terminal.process();
    terminal.keys(CTRL_Z);
    terminal.expect("Stopped");
    terminal.enter("bg");
    eventually("the command to run again", || {
        (state(command) != Some('T')).then_some(())
    });
    terminal.enter("kill %1; wait; echo al''l done");
    terminal.expect("all done");
}

#[test]
fn a_background_job_that_reads_the_terminal_stops_as_one() {
    let run = |under: Under| {
        let mut terminal = Terminal::bash(under);
        terminal.enter(
            &under.expand("WRAP sh -c 'echo \"pid=$$;\"; read line; echo \"had <$line>\"' &"),
        );
        let command = terminal.process();
        until_state(command, 'T');
        let parent: i32 = status_field(command, "PPid").parse().unwrap();
        if under == Under::Wrapper {
            until_state(parent, 'T');
        }
        terminal.enter("jobs -l");
        terminal.expect("Stopped (tty input)");
        terminal.enter("fg");
        eventually("the command to run again", || {
            (state(command) != Some('T')).then_some(())
        });
        terminal.enter("word");
        terminal.expect("had <word>");
    };
    run(Under::Bare);
    run(Under::Wrapper);
}

#[test]
fn a_stop_sent_to_us_stops_the_job() {
    let mut terminal = Terminal::bash(Under::Wrapper);
    terminal.enter(&Under::Wrapper.expand("WRAP sh -c 'echo \"pid=$$;\"; exec sleep 600' &"));
    let command = terminal.process();
    let wrapper: i32 = status_field(command, "PPid").parse().unwrap();
    send(wrapper, 20);
    until_state(command, 'T');
    until_state(wrapper, 'T');
    // Continued by the wrapper's id alone, as `kill -CONT` of a supervisor does.
    send(wrapper, 18);
    eventually("the command to run again", || {
        (state(command) != Some('T')).then_some(())
    });
    // On a terminal the command's SIGSTOP is the job's too.
    send(command, 19);
    until_state(wrapper, 'T');
    send(wrapper, 18);
    eventually("the command to run again", || {
        (state(command) != Some('T')).then_some(())
    });
    terminal.enter("kill %1; wait; echo al''l done");
    terminal.expect("all done");
}

#[test]
fn an_interactive_shell_under_us_has_the_terminal() {
    let mut terminal = Terminal::bash(Under::Wrapper);
    terminal.enter("PS1='outer''> '");
    terminal.expect("outer> ");
    terminal.enter(
        &Under::Wrapper.expand("PS1='inner''> ' WRAP bash --norc --noprofile --noediting -i"),
    );
    terminal.expect("inner> ");
    terminal.enter("sh -c 'echo \"pid=$$;\"; exec sleep 600'");
    let job = terminal.process();
    terminal.keys(CTRL_Z);
    terminal.expect("Stopped");
    terminal.expect("inner> ");
    terminal.enter("fg");
    // Ctrl-C throws away what was typed and not read yet.
    until_state(job, 'S');
    terminal.keys(CTRL_C);
    terminal.expect("inner> ");
    terminal.enter("suspend");
    terminal.expect("Stopped");
    terminal.expect("outer> ");
    terminal.enter("fg");
    terminal.enter("echo back a''gain");
    terminal.expect("back again");
    terminal.enter("exit 8");
    terminal.expect("outer> ");
    terminal.enter("echo status $?");
    terminal.expect("status 8");
}

#[test]
fn the_command_shares_group_session_and_terminal_with_its_caller() {
    let program = "import os
own = (os.getpgrp(), os.getsid(0), os.tcgetpgrp(0))
theirs = (os.getpgid(os.getppid()), os.getsid(os.getppid()), os.getpgrp())
print('same:', own == theirs, 'tty:', [os.isatty(n) for n in range(3)], os.ttyname(0) == os.ttyname(1))";
    let mut terminal = Terminal::start(&Under::Wrapper.run(&["python3", "-c", program]));
    terminal.expect("same: True tty: [True, True, True] True");
}

#[test]
fn a_terminal_that_hangs_up_tells_the_command_even_when_we_lead_the_session() {
    for under in [Under::Bare, Under::Wrapper] {
        let scratch = Scratch::new();
        let file = scratch.0.join("told");
        let program = "
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {1})
os.write(1, b'pid=%d;' % os.getpid())
number = signal.sigwaitinfo({1}).si_signo
os.close(os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY))";
        let mut terminal =
            Terminal::start(&under.run(&["python3", "-c", program, file.to_str().unwrap()]));
        terminal.process();
        let mut leader = terminal.hang_up();
        assert_eq!(leader.exit().code(), Some(0));
        assert!(file.exists(), "{under:?}");
    }
}

#[test]
fn a_window_that_changes_size_tells_the_command_once() {
    let mut terminal = Terminal::start(&Under::Wrapper.run(&["python3", "-c", COUNTER]));
    terminal.process();
    terminal.resize();
    terminal.expect("have 1 of 28.");
    send(terminal.leader.id(), 10);
    terminal.expect("total [(10, 1), (28, 1)]");
}
