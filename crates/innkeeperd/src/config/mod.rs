//! The daemon's configuration: one TOML file, overridden by environment variables.
//!
//! The variable `INNKEEPER_A_B` overrides the setting `a.b`. Misspelled settings are rejected, with their place in the file.

mod audit;
mod grace;
mod people;
mod pool;
mod pressure;
mod previews;
mod quotas;
mod repositories;
mod rest;
mod semantics;
mod settings;
#[cfg(test)]
mod tests;

use std::path::Path;

pub use audit::AuditSettings;
pub use grace::Grace;
use innkeeper_model::api::{Check, ConfigReport, Verdict};
use innkeeper_model::chain;
pub use innkeeper_service::ConfigError;
use innkeeper_service::{Settings, Webhook};
pub use people::PeopleSettings;
pub use pool::{PoolSettings, WarmSettings};
pub use pressure::PressureSettings;
pub use previews::{
    BuildSettings, CaddySettings, DatabaseSettings, DraftPreviews, EvaluationSettings,
    GithubSettings, PageContents, Previews, PreviewsOn, ReportPlace,
};
pub(crate) use quotas::Named;
pub use quotas::{Quota, QuotaSettings, RepositoryQuota};
pub use rest::RestSettings;
pub(crate) use semantics::domain as check_domain;
pub use settings::{
    Api, Config, Credentials, EngineSettings, GuestDefaults, Legacy, Network, Nix, Ssh, Storage,
    StorageDriver, SupervisorSettings,
};

/// A configuration with the origin of each value.
pub type Loaded = innkeeper_service::Loaded<Config>;

impl Settings for Config {
    const WITHOUT_DEFAULT: &'static [&'static str] = Webhook::WITHOUT_DEFAULT;
    const OPEN_TABLES: &'static [&'static str] = &[
        "nix.options",
        "previews.repositories",
        "quotas.actors",
        "quotas.repositories",
        "people.teams",
        "people.users",
    ];

    fn validate(&self) -> Result<(), ConfigError> {
        self.check_values()?;
        semantics::check(self)
    }
}

/// For `doctor`: checks the configuration of the next start. `systemctl restart` stops the running daemon before it starts
/// the new one, so an error is best found before.
pub(crate) fn next_start(report: &ConfigReport) -> Option<Check> {
    let file = report.file.as_ref().map(Path::new);
    let loaded = innkeeper_service::load::<Config>(file, |name| std::env::var(name).ok());
    let error = loaded.err()?;
    Some(Check {
        subject: "configuration".to_owned(),
        verdict: Verdict::Broken,
        finding: format!("the daemon would not start again: {}", chain(&error)),
        remedy: Some(
            "Correct it before `systemctl restart innkeeper`; until then the daemon keeps the configuration it has."
                .to_owned(),
        ),
    })
}
