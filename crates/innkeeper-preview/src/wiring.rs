//! Wires the components of previews.

use std::sync::Arc;

use innkeeper_engine::{Engine, Staging};
use innkeeper_facilities::{AccessList, Databases, Evaluator, GuestFiles, Pages, Routes};
use innkeeper_github::client::Github;
use innkeeper_store::Store;
use tokio::sync::{Mutex, mpsc};

use crate::additional::Additional;
use crate::approvals::Approvals;
use crate::background::Background;
use crate::branches::Branches;
use crate::capacity::Capacity;
use crate::comment_commands::CommentCommands;
use crate::commit_checks::CommitChecks;
use crate::databases::PreviewDatabases;
use crate::deliveries::Deliveries;
use crate::disk_usage::DiskUsage;
use crate::evaluation::Evaluation;
use crate::execute::{DestroyedByUsers, Executor};
use crate::expiry::Expiry;
use crate::explain::Explainer;
use crate::guest_files::GuestEnvironment;
use crate::guests::Guests;
use crate::health::Health;
use crate::journal::Journal;
use crate::logs::Logs;
use crate::masks::Masks;
use crate::pages::StatusPages;
use crate::permissions::Permissions;
use crate::redelivery::Redelivery;
use crate::reporter::Reporter;
use crate::repositories::Repositories;
use crate::requests::Requests;
use crate::resync::{Checks, Comparison, Resync};
use crate::routing::Routing;
use crate::services::Services;
use crate::sources::Sources;
use crate::stages::Stages;
use crate::upkeep::Upkeep;
use crate::visibility::Visitors;
use crate::visitor_wakes::VisitorWakes;
use crate::watch::Watch;
use crate::worker::WorkerParts;
use crate::workers::{NewWorker, Workers};
use crate::{PreviewsConfig, Probe};

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
    /// The list of previews that are not public, for the program that checks their visitors.
    pub access: Arc<dyn AccessList>,
    /// Status files, for the program that shows them.
    pub pages: Arc<dyn Pages>,
    /// Databases, if the host has a server for them.
    pub databases: Option<Arc<dyn Databases>>,
    /// Writer of files in guests.
    pub files: Arc<dyn GuestFiles>,
    /// Crash probe of the tests.
    pub probe: Option<Probe>,
}

/// Components that the public functions use.
pub(crate) struct Components {
    pub(crate) config: Arc<PreviewsConfig>,
    pub(crate) store: Store,
    pub(crate) engine: Engine,
    pub(crate) github: Option<Github>,
    pub(crate) permissions: Permissions,
    pub(crate) journal: Journal,
    pub(crate) workers: Workers,
    pub(crate) guests: Guests,
    pub(crate) routing: Routing,
    pub(crate) visitors: Visitors,
    pub(crate) health: Health,
    pub(crate) databases: PreviewDatabases,
    pub(crate) evaluation: Evaluation,
    pub(crate) destroyed: DestroyedByUsers,
    pub(crate) visitor_wakes: VisitorWakes,
    pub(crate) staging: Staging,
    pub(crate) repositories: Repositories,
    pub(crate) upkeep: Upkeep,
    pub(crate) logs: Logs,
    pub(crate) explainer: Explainer,
    pub(crate) disk_usage: DiskUsage,
    /// Held while a file with secrets is changed.
    pub(crate) secret_changes: Mutex<()>,
    pub(crate) background: Background,
}

/// Tasks that [`Previews::start`](crate::Previews::start) starts.
pub(crate) struct ToStart {
    pub(crate) status_pages: StatusPages,
    pub(crate) resync: Resync,
    pub(crate) watch: Watch,
    pub(crate) deliveries: Deliveries,
    pub(crate) workers: mpsc::UnboundedReceiver<NewWorker>,
    pub(crate) parts: WorkerParts<Executor>,
}

