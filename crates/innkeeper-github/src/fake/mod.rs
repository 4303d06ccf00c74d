//! An in-memory GitHub over plain HTTP on the loopback, for tests and the demo.
//!
//! It implements the calls of [`crate::client`], verifies tokens and the App's signature, logs requests, and fails on
//! demand. Files, branches and commits come from bare Git repositories. Tests change its [`World`] through
//! [`FakeGithub::with`]; other programs use the JSON calls below `/_fake/`.

mod api;
mod checks;
mod control;
mod deployments;
mod git;
mod hook;
mod middleware;
mod oauth;
mod reactions;
mod world;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::client::{App, CredentialsError};

pub use world::{
    AccountRecord, AppRecord, CheckRunRecord, CommentRecord, DeliveryAttempt, DeploymentRecord,
    FailureKind, HookTarget, InjectedFailure, OauthRecord, Pull, Repo, Request, Rights,
    StatusRecord, World,
};

/// The state of all handlers.
type Shared = Arc<Mutex<World>>;

/// A running fake. Dropping it stops the server.
#[derive(Debug)]
pub struct FakeGithub {
    address: SocketAddr,
    world: Shared,
    server: JoinHandle<()>,
}

impl FakeGithub {
    /// Serves an empty world on a free port of the loopback.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn start() -> io::Result<Self> {
        Self::listen(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// Serves an empty world on an address. Port 0 selects a free one.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn listen(address: SocketAddr) -> io::Result<Self> {
        let world = Shared::default();
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let routes = Router::new()
            .merge(api::routes())
            .merge(reactions::routes())
            .merge(checks::routes())
            .merge(deployments::routes())
            .merge(oauth::api_routes())
            .layer(axum::middleware::from_fn_with_state(
                world.clone(),
                middleware::handle,
            ))
            .merge(oauth::web_routes())
            .nest("/_fake", control::routes())
            .with_state(world.clone());
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, routes).await {
                tracing::error!(%error, "the fake GitHub failed");
            }
        });
        Ok(Self {
            address,
            world,
            server,
        })
    }

    /// Returns the value for [`crate::client::Settings::base_url`].
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Reads or changes the world.
    pub fn with<T>(&self, f: impl FnOnce(&mut World) -> T) -> T {
        f(&mut self.world.lock())
    }

    /// Registers an App with the public key of a private key's file, and returns the App's credentials.
    ///
    /// # Errors
    /// [`CredentialsError`] when the key is invalid.
    pub fn add_app(
        &self,
        id: &str,
        installation: u64,
        key: &Path,
    ) -> Result<App, CredentialsError> {
        let app = App::new(id, installation, key)?;
        let record = AppRecord {
            id: id.to_owned(),
            slug: "innkeeper".to_owned(),
            installation,
            public_key: app.public_key(),
            token_lifetime: Duration::from_secs(3600),
            permissions: [
                ("contents", "read"),
                ("deployments", "write"),
                ("issues", "read"),
                ("metadata", "read"),
                ("pull_requests", "write"),
            ]
            .map(|(name, access)| (name.to_owned(), access.to_owned()))
            .into(),
            events: ["issue_comment", "pull_request", "repository"]
                .map(str::to_owned)
                .into(),
            lacks: std::collections::BTreeSet::new(),
            clock_ahead: jiff::SignedDuration::ZERO,
        };
        self.with(|world| world.app = Some(record));
        Ok(app)
    }

    /// Delivers a `pull_request` event to the webhook and returns the attempt. `None` without a webhook or such a pull
    /// request.
    pub async fn deliver(
        &self,
        repo: &innkeeper_model::preview::RepoName,
        number: u64,
        action: &str,
        sender: &str,
    ) -> Option<DeliveryAttempt> {
        let payload = self.with(|world| world.payload(repo, number, action, sender))?;
        hook::deliver(&self.world, "pull_request", payload.to_string(), None).await
    }

    /// Adds a comment to a pull request, delivers its `issue_comment` event to the webhook and returns the attempt. `None`
    /// without a webhook or such a pull request.
    pub async fn comment(
        &self,
        repo: &innkeeper_model::preview::RepoName,
        number: u64,
        author: &str,
        body: &str,
    ) -> Option<DeliveryAttempt> {
        let payload = self.with(|world| world.add_comment(repo, number, author, body))?;
        hook::deliver(&self.world, "issue_comment", payload.to_string(), None).await
    }

    /// Delivers a `repository` event to the webhook, possibly about a deleted repository. `None` without a webhook.
    pub async fn deliver_repository(
        &self,
        name: &innkeeper_model::preview::RepoName,
        id: u64,
        action: &str,
    ) -> Option<DeliveryAttempt> {
        let payload = World::repository_payload(name, id, action);
        hook::deliver(&self.world, "repository", payload.to_string(), None).await
    }

    /// Serves until the process ends.
    pub async fn serve(mut self) {
        if let Err(error) = (&mut self.server).await {
            tracing::error!(%error, "the fake GitHub failed");
        }
    }
}

impl Drop for FakeGithub {
    fn drop(&mut self) {
        self.server.abort();
    }
}
