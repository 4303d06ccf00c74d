//! Crash tests: the daemon is killed before and after each step of each operation, and restarted. The operation must
//! complete or be rolled back, without leaks and without lost data. A first run of each operation records its points.

use std::collections::BTreeSet;
use std::fs;

use innkeeper_model::api::{DoctorReport, GuestView, RetainedView, Status, Verdict};
use innkeeper_model::{GuestState, OwnSystemState, Snapshot};

use crate::support::{Client, Daemon, Fixture, RETENTION, Sandbox, Traces, closure, wait_until};

mod levels;
mod seats;

/// An operation, its preparation and its expected results.
struct Case {
    verb: &'static str,
    variables: &'static [(&'static str, &'static str)],
    prepare: fn(&Sandbox, &str),
    request: fn(&Client, &str) -> std::io::Result<()>,
    before: Option<GuestState>,
    after: Option<GuestState>,
    /// Checks further results. The argument is whether the operation was accepted.
    check: fn(&Sandbox, bool),
}

const CREATE: Case = Case {
    verb: "create",
    variables: &[],
    prepare: |_, _| {},
    request: |client, closure| {
        let body = format!(r#"{{"name":"web","memory":"128M","closure":"{closure}"}}"#);
        client.try_call("POST", "/v1/guests", &body).map(drop)
    },
    before: None,
    after: Some(GuestState::Running),
    check: |_, _| {},
};

const STOP: Case = Case {
    verb: "stop",
    variables: &[],
    prepare: |sandbox, closure| drop(sandbox.client().create("web", closure)),
    request: |client, _| client.try_call("POST", "/v1/guests/web/stop", "").map(drop),
    before: Some(GuestState::Running),
    after: Some(GuestState::Stopped),
    check: |_, _| {},
};

const START: Case = Case {
    verb: "start",
    variables: &[],
    prepare: |sandbox, closure| {
        sandbox.client().create("web", closure);
        sandbox.client().change("web", "stop");
    },
    request: |client, _| {
        client
            .try_call("POST", "/v1/guests/web/start", "")
            .map(drop)
    },
    before: Some(GuestState::Stopped),
    after: Some(GuestState::Running),
    check: |_, _| {},
};

const DESTROY: Case = Case {
    verb: "destroy",
    variables: &[],
    prepare: |sandbox, closure| drop(sandbox.client().create("web", closure)),
    request: |client, _| client.try_call("DELETE", "/v1/guests/web", "").map(drop),
    before: Some(GuestState::Running),
    after: None,
    check: |_, _| {},
};

const SNAPSHOT: Case = Case {
    verb: "snapshot",
    variables: &[],
    prepare: stopped_with_a_file,
    request: |client, _| {
        let (path, body) = ("/v1/guests/web/snapshots", r#"{"label":"one"}"#);
        client.try_call("POST", path, body).map(drop)
    },
    before: Some(GuestState::Stopped),
    after: Some(GuestState::Stopped),
    check: |sandbox, accepted| {
        let taken = accepted.then(|| "before".to_owned());
        assert_eq!(content(sandbox, "web/snapshots/one"), taken);
        assert_eq!(labels(sandbox).len(), usize::from(accepted));
    },
};

const DELETE_SNAPSHOT: Case = Case {
    verb: "delete_snapshot",
    variables: &[],
    prepare: stopped_with_a_snapshot,
    request: |client, _| {
        let path = "/v1/guests/web/snapshots/one";
        client.try_call("DELETE", path, "").map(drop)
    },
    before: Some(GuestState::Stopped),
    after: Some(GuestState::Stopped),
    check: |sandbox, accepted| {
        let kept = (!accepted).then(|| "before".to_owned());
        assert_eq!(content(sandbox, "web/snapshots/one"), kept);
        assert_eq!(labels(sandbox).len(), usize::from(!accepted));
    },
};

const RESTORE_SNAPSHOT: Case = Case {
    verb: "restore_snapshot",
    variables: &[],
    prepare: |sandbox, closure| {
        stopped_with_a_snapshot(sandbox, closure);
        sandbox.client().change("web", "start");
    },
    request: |client, _| {
        let path = "/v1/guests/web/snapshots/one/restore";
        client.try_call("POST", path, "").map(drop)
    },
    before: Some(GuestState::Running),
    after: Some(GuestState::Running),
    check: |sandbox, accepted| {
        let files = if accepted { "before" } else { "after" };
        assert_eq!(content(sandbox, "web/rootfs").as_deref(), Some(files));
        assert_eq!(labels(sandbox), ["one"]);
    },
};

/// The copy sorts before the original.
const FORK: Case = Case {
    verb: "fork",
    variables: &[],
    prepare: stopped_with_a_file,
    request: |client, _| {
        let (path, body) = ("/v1/guests/web/fork", r#"{"name":"copy"}"#);
        client.try_call("POST", path, body).map(drop)
    },
    before: Some(GuestState::Stopped),
    after: Some(GuestState::Running),
    check: |sandbox, accepted| {
        let copied = accepted.then(|| "before".to_owned());
        assert_eq!(content(sandbox, "copy/rootfs"), copied);
        let guests: Vec<GuestView> = sandbox.client().get("/v1/guests");
        let keys: BTreeSet<_> = guests.iter().map(|view| &view.guest.ssh_host_key).collect();
        assert_eq!(keys.len(), guests.len(), "each has a host key of its own");
    },
};

/// A retention that no test outlasts.
const RETAIN_FILES: &[(&str, &str)] = &[(RETENTION, "3600")];

const RETAIN: Case = Case {
    verb: "destroy",
    variables: RETAIN_FILES,
    prepare: running_with_a_file,
    request: |client, _| client.try_call("DELETE", "/v1/guests/web", "").map(drop),
    before: Some(GuestState::Running),
    after: None,
    check: |sandbox, accepted| {
        let kept = retained(sandbox);
        assert_eq!(kept.len(), usize::from(accepted));
        let tree = match kept.first() {
            Some(view) => format!(".retained-{}/rootfs", view.retained.id),
            None => "web/rootfs".to_owned(),
        };
        assert_eq!(content(sandbox, &tree).as_deref(), Some("before"));
        let tree = sandbox.state().join("guests").join(tree);
        for path in ["mnt/claude-creds", "etc/ssh/ssh_host_ed25519_key"] {
            assert_eq!(tree.join(path).exists(), !accepted, "{path}");
        }
    },
};

/// Under another name, to distinguish the two.
const UNDELETE: Case = Case {
    verb: "undelete",
    variables: RETAIN_FILES,
    prepare: destroyed_with_a_file,
    request: |client, _| {
        let path = "/v1/retained/web/undelete";
        client.try_call("POST", path, r#"{"as":"back"}"#).map(drop)
    },
    before: None,
    after: Some(GuestState::Running),
    check: |sandbox, accepted| {
        let files = accepted.then(|| "before".to_owned());
        assert_eq!(content(sandbox, "back/rootfs"), files);
        assert_eq!(retained(sandbox).len(), usize::from(!accepted));
    },
};

const PURGE: Case = Case {
    verb: "purge",
    variables: RETAIN_FILES,
    prepare: destroyed_with_a_file,
    request: |client, _| {
        let kept: Vec<RetainedView> = client.get("/v1/retained");
        let path = format!("/v1/retained/{}", kept[0].retained.id);
        client.try_call("DELETE", &path, "").map(drop)
    },
    before: None,
    after: None,
    check: |sandbox, accepted| {
        wait_until("the files are gone", || {
            retained(sandbox).is_empty() == accepted
        });
    },
};

/// The file in the closure tells which one the guest runs.
const SET: Case = Case {
    verb: "set",
    variables: &[],
    prepare: |sandbox, closure| drop(sandbox.client().create("web", closure)),
    request: |client, _| set(client, Fixture::AgentNext),
    before: Some(GuestState::Running),
    after: Some(GuestState::Running),
    check: |sandbox, accepted| {
        require_closure(sandbox, accepted, Fixture::Agent, Fixture::AgentNext);
    },
};

const SET_IN_PLACE: Case = Case {
    verb: "set",
    variables: &[],
    prepare: |sandbox, _| drop(sandbox.client().create("web", &closure(Fixture::Switch))),
    request: |client, _| set(client, Fixture::SwitchNext),
    before: Some(GuestState::Running),
    after: Some(GuestState::Running),
    check: |sandbox, accepted| {
        require_closure(sandbox, accepted, Fixture::Switch, Fixture::SwitchNext);
    },
};

/// The guest refuses to switch, so it always keeps its closure.
const SET_REFUSED: Case = Case {
    verb: "set",
    variables: &[],
    prepare: |sandbox, _| drop(sandbox.client().create("web", &closure(Fixture::Switch))),
    request: |client, _| set(client, Fixture::SwitchRefused),
    before: Some(GuestState::Running),
    after: Some(GuestState::Running),
    check: |sandbox, _| require_closure(sandbox, false, Fixture::Switch, Fixture::SwitchRefused),
};

fn set(client: &Client, next: Fixture) -> std::io::Result<()> {
    let body = format!(r#"{{"closure":"{}"}}"#, closure(next));
    client
        .try_call("POST", "/v1/guests/web/set", &body)
        .map(drop)
}

/// Checks the closure in the record, the one that the guest runs, and the GC roots.
fn require_closure(sandbox: &Sandbox, changed: bool, former: Fixture, next: Fixture) {
    let expected = closure(if changed { next } else { former });
    let view: GuestView = sandbox.client().get("/v1/guests/web");
    let recorded = view.guest.closure.expect("known").to_string();
    assert_eq!((recorded, view.guest.change), (expected.clone(), None));
    let tree = sandbox.state().join("guests/web/rootfs");
    // The init links it, and so does the program that switches.
    let shell = fs::read_link(tree.join("bin/sh")).expect("a link");
    let system = format!("{expected}/sw/bin/sh");
    assert_eq!(shell.to_string_lossy(), system, "the system that runs");
    let roots = sandbox.path().join("gcroots");
    let root = fs::read_link(roots.join("web")).expect("a root");
    assert_eq!(root.to_string_lossy(), expected, "the root");
    assert!(!roots.join("web.former").is_symlink(), "a root is left");
}

const START_OWN: Case = Case {
    prepare: |sandbox, _| stopped_with_own_system(sandbox, Fixture::AgentNext),
    check: |sandbox, accepted| {
        require_own_system(sandbox, accepted, accepted, Fixture::AgentNext);
    },
    ..START
};

const START_BROKEN: Case = Case {
    prepare: |sandbox, _| stopped_with_own_system(sandbox, Fixture::AgentBroken),
    check: |sandbox, accepted| {
        require_own_system(sandbox, accepted, false, Fixture::AgentBroken);
    },
    ..START
};

/// Lets the profile of a guest name a system before its stop, as a rebuild in the guest does.
fn stopped_with_own_system(sandbox: &Sandbox, own: Fixture) {
    sandbox.client().create("web", &closure(Fixture::BootOwn));
    let profiles = sandbox
        .state()
        .join("guests/web/rootfs/nix/var/nix/profiles");
    fs::create_dir_all(&profiles).expect("made");
    std::os::unix::fs::symlink(closure(own), profiles.join("system")).expect("linked");
    sandbox.client().change("web", "stop");
}

/// Checks the system that the guest ran last, and the record.
fn require_own_system(sandbox: &Sandbox, accepted: bool, booted: bool, own: Fixture) {
    let state = match (accepted, booted) {
        (true, true) => OwnSystemState::Booted,
        (true, false) => OwnSystemState::Failed,
        (false, _) => OwnSystemState::Pending,
    };
    let view: GuestView = sandbox.client().get("/v1/guests/web");
    let recorded = view.guest.own_system.expect("recorded");
    let found = (recorded.system.to_string(), recorded.state);
    assert_eq!(found, (closure(own), state));
    assert_eq!(recorded.failure.is_some(), state == OwnSystemState::Failed);
    let expected = closure(if booted { own } else { Fixture::BootOwn });
    let link = sandbox.state().join("guests/web/rootfs/bin/sh");
    let target = || fs::read_link(&link).unwrap_or_default();
    wait_until("its init has run", || target().starts_with(&expected));
}

fn running_with_a_file(sandbox: &Sandbox, closure: &str) {
    let credentials = sandbox.path().join("credentials");
    fs::create_dir_all(&credentials).expect("made");
    fs::write(credentials.join("oauth_token"), "secret").expect("written");
    sandbox.client().create("web", closure);
    write(sandbox, "before");
}

fn destroyed_with_a_file(sandbox: &Sandbox, closure: &str) {
    running_with_a_file(sandbox, closure);
    sandbox.client().destroy("web");
}

fn retained(sandbox: &Sandbox) -> Vec<RetainedView> {
    sandbox.client().get("/v1/retained")
}

fn stopped_with_a_file(sandbox: &Sandbox, closure: &str) {
    sandbox.client().create("web", closure);
    sandbox.client().change("web", "stop");
    write(sandbox, "before");
}

fn stopped_with_a_snapshot(sandbox: &Sandbox, closure: &str) {
    stopped_with_a_file(sandbox, closure);
    sandbox.client().take_snapshot("web", "one");
    write(sandbox, "after");
}

fn write(sandbox: &Sandbox, text: &str) {
    let file = sandbox.state().join("guests/web/rootfs/root/mark");
    fs::write(file, text).expect("written");
}

/// Reads the file in a tree below the directory of guests, if it exists.
fn content(sandbox: &Sandbox, tree: &str) -> Option<String> {
    let file = sandbox.state().join("guests").join(tree).join("root/mark");
    fs::read_to_string(file).ok()
}

fn labels(sandbox: &Sandbox) -> Vec<String> {
    let snapshots: Vec<Snapshot> = sandbox.client().get("/v1/snapshots");
    let label = |one: Snapshot| one.label.to_string();
    snapshots.into_iter().map(label).collect()
}

#[test]
fn a_create_survives_a_crash_at_every_step() {
    survives_a_crash_at_every_step(&CREATE);
}

#[test]
fn a_start_survives_a_crash_at_every_step() {
    survives_a_crash_at_every_step(&START);
}

#[test]
fn a_start_with_an_own_system_survives_a_crash_at_every_step() {
    survives_a_crash_at_every_step(&START_OWN);
}

#[test]
fn a_start_with_a_broken_system_survives_a_crash_at_every_step() {
    survives_a_crash_at_every_step(&START_BROKEN);
}

#[test]
fn a_stop_survives_a_crash_at_every_step() {
    survives_a_crash_at_every_step(&STOP);
}

#[test]
fn a_change_by_a_restart_survives_a_crash_at_every_step() {
    survives_a_crash_at_every_step(&SET);
}

#[test]
fn a_change_in_place_survives_a_crash_at_every_step() {
    survives_a_crash_at_every_step(&SET_IN_PLACE);
}

#[test]
fn a_change_that_is_undone_survives_a_crash_at_every_step() {
    survives_a_crash_at_every_step(&SET_REFUSED);
}

#[test]
fn a_destroy_survives_a_crash_at_every_step() {
    survives_a_crash_at_every_step(&DESTROY);
}

#[test]
fn a_destroy_with_retention_survives_a_crash_at_every_step() {
    survives_a_crash_at_every_step(&RETAIN);
}

#[test]
fn an_undelete_survives_a_crash_at_every_step() {
    survives_a_crash_at_every_step(&UNDELETE);
}

#[test]
fn a_purge_survives_a_crash_at_every_step() {
    survives_a_crash_at_every_step(&PURGE);
}

#[test]
fn a_snapshot_survives_a_crash_at_every_step() {
    survives_a_crash_at_every_step(&SNAPSHOT);
}

#[test]
fn a_snapshot_deletion_survives_a_crash_at_every_step() {
    survives_a_crash_at_every_step(&DELETE_SNAPSHOT);
}

#[test]
fn a_restore_survives_a_crash_at_every_step() {
    survives_a_crash_at_every_step(&RESTORE_SNAPSHOT);
}

#[test]
fn a_fork_survives_a_crash_at_every_step() {
    survives_a_crash_at_every_step(&FORK);
}

fn survives_a_crash_at_every_step(case: &Case) {
    let closure = closure(Fixture::Agent);
    let sandbox = Sandbox::new();
    let clean = {
        let daemon = sandbox.start();
        let clean = sandbox.traces();
        daemon.stop();
        clean
    };
    let points = points(&sandbox, case, &closure);
    assert!(points.len() >= 6, "too few points: {points:?}");
    for point in &points {
        crash_at(&sandbox, case, &closure, point, &clean);
    }
    println!("{} points of {}", points.len(), case.verb);
}

/// Returns the points of an uninterrupted run.
fn points(sandbox: &Sandbox, case: &Case, closure: &str) -> BTreeSet<String> {
    let log = sandbox.path().join("points");
    let log_to = log.display().to_string();
    let variables = [case.variables, &[("INNKEEPER_CRASH_LOG", &log_to)]].concat();
    let daemon = sandbox.start_with(&variables);
    let client = sandbox.client();
    (case.prepare)(sandbox, closure);
    (case.request)(&client, closure).expect("accepted");
    // The last point follows the end of the operation.
    let last = format!("{}:finish:after", case.verb);
    wait_until("the operation has ended", || {
        fs::read_to_string(&log).unwrap_or_default().contains(&last)
    });
    clean_up(&client);
    daemon.stop();
    let log = fs::read_to_string(&log).expect("written");
    log.lines()
        .filter(|point| point.split(':').next() == Some(case.verb))
        .map(str::to_owned)
        .collect()
}

fn crash_at(sandbox: &Sandbox, case: &Case, closure: &str, point: &str, clean: &Traces) {
    let client = sandbox.client();
    let variables = [case.variables, &[("INNKEEPER_CRASH_AT", point)]].concat();
    let crashing = sandbox.start_with(&variables);
    (case.prepare)(sandbox, closure);
    // The daemon may die before or after it responds.
    drop((case.request)(&client, closure));
    let status = crashing.wait();
    assert!(!status.success(), "{point}: the daemon was not killed");

    let daemon = sandbox.start_with(case.variables);
    wait_until_idle(&client);
    let accepted = point != format!("{}:accept:before", case.verb);
    let expected = if accepted { case.after } else { case.before };
    assert_eq!(state(&client), expected, "{point}");
    (case.check)(sandbox, accepted);
    assert_healthy(&client, point);
    clean_up(&client);
    clean.assert_same(&sandbox.traces(), point);
    daemon.stop();
}

#[test]
fn random_kills_lose_and_leak_nothing() {
    let closure = closure(Fixture::Agent);
    let sandbox = Sandbox::new();
    let mut daemon = sandbox.start();
    let clean = sandbox.traces();
    let client = sandbox.client();
    let mut accepted = BTreeSet::new();
    for round in 0..25_u64 {
        let name = format!("g{round}");
        let body = format!(r#"{{"name":"{name}","memory":"64M","closure":"{closure}"}}"#);
        if client
            .try_call("POST", "/v1/guests", &body)
            .is_ok_and(|answer| answer.status == 202)
        {
            accepted.insert(name);
        }
        if round % 3 == 2 {
            let oldest = accepted.first().expect("one").clone();
            if client
                .try_call("DELETE", &format!("/v1/guests/{oldest}"), "")
                .is_ok_and(|a| a.status == 202)
            {
                accepted.remove(&oldest);
            }
        }
        // Spread over the duration of an operation, and deterministic.
        std::thread::sleep(std::time::Duration::from_millis(round * 37 % 120));
        daemon.kill();
        daemon = sandbox.start();
    }
    wait_until_idle(&client);
    let guests: Vec<GuestView> = client.get("/v1/guests");
    let names: BTreeSet<_> = guests
        .iter()
        .map(|view| view.guest.name.to_string())
        .collect();
    assert_eq!(names, accepted, "the accepted guests exist");
    assert!(
        guests.iter().all(|view| view.state == GuestState::Running),
        "{guests:#?}"
    );
    assert_healthy(&client, "after all kills");
    for name in &accepted {
        client.destroy(name);
    }
    clean.assert_same(&sandbox.traces(), "after all is destroyed");
    drop::<Daemon>(daemon);
}

fn wait_until_idle(client: &Client) {
    wait_until("no operation is running", || {
        let status: Status = client.get("/v1/status");
        let settled = |view: &GuestView| {
            let is_up_or_down = matches!(view.state, GuestState::Running | GuestState::Stopped);
            is_up_or_down || view.state.is_resting()
        };
        status.operations.is_empty()
            && client
                .get::<Vec<GuestView>>("/v1/guests")
                .iter()
                .all(settled)
    });
}

fn state(client: &Client) -> Option<GuestState> {
    client
        .get::<Vec<GuestView>>("/v1/guests")
        .first()
        .map(|view| view.state)
}

fn assert_healthy(client: &Client, when: &str) {
    let report: DoctorReport = client.get("/v1/doctor");
    let broken: Vec<_> = report
        .checks
        .iter()
        .filter(|check| check.verdict == Verdict::Broken)
        .collect();
    assert!(broken.is_empty(), "{when}: {broken:#?}");
}

fn clean_up(client: &Client) {
    let mut paths: Vec<String> = Vec::new();
    for view in client.get::<Vec<GuestView>>("/v1/guests") {
        paths.push(format!("/v1/guests/{}?now=true", view.guest.name));
    }
    for view in client.get::<Vec<RetainedView>>("/v1/retained") {
        paths.push(format!("/v1/retained/{}", view.retained.id));
    }
    for path in paths {
        let operation = client.finish(&client.call("DELETE", &path, ""));
        assert_eq!(operation.failure, None, "{operation:?}");
    }
}
