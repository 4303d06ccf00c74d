//! Failures as users and programs receive them: a stable code, a sentence and a remedy.

use std::error::Error;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Declares [`Code`] together with the kind of each code.
macro_rules! codes {
    ($($(#[$doc:meta])* $code:ident => $kind:ident, $text:literal;)*) => {
        /// The stable name of a failure, for programs to act on. Codes are never renamed or reused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[$doc])* #[serde(rename = $text)] $code,)*
        }

        impl Code {
            /// All codes, in the order of the reference.
            pub const ALL: &'static [Self] = &[$(Self::$code),*];

            /// Returns the code's text.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$code => $text,)* }
            }

            /// Returns the kind of the failure.
            #[must_use]
            pub fn kind(self) -> Kind {
                match self { $(Self::$code => Kind::$kind,)* }
            }
        }
    };
}

codes! {
    /// A name is not a DNS label, or is reserved.
    InvalidName => Invalid, "invalid_name";
    /// A request's body, a parameter or a combination of them is invalid.
    InvalidRequest => Invalid, "invalid_request";
    /// The configuration file or an override of it is invalid.
    InvalidConfig => Invalid, "invalid_config";
    /// A closure has no executable `init`, or is not a store path.
    InvalidClosure => Invalid, "invalid_closure";
    /// A preview's name is not a DNS label, or is reserved.
    InvalidSlug => Invalid, "invalid_slug";
    /// A preview's name is too long.
    SlugTooLong => Invalid, "slug_too_long";
    /// No guest has this name.
    GuestNotFound => NotFound, "guest_not_found";
    /// No operation has this number.
    OperationNotFound => NotFound, "operation_not_found";
    /// The store path does not exist on this host.
    ClosureNotFound => NotFound, "closure_not_found";
    /// The flake or its output does not exist.
    FlakeNotFound => NotFound, "flake_not_found";
    /// No preview has this name.
    PreviewNotFound => NotFound, "preview_not_found";
    /// No delivery has this id.
    DeliveryNotFound => NotFound, "delivery_not_found";
    /// The guest has no snapshot with this label.
    SnapshotNotFound => NotFound, "snapshot_not_found";
    /// No valid token has this name.
    TokenNotFound => NotFound, "token_not_found";
    /// The repository has no secret with this name.
    SecretNotFound => NotFound, "secret_not_found";
    /// The preview has no share link or token with this number.
    GrantNotFound => NotFound, "grant_not_found";
    /// No retained files have this name or number.
    RetainedNotFound => NotFound, "retained_not_found";
    /// The repository does not exist, or Innkeeper may not read it.
    RepoNotAccessible => NotFound, "repo_not_accessible";
    /// The repository has no such branch.
    BranchNotFound => NotFound, "branch_not_found";
    /// The repository has no `preview-config.nix` at this commit.
    ConfigMissing => NotFound, "config_missing";
    /// The flake, or one of its inputs, is on the host, so that only root may build it.
    FlakeRefused => Invalid, "flake_refused";
    /// No flake is configured, and the request names none.
    FlakeUnset => Invalid, "flake_unset";
    /// The guest is a preview's, and the request is for agents only.
    GuestIsPreview => Conflict, "guest_is_preview";
    /// A declared agent has the name of one that was created by hand.
    AgentNotDeclared => Conflict, "agent_not_declared";
    /// A guest with this name exists.
    GuestExists => Conflict, "guest_exists";
    /// Another operation on the guest is in progress.
    GuestBusy => Conflict, "guest_busy";
    /// The request needs a running guest, and the guest does not run.
    GuestNotRunning => Conflict, "guest_not_running";
    /// A guest accepts no connection on the port.
    PortClosed => Conflict, "port_closed";
    /// The request needs a stopped guest, and the guest runs.
    GuestRunning => Conflict, "guest_running";
    /// A token with this name exists.
    TokenExists => Conflict, "token_exists";
    /// The guest has a snapshot with this label.
    SnapshotExists => Conflict, "snapshot_exists";
    /// An interface that the guest needs exists and is not managed by Innkeeper.
    InterfaceTaken => Conflict, "interface_taken";
    /// Another daemon uses the same state directory.
    StateLocked => Conflict, "state_locked";
    /// Another daemon of the host uses a resource that this one is configured to use.
    DaemonConflict => Conflict, "daemon_conflict";
    /// Another preview has this name, or the branch has a preview with another name.
    SlugConflict => Conflict, "slug_conflict";
    /// The commit comes from a fork and is not approved by anyone with write access.
    ApprovalNeeded => Conflict, "approval_needed";
    /// The author of a command may not write to the repository, or the command does not apply to the preview.
    CommandRefused => Conflict, "command_refused";
    /// The pull request gets no preview yet: it is a draft, or nobody requested a preview.
    PreviewNotRequested => Conflict, "preview_not_requested";
    /// The host has no gateway to check the visitors of a preview that is not public.
    VisitorsUnchecked => Conflict, "visitors_unchecked";
    /// Another setting lets fewer visitors see the preview.
    VisibilityTooOpen => Conflict, "visibility_too_open";
    /// The host's configuration does not allow previews of this repository.
    RepoNotAllowed => Conflict, "repo_not_allowed";
    /// Everything is to be restored from a backup, and the host has guests or previews.
    HostInUse => Conflict, "host_in_use";
    /// A backup set is incomplete, damaged, or of another version.
    BackupInvalid => Invalid, "backup_invalid";
    /// All slots of the subnet are taken.
    NoSlotLeft => Exhausted, "no_slot_left";
    /// No run of consecutive slots is free that is long enough for the guest's user ids.
    NoSlotRun => Exhausted, "no_slot_run";
    /// The disk under the state directory is full or almost full.
    DiskFull => Exhausted, "disk_full";
    /// The host has too little memory for another guest. HTTP status 503, unlike others of this kind.
    MemoryLow => Exhausted, "memory_low";
    /// The host cannot give a guest more than 65536 user ids.
    UserIdsUnsupported => Host, "user_ids_unsupported";
    /// The host's configuration does not allow containers in guests, or its guests have no user namespaces.
    NestingRefused => Conflict, "nesting_refused";
    /// The actor's quota of agents, memory or processors is used up.
    QuotaExceeded => Exhausted, "quota_exceeded";
    /// The configured limit of previews is reached.
    TooManyPreviews => Exhausted, "too_many_previews";
    /// GitHub's rate limit is exhausted.
    GithubRateLimited => Exhausted, "github_rate_limited";
    /// The token or App of the host has no access to a commit, so that its files are unknown.
    NoAccess => Host, "no_access";
    /// Nix could not build the closure.
    BuildFailed => Build, "build_failed";
    /// `preview-config.nix` cannot be evaluated, or its metadata is invalid.
    PreviewConfigInvalid => Build, "preview_config_invalid";
    /// Nix is not installed at the configured path.
    NixMissing => Host, "nix_missing";
    /// Nix has no build users, so builders of previews would own the store.
    BuildUsersMissing => Host, "build_users_missing";
    /// An evaluation or build failed because of the host, such as a download that timed out.
    BuildHostFailed => Host, "build_host_failed";
    /// A required program is not installed.
    ProgramMissing => Host, "program_missing";
    /// The kernel lacks a feature that guests need.
    KernelFeatureMissing => Host, "kernel_feature_missing";
    /// The daemon lacks a required permission.
    PermissionDenied => Host, "permission_denied";
    /// The database is damaged.
    StoreDamaged => Host, "store_damaged";
    /// The database was written by a newer version.
    StoreTooNew => Host, "store_too_new";
    /// The database could not be read or written.
    StoreFailed => Host, "store_failed";
    /// A network interface, address, route or firewall rule could not be created or removed.
    NetworkFailed => Host, "network_failed";
    /// The guest's file tree could not be created, written or removed.
    RootfsFailed => Host, "rootfs_failed";
    /// The guest's unit could not be started or stopped.
    UnitFailed => Host, "unit_failed";
    /// A guest's running system could not switch to another closure.
    SwitchFailed => Host, "switch_failed";
    /// A guest runs, but its system did not come up.
    GuestUnhealthy => Host, "guest_unhealthy";
    /// The guest exited before or during its start.
    GuestDied => Host, "guest_died";
    /// A timeout expired.
    TimedOut => Host, "timed_out";
    /// A preview's database could not be created, reset or dropped.
    DatabaseFailed => Host, "database_failed";
    /// A backup set could not be written.
    BackupFailed => Host, "backup_failed";
    /// The web server rejected a preview's route.
    RouteFailed => Host, "route_failed";
    /// A preview's services do not run, or its app does not respond.
    AppUnhealthy => Host, "app_unhealthy";
    /// A request to GitHub's API failed.
    GithubFailed => Host, "github_failed";
    /// The daemon cannot be reached on its socket.
    DaemonUnreachable => Unavailable, "daemon_unreachable";
    /// The daemon is shutting down and accepts no new work.
    ShuttingDown => Unavailable, "shutting_down";
    /// The gateway cannot reach the daemon.
    DaemonUnavailable => Unavailable, "daemon_unavailable";
    /// The request has no valid token. HTTP status 401, unlike others of this kind.
    Unauthorized => Denied, "unauthorized";
    /// The actor's role does not allow the call.
    Forbidden => Denied, "forbidden";
    /// The host has no OAuth app, so that no person can log in.
    LoginDisabled => NotFound, "login_disabled";
    /// The person may not use the host, or GitHub did not confirm the login.
    LoginRefused => Denied, "login_refused";
    /// Too many requests from an address had no valid token. HTTP status 429, unlike others of this kind.
    TooManyFailures => Exhausted, "too_many_failures";
    /// Too many requests of an address are in progress. HTTP status 429, unlike others of this kind.
    TooManyRequests => Exhausted, "too_many_requests";
    /// An internal error of Innkeeper.
    Internal => Internal, "internal";
}

