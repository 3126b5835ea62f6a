//! The built-in catalogue of services.

/// A service that is known by name.
#[derive(Debug)]
pub struct Preset {
    /// The name that `--service` takes.
    pub name: &'static str,
    /// The upstream URL.
    pub upstream: &'static str,
    /// The place of the credential, as `--inject` takes it.
    pub inject: &'static str,
    /// Variables that are set in the command's environment; values are templates as `--env` takes them.
    pub env: &'static [(&'static str, &'static str)],
    /// Variables that are removed from the command's environment.
    pub env_remove: &'static [&'static str],
}

/// Every service that is built in.
pub const CATALOGUE: &[Preset] = &[Preset {
    name: "flashduty",
    upstream: "https://api.flashcat.cloud",
    inject: "query:app_key",
    env: &[
        ("FLASHDUTY_CRED_FD", "{fd}"),
        ("FLASHDUTY_BASE_URL", "http://flashduty.broker.local"),
    ],
    env_remove: &["FLASHDUTY_APP_KEY"],
}];

/// The built-in service of this name.
#[must_use]
pub fn preset(name: &str) -> Option<&'static Preset> {
    CATALOGUE.iter().find(|preset| preset.name == name)
}
