//! Failures as people and programs meet them: a stable code, a sentence, and what to do.

use std::error::Error;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Declares [`Code`] with the kind of each code, so that neither can be forgotten.
macro_rules! codes {
    ($($(#[$doc:meta])* $code:ident => $kind:ident, $text:literal;)*) => {
        /// A stable name for each failure that programs may act on. Codes are never renamed or reused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[$doc])* #[serde(rename = $text)] $code,)*
        }

        impl Code {
            /// Every code, in the order of the reference.
            pub const ALL: &'static [Self] = &[$(Self::$code),*];

            /// The code as programs see it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$code => $text,)* }
            }

            /// What kind of failure it names.
            #[must_use]
            pub fn kind(self) -> Kind {
                match self { $(Self::$code => Kind::$kind,)* }
            }
        }
    };
}

codes! {
    /// A name is not a DNS label.
    InvalidName => Invalid, "invalid_name";
    /// A request's body, a parameter or a combination of them makes no sense.
    InvalidRequest => Invalid, "invalid_request";
    /// The configuration file or an override of it is wrong.
    InvalidConfig => Invalid, "invalid_config";
    /// A closure has no `init` that can be executed, or is no store path.
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
    /// The guest has no snapshot of this label.
    SnapshotNotFound => NotFound, "snapshot_not_found";
    /// No files of a destroyed agent of this name or number are kept.
    RetainedNotFound => NotFound, "retained_not_found";
    /// The repository does not exist, or Innkeeper may not read it.
    RepoNotAccessible => NotFound, "repo_not_accessible";
    /// The repository has no such branch.
    BranchNotFound => NotFound, "branch_not_found";
    /// The repository has no `preview-config.nix` at this commit.
    ConfigMissing => NotFound, "config_missing";
    /// The flake, or one of its inputs, is on the host, and only root may build from it.
    FlakeRefused => Invalid, "flake_refused";
    /// No flake is configured and none was given.
    FlakeUnset => Invalid, "flake_unset";
    /// The guest is a preview's, and the request is for agents only.
    GuestIsPreview => Conflict, "guest_is_preview";
    /// A guest of this name exists.
    GuestExists => Conflict, "guest_exists";
    /// Another operation on the guest has not ended.
    GuestBusy => Conflict, "guest_busy";
    /// The guest does not run, and what was asked needs it to.
    GuestNotRunning => Conflict, "guest_not_running";
    /// The guest runs, and what was asked needs it not to.
    GuestRunning => Conflict, "guest_running";
    /// The guest has a snapshot of this label.
    SnapshotExists => Conflict, "snapshot_exists";
    /// Something that is not ours has an interface that we need.
    InterfaceTaken => Conflict, "interface_taken";
    /// Another daemon works on the same state directory.
    StateLocked => Conflict, "state_locked";
    /// Another daemon of the host has what this one is configured to use.
    DaemonConflict => Conflict, "daemon_conflict";
    /// A preview of something else has this name, or the branch has a preview by another one.
    SlugConflict => Conflict, "slug_conflict";
    /// The commit comes from a fork, and nobody with write access has approved it.
    ApprovalNeeded => Conflict, "approval_needed";
    /// The host's configuration does not allow previews of this repository.
    RepoNotAllowed => Conflict, "repo_not_allowed";
    /// All slots of the subnet are taken.
    NoSlotLeft => Exhausted, "no_slot_left";
    /// The disk under the state directory is full or nearly so.
    DiskFull => Exhausted, "disk_full";
    /// There are as many previews as the configuration allows.
    TooManyPreviews => Exhausted, "too_many_previews";
    /// GitHub takes no more requests for a while.
    GithubRateLimited => Exhausted, "github_rate_limited";
    /// Nix could not build the closure.
    BuildFailed => Build, "build_failed";
    /// `preview-config.nix` cannot be evaluated, or what it says about the preview is wrong.
    PreviewConfigInvalid => Build, "preview_config_invalid";
    /// Nix is not installed or not where the configuration says.
    NixMissing => Host, "nix_missing";
    /// Nix has no users to build as, so builders of previews would own the store.
    BuildUsersMissing => Host, "build_users_missing";
    /// The host cannot evaluate or build for a cause of its own, such as a download that does not respond.
    BuildHostFailed => Host, "build_host_failed";
    /// A program that Innkeeper calls is not installed.
    ProgramMissing => Host, "program_missing";
    /// The kernel lacks something that guests need.
    KernelFeatureMissing => Host, "kernel_feature_missing";
    /// The daemon lacks a right that it needs.
    PermissionDenied => Host, "permission_denied";
    /// The database is damaged.
    StoreDamaged => Host, "store_damaged";
    /// The database was written by a newer version.
    StoreTooNew => Host, "store_too_new";
    /// The database could not be read or written.
    StoreFailed => Host, "store_failed";
    /// A network interface, address, route or firewall rule could not be made or removed.
    NetworkFailed => Host, "network_failed";
    /// The guest's file tree could not be made, written or removed.
    RootfsFailed => Host, "rootfs_failed";
    /// The guest's unit could not be started or stopped.
    UnitFailed => Host, "unit_failed";
    /// The guest ended before or while it started.
    GuestDied => Host, "guest_died";
    /// Something did not happen in time.
    TimedOut => Host, "timed_out";
    /// A preview's database could not be made, reset or dropped.
    DatabaseFailed => Host, "database_failed";
    /// The web server did not take a preview's route.
    RouteFailed => Host, "route_failed";
    /// A preview's services do not run, or its app does not answer.
    AppUnhealthy => Host, "app_unhealthy";
    /// GitHub could not be asked or told something.
    GithubFailed => Host, "github_failed";
    /// The daemon does not answer on its socket.
    DaemonUnreachable => Unavailable, "daemon_unreachable";
    /// The daemon is stopping and takes no new work.
    ShuttingDown => Unavailable, "shutting_down";
    /// A defect in Innkeeper.
    Internal => Internal, "internal";
}