impl Code {
    /// Reports whether the host is at fault, rather than a repository or a request: its administrator has to act.
    #[must_use]
    pub fn is_host_fault(self) -> bool {
        match self {
            // Usually caused by the guest, the app or GitHub.
            Self::GuestDied
            | Self::SwitchFailed
            | Self::GuestUnhealthy
            | Self::AppUnhealthy
            | Self::GithubFailed => false,
            Self::DiskFull
            | Self::MemoryLow
            | Self::NoSlotLeft
            | Self::NoSlotRun
            | Self::InvalidConfig
            | Self::Internal => true,
            code => code.kind() == Kind::Host,
        }
    }

    /// Returns the HTTP status of the API's response: that of the kind, except where clients rely on another one.
    #[must_use]
    pub fn http_status(self) -> u16 {
        match self {
            Self::MemoryLow => Kind::Unavailable.http_status(),
            Self::Unauthorized => 401,
            Self::TooManyFailures | Self::TooManyRequests => 429,
            code => code.kind().http_status(),
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The kind of a failure. It determines the exit status of programs and the HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request is invalid.
    Invalid,
    /// The named object does not exist.
    NotFound,
    /// The request conflicts with the current state.
    Conflict,
    /// A limited resource is exhausted.
    Exhausted,
    /// A closure cannot be built.
    Build,
    /// The host lacks something, or an operation on it failed.
    Host,
    /// The daemon cannot be reached, or is shutting down.
    Unavailable,
    /// The caller may not make the request.
    Denied,
    /// An internal error.
    Internal,
}

impl Kind {
    /// Returns the exit status of the programs. 2 is clap's, for usage errors.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Invalid => 1,
            Self::NotFound => 3,
            Self::Conflict => 4,
            Self::Exhausted => 5,
            Self::Build => 6,
            Self::Host => 7,
            Self::Unavailable => 8,
            Self::Denied => 9,
            Self::Internal => 70,
        }
    }

