//! Concurrent operations.

use std::collections::BTreeSet;
use std::thread;

use innkeeper_model::GuestState;
use innkeeper_model::api::GuestView;

use crate::support::{Client, Fixture, Response, Sandbox, closure, wait_until};

fn create(client: &Client, name: &str, closure: &str) -> Response {
    client.call(
        "POST",
        "/v1/guests",
        &format!(r#"{{"name":"{name}","memory":"64M","closure":"{closure}"}}"#),
    )
}

#[test]
fn one_of_two_concurrent_creates_of_a_name_is_rejected() {
    let closure = closure(Fixture::Agent);
    let sandbox = Sandbox::new();
    let _daemon = sandbox.start();
    let client = sandbox.client();
    let answers: Vec<Response> = thread::scope(|scope| {
        let both: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| create(&client, "web", &closure)))
            .collect();
        both.into_iter()
            .map(|thread| thread.join().expect("joined"))
            .collect()
    });
    let (won, lost): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|answer| answer.status == 202);
    assert_eq!((won.len(), lost.len()), (1, 1));
    let failure = lost[0].failure();
    assert_eq!(
        (lost[0].status, failure.code.as_str()),
        (409, "guest_exists")
    );
    assert!(
        failure.message.contains("web") && failure.remedy.is_some(),
        "{failure:?}"
    );
    assert_eq!(client.finish(&won[0]).failure, None);
    assert_eq!(client.guest("web").state, GuestState::Running);
    client.destroy("web");
}

#[test]
fn twenty_concurrent_creates_succeed() {
    let closure = closure(Fixture::Agent);
    let sandbox = Sandbox::new();
    let _daemon = sandbox.start();
    let client = sandbox.client();
    let before = sandbox.traces();
    thread::scope(|scope| {
        for n in 0..20 {
            let (client, closure) = (&client, &closure);
            scope.spawn(move || {
                let operation = client.finish(&create(client, &format!("g{n}"), closure));
                assert_eq!(operation.failure, None);
            });
        }
    });
    let guests: Vec<GuestView> = client.get("/v1/guests");
    assert_eq!(guests.len(), 20);
    assert!(
        guests.iter().all(|view| view.state == GuestState::Running),
        "{guests:#?}"
    );
    let addresses: BTreeSet<_> = guests.iter().map(|view| view.guest_address).collect();
    assert_eq!(addresses.len(), 20);
    thread::scope(|scope| {
        for n in 0..20 {
            let client = &client;
            scope.spawn(move || client.destroy(&format!("g{n}")));
        }
    });
    before.assert_same(&sandbox.traces(), "after twenty were destroyed");
}

#[test]
fn a_destroy_does_not_wait_for_a_build() {
    let mut sandbox = Sandbox::new();
    // A flake whose build does not end.
    let flake = sandbox.path().join("slow");
    std::fs::create_dir(&flake).expect("made");
    std::fs::copy("/bin/busybox", flake.join("busybox")).expect("copied");
    std::fs::write(
        flake.join("flake.nix"),
        r#"{ outputs = { self }: { slow = derivation { name = "slow"; system = builtins.currentSystem or "x86_64-linux"; builder = "${./.}/busybox"; args = [ "sleep" "3600" ]; }; }; }"#,
    )
    .expect("written");
    sandbox.configure(&format!("flake = 'path:{}#slow'", flake.display()));
    let _daemon = sandbox.start();
    let client = sandbox.client();
    let before = sandbox.traces();
    let building = client.call("POST", "/v1/guests", r#"{"name":"web"}"#);
    assert_eq!(building.status, 202, "{building:?}");
    client.destroy("web");
    let create = client.finish(&building);
    assert_eq!(
        create.failure.expect("superseded").code.as_str(),
        "guest_busy"
    );
    // The destroy does not wait for the end of Nix.
    let is_build = |trace: &String| trace.contains("innkeeper-build");
    wait_until("the build has ended", || {
        !sandbox.traces().0.iter().any(is_build)
    });
    before.assert_same(&sandbox.traces(), "after the destroy");
}
