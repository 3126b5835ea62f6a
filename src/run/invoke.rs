//! What the binary does: options in, the exit of the command out.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;

use super::Broker;
use crate::audit::Audit;
use crate::child::{self, Command, Exit, User};
use crate::cli::{self, Invocation, Options};
use crate::config;
use crate::error::{Error, Result, say};
use crate::service::Service;

/// Does what a command line asks for: the exit of the command, or `None` when none was to be run.
pub fn command_line(args: impl IntoIterator<Item = OsString>) -> Result<Option<Exit>> {
    let options = match cli::parse(args)? {
        Invocation::Run(options) => options,
        Invocation::Print(text) => return print(&text),
        Invocation::Capabilities => return print(&capabilities()),
    };
    let Options { mut command, .. } = *options.clone();
    let preset = options.service.as_deref().and_then(config::preset);
    let upstream = options
        .upstream
        .as_deref()
        .or(preset.map(|p| p.upstream))
        .unwrap_or_default();
    let inject = options
        .inject
        .as_deref()
        .or(preset.map(|p| p.inject))
        .unwrap_or("bearer");
    let key = options.key.as_deref().unwrap_or_default();
    let user = options.user.as_deref().map(User::parse).transpose()?;
    if user.is_some() && !User::may_change() {
        return Err(Error::Protection(
            "--user: only root can run the command as another user".into(),
        ));
    }
    // Before anything else is opened: a descriptor that is claimed must be our caller's.
    let audit = options.audit.as_ref().map(Audit::open).transpose()?;
    // Signals still have their usual effect: Ctrl-C ends us while a slow source is being read.
    let service = Service::load(preset.map_or("api", |p| p.name), upstream, key, inject);
    let service = service.inspect_err(|err| {
        if let Some(audit) = &audit {
            audit.fail(err);
        }
    })?;
    let mut broker = Broker::new(service)
        .connect_timeout(options.connect_timeout)
        .response_header_timeout(options.response_header_timeout)
        .idle_timeout(options.idle_timeout)
        .max_connections(options.max_connections)
        .allow_private(options.allow_private)
        .allow_new_privs(options.allow_new_privs)
        .scrub(options.scrub)
        .warn(options.verbosity >= 0)
        .strict(options.strict)
        .narrate(options.verbosity > 0);
    broker.fd = options.fd;
    broker.audit = audit.map(|audit| audit.required(options.audit_required));
    let from_env = std::env::var_os("SSL_CERT_FILE")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from);
    broker.roots = options.cacert.iter().cloned().chain(from_env).collect();
    let mut child = Command::new(command.remove(0));
    for arg in command {
        child = child.arg(arg);
    }
    if let Some(user) = user {
        child = child.user(user);
    }
    for name in preset.map_or(&[][..], |p| p.env_remove) {
        child = child.env_remove(name);
    }
    for (name, template) in preset.map_or(&[][..], |p| p.env) {
        broker = broker.env(name, template);
    }
    for (name, template) in &options.env {
        broker = broker.env(name, template);
    }
    if options.verbosity > 0 {
        say(&format!("requests go to {}", broker.service.origin));
        say(&format!(
            "secret memory: {}",
            crate::credential::memory_tier()
        ));
    }
    // Before there is a second thread: it would take the signals.
    let guard = child::relay::block();
    let exit = broker.spawn(child)?.wait_relaying();
    // What is still pending must not end us before we end as the command did.
    std::mem::forget(guard);
    exit.map(Some)
        .map_err(Error::system("wait for the command"))
}

fn print(text: &str) -> Result<Option<Exit>> {
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(Error::system("write to standard output"))?;
    Ok(None)
}

/// What this build offers on this host, as one JSON line, so that a runner can negotiate.
#[must_use]
pub fn capabilities() -> String {
    let hardened = crate::sys::process::harden().is_ok();
    format!(
        "{{\"name\":\"broker-exec\",\"version\":\"{}\",\"broker\":{hardened},\"protocols\":[1],\"doors\":[\"fd\"],\
         \"protections\":{{\"dumpable\":{hardened},\"no_new_privs\":true,\"secret_memory\":\"{}\"}}}}\n",
        env!("CARGO_PKG_VERSION"),
        crate::credential::memory_tier(),
    )
}
