//! An in-memory GitHub over plain HTTP on the loopback, for tests and the demo.
//!
//! It answers the calls that [`crate::client`] makes, checks tokens and the App's signature, keeps a log of
//! requests, and fails on demand. Files, branches and commits come from bare Git repositories. Tests change
//! [`World`] through [`FakeGithub::with`]; other programs through the JSON calls below `/_fake/`.

mod api;
mod control;
mod door;
mod git;
mod hook;
mod world;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::client::{App, CredentialsError};

pub use world::{
    AppRecord, CommentRecord, DeliveryAttempt, DeploymentRecord, Failure, FailureKind, HookTarget,
    Pull, Repo, Request, Rights, World,
};

/// What the handlers share.
type Shared = Arc<Mutex<World>>;

/// A running fake. It ends when it is dropped.
#[derive(Debug)]
pub struct FakeGithub {
    address: SocketAddr,
    world: Shared,
    server: JoinHandle<()>,
}

impl FakeGithub {
    /// Serves an empty world on a port of its own.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start() -> io::Result<Self> {
        Self::listen(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// Serves an empty world on an address; port 0 is any free one.
    ///
    /// # Errors
    /// When it cannot listen there.
    pub async fn listen(address: SocketAddr) -> io::Result<Self> {
        let world = Shared::default();
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let routes = Router::new()
            .merge(api::routes())
            .layer(axum::middleware::from_fn_with_state(
                world.clone(),
                door::enter,
            ))
            .nest("/_fake", control::routes())
            .with_state(world.clone());
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, routes).await {
                tracing::error!(%error, "the fake GitHub ended");
            }
        });
        Ok(Self {
            address,
            world,
            server,
        })
    }

    /// The API's address for [`crate::client::Settings::base_url`].
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Looks at the world or changes it.
    pub fn with<T>(&self, f: impl FnOnce(&mut World) -> T) -> T {
        f(&mut lock(&self.world))
    }

    /// Makes an App with the public half of the key in a file, and returns the App to sign in as.
    ///
    /// # Errors
    /// When the key cannot be used.
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
            clock_ahead: jiff::SignedDuration::ZERO,
        };
        self.with(|world| world.app = Some(record));
        Ok(app)
    }

    /// Delivers a `pull_request` event to the world's webhook, as GitHub would, and returns the attempt.
    /// Nothing when there is no webhook or no such pull request.
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

    /// Delivers a `repository` event to the world's webhook, also about a repository that is gone. Nothing when there
    /// is no webhook.
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
        // The task is not cancelled, so how it ended does not matter.
        if let Err(error) = (&mut self.server).await {
            tracing::error!(%error, "the fake GitHub ended");
        }
    }
}

impl Drop for FakeGithub {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn lock(world: &Shared) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}
