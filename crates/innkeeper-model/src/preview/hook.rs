//! Settings of webhooks on GitHub. GitHub sends them in pings.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A setting of a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookSetting {
    /// The state: GitHub sends no events while a webhook is not active.
    Active,
    /// The format of deliveries.
    ContentType,
    /// The events that are delivered.
    Events,
    /// The payload URL.
    Url,
}

/// A wrong setting of a webhook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookProblem {
    /// The setting.
    pub setting: HookSetting,
    /// The problem, as a sentence.
    pub problem: String,
    /// The remedy.
    pub remedy: String,
}

impl fmt::Display for HookProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)
    }
}

/// A ping of a webhook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PingEvent {
    /// The id of the delivery.
    pub delivery: String,
    /// The repository or organization that the webhook belongs to.
    pub owner: String,
    /// The wrong settings.
    pub problems: Vec<HookProblem>,
}
