//! Previews: branches and pull requests that run as web apps, each under its own host name.
//!
//! | module | holds |
//! | --- | --- |
//! | `repository` | names of repositories, commits, branches and pull requests |
//! | `event` | events of GitHub's webhook about pull requests and repositories |
//! | `command` | commands for a preview in comments on its pull request |
//! | `delivery` | the event of a delivery that is recorded |
//! | `details` | what GitHub reports about a pull request, for people |
//! | `hook` | settings of webhooks on GitHub |
//! | `slug` | names of previews, derived from repositories, branches and pull requests |
//! | `meta` | an app's metadata in a repository's `preview-config.nix`, parsed strictly |
//! | `config_problem` | problems of a configuration with their places |
//! | `domain` | the parent domain of the previews' host names |
//! | `env` | writes environment files that bash and systemd read alike |
//! | `env_file` | reads environment files as systemd does |
//! | `env_edit` | changes one variable of an environment file |
//! | [`sources`] | the files that a commit's configuration consists of |
//! | `state` | the record of a preview and its state |
//! | [`log`] | lines of a preview's log |
//! | `rollout`, `packages` | how a preview's commit comes up, and its effect on the closure |
//! | `visibility` | the visitors that a preview's URLs serve |
//! | `words` | the words for each situation, in comment, check and explanation |
//! | [`page`] | the status of a preview as its visitors see it |
//! | [`text`] | texts in pull requests |
//! | [`secrets`] | the secrets of repositories: bodies of the API's requests and responses |
//! | [`api`] | bodies of the API's requests and responses about previews |
//! | [`intake`] | the protocol by which the webhook passes deliveries to the daemon |
//!
//! A slug is a [`crate::GuestName`]: the name of the preview's guest.

pub mod api;
pub mod check;
mod checked;
mod command;
mod config_problem;
mod delivery;
mod details;
mod domain;
mod env;
mod env_edit;
mod env_file;
mod event;
mod hook;
pub mod intake;
pub mod log;
mod meta;
mod outlook;
mod packages;
pub mod page;
mod repository;
mod rollout;
pub mod secrets;
mod slug;
pub mod sources;
mod state;
pub mod text;
mod visibility;
mod waits;
mod words;

pub use checked::InvalidText;
pub use command::{CommandEvent, PreviewCommand};
pub use config_problem::ConfigProblem;
pub use delivery::DeliveryEvent;
pub use details::PullDetails;
pub use domain::{InvalidDomain, check_domain};
pub use env::{EnvName, EnvProblem, PreviewEnv, quote};
pub use env_edit::{EnvEditError, edit_env_file};
pub use env_file::{EnvFile, InvalidLine, LineError};
pub use event::{PrAction, PullRequestEvent, RepositoryAction, RepositoryEvent, certainly_before};
pub use hook::{HookProblem, HookSetting, PingEvent};
pub use meta::{
    DatabaseMode, ExtraHost, HealthPath, Meta, MetaProblem, MetaProblemKind, MetaProblems,
    RoutePath, RouteProtocol, RouteRule, RouteTimeout, ServiceName,
};
pub use outlook::{Outlook, Party, PendingRemoval, RemovalReason, Wait};
pub use packages::{ChangedPackage, Package, PackageChanges};
pub use repository::{BranchName, CommitSha, PullRequest, RepoName};
pub use rollout::Rollout;
pub use slug::{
    InvalidSlug, MAX_SLUG, RESERVED_SLUGS, config_slug, database_name, default_slug,
    parse_existing_slug, parse_slug, slug_candidates, webhook_slug,
};
pub use state::{AppTrouble, PreviewRecord, PreviewState, PreviewView};
pub use visibility::{InvalidVisibility, Visibility};
pub use words::{CheckResult, Situation, Words, is_fault_of_repository};
