//! The previews of a host: wires their components, starts them and stops them.

use std::sync::Arc;
use std::time::Duration;

use innkeeper_engine::Engine;
use innkeeper_facilities::{Console, Databases, Evaluator, GuestFiles, Routes};
use innkeeper_github::client::Github;
use innkeeper_model::api::{Check, GcReport, GcRequest};
use innkeeper_model::preview::PreviewView;
use innkeeper_model::preview::api::PreviewExplanation;
use innkeeper_model::{GuestName, chain};
use innkeeper_store::{Preview, Store};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tracing::warn;

use crate::approvals::Approvals;
use crate::background::Background;
use crate::capacity::Capacity;
use crate::databases::PreviewDatabases;
use crate::deliveries::Deliveries;
use crate::evaluation::Evaluation;
use crate::execute::{DestroyedByUsers, Executor};
use crate::expiry::Expiry;
use crate::explain::Explainer;
use crate::guest_files::GuestEnvironment;
use crate::guests::Guests;
use crate::journal::Journal;
use crate::logs::Logs;
use crate::redelivery::Redelivery;
use crate::reporter::Reporter;
use crate::repositories::Repositories;
use crate::resync::{Checks, Comparison, Resync};
use crate::routing::Routing;
use crate::services::Services;
use crate::stages::Stages;
use crate::upkeep::Upkeep;
use crate::worker::{Worker, WorkerParts};
use crate::workers::{NewWorker, Workers};
use crate::{PreviewError, PreviewsConfig, Probe, records};

/// Delay before a failed dispatch of deliveries is retried.
const DISPATCH_RETRY: Duration = Duration::from_secs(1);

/// Parts of which previews are made.
pub struct Parts {
    /// The settings.
    pub config: PreviewsConfig,
    /// Guests.
    pub engine: Engine,
    /// GitHub, if the host has credentials for it.
    pub github: Option<Github>,
    /// Configurations.
    pub evaluator: Arc<dyn Evaluator>,
    /// URLs.
    pub routes: Arc<dyn Routes>,
    /// Databases, if the host has a server for them.
    pub databases: Option<Arc<dyn Databases>>,
    /// Writer of files in guests.
    pub files: Arc<dyn GuestFiles>,
    /// Crash probe of the tests.
    pub probe: Option<Probe>,
}

/// The previews of this host. Clones share the same previews.
#[derive(Clone)]
pub struct Previews {
    pub(crate) inner: Arc<Components>,
}

/// Components that the public functions use.
pub(crate) struct Components {
    pub(crate) config: Arc<PreviewsConfig>,
    pub(crate) store: Store,
    pub(crate) engine: Engine,
    pub(crate) github: Option<Github>,
    pub(crate) journal: Journal,
    pub(crate) workers: Workers,
    pub(crate) guests: Guests,
    pub(crate) databases: PreviewDatabases,
    pub(crate) evaluation: Evaluation,
    pub(crate) destroyed: DestroyedByUsers,
    repositories: Repositories,
    upkeep: Upkeep,
    logs: Logs,
    explainer: Explainer,
    background: Background,
    pub(crate) to_start: Mutex<Option<ToStart>>,
}

/// Tasks that [`Previews::start`] starts.
pub(crate) struct ToStart {
    pub(crate) resync: Resync,
    pub(crate) deliveries: Deliveries,
    pub(crate) workers: mpsc::UnboundedReceiver<NewWorker>,
    pub(crate) parts: WorkerParts<Executor>,
}

