use axum::Router;
use innkeeper_model::{Code, EventKind, Failure, StorePath, Verb};
use insta::assert_snapshot;

use crate::fake::{Fake, Stream, accept, events};
use crate::samples::{CLOSURE, accepted, event};

fn fake(end: EventKind) -> Fake {
    let built = EventKind::Built {
        what: "/srv/fleet#agent".to_owned(),
        closure: StorePath::parse(CLOSURE).expect("valid"),
    };
    let parts = [Stream::Ends(vec![
        accepted(1, Verb::Prefetch),
        event(2, built),
        event(3, end),
    ])];
    Fake::new(
        Router::new()
            .route("/v1/prefetches", accept(7, None))
            .route("/v1/events", events(parts)),
    )
}

#[test]
fn prefetch_follows_the_operation() {
    let fake = fake(EventKind::Finished);
    assert_snapshot!(fake.innkeeper(&["prefetch"]).transcript(), @r"
    status: 0
    --- stdout
    [INFO] Building closures in advance.
    [INFO] /srv/fleet#agent is /nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-guest.
    [OK] Prefetched in N ms.
    --- stderr
    ");
}

#[test]
fn lack_of_space_has_the_status_that_the_unit_accepts() {
    let failure = Failure::new(Code::DiskFull, "the disk of the Nix store has 12 MiB left");
    let fake = fake(EventKind::Failed { failure });
    assert_snapshot!(fake.innkeeper(&["prefetch"]).transcript(), @r"
    status: 5
    --- stdout
    [INFO] Building closures in advance.
    [INFO] /srv/fleet#agent is /nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-guest.
    --- stderr
    [ERROR] the disk of the Nix store has 12 MiB left
    ");
}