impl Code {
    /// Whether the host is at fault, and neither a repository nor a request: it is for whoever runs the host to act.
    #[must_use]
    pub fn is_host_fault(self) -> bool {
        match self {
            // A guest ends, and an app is silent, for causes of their own.
            Self::GuestDied | Self::AppUnhealthy | Self::GithubFailed => false,
            Self::DiskFull | Self::NoSlotLeft | Self::InvalidConfig | Self::Internal => true,
            code => code.kind() == Kind::Host,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What kind of failure it is: decides a program's exit code and an HTTP answer's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// What was asked for makes no sense.
    Invalid,
    /// What was named does not exist.
    NotFound,
    /// It cannot be done while something else is as it is.
    Conflict,
    /// Something of which there is only so much is used up.
    Exhausted,
    /// A closure does not build.
    Build,
    /// The host lacks something or refuses.
    Host,
    /// The daemon cannot be asked.
    Unavailable,
    /// A defect.
    Internal,
}

impl Kind {
    /// The exit code of our programs. 2 is clap's, for words that it does not know.
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
            Self::Internal => 70,
        }
    }

    /// The status of our API's answers (RFC 9110, section 15).
    #[must_use]
    pub fn http_status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::Build => 422,
            Self::Host | Self::Internal => 500,
            Self::Unavailable => 503,
            Self::Exhausted => 507,
        }
    }
}

/// A failure with everything a person needs: what went wrong with which object, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The stable code.
    pub code: Code,
    /// What went wrong, with its causes; names the object.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// The last lines of a log that show the cause, if there is one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
}

impl Failure {
    /// A failure without a remedy.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            remedy: None,
            log: Vec::new(),
        }
    }

    /// The same failure with a remedy.
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
        }
    }
}

/// An error of one of our crates that can be shown to a person.
pub trait Explain: Error {
    /// The stable code.
    fn code(&self) -> Code;

    /// What to do about it.
    fn remedy(&self) -> Option<String> {
        None
    }

    /// The last lines of a log that show the cause.
    fn log(&self) -> &[String] {
        &[]
    }
}

/// An error and its causes in one line. Messages of ours do not repeat their sources, so the chain is
/// put together only here.
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
    fn codes_are_distinct_and_read_back() {
        let mut seen = std::collections::BTreeSet::new();
        for code in Code::ALL {
            assert!(seen.insert(code.as_str()), "{code} stands twice");
            let json = serde_json::to_string(code).expect("serialises");
            assert_eq!(json, format!("\"{code}\""));
            assert_eq!(
                serde_json::from_str::<Code>(&json).expect("reads back"),
                *code
            );
        }
    }

    #[test]
    fn a_chain_says_each_cause_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot read the rule book")]
        struct Outer(#[source] std::io::Error);
        let error = Outer(std::io::Error::other("torn page"));
        assert_eq!(chain(&error), "cannot read the rule book: torn page");
    }
}