/// Creates the components, and the tasks to start.
pub(crate) fn wire(parts: Parts) -> (Components, ToStart) {
    let Parts {
        config,
        engine,
        github,
        evaluator,
        routes,
        access,
        pages,
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
    let masks = Masks::new(Arc::clone(&config), store.clone(), server.clone());
    let status_pages = StatusPages::new(
        Arc::clone(&config),
        engine.clone(),
        journal.clone(),
        masks.clone(),
        Arc::clone(&pages),
    );
    let services = Services::new(Arc::clone(&config), engine.clone(), guests.clone());
    let databases = PreviewDatabases::new(server.clone(), config.database_template.clone());
    let sources = Sources::new(github.clone(), config.file_types.clone());
    let evaluation = Evaluation::new(
        Arc::clone(&config),
        store.clone(),
        sources,
        Arc::clone(&evaluator),
    );
    let destroyed = DestroyedByUsers::default();
    let health = Health::default();
    let visitor_wakes = VisitorWakes::default();
    let staging = engine.staging();
    let visitors = Visitors::new(
        Arc::clone(&config),
        store.clone(),
        Arc::clone(&routes),
        access,
        journal.clone(),
    );
    let routing = Routing::new(
        Arc::clone(&routes),
        visitors.clone(),
        store.clone(),
        guests.clone(),
        health.clone(),
        status_pages.clone(),
        visitor_wakes.clone(),
    );
    let reporter = Reporter::new(
        Arc::clone(&config),
        store.clone(),
        github.clone(),
        background.clone(),
        CommitChecks::new(Arc::clone(&config), store.clone(), github.clone()),
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
        config.repo_limits.clone(),
        store.clone(),
        journal.clone(),
        guests.clone(),
        routing.clone(),
        workers.clone(),
    );
    let upkeep = Upkeep {
        config: Arc::clone(&config),
        store: store.clone(),
        github: github.clone(),
        evaluator,
        routes,
        databases: server.clone(),
        pages,
        repositories: repositories.clone(),
        reporter: reporter.clone(),
    };
    let requests = Requests {
        config: Arc::clone(&config),
        store: store.clone(),
        github: github.clone(),
        journal: journal.clone(),
        workers: workers.clone(),
    };
    let commands = CommentCommands {
        store: store.clone(),
        github: github.clone(),
        journal: journal.clone(),
        databases: databases.clone(),
        guests: guests.clone(),
        workers: workers.clone(),
    };
    let deliveries = Deliveries {
        config: Arc::clone(&config),
        store: store.clone(),
        github: github.clone(),
        journal: journal.clone(),
        approvals: approvals.clone(),
        reporter: reporter.clone(),
        repositories: repositories.clone(),
        requests: requests.clone(),
        commands,
        workers: workers.clone(),
        background: background.clone(),
        acting: Arc::default(),
    };
    let resync = Resync {
        config: Arc::clone(&config),
        deliveries: deliveries.clone(),
        capacity: capacity.clone(),
        checks: Checks {
            expiry: Expiry::new(&config, store.clone(), journal.clone(), workers.clone()),
            store: store.clone(),
            workers: workers.clone(),
            upkeep: upkeep.clone(),
        },
        repositories: repositories.clone(),
        visitors: visitors.clone(),
        redelivery: Redelivery::new(Arc::clone(&config), store.clone(), github.clone()),
        branches: Branches {
            store: store.clone(),
            github: github.clone(),
            journal: journal.clone(),
        },
        comparison: Comparison {
            config: Arc::clone(&config),
            store: store.clone(),
            github: github.clone(),
            approvals,
            requests,
            capacity: capacity.clone(),
            repositories: repositories.clone(),
            workers: workers.clone(),
        },
        reporter: reporter.clone(),
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
        additional: Additional {
            config: Arc::clone(&config),
            store: store.clone(),
            evaluation: evaluation.clone(),
            reporter: reporter.clone(),
            workers: workers.clone(),
        },
        capacity,
        databases: databases.clone(),
        guests: guests.clone(),
        environment: GuestEnvironment::new(
            Arc::clone(&config),
            store.clone(),
            github.clone(),
            files,
            journal.clone(),
            masks.clone(),
        ),
        services: services.clone(),
        routing: routing.clone(),
        health: health.clone(),
        pages: status_pages.clone(),
        destroyed: destroyed.clone(),
        staging: staging.clone(),
    };
    let to_start = ToStart {
        status_pages,
        resync,
        watch: Watch {
            health: health.clone(),
            workers: workers.clone(),
        },
        deliveries: deliveries.clone(),
        workers: new_workers,
        parts: WorkerParts {
            interval: config.interval,
            store: store.clone(),
            journal: journal.clone(),
            masks: masks.clone(),
            reporter: reporter.clone(),
            routing: routing.clone(),
            health: health.clone(),
            deliveries,
            workers: workers.clone(),
            executor: Arc::new(executor),
        },
    };
    let explainer = Explainer {
        visitors: visitors.clone(),
        config: Arc::clone(&config),
        store: store.clone(),
        guests: guests.clone(),
        services,
        routing: routing.clone(),
        health: health.clone(),
        repositories: repositories.clone(),
        reporter,
    };
    let components = Components {
        disk_usage: DiskUsage::new(engine.clone(), store.clone(), server),
        secret_changes: Mutex::default(),
        logs: Logs::new(engine.clone(), store.clone(), journal.clone(), masks),
        config,
        store,
        engine,
        github,
        permissions: Permissions::default(),
        journal,
        workers,
        guests,
        routing,
        visitors,
        health,
        databases,
        evaluation,
        destroyed,
        visitor_wakes,
        staging,
        repositories,
        upkeep,
        explainer,
        background,
    };
    (components, to_start)
}
