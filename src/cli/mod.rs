//! The command line: one flag table gives the parser, `--help`, `--completions` and the test that
//! holds the man page to them.
//!
//! Nothing is opened, read or started here, and no error repeats a value that could be a secret
//! typed into the wrong place.

mod completions;
mod table;
mod value;

pub use table::{FLAGS, Flag};

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::audit::Target;
use crate::config::{self, CATALOGUE};
use crate::credential::Source;
use crate::error::{Error, Result};
use crate::forward::Scrub;
use table::Id;

/// What a command line asks for.
#[derive(Debug)]
pub enum Invocation {
    /// Run a command under the broker.
    Run(Box<Options>),
    /// Print this text on standard output and exit with status 0.
    Print(String),
    /// Print what this build can do on this host, as one JSON line.
    Capabilities,
}

/// The options of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// `--upstream`
    pub upstream: Option<String>,
    /// `--key`
    pub key: Option<OsString>,
    /// `--inject`
    pub inject: Option<String>,
    /// `--service`, a name of the catalogue
    pub service: Option<String>,
    /// `--env`, in order
    pub env: Vec<(OsString, OsString)>,
    /// `--fd`, never one of the standard streams
    pub fd: Option<i32>,
    /// `--connect-timeout`
    pub connect_timeout: Duration,
    /// `--response-header-timeout`
    pub response_header_timeout: Duration,
    /// `--idle-timeout`
    pub idle_timeout: Option<Duration>,
    /// `--scrub`
    pub scrub: Scrub,
    /// `--user`
    pub user: Option<String>,
    /// `--allow-private`
    pub allow_private: bool,
    /// `--allow-new-privs`
    pub allow_new_privs: bool,
    /// `--strict`
    pub strict: bool,
    /// `--max-connections`
    pub max_connections: usize,
    /// `--cacert`, repeatable
    pub cacert: Vec<PathBuf>,
    /// `--audit`
    pub audit: Option<Target>,
    /// `--audit-required`, never without `--audit`
    pub audit_required: bool,
    /// -1 quiet, 0 normal, 1 verbose
    pub verbosity: i8,
    /// The command and its arguments, never empty when they come from [`parse`]
    pub command: Vec<OsString>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            upstream: None,
            key: None,
            inject: None,
            service: None,
            env: Vec::new(),
            fd: None,
            connect_timeout: Duration::from_secs(10),
            response_header_timeout: Duration::from_secs(60),
            idle_timeout: None,
            scrub: Scrub::default(),
            user: None,
            allow_private: false,
            allow_new_privs: false,
            strict: false,
            max_connections: 256,
            cacert: Vec::new(),
            audit: None,
            audit_required: false,
            verbosity: 0,
            command: Vec::new(),
        }
    }
}

/// Parses the arguments that follow the program's name.
///
/// Options stop at the first operand or at the first `--`, which alone is eaten; what follows is the
/// command and reaches it untouched. An option that is given twice counts as it was given last,
/// unless the table says that it is repeatable.
///
/// # Errors
/// Always `Error::Usage`: it names the option and says what would have been right.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Invocation> {
    let mut parser = lexopt::Parser::from_args(args);
    let mut options = Options::default();
    while let Some(arg) = parser.next().map_err(describe)? {
        let flag = match arg {
            lexopt::Arg::Value(program) => {
                options.command.push(program);
                options.command.extend(parser.raw_args().map_err(describe)?);
                break;
            }
            lexopt::Arg::Short(name) => FLAGS
                .iter()
                .find(|flag| flag.short == Some(name))
                .ok_or_else(|| usage(format!("unknown option -{name}")))?,
            lexopt::Arg::Long(name) => FLAGS
                .iter()
                .find(|flag| flag.long == name)
                .ok_or_else(|| usage(format!("unknown option --{name}")))?,
        };
        if let Some(invocation) = apply(flag, &mut parser, &mut options)? {
            return Ok(invocation);
        }
    }
    complete(&options)?;
    Ok(Invocation::Run(Box::new(options)))
}