impl Previews {
    /// Creates previews of these parts. They act only after [`Previews::start`].
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts {
            config,
            engine,
            github,
            evaluator,
            routes,
            databases: server,
            files,
            probe,
        } = parts;
        let config = Arc::new(config);
        let store = engine.store().clone();
        let background = Background::default();
        let (workers, new_workers) = Workers::new();
        let journal = Journal::new(engine.journal().clone(), store.clone(), probe);
        let guests = Guests::new(engine.clone(), config.range);
        let services = Services::new(Arc::clone(&config), engine.clone(), guests.clone());
        let databases = PreviewDatabases::new(server.clone(), config.database_template.clone());
        let evaluation = Evaluation::new(store.clone(), github.clone(), Arc::clone(&evaluator));
        let destroyed = DestroyedByUsers::default();
        let routing = Routing::new(
            Arc::clone(&routes),
            store.clone(),
            journal.clone(),
            guests.clone(),
        );
        let reporter = Reporter::new(
            Arc::clone(&config),
            store.clone(),
            github.clone(),
            background.clone(),
        );
        let repositories = Repositories::new(
            Arc::clone(&config),
            store.clone(),
            github.clone(),
            journal.clone(),
        );
        let approvals = Approvals::new(
            Arc::clone(&config),
            store.clone(),
            github.clone(),
            journal.clone(),
            reporter.clone(),
            workers.clone(),
        );
        let capacity = Capacity::new(
            config.limit,
            store.clone(),
            journal.clone(),
            guests.clone(),
            routing.clone(),
            workers.clone(),
        );
        let upkeep = Upkeep {
            store: store.clone(),
            github: github.clone(),
            evaluator,
            routes,
            databases: server,
            repositories: repositories.clone(),
        };
        let deliveries = Deliveries {
            config: Arc::clone(&config),
            store: store.clone(),
            github: github.clone(),
            journal: journal.clone(),
            approvals: approvals.clone(),
            reporter: reporter.clone(),
            repositories: repositories.clone(),
            workers: workers.clone(),
            background: background.clone(),
        };
        let resync = Resync {
            config: Arc::clone(&config),
            deliveries: deliveries.clone(),
            capacity: capacity.clone(),
            checks: Checks {
                expiry: Expiry::new(config.ttl, store.clone(), journal.clone(), workers.clone()),
                store: store.clone(),
                workers: workers.clone(),
                upkeep: upkeep.clone(),
            },
            repositories: repositories.clone(),
            redelivery: Redelivery::new(Arc::clone(&config), store.clone(), github.clone()),
            comparison: Comparison {
                config: Arc::clone(&config),
                store: store.clone(),
                github: github.clone(),
                approvals,
                capacity: capacity.clone(),
                repositories: repositories.clone(),
                workers: workers.clone(),
            },
        };
        let executor = Executor {
            config: Arc::clone(&config),
            store: store.clone(),
            journal: journal.clone(),
            reporter: reporter.clone(),
            stages: Stages::new(
                store.clone(),
                journal.clone(),
                reporter.clone(),
                routing.clone(),
            ),
            evaluation: evaluation.clone(),
            capacity,
            databases: databases.clone(),
            guests: guests.clone(),
            environment: GuestEnvironment::new(
                Arc::clone(&config),
                store.clone(),
                github.clone(),
                files,
                journal.clone(),
            ),
            services: services.clone(),
            routing: routing.clone(),
            destroyed: destroyed.clone(),
        };
        let to_start = ToStart {
            resync,
            deliveries: deliveries.clone(),
            workers: new_workers,
            parts: WorkerParts {
                interval: config.interval,
                store: store.clone(),
                journal: journal.clone(),
                reporter,
                routing: routing.clone(),
                deliveries,
                workers: workers.clone(),
                executor: Arc::new(executor),
            },
        };
        let explainer = Explainer {
            config: Arc::clone(&config),
            store: store.clone(),
            guests: guests.clone(),
            services,
            routing,
            repositories: repositories.clone(),
        };
        Self {
            inner: Arc::new(Components {
                logs: Logs::new(engine.clone(), store.clone(), journal.clone()),
                config,
                store,
                engine,
                github,
                journal,
                workers,
                guests,
                databases,
                evaluation,
                destroyed,
                repositories,
                upkeep,
                explainer,
                background,
                to_start: Mutex::new(Some(to_start)),
            }),
        }
    }

    /// Resumes the work of the last daemon and starts the workers. `arrivals` changes when deliveries have arrived. Has no
    /// effect the second time.
    pub fn start(&self, mut arrivals: watch::Receiver<()>) {
        let background = &self.inner.background;
        let to_start = self.inner.to_start.lock().take();
        let Some(ToStart {
            resync,
            deliveries,
            workers: mut new_workers,
            parts,
        }) = to_start
        else {
            return;
        };
        background.spawn(resync.run());
        let tasks = background.clone();
        background.spawn(async move {
            while let Some(new) = new_workers.recv().await {
                tasks.spawn(Worker::new(new, parts.clone()).run());
            }
        });
        background.spawn(async move {
            arrivals.mark_changed();
            while arrivals.changed().await.is_ok() {
                if let Err(error) = deliveries.dispatch().await {
                    warn!("the dispatch of deliveries is retried: {}", chain(&error));
                    tokio::time::sleep(DISPATCH_RETRY).await;
                    arrivals.mark_changed();
                }
            }
        });
    }

    /// Cancels all work and waits for its end. The next start resumes it.
    pub async fn stop(&self) {
        self.inner.background.stop().await;
    }

    /// Returns every preview, by slug.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn list(&self) -> Result<Vec<PreviewView>, PreviewError> {
        let previews = self.inner.store.previews().await?;
        Ok(previews
            .into_iter()
            .map(|preview| self.view(preview))
            .collect())
    }

    /// Returns one preview.
    ///
    /// # Errors
    /// [`PreviewError::NotFound`], or the store cannot be read.
    pub async fn show(&self, slug: &GuestName) -> Result<PreviewView, PreviewError> {
        Ok(self.view(records::require(&self.inner.store, slug).await?))
    }

    fn view(&self, preview: Preview) -> PreviewView {
        let meta = preview.live_meta.or(preview.meta);
        let absence = self.inner.repositories.absence_of(&preview.record.repo);
        PreviewView {
            repo_trouble: absence.map(|absence| absence.to_string()),
            ..self.inner.config.view(preview.record, meta.as_ref())
        }
    }

    /// Returns the log: the daemon's lines, then the journal of the app's services.
    ///
    /// # Errors
    /// [`PreviewError::NotFound`], or the store cannot be read.
    pub async fn logs(
        &self,
        slug: &GuestName,
        lines: usize,
        follow: bool,
    ) -> Result<Console, PreviewError> {
        self.inner.logs.open(slug, lines, follow).await
    }

    /// Returns the chain from the URL to the delivery.
    ///
    /// # Errors
    /// [`PreviewError::NotFound`], or the store cannot be read.
    pub async fn explain(&self, slug: &GuestName) -> Result<PreviewExplanation, PreviewError> {
        self.inner.explainer.explain(slug).await
    }

    /// Checks the requirements of previews on the host and on GitHub, without changing anything.
    pub async fn checks(&self) -> Vec<Check> {
        self.inner.upkeep.checks().await
    }

    /// Marks the objects that a former release made for the recorded previews, as [`Engine::adopt`] does for guests.
    ///
    /// # Errors
    /// The host or the store cannot be queried, or the host refuses a mark.
    pub async fn adopt(&self) -> Result<(), PreviewError> {
        self.inner.upkeep.adopt().await
    }

    /// Finds objects with previews' naming that belong to no preview, and removes them as requested. Other daemons'
    /// objects stay.
    ///
    /// A failure to remove one orphan is part of its entry. A kind of objects that cannot be listed is one of the report's
    /// failures; the others are swept all the same.
    pub async fn gc(&self, request: GcRequest) -> GcReport {
        self.inner.upkeep.gc(request).await
    }
}
