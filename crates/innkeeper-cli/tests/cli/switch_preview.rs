use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use axum::Router;
use innkeeper_model::api::{ConfigReport, Setting};
use innkeeper_model::{Code, Failure, StartReport};
use insta::assert_snapshot;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fake::{Fake, Run, command, respond, run};
use crate::samples::guest;

/// Two systems, and stand-ins for `busctl` and for the daemon's program.
struct Host {
    directory: TempDir,
}

impl Host {
    fn new() -> Self {
        let host = Self {
            directory: tempfile::tempdir().expect("a directory"),
        };
        for system in ["old", "new"] {
            let program = host.script(&format!("{system}-innkeeperd"), "exit 2");
            host.unit(
                system,
                "innkeeper.service",
                &format!("[Service]\nExecStart={program} --config /etc/innkeeper/config.toml\nX-StopIfChanged=false\n"),
            );
            host.unit(system, "caddy.service", "[Service]\nExecStart=/bin/caddy\n");
        }
        host.systemd(&["innkeeper.service", "caddy.service"]);
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn script(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
        path.display().to_string()
    }

    /// Makes `busctl` report these units as active.
    fn systemd(&self, active: &[&str]) {
        let units: Vec<Value> = active
            .iter()
            .map(|name| json!([name, "", "loaded", "active", "running", "", "/", 0, "", "/"]))
            .collect();
        let response = json!({"type": "a(ssssssouso)", "data": [units]});
        self.script("busctl", &format!("echo '{response}'"));
    }

    /// Makes the program of a system print a report, if its environment is that of the unit.
    fn reports(&self, system: &str, report: &StartReport) {
        let json = serde_json::to_string(report).expect("JSON");
        self.script(
            &format!("{system}-innkeeperd"),
            &format!("[ -z \"$INNKEEPER_SOCKET\" ] || exit 9\ncat <<'END'\n{json}\nEND"),
        );
    }

    fn file(&self, system: &str, name: &str, text: &str) {
        let path = self.path(system).join("etc").join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(path, text).expect("written");
    }

    /// Writes a unit that multi-user.target wants.
    fn unit(&self, system: &str, name: &str, text: &str) {
        self.file(system, &format!("systemd/system/{name}"), text);
        let wants = self
            .path(system)
            .join("etc/systemd/system/multi-user.target.wants");
        fs::create_dir_all(&wants).expect("made");
        // A test may write a unit again.
        symlink(format!("../{name}"), wants.join(name)).ok();
    }

    fn run(&self, fake: Option<&Fake>, options: &[&str]) -> Run {
        let (old, new) = (self.path("old"), self.path("new"));
        let mut arguments = vec!["switch-preview", text(&new), "--from", text(&old)];
        arguments.extend(options);
        let mut command = match fake {
            Some(fake) => fake.command("innkeeper", &arguments),
            None => command("innkeeper", &arguments),
        };
        command.env(
            "PATH",
            format!("{}:/usr/bin:/bin", text(self.directory.path())),
        );
        run(command)
    }

    fn json(&self, fake: Option<&Fake>) -> (i32, Value) {
        let run = self.run(fake, &["--json"]);
        let value = serde_json::from_str(&run.stdout).expect("JSON");
        (run.status, value)
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

fn setting(name: &str, value: &str) -> Setting {
    Setting {
        name: name.to_owned(),
        value: value.to_owned(),
        origin: "file".to_owned(),
    }
}

fn report(settings: Vec<Setting>) -> StartReport {
    StartReport {
        version: "1.0.0".to_owned(),
        supported_schema: 21,
        settings,
        schema: Some(21),
        guests: Some(1),
        ..StartReport::default()
    }
}

fn fake() -> Fake {
    let config = ConfigReport {
        file: None,
        settings: vec![setting("network.refuse", "[]")],
    };
    Fake::new(
        Router::new()
            .route("/v1/config", respond(&config))
            .route("/v1/guests", respond(&vec![guest("web", 1)]))
            .route("/v1/previews", respond(&json!([]))),
    )
}

#[test]
fn findings_have_reasons_and_remedies_and_the_worst_are_first() {
    let host = Host::new();
    host.reports("old", &report(vec![setting("network.refuse", "[]")]));
    host.reports(
        "new",
        &report(vec![
            setting("network.refuse", "[\"192.0.2.0/24\"]"),
            setting("log.level", "\"debug\""),
        ]),
    );
    host.file(
        "new",
        "systemd/system/innkeeper.service.d/a.conf",
        "[Service]\nEnvironment=A=1\n",
    );
    fs::remove_file(host.path("new/etc/systemd/system/caddy.service")).expect("removed");
    let run = host.run(Some(&fake()), &[]);
    let transcript = run.transcript().replace(text(host.directory.path()), "");
    // The number of connections is this machine's.
    let mut lines: Vec<String> = transcript.lines().map(str::to_owned).collect();
    for line in &mut lines {
        if let Some(at) = line.find(" (") {
            line.truncate(at);
        }
    }
    assert_snapshot!(lines.join("\n"), @r#"
    status: 0
    --- stdout
    [WARN] caddy.service: stop: The new generation has no Caddy: no preview has a URL that responds
            Hint: Keep services.innkeeper.caddy.enable, or destroy the previews before the switch.
    [WARN] network.refuse: change: network.refuse: [] becomes ["192.0.2.0/24"]. The rules of all guests follow when the daemon restarts.
    [INFO] innkeeper.service: restart: Guests, their connections and previews' pages are not affected. Commands and deliveries wait until the daemon is back.
    [INFO] web: keep: The daemon restarts; these guests are units of their own, and run on with their connections.
    [INFO] log.level: change: log.level:
    A switch to /new: 0 cuts, 2 interruptions, 3 notes.
    --- stderr
    "#);
    let quiet = host.run(Some(&fake()), &["--quiet"]).stdout;
    assert!(
        quiet.contains("[WARN]") && !quiet.contains("[INFO]"),
        "{quiet}"
    );
}

#[test]
fn a_newer_database_ends_with_4() {
    let host = Host::new();
    let failure = Failure::new(Code::StoreTooNew, "the database has version 22")
        .with_remedy("Start the newer one.");
    let refused = StartReport {
        schema: None,
        failure: Some(failure),
        ..report(Vec::new())
    };
    host.reports("old", &report(Vec::new()));
    host.reports("new", &refused);
    let (status, value) = host.json(Some(&fake()));
    assert_eq!((status, &value["worst"]), (4, &json!("cut")));
    let finding = &value["findings"][0];
    assert_eq!(
        (&finding["class"], &finding["effect"], &finding["remedy"]),
        (
            &json!("state"),
            &json!("refuse"),
            &json!("Start the newer one.")
        )
    );
}

#[test]
fn an_earlier_release_and_a_stopped_daemon_are_reported() {
    let host = Host::new();
    host.systemd(&[
        "innkeeper-guest-web.service",
        "innkeeper.service",
        "caddy.service",
    ]);
    let (status, value) = host.json(None);
    assert_eq!(status, 0, "{value}");
    assert_eq!(
        (
            &value["guests_from"],
            &value["settings_from"],
            &value["units_from"]
        ),
        (&json!("systemd"), &json!("none"), &json!("systemd"))
    );
    let effects: Vec<&Value> = value["findings"]
        .as_array()
        .expect("findings")
        .iter()
        .map(|f| &f["effect"])
        .collect();
    // The paths of the programs differ.
    assert_eq!(
        effects,
        [&json!("unknown"), &json!("restart"), &json!("keep")]
    );
    let text = host.run(None, &[]).stdout;
    assert!(
        text.contains("previews are unknown")
            && text.contains("is of a release without --check-start"),
        "{text}"
    );
}

#[test]
fn a_masked_unit_stops_and_an_alias_is_no_unit_of_its_own() {
    let host = Host::new();
    let units = host.path("new/etc/systemd/system");
    symlink("innkeeper.service", units.join("innkeeperd.service")).expect("linked");
    fs::remove_file(units.join("caddy.service")).expect("removed");
    symlink("/dev/null", units.join("caddy.service")).expect("linked");
    for system in ["old", "new"] {
        host.reports(system, &report(Vec::new()));
    }
    let (_, value) = host.json(Some(&fake()));
    let found: Vec<String> = value["findings"]
        .as_array()
        .expect("findings")
        .iter()
        .map(|f| format!("{} {}", f["objects"][0], f["effect"]))
        .collect();
    assert_eq!(
        found,
        [
            "\"caddy.service\" \"stop\"",
            "\"innkeeper.service\" \"restart\"",
            "\"web\" \"keep\""
        ]
    );
}

#[test]
fn a_directory_that_is_no_system_is_refused_with_the_alternative() {
    let host = Host::new();
    fs::rename(host.path("new/etc"), host.path("new/other")).expect("renamed");
    let run = host.run(None, &["--json"]);
    let failure = run.failure();
    assert_eq!((run.status, failure.code), (1, Code::InvalidRequest));
    assert!(
        failure
            .remedy
            .expect("a remedy")
            .contains("innkeeperd --check-start")
    );
}
