//! The one flag table. The parser, `--help`, the completions and the test that holds the man page
//! and the README to it all read this list, so that an option cannot exist in one of them only.

/// Which option it is. The parser matches on it exhaustively: no option can be parsed and ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Id {
    Upstream,
    Key,
    Inject,
    Service,
    Env,
    Fd,
    ConnectTimeout,
    ResponseHeaderTimeout,
    IdleTimeout,
    Scrub,
    User,
    AllowPrivate,
    AllowNewPrivs,
    Strict,
    MaxConnections,
    Cacert,
    Audit,
    AuditRequired,
    Services,
    Capabilities,
    Completions,
    Quiet,
    Verbose,
    Help,
    Version,
}

/// What a shell can offer as an option's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hint {
    /// Nothing sensible.
    Nothing,
    /// One of these words. A word that ends in a colon goes on.
    Words(&'static [&'static str]),
    /// The name of a file.
    File,
    /// The name of a service of the catalogue.
    Service,
}

/// One option.
#[derive(Debug)]
pub struct Flag {
    pub(super) id: Id,
    pub(super) hint: Hint,
    /// `-x`
    pub short: Option<char>,
    /// `--long`, without the dashes. The man page and the README know the option by this name.
    pub long: &'static str,
    /// What the value is called, for options that take one.
    pub value: Option<&'static str>,
    /// The default as a user would write it.
    pub default: Option<&'static str>,
    /// Whether every occurrence counts; otherwise the last one does.
    pub repeatable: bool,
    /// One line, without the default.
    pub help: &'static str,
}

const SWITCH: Flag = Flag {
    id: Id::Help,
    hint: Hint::Nothing,
    short: None,
    long: "",
    value: None,
    default: None,
    repeatable: false,
    help: "",
};

