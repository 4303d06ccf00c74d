//! Crashes while guests are paused, put to sleep and woken.

use std::net::TcpStream;

use innkeeper_model::GuestState;

use super::{Case, DESTROY, survives_a_crash_at_every_step};

const PAUSE: Case = Case {
    verb: "pause",
    variables: &[],
    prepare: |sandbox, closure| drop(sandbox.client().create("web", closure)),
    request: |client, _| {
        client
            .try_call("POST", "/v1/guests/web/pause", "")
            .map(drop)
    },
    before: Some(GuestState::Running),
    after: Some(GuestState::Paused),
    check: |_, _| {},
};

const SLEEP: Case = Case {
    verb: "sleep",
    variables: &[],
    prepare: |sandbox, closure| {
        sandbox.client().create("web", closure);
        sandbox.client().change("web", "pause");
    },
    request: |client, _| {
        client
            .try_call("POST", "/v1/guests/web/sleep", "")
            .map(drop)
    },
    before: Some(GuestState::Paused),
    after: Some(GuestState::Asleep),
    // Wherever the daemon was killed, a packet wakes the guest.
    check: |sandbox, _| {
        let guest = sandbox.client().guest("web");
        let address = guest.guest_address.expect("an address");
        TcpStream::connect((address, 80)).expect("it waits for the guest");
    },
};

const WAKE: Case = Case {
    verb: "wake",
    variables: &[],
    prepare: |sandbox, closure| {
        sandbox.client().create("web", closure);
        sandbox.client().change("web", "sleep");
    },
    request: |client, _| client.try_call("POST", "/v1/guests/web/wake", "").map(drop),
    before: Some(GuestState::Asleep),
    after: Some(GuestState::Running),
    check: |_, _| {},
};

const WAKE_PAUSED: Case = Case {
    prepare: |sandbox, closure| {
        sandbox.client().create("web", closure);
        sandbox.client().change("web", "pause");
    },
    before: Some(GuestState::Paused),
    ..WAKE
};

const DESTROY_PAUSED: Case = Case {
    prepare: |sandbox, closure| {
        sandbox.client().create("web", closure);
        sandbox.client().change("web", "pause");
    },
    before: Some(GuestState::Paused),
    ..DESTROY
};

#[test]
fn a_pause_survives_a_crash_at_every_step() {
    survives_a_crash_at_every_step(&PAUSE);
}

#[test]
fn a_sleep_survives_a_crash_at_every_step() {
    survives_a_crash_at_every_step(&SLEEP);
}

#[test]
fn a_wake_survives_a_crash_at_every_step() {
    survives_a_crash_at_every_step(&WAKE);
    survives_a_crash_at_every_step(&WAKE_PAUSED);
}

#[test]
fn a_destroy_of_a_paused_guest_survives_a_crash_at_every_step() {
    survives_a_crash_at_every_step(&DESTROY_PAUSED);
}