    /// Returns the HTTP status of a failure of this kind (RFC 9110, section 15).
    fn http_status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::Denied => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::Build => 422,
            Self::Host | Self::Internal => 500,
            Self::Unavailable => 503,
            Self::Exhausted => 507,
        }
    }
}

/// A failure as users and programs receive it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Failure {
    /// The stable code.
    pub code: Code,
    /// The problem with its causes; names the object.
    pub message: String,
    /// The remedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// The last lines of a log that show the cause.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
    /// With [`Code::MemoryLow`]: the host's available memory in percent of all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mem_available_percent: Option<u64>,
}

impl Failure {
    /// Creates a failure without a remedy.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            remedy: None,
            log: Vec::new(),
            mem_available_percent: None,
        }
    }

    /// Returns the failure with a remedy.
    #[must_use]
    pub fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Failure {}

impl<E: Explain> From<&E> for Failure {
    fn from(error: &E) -> Self {
        Self {
            code: error.code(),
            message: chain(error),
            remedy: error.remedy(),
            log: error.log().to_vec(),
            mem_available_percent: error.mem_available_percent(),
        }
    }
}

/// An error of one of Innkeeper's crates that can be shown to a user.
pub trait Explain: Error {
    /// Returns the stable code.
    fn code(&self) -> Code;

    /// Returns the remedy.
    fn remedy(&self) -> Option<String> {
        None
    }

    /// Returns the last lines of a log that show the cause.
    fn log(&self) -> &[String] {
        &[]
    }

    /// Returns the host's available memory in percent of all of it, with [`Code::MemoryLow`].
    fn mem_available_percent(&self) -> Option<u64> {
        None
    }
}

/// Returns an error and its causes in one line. Innkeeper's errors do not repeat their sources, so this is the only
/// place that joins them.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_survives_json_and_is_unique() {
        let mut seen = std::collections::BTreeSet::new();
        for code in Code::ALL {
            assert!(seen.insert(code.as_str()), "{code} is declared twice");
            let json = serde_json::to_string(code).expect("serializes");
            assert_eq!(json, format!("\"{code}\""));
            assert_eq!(
                serde_json::from_str::<Code>(&json).expect("reads back"),
                *code
            );
        }
    }

    #[test]
    fn chain_contains_each_cause_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot read the rule book")]
        struct Outer(#[source] std::io::Error);
        let error = Outer(std::io::Error::other("torn page"));
        assert_eq!(chain(&error), "cannot read the rule book: torn page");
    }
}