/// Every option, in the order in which they are shown.
pub const FLAGS: &[Flag] = &[
    Flag {
        id: Id::Upstream,
        short: Some('u'),
        long: "upstream",
        value: Some("URL"),
        help: "send the requests to this origin",
        ..SWITCH
    },
    Flag {
        id: Id::Key,
        hint: Hint::Words(&["file:", "fd:", "env:", "exec:"]),
        short: Some('k'),
        long: "key",
        value: Some("SOURCE"),
        help: "read the credential from here",
        ..SWITCH
    },
    Flag {
        id: Id::Inject,
        hint: Hint::Words(&["bearer", "basic", "basic:", "header:", "query:", "cookie:"]),
        short: Some('i'),
        long: "inject",
        value: Some("PLACE"),
        default: Some("bearer"),
        help: "put the credential there",
        ..SWITCH
    },
    Flag {
        id: Id::Service,
        hint: Hint::Service,
        short: Some('s'),
        long: "service",
        value: Some("NAME"),
        help: "take -u, -i and --env from the catalogue",
        ..SWITCH
    },
    Flag {
        id: Id::Env,
        long: "env",
        value: Some("NAME=TEMPLATE"),
        repeatable: true,
        help: "set a variable; {fd}, {url} and {host} expand",
        ..SWITCH
    },
    Flag {
        id: Id::Fd,
        long: "fd",
        value: Some("N"),
        help: "insist on this control descriptor",
        ..SWITCH
    },
    Flag {
        id: Id::ConnectTimeout,
        long: "connect-timeout",
        value: Some("D"),
        default: Some("10s"),
        help: "limit on connecting",
        ..SWITCH
    },
    Flag {
        id: Id::ResponseHeaderTimeout,
        long: "response-header-timeout",
        value: Some("D"),
        default: Some("60s"),
        help: "limit on a response head",
        ..SWITCH
    },
    Flag {
        id: Id::IdleTimeout,
        long: "idle-timeout",
        value: Some("D"),
        default: Some("none"),
        help: "limit on a silence",
        ..SWITCH
    },
    Flag {
        id: Id::Scrub,
        hint: Hint::Words(&["redact", "fail", "off"]),
        long: "scrub",
        value: Some("MODE"),
        default: Some("redact"),
        help: "mask an echoed key; fail; or off",
        ..SWITCH
    },
    Flag {
        id: Id::User,
        long: "user",
        value: Some("USER[:GROUP]"),
        help: "run the command as another user",
        ..SWITCH
    },
    Flag {
        id: Id::AllowPrivate,
        long: "allow-private",
        help: "let the upstream have a private address",
        ..SWITCH
    },
    Flag {
        id: Id::AllowNewPrivs,
        long: "allow-new-privs",
        help: "let the command run set-id programs",
        ..SWITCH
    },
    Flag {
        id: Id::Strict,
        long: "strict",
        help: "refuse what would be warned of",
        ..SWITCH
    },
    Flag {
        id: Id::MaxConnections,
        long: "max-connections",
        value: Some("N"),
        default: Some("256"),
        help: "limit on live streams",
        ..SWITCH
    },
    Flag {
        id: Id::Cacert,
        hint: Hint::File,
        long: "cacert",
        value: Some("FILE"),
        repeatable: true,
        help: "trust these roots (PEM) as well",
        ..SWITCH
    },
    Flag {
        id: Id::Audit,
        hint: Hint::File,
        long: "audit",
        value: Some("FILE"),
        help: "append a JSON line per request (or fd:N)",
        ..SWITCH
    },
    Flag {
        id: Id::AuditRequired,
        long: "audit-required",
        help: "send nothing that cannot be audited",
        ..SWITCH
    },
    Flag {
        id: Id::Services,
        long: "services",
        help: "list the catalogue",
        ..SWITCH
    },
    Flag {
        id: Id::Capabilities,
        long: "capabilities",
        help: "say in one JSON line what works here",
        ..SWITCH
    },
    Flag {
        id: Id::Completions,
        hint: Hint::Words(&["bash", "zsh", "fish"]),
        long: "completions",
        value: Some("SHELL"),
        help: "print completions for bash, zsh or fish",
        ..SWITCH
    },
    Flag {
        id: Id::Quiet,
        short: Some('q'),
        long: "quiet",
        help: "print errors only",
        ..SWITCH
    },
    Flag {
        id: Id::Verbose,
        short: Some('v'),
        long: "verbose",
        help: "narrate on standard error",
        ..SWITCH
    },
    Flag {
        id: Id::Help,
        short: Some('h'),
        long: "help",
        help: "print this",
        ..SWITCH
    },
    Flag {
        id: Id::Version,
        short: Some('V'),
        long: "version",
        help: "print the version",
        ..SWITCH
    },
];

/// Where the help texts begin.
const HELP_COLUMN: usize = 34;

/// The text of `--help`: 80 columns, no more than a screen.
pub(super) fn help() -> String {
    let mut text = String::from(
        "Usage: broker-exec [OPTIONS] [--] COMMAND [ARG...]\n\
         Run a command whose API calls carry a credential that it never sees.\n\n",
    );
    for flag in FLAGS {
        let mut line = match flag.short {
            Some(short) => format!("  -{short}, --{}", flag.long),
            None => format!("      --{}", flag.long),
        };
        if let Some(value) = flag.value {
            line = line + " " + value;
        }
        text += &format!("{line:<HELP_COLUMN$}{}", flag.help);
        if let Some(default) = flag.default {
            text += &format!(" ({default})");
        }
        text.push('\n');
    }
    text += "\n\
        SOURCE  file:PATH, fd:N, env:NAME, exec:COMMAND (its output, run by /bin/sh -c)\n\
        PLACE   bearer, basic[:USER], header:NAME[:TEMPLATE], query:NAME, cookie:NAME\n\
        D       a duration such as 500ms, 60s, 5m, 1h\n\n\
        Options end at the command or at --. No option takes a secret as its value.\n\
        Exit status: the command's; 125 our own failure, 126 the command cannot be\n\
        executed, 127 there is no such command. See broker-exec(1).\n";
    text
}
