//! Previews: pull requests that run as web apps, each under a name of its own.
//!
//! | module | holds |
//! | --- | --- |
//! | `repository` | what GitHub calls things: repositories, commits, branches, pull requests |
//! | `event` | what a delivery says has happened to a pull request |
//! | `slug` | names of previews, and how they are made from repositories, branches and pull requests |
//! | `meta` | what a repository's `preview-config.nix` says about the app, read strictly |
//! | `domain` | the domain below which previews have their names |
//! | `env` | writes environment files that bash and systemd read alike |
//! | `env_file` | reads environment files as systemd does |
//! | `state` | the record of a preview and its state in one word |
//! | [`text`] | what is written into pull requests |
//! | [`api`] | what programs ask the daemon about previews |
//! | [`intake`] | how the webhook hands deliveries to the daemon |
//!
//! A slug is a [`crate::GuestName`]: a preview is a guest, and the slug is the guest's name.

pub mod api;
mod checked;
mod domain;
mod env;
mod env_file;
mod event;
pub mod intake;
mod meta;
mod repository;
mod slug;
mod state;
pub mod text;

pub use checked::InvalidText;
pub use domain::{InvalidDomain, check_domain};
pub use env::{EnvName, EnvProblem, PreviewEnv, quote};
pub use env_file::{EnvFile, InvalidLine, LineError};
pub use event::{PrAction, PullRequestEvent, RepositoryAction, RepositoryEvent, certainly_before};
pub use meta::{
    DatabaseMode, ExtraHost, Meta, MetaProblem, MetaProblemKind, MetaProblems, RoutePath,
    RouteRule, ServiceName,
};
pub use repository::{BranchName, CommitSha, PullRequest, RepoName};
pub use slug::{
    InvalidSlug, MAX_SLUG, RESERVED_SLUGS, database_name, default_slug, parse_slug,
    slug_candidates, webhook_slug,
};
pub use state::{PreviewRecord, PreviewState, PreviewView};
