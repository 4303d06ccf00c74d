//! Operations that fail because the host shuts down: systemd ends guests, and starts none. The next daemon continues them.

use std::sync::Arc;
use std::time::Duration;

use innkeeper_engine::Engine;
use innkeeper_facilities::BOOT_OWN;
use innkeeper_facilities::fake::ExecResult;
use innkeeper_model::api::{Accepted, SetRequest};
use innkeeper_model::{
    DesiredState, Guest, GuestState, OperationState, OwnSystemState, StorePath, Trust,
};

use crate::fixture::{Fixture, engine, fixture, name};

fn other() -> StorePath {
    StorePath::parse("/nix/store/00000000000000000000000000000000-other").expect("valid")
}

impl Fixture {
    /// Waits until the operation has met the shutdown of the host, boots the host, and returns the next daemon after it has
    /// completed the operation.
    async fn boot_after(&self, accepted: &Accepted) -> Engine {
        self.until("the shutdown is noticed", async || {
            self.host.world().host_state_queries > 0
        })
        .await;
        self.engine.stop_working().await;
        let left = self.engine.operation(accepted.operation).await;
        assert_eq!(left.expect("there").state, OperationState::Running);
        {
            let mut world = self.host.world();
            world.host_is_stopping = false;
            world.failures.clear();
            world.broken_systems.clear();
            world.units.clear();
            world.exec = None;
        }
        let next = engine(&self.host, self._directory.path(), Duration::ZERO);
        next.restore().await.expect("restored");
        self.until("the operation ends", async || {
            let found = next.operation(accepted.operation).await.expect("there");
            found.state != OperationState::Running
        })
        .await;
        let ended = next.operation(accepted.operation).await.expect("there");
        assert_eq!(ended.failure, None);
        next
    }
}

/// Returns the guest, which must run.
async fn running(next: &Engine) -> Guest {
    let view = next.show(&name("web")).await.expect("exists");
    assert_eq!(view.state, GuestState::Running);
    assert_eq!(view.guest.desired, DesiredState::Running);
    assert_eq!(view.guest.fault, None);
    view.guest
}

async fn stop(fixture: &Fixture) {
    let stop = fixture.engine.stop(&name("web"), "test").await;
    assert_eq!(fixture.ended(stop.expect("accepted")).await.failure, None);
}

#[tokio::test]
async fn start_is_continued() {
    let fixture = fixture();
    fixture.create("web").await;
    stop(&fixture).await;
    fixture.host.world().host_is_stopping = true;
    fixture.host.fail("unit.ensure", u32::MAX);
    let start = fixture.engine.start(&name("web"), "test").await;
    let next = fixture.boot_after(&start.expect("accepted")).await;
    running(&next).await;
}

#[tokio::test]
async fn switch_that_is_killed_is_continued_with_the_requested_closure() {
    let fixture = fixture();
    fixture.create("web").await;
    {
        let mut world = fixture.host.world();
        world.programs.insert("bin/switch-to-configuration");
        world.host_is_stopping = true;
        world.exec = Some(Arc::new(|_, _| ExecResult {
            status: 137,
            ..ExecResult::default()
        }));
    }
    let request = SetRequest {
        closure: Some(other()),
        ..SetRequest::default()
    };
    let set = fixture
        .engine
        .set(&name("web"), request, "test", Trust::Host)
        .await;
    let next = fixture.boot_after(&set.expect("accepted")).await;
    assert_eq!(running(&next).await.closure, Some(other()));
}

#[tokio::test]
async fn own_system_that_ends_with_the_host_has_not_failed() {
    let fixture = fixture();
    fixture.host.world().programs.insert(BOOT_OWN);
    fixture.create("web").await;
    stop(&fixture).await;
    {
        let mut world = fixture.host.world();
        world.host_is_stopping = true;
        world.profiles.insert(name("web"), other());
        world.broken_systems.insert(other());
    }
    let start = fixture.engine.start(&name("web"), "test").await;
    let next = fixture.boot_after(&start.expect("accepted")).await;
    let own = running(&next).await.own_system.expect("recorded");
    assert_eq!((own.system, own.state), (other(), OwnSystemState::Booted));
}
