//! The engine over a fake host.

use std::path::Path;
use std::time::Duration;

use innkeeper_engine::{
    ActivityConfig, Engine, EngineConfig, PressureConfig, RestConfig, WarmConfig,
};
use innkeeper_facilities::fake::{FakeHost, a_closure};
use innkeeper_model::api::{Accepted, CreateRequest};
use innkeeper_model::{
    Cpus, GuestName, GuestState, Installable, Limits, MemorySize, Operation, OperationState,
    SlotRange, Trust, UserIdCount,
};
use innkeeper_store::Store;

pub(crate) struct Fixture {
    pub(crate) _directory: tempfile::TempDir,
    pub(crate) host: FakeHost,
    pub(crate) engine: Engine,
}

pub(crate) fn engine(host: &FakeHost, directory: &Path, retention: Duration) -> Engine {
    let config = EngineConfig {
        retention,
        ..config()
    };
    engine_with(host, directory, config)
}

pub(crate) fn engine_with(host: &FakeHost, directory: &Path, config: EngineConfig) -> Engine {
    let store = Store::open(&directory.join("db"), SlotRange::default()).expect("opens");
    Engine::new(config, store, host.facilities(), None)
}

/// Returns settings that retain no files.
pub(crate) fn config() -> EngineConfig {
    EngineConfig {
        installable: Some(Installable::parse("/fleet#agent", "x").expect("valid")),
        attribute: "agent".to_owned(),
        limits: Limits {
            memory: MemorySize::from_bytes(1 << 30),
            cpus: Cpus::from_percent(100),
            tasks: 100,
            user_ids: UserIdCount::default(),
            nesting: false,
        },
        concurrent_starts: 2,
        range: SlotRange::default(),
        retention: Duration::ZERO,
        nesting: true,
        activity: ActivityConfig::default(),
        boot_timeout: EngineConfig::BOOT_TIMEOUT,
        rest: RestConfig::default(),
        seats: 0,
        warm: WarmConfig::default(),
        pressure: PressureConfig::default(),
    }
}

/// Returns an engine that retains no files.
pub(crate) fn fixture() -> Fixture {
    fixture_with_retention(Duration::ZERO)
}

pub(crate) fn fixture_with_retention(retention: Duration) -> Fixture {
    fixture_with(EngineConfig {
        retention,
        ..config()
    })
}

pub(crate) fn fixture_with(config: EngineConfig) -> Fixture {
    let directory = tempfile::tempdir().expect("tempdir");
    let host = FakeHost::new();
    let engine = engine_with(&host, directory.path(), config);
    Fixture {
        _directory: directory,
        host,
        engine,
    }
}

impl Fixture {
    pub(crate) fn request(name: &str) -> CreateRequest {
        CreateRequest {
            name: Some(self::name(name)),
            closure: Some(a_closure()),
            ..CreateRequest::default()
        }
    }

    pub(crate) async fn ended(&self, accepted: Accepted) -> Operation {
        let mut events = self.engine.journal().subscribe();
        loop {
            let operation = self
                .engine
                .operation(accepted.operation)
                .await
                .expect("there");
            if operation.state != OperationState::Running {
                return operation;
            }
            drop(
                tokio::time::timeout(Duration::from_secs(10), events.recv())
                    .await
                    .expect("an event"),
            );
        }
    }

    pub(crate) async fn create(&self, name: &str) -> Operation {
        let accepted = self
            .engine
            .create(Self::request(name), "test", Trust::Host)
            .await
            .expect("accepted");
        self.ended(accepted).await
    }

    pub(crate) async fn destroy(&self, name: &str) -> Operation {
        let accepted = self
            .engine
            .destroy(&self::name(name), false, "test")
            .await
            .expect("accepted");
        self.ended(accepted).await
    }

    pub(crate) async fn state(&self, name: &str) -> Option<GuestState> {
        let guests = self.engine.list().await.expect("listed");
        guests
            .iter()
            .find(|view| view.guest.name.as_str() == name)
            .map(|view| view.state)
    }

    #[expect(clippy::panic, reason = "a test fails with a panic")]
    pub(crate) async fn until(&self, what: &str, mut condition: impl AsyncFnMut() -> bool) {
        for _ in 0..1000 {
            if condition().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("timed out waiting until {what}");
    }
}

/// Starts a request and drops it while it waits for its transaction, as a client that disconnects does.
pub(crate) async fn cancel<T>(request: impl Future<Output = T>) {
    tokio::select! {
        biased;
        _ = request => panic!("the request has ended already"),
        () = std::future::ready(()) => {}
    }
}

pub(crate) fn name(text: &str) -> GuestName {
    GuestName::parse(text).expect("valid")
}
