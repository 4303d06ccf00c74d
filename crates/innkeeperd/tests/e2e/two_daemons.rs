//! Two daemons on one host: they do not touch each other's objects, and none starts with conflicting settings.

use std::collections::BTreeMap;
use std::path::PathBuf;

use innkeeper_model::GuestState;
use innkeeper_model::api::GcReport;

use crate::startup::fails_to_start;
use crate::support::{Fixture, Sandbox, closure, wait_until};

/// The settings of a second daemon, besides the directories, cgroup and machine names of its sandbox.
const SECOND: &str =
    "[network]\nsubnet = '10.101.0.0/16'\nslots = '1001-2000'\ntable = 'innkeeper_2'";

fn first() -> Sandbox {
    let mut first = Sandbox::new();
    first.configure("[network]\nslots = '1-1000'");
    first
}

fn second_of(first: &Sandbox) -> Sandbox {
    let mut second = Sandbox::beside(first);
    second.configure(SECOND);
    second
}

/// The tables with their handles. A table that is replaced gets a new handle.
fn tables(sandbox: &Sandbox) -> String {
    sandbox.run("nft", &["--json", "list", "tables"])
}

#[test]
fn gc_and_destroy_do_not_touch_another_daemons_guests() {
    let closure = closure(Fixture::Agent);
    let first = first();
    let second = second_of(&first);
    let (_one, _two) = (first.start(), second.start());
    let daemons = [first.client(), second.client()];
    for daemon in &daemons {
        daemon.create("web", &closure);
    }
    let (before, rules) = (first.traces(), tables(&first));
    for daemon in &daemons {
        let report: GcReport = daemon.call("POST", "/v1/gc", r#"{"unmarked":true}"#).read();
        assert!(report.orphans.iter().all(|one| !one.removed), "{report:?}");
        let others = report.orphans.iter().filter(|one| !one.ownership.is_ours());
        assert!(
            others.count() > 0,
            "the other's interface is not listed: {report:?}"
        );
    }
    before.assert_same(&first.traces(), "after gc");
    daemons[0].destroy("web");
    let state = daemons[1].guest("web").state;
    assert_eq!(state, GuestState::Running);
    assert_eq!(tables(&first), rules, "a daemon replaced its rules");
}

/// Returns the pairs `setting = "value"` in a text as environment variables.
fn settings(text: &str) -> BTreeMap<String, String> {
    let parts: Vec<&str> = text.split('"').collect();
    let pairs = parts.windows(2).step_by(2).filter_map(|pair| {
        let name = pair[0]
            .strip_suffix(" = ")?
            .rsplit([' ', ':', ';'])
            .next()?;
        let variable = format!("INNKEEPER_{}", name.to_uppercase().replace('.', "_"));
        Some((variable, pair[1].to_owned()))
    });
    pairs.collect()
}

#[test]
fn a_second_daemon_runs_with_the_suggested_settings() {
    let first = first();
    let second = Sandbox::beside(&first);
    let root = first.path().display().to_string();
    let prefix = format!("{}-", first.id);
    let (run, roots) = (format!("{root}/run"), format!("{root}/gcroots"));
    let shared = [
        ("INNKEEPER_RUNTIME_DIR", run.as_str()),
        ("INNKEEPER_NIX_GCROOTS_DIR", &roots),
        ("INNKEEPER_SUPERVISOR_CGROUP", &first.id),
        ("INNKEEPER_SUPERVISOR_MACHINE_PREFIX", &prefix),
        ("INNKEEPER_NETWORK_SUBNET", "10.100.0.0/20"),
        ("INNKEEPER_NETWORK_SLOTS", "1-50"),
    ];
    let mut daemon = Some(first.start());
    let before = first.traces();
    let mut suggested = BTreeMap::new();
    // Claims stay valid while the daemon does not run.
    for runs in [true, false] {
        let (code, output) = fails_to_start(&second, &shared);
        assert_eq!(code, 4, "{output}");
        let (problem, hint) = output.split_once("Hint: ").expect("a remedy");
        assert!(problem.contains("daemon_conflict"), "{output}");
        let state = first.state().display().to_string();
        assert!(problem.contains(&state), "{output}");
        let names = |text| settings(text).into_keys().collect::<Vec<_>>();
        let expected = [
            "INNKEEPER_NETWORK_SLOTS",
            "INNKEEPER_NETWORK_SUBNET",
            "INNKEEPER_NETWORK_TABLE",
            "INNKEEPER_NIX_GCROOTS_DIR",
            "INNKEEPER_RUNTIME_DIR",
            "INNKEEPER_SUPERVISOR_CGROUP",
            "INNKEEPER_SUPERVISOR_MACHINE_PREFIX",
        ];
        assert_eq!(names(problem), expected, "{output}");
        assert_eq!(names(hint), expected, "{output}");
        suggested = settings(hint);
        if runs {
            before.assert_same(&first.traces(), "after the refusal");
            daemon.take().expect("runs").stop();
        }
    }
    let suggested: Vec<_> = suggested
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .collect();
    let _first = first.start();
    let _second = second.spawn(&suggested);
    wait_until("the second daemon runs", || {
        second.log().contains("ready") || second.log().contains("[ERROR]")
    });
    assert!(!second.log().contains("[ERROR]"), "{}", second.log());
}

#[test]
fn a_copied_state_directory_is_rejected() {
    let first = first();
    let second = second_of(&first);
    let daemon = first.start();
    daemon.stop();
    let (from, to) = (first.state(), second.state());
    first.run(
        "cp",
        &["-a", &from.display().to_string(), &to.display().to_string()],
    );
    // The copy has no guests, so its subnet can differ.
    let (code, output) = fails_to_start(&second, &[]);
    assert_eq!(code, 4, "{output}");
    assert!(output.contains("is a copy of"), "{output}");
    std::fs::rename(from, first.path().join("gone")).expect("moved away");
    let _moved = second.start();
}

#[test]
fn slots_of_existing_guests_must_stay_configured() {
    let first = first();
    let daemon = first.start();
    first.client().create("web", &closure(Fixture::Agent));
    daemon.stop();
    let (code, output) = fails_to_start(&first, &[("INNKEEPER_NETWORK_SLOTS", "2-1000")]);
    assert_eq!(code, 1, "{output}");
    assert!(
        output.contains("invalid_config") && output.contains("outside of it: 1"),
        "{output}"
    );
    let _again = first.start();
    first.client().destroy("web");
}

/// The extended attribute that marks files, links and cgroups.
const ATTRIBUTE: &str = "trusted.innkeeper.daemon";

/// The marked paths of a guest.
fn marked(sandbox: &Sandbox) -> Vec<PathBuf> {
    let mut paths = vec![
        sandbox.path().join("gcroots/web"),
        sandbox.path().join("state/guests/web"),
    ];
    let machine = format!("{0}/{0}-web", sandbox.id);
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup")
        .expect("readable")
        .flatten()
    {
        paths.push(hierarchy.path().join(&machine));
    }
    paths.retain(|path| path.symlink_metadata().is_ok());
    let is_marked = |path: &PathBuf| {
        rustix::fs::lgetxattr(path, ATTRIBUTE, &mut [0; 64][..]).is_ok_and(|length| length == 32)
    };
    paths.retain(is_marked);
    paths
}

#[test]
fn objects_of_a_previous_release_are_adopted_while_guests_run() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.start();
    let client = sandbox.client();
    let empty = sandbox.traces();
    client.create("web", &closure(Fixture::Agent));
    let processes = || {
        let mut processes = sandbox.traces().0;
        // The guest's own processes change while it boots.
        processes.retain(|line| line.contains("systemd-nspawn"));
        processes
    };
    let (running, marks) = (processes(), marked(&sandbox));
    assert!(!running.is_empty());
    assert!(marks.len() >= 2, "{marks:?}");
    let alias = || sandbox.run("ip", &["-details", "link", "show", "ve-1"]);
    let table = || sandbox.run("nft", &["list", "table", "inet", "innkeeper"]);
    let marked_alias = alias();
    assert!(table().contains("innkeeper daemon "));
    daemon.stop();

    // The state of a previous release: the same objects and records, without marks.
    for path in &marks {
        rustix::fs::lremovexattr(path, ATTRIBUTE).expect("it was marked");
    }
    sandbox.run("ip", &["link", "set", "ve-1", "alias", "innkeeper:web"]);
    let rules = table();
    let rules: Vec<_> = rules
        .lines()
        .filter(|line| !line.contains("innkeeper daemon"))
        .collect();
    let file = sandbox.path().join("rules");
    std::fs::write(&file, rules.join("\n")).expect("written");
    sandbox.run("nft", &["delete", "table", "inet", "innkeeper"]);
    sandbox.run("nft", &["--file", &file.display().to_string()]);
    let database = rusqlite::Connection::open(sandbox.state().join("innkeeper.db")).expect("opens");
    let reset = "UPDATE identity SET adopted = 0";
    database.execute(reset, ()).expect("updated");
    drop(database);

    let daemon = sandbox.start();
    assert_eq!(alias(), marked_alias);
    assert!(table().contains("innkeeper daemon "));
    assert_eq!(processes(), running, "the guest was interrupted");
    let report: GcReport = client.call("POST", "/v1/gc", "{}").read();
    assert_eq!(report.orphans, []);
    daemon.stop();
    let database = rusqlite::Connection::open(sandbox.state().join("innkeeper.db")).expect("opens");
    let adopted = database.query_row("SELECT adopted FROM identity", (), |row| row.get(0));
    assert_eq!(adopted, Ok(true), "it is not marked as adopted");
    drop(database);

    let _daemon = sandbox.start();
    assert_eq!(client.guest("web").state, GuestState::Running);
    client.destroy("web");
    empty.assert_same(&sandbox.traces(), "after its end");
}
