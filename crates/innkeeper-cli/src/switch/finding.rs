//! Findings of a comparison. Their words are stable: scripts may rely on them.

use serde::Serialize;

/// The kind of object that a finding concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Class {
    /// A unit of the host.
    Service,
    /// Guests that exist.
    Guest,
    /// A declared agent.
    Agent,
    /// The firewall of the host, or the rules of guests.
    Firewall,
    /// Previews' URLs.
    Route,
    /// A setting of the daemon.
    Setting,
    /// The daemon's database.
    State,
}

/// The effect of the switch on the objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Effect {
    Start,
    Stop,
    Restart,
    Reload,
    /// Changed, and left as it runs until its next start.
    Keep,
    Create,
    Update,
    Destroy,
    Open,
    Close,
    Move,
    Change,
    /// Runs on without the daemon.
    Orphan,
    /// The daemon does not start.
    Refuse,
    /// Cannot be determined.
    Unknown,
}

impl Effect {
    /// Returns the word that the JSON has, too.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Reload => "reload",
            Self::Keep => "keep",
            Self::Create => "create",
            Self::Update => "update",
            Self::Destroy => "destroy",
            Self::Open => "open",
            Self::Close => "close",
            Self::Move => "move",
            Self::Change => "change",
            Self::Orphan => "orphan",
            Self::Refuse => "refuse",
            Self::Unknown => "unknown",
        }
    }
}

/// The harm of a finding, in ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Severity {
    /// No user notices it, or it is what the change asks for.
    Note,
    /// Connections end, or a service is away for a moment.
    Interruption,
    /// Guests, routes or the daemon are cut off until somebody acts.
    Cut,
}

/// A consequence of the switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) class: Class,
    /// Units, guests, agents, ports, URLs or settings.
    pub(crate) objects: Vec<String>,
    pub(crate) effect: Effect,
    pub(crate) severity: Severity,
    /// The reason and the consequence, as sentences.
    pub(crate) reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remedy: Option<String>,
}

impl Finding {
    pub(crate) fn new(
        class: Class,
        object: impl Into<String>,
        effect: Effect,
        severity: Severity,
        reason: impl Into<String>,
    ) -> Self {
        Self::of(class, vec![object.into()], effect, severity, reason)
    }

    pub(crate) fn of(
        class: Class,
        objects: Vec<String>,
        effect: Effect,
        severity: Severity,
        reason: impl Into<String>,
    ) -> Self {
        Self {
            class,
            objects,
            effect,
            severity,
            reason: reason.into(),
            remedy: None,
        }
    }

    pub(crate) fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}
