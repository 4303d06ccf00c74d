//! Starts that fail, `--check-config` and `--check-start`.

#![expect(clippy::disallowed_methods, reason = "tests run programs")]

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};

use innkeeper_model::api::DoctorReport;
use innkeeper_model::{Code, StartReport};
use nix::mount::{MsFlags, mount};

use crate::support::{Fixture, Sandbox, closure};

/// Runs the daemon until it exits, and returns its exit code and standard error.
fn run(
    sandbox: &Sandbox,
    variables: &[(&str, &str)],
    check: bool,
    output: Stdio,
) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_innkeeperd"));
    command.arg("--config").arg(sandbox.config());
    if check {
        command.arg("--check-config");
    }
    let child = command
        .envs(variables.iter().copied())
        .stdout(output)
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let output = child.wait_with_output().expect("ends");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), error)
}

#[test]
fn check_config_accepts_a_closed_standard_output() {
    let sandbox = Sandbox::new();
    // As in `innkeeperd --check-config | head -1`, when `head` has ended.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let (code, output) = run(&sandbox, &[], true, writer.into());
    assert_eq!((code, output.as_str()), (Some(0), ""));
}

/// Returns the options in a manual page or in the program's help.
fn options(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_lowercase() && c != '-');
    let options = words.filter(|word| word.starts_with("--") && word.len() > 2);
    options.map(str::to_owned).collect()
}

#[test]
fn the_manual_has_all_options() {
    let page: &str = include_str!("../../../innkeeper-cli/src/commands/man/innkeeperd.8");
    let help = Command::new(env!("CARGO_BIN_EXE_innkeeperd"))
        .arg("--help")
        .output();
    let help = String::from_utf8(help.expect("runs").stdout).expect("text");
    assert_eq!(
        options(&page.replace("\\f", " ").replace('\\', "")),
        options(&help)
    );
}

#[test]
fn a_misspelled_variable_is_rejected_with_a_suggestion() {
    let sandbox = Sandbox::new();
    for check in [true, false] {
        let variables = [("INNKEEPER_NETWORK_SUBNETT", "10.9.0.0/16")];
        let (code, output) = run(&sandbox, &variables, check, Stdio::null());
        assert_eq!(code, Some(1), "{output}");
        assert!(
            output.contains("did you mean INNKEEPER_NETWORK_SUBNET?"),
            "{output}"
        );
    }
}

#[test]
fn an_invalid_configuration_is_rejected_with_its_place() {
    let mut sandbox = Sandbox::new();
    sandbox.configure("[guest]\nmemroy = '1G'");
    let (code, output) = fails_to_start(&sandbox, &[]);
    assert_eq!(code, 1, "{output}");
    assert!(
        output.contains("invalid_config") && output.contains("memroy"),
        "{output}"
    );
}

#[test]
fn doctor_reports_an_invalid_configuration_of_the_next_start() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.start();
    let found = || -> Vec<String> {
        let report: DoctorReport = sandbox.client().call("GET", "/v1/doctor", "").read();
        let checks = report.checks.into_iter();
        checks
            .filter(|check| check.subject == "configuration")
            .map(|check| check.finding)
            .collect()
    };
    assert_eq!(found(), Vec::<String>::new());
    let good = fs::read_to_string(sandbox.config()).expect("read");
    let bad = format!("{good}[previews]\ndomain = '*.example.com'\n");
    fs::write(sandbox.path().join("config.toml"), bad).expect("written");
    let finding = found().concat();
    assert!(
        finding.contains("would not start again: previews.domain: '*.example.com' is a wildcard"),
        "{finding}"
    );
    daemon.stop();
}

#[test]
fn a_subnet_in_use_by_the_host_is_rejected_without_guests() {
    let mut sandbox = Sandbox::new();
    sandbox.configure("[network]\nsubnet = '10.111.0.0/16'");
    let ip = |words: &str| {
        let words: Vec<_> = words.split(' ').collect();
        let status = Command::new("ip").args(words).status().expect("ip");
        assert!(status.success());
    };
    ip("link add lan type veth peer name lan-peer");
    ip("address add 10.111.3.1/24 dev lan");
    let (code, output) = run(&sandbox, &[], false, Stdio::null());
    assert_eq!(code, Some(1), "{output}");
    assert!(
        output.contains("network.subnet: the interface lan has the address 10.111.3.1/24"),
        "{output}"
    );
    // The configuration is valid on other machines.
    let (code, output) = run(&sandbox, &[], true, Stdio::null());
    assert_eq!(code, Some(0), "{output}");
    ip("address del 10.111.3.1/24 dev lan");
    let daemon = sandbox.start();
    let client = sandbox.client();
    let body = format!(
        r#"{{"name":"web","closure":"{}"}}"#,
        closure(Fixture::Agent)
    );
    client.finish(&client.call("POST", "/v1/guests", &body));
    daemon.stop();
    // A daemon with guests starts nevertheless: they need it.
    ip("address add 10.111.3.1/24 dev lan");
    let daemon = sandbox.start();
    client.finish(&client.call("DELETE", "/v1/guests/web", ""));
    daemon.stop();
}