/// Takes one option with its value. Those that ask for an answer and not for a run return it.
fn apply(
    flag: &Flag,
    parser: &mut lexopt::Parser,
    options: &mut Options,
) -> Result<Option<Invocation>> {
    let mut value = OsString::new();
    if flag.value.is_some() {
        value = parser.value().map_err(|_| wrong(flag, "needs a value"))?;
        if value.is_empty() {
            return Err(wrong(flag, "the value is empty"));
        }
    }
    let wrong = |why: &str| wrong(flag, why);
    let text = |value: OsString| value.into_string().map_err(|_| wrong("not valid UTF-8"));
    let duration = |value| value::duration(&text(value)?).map_err(|why| wrong(&why));
    match flag.id {
        Id::Upstream => options.upstream = Some(text(value)?),
        Id::Key => options.key = Some(value),
        Id::Inject => options.inject = Some(text(value)?),
        Id::Service => {
            if options.service.is_some() {
                return Err(wrong("only one service can be given"));
            }
            let name = text(value)?;
            if config::preset(&name).is_none() {
                let known: Vec<_> = CATALOGUE.iter().map(|preset| preset.name).collect();
                let known = known.join(", ");
                return Err(wrong(&format!("no such service; there is: {known}")));
            }
            options.service = Some(name);
        }
        Id::Env => {
            let pair = value::assignment(&value).map_err(wrong)?;
            options.env.push(pair);
        }
        Id::Fd => {
            let number = value::number(&text(value)?, 3, i32::MAX);
            options.fd = Some(number.map_err(|why| wrong(&why))?);
        }
        Id::ConnectTimeout => options.connect_timeout = duration(value)?,
        Id::ResponseHeaderTimeout => options.response_header_timeout = duration(value)?,
        Id::IdleTimeout => options.idle_timeout = Some(duration(value)?),
        Id::Scrub => {
            options.scrub = match text(value)?.as_str() {
                "redact" => Scrub::Redact,
                "fail" => Scrub::Fail,
                "off" => Scrub::Off,
                _ => return Err(wrong("the mode is one of redact, fail, off")),
            };
        }
        Id::User => options.user = Some(text(value)?),
        Id::AllowPrivate => options.allow_private = true,
        Id::AllowNewPrivs => options.allow_new_privs = true,
        Id::Strict => options.strict = true,
        Id::MaxConnections => {
            let number = value::number(&text(value)?, 1, 65536);
            options.max_connections = number.map_err(|why| wrong(&why))?;
        }
        Id::Cacert => options.cacert.push(PathBuf::from(value)),
        Id::Audit => options.audit = Some(Target::parse(&value).map_err(wrong)?),
        Id::AuditRequired => options.audit_required = true,
        Id::Services => return Ok(Some(Invocation::Print(services()))),
        Id::Capabilities => return Ok(Some(Invocation::Capabilities)),
        Id::Completions => {
            let script = completions::script(&text(value)?);
            let script = script.ok_or_else(|| wrong("the shell is one of bash, zsh, fish"))?;
            return Ok(Some(Invocation::Print(script)));
        }
        Id::Quiet => options.verbosity = -1,
        Id::Verbose => options.verbosity = 1,
        Id::Help => return Ok(Some(Invocation::Print(table::help()))),
        Id::Version => return Ok(Some(Invocation::Print(version()))),
    }
    Ok(None)
}

/// What a run cannot do without.
fn complete(options: &Options) -> Result<()> {
    if options.command.is_empty() {
        return Err(usage("no command to run"));
    }
    if options.upstream.is_none() && options.service.is_none() {
        return Err(usage(
            "no upstream: before the command, give its URL with -u or a service with -s",
        ));
    }
    if options.key.is_none() {
        return Err(usage(
            "no credential: before the command, say with -k where it is, such as file:PATH",
        ));
    }
    if options.audit_required && options.audit.is_none() {
        return Err(usage("--audit-required: say with --audit where it goes"));
    }
    // Whoever claims it second would take what the first has opened in its place.
    if let (Some(Target::Fd(number)), Some(key)) = (&options.audit, &options.key)
        && Source::parse(key).is_ok_and(|source| source == Source::Fd(*number))
    {
        return Err(usage("--audit: the key is read from this descriptor"));
    }
    Ok(())
}

/// The text of `--services`: one line per service, its variables below it.
fn services() -> String {
    let mut text = String::new();
    for preset in CATALOGUE {
        text += &format!("{}  {}  {}\n", preset.name, preset.upstream, preset.inject);
        for (name, value) in preset.env {
            text += &format!("    sets {name}={value}\n");
        }
        for name in preset.env_remove {
            text += &format!("    removes {name}\n");
        }
    }
    text
}

fn version() -> String {
    format!("broker-exec {}\n", env!("CARGO_PKG_VERSION"))
}

/// A usage error that ends with what to do next.
fn usage(what: impl std::fmt::Display) -> Error {
    Error::Usage(format!("{what}\ntry 'broker-exec --help'"))
}

fn wrong(flag: &Flag, why: &str) -> Error {
    usage(format!("--{}: {why}", flag.long))
}

/// lexopt's own errors, less the values: what was typed may be a secret in the wrong place.
fn describe(err: lexopt::Error) -> Error {
    match err {
        lexopt::Error::UnexpectedValue { option, .. } => usage(format!("{option} takes no value")),
        lexopt::Error::MissingValue {
            option: Some(option),
        } => usage(format!("{option}: needs a value")),
        _ => usage("the command line cannot be understood"),
    }
}

#[cfg(test)]
mod tests;