/// Runs a daemon that must fail to start, and returns its exit code and standard error.
pub(crate) fn fails_to_start(sandbox: &Sandbox, variables: &[(&str, &str)]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_innkeeperd"))
        .arg("--config")
        .arg(sandbox.config())
        .envs(variables.iter().copied())
        .output()
        .expect("runs");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("Hint: "), "no remedy: {error}");
    (output.status.code().expect("an exit code"), error)
}

#[test]
fn a_second_daemon_with_the_same_state_is_rejected() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.start();
    let (code, output) = fails_to_start(&sandbox, &[]);
    assert_eq!(code, 4, "{output}");
    assert!(
        output.contains("state_locked") && output.contains(&daemon.pid().to_string()),
        "{output}"
    );
    let state = format!("state_dir = \"{}\"", sandbox.state().display());
    let shared = [&state, "network.table = \"innkeeper\"", "network.slots = "];
    assert!(shared.iter().all(|one| output.contains(one)), "{output}");
    assert_eq!(
        sandbox.client().call("GET", "/v1/status", "").status,
        200,
        "the first keeps running"
    );
}

#[test]
fn a_damaged_database_is_rejected_and_preserved() {
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.state()).expect("made");
    let file = sandbox.state().join("innkeeper.db");
    fs::write(&file, "this was a database once".repeat(1000)).expect("written");
    let (code, output) = fails_to_start(&sandbox, &[]);
    assert_eq!(code, 7, "{output}");
    assert!(
        output.contains("store_damaged") && output.contains(&file.display().to_string()),
        "{output}"
    );
    assert!(
        fs::read_to_string(&file)
            .expect("there")
            .starts_with("this was"),
        "the file is untouched"
    );
}

#[test]
fn a_kernel_without_user_namespaces_is_reported() {
    let mut sandbox = Sandbox::new();
    sandbox.configure("[guest]\nuser_namespace = 'on'");
    // The value of such a kernel.
    let limit = sandbox.path().join("limit");
    fs::write(&limit, "0\n").expect("written");
    let place = "/proc/sys/user/max_user_namespaces";
    mount(
        Some(&limit),
        place,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .expect("mounted");
    let (code, output) = fails_to_start(&sandbox, &[]);
    assert_eq!(code, 7, "{output}");
    assert!(
        output.contains("kernel_feature_missing") && output.contains("user namespace"),
        "{output}"
    );
}

/// Runs `--check-start`, and returns its exit code and its report.
fn check_start(sandbox: &Sandbox, variables: &[(&str, &str)]) -> (Option<i32>, StartReport) {
    let output = Command::new(env!("CARGO_BIN_EXE_innkeeperd"))
        .arg("--check-start")
        .arg("--config")
        .arg(sandbox.config())
        .env_remove("INNKEEPER_RENEW_DOCS")
        .envs(variables.iter().copied())
        .output()
        .expect("runs");
    let report = serde_json::from_slice(&output.stdout).expect("a report");
    (output.status.code(), report)
}

#[test]
fn check_start_reports_what_the_start_would_refuse() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.start();
    sandbox.client().create("web", &closure(Fixture::Agent));
    let (code, report) = check_start(&sandbox, &[]);
    assert_eq!((code, report.failure), (Some(0), None));
    assert_eq!(
        (report.schema, report.guests),
        (Some(report.supported_schema), Some(1))
    );
    let names: BTreeSet<&str> = report
        .settings
        .iter()
        .map(|setting| setting.name.as_str())
        .collect();
    assert!(
        names.contains("network.subnet") && names.contains("previews.domain"),
        "{names:?}"
    );

    for (variable, value, problem) in [
        (
            "INNKEEPER_NETWORK_SUBNET",
            "10.9.0.0/16",
            "would change the addresses of 1 guest",
        ),
        (
            "INNKEEPER_NETWORK_SLOTS",
            "30000-30001",
            "slots outside of it",
        ),
    ] {
        let (code, report) = check_start(&sandbox, &[(variable, value)]);
        let failure = report.failure.expect("refused");
        assert_eq!(
            (code, failure.code),
            (Some(1), Code::InvalidConfig),
            "{variable}"
        );
        assert!(failure.message.contains(problem), "{failure}");
        assert!(failure.remedy.is_some(), "{failure}");
    }
    // The daemon beside the checks is not disturbed.
    sandbox.client().destroy("web");

    daemon.stop();
    let newer = report.supported_schema + 1;
    let database = rusqlite::Connection::open(sandbox.state().join("innkeeper.db")).expect("opens");
    database
        .pragma_update(None, "user_version", newer)
        .expect("written");
    drop(database);
    let (code, report) = check_start(&sandbox, &[]);
    let failure = report.failure.expect("refused");
    assert_eq!((code, failure.code), (Some(7), Code::StoreTooNew));
    assert!(
        failure.message.contains(&format!("has version {newer}")),
        "{failure}"
    );
}
