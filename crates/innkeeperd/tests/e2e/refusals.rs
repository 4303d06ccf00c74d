//! What cannot be done is refused with a stable code, the object's name and a remedy, and leaves nothing.

#![expect(clippy::disallowed_methods, reason = "tests run programs")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use innkeeper_model::api::DoctorReport;
use innkeeper_model::{Failure, Operation};
use nix::mount::{MsFlags, mount};

use crate::support::{Client, Fixture, Sandbox, closure, flake};

fn refused(client: &Client, body: &str) -> Failure {
    client.call("POST", "/v1/guests", body).failure()
}

/// Creates a guest whose operation fails.
fn fails(client: &Client, body: &str) -> Failure {
    let answer = client.call("POST", "/v1/guests", body);
    if answer.status != 202 {
        return answer.failure();
    }
    let operation: Operation = client.finish(&answer);
    operation.failure.expect("the operation failed")
}

fn assert_says(failure: &Failure, code: &str, object: &str) {
    assert_eq!(failure.code.as_str(), code, "{failure:?}");
    assert!(
        failure.message.contains(object),
        "does not name {object}: {failure:?}"
    );
    assert!(failure.remedy.is_some(), "no remedy: {failure:?}");
}

#[test]
fn bad_requests_are_refused_before_anything_happens() {
    let sandbox = Sandbox::new();
    let _daemon = sandbox.start();
    let client = sandbox.client();
    let before = sandbox.traces();

    for (body, code) in [
        (r#"{"name":"../../etc"}"#, "invalid_request"),
        (r#"{"name":"Web"}"#, "invalid_request"),
        (r#"{"memory":"lots"}"#, "invalid_request"),
        (r#"{"cpus":"0"}"#, "invalid_request"),
        (r#"{"tasks":0,"flake":"/x"}"#, "invalid_request"),
        (r#"{"closure":"/etc/passwd"}"#, "invalid_request"),
        (r#"{"flake":"--impure"}"#, "invalid_request"),
        (r#"{"nmae":"web"}"#, "invalid_request"),
        (r#"{"name":"web"}"#, "flake_unset"),
        (r#"not json"#, "invalid_request"),
    ] {
        assert_eq!(refused(&client, body).code.as_str(), code, "{body}");
    }
    let both = format!(
        r#"{{"flake":"/x","closure":"{}"}}"#,
        closure(Fixture::Agent)
    );
    assert_eq!(refused(&client, &both).code.as_str(), "invalid_request");
    for (method, path, code) in [
        ("GET", "/v1/guests/nobody", "guest_not_found"),
        ("DELETE", "/v1/guests/nobody", "guest_not_found"),
        ("POST", "/v1/guests/nobody/start", "guest_not_found"),
        ("GET", "/v1/guests/nobody/logs", "guest_not_found"),
        ("GET", "/v1/guests/No.Body", "invalid_name"),
        ("GET", "/v1/operations/99", "operation_not_found"),
        ("GET", "/v1/nothing", "invalid_request"),
    ] {
        assert_eq!(
            client.call(method, path, "").failure().code.as_str(),
            code,
            "{method} {path}"
        );
    }
    before.assert_same(&sandbox.traces(), "after refusals");
}

/// Runs the daemon until it ends by itself, with variables and its standard output.
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
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

#[test]
fn a_reader_that_has_seen_enough_of_the_settings_is_no_error() {
    let sandbox = Sandbox::new();
    // As in `innkeeperd --check-config | head -1`, when `head` has ended.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let (code, said) = run(&sandbox, &[], true, writer.into());
    assert_eq!((code, said.as_str()), (Some(0), ""));
}

/// The options that a page of the manual and the program's own help name.
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
fn a_misspelt_variable_is_refused_with_the_one_that_was_meant() {
    let sandbox = Sandbox::new();
    for check in [true, false] {
        let variables = [("INNKEEPER_NETWORK_SUBNETT", "10.9.0.0/16")];
        let (code, said) = run(&sandbox, &variables, check, Stdio::null());
        assert_eq!(code, Some(1), "{said}");
        assert!(
            said.contains("did you mean INNKEEPER_NETWORK_SUBNET?"),
            "{said}"
        );
    }
}

#[test]
fn doctor_finds_a_configuration_that_the_daemon_would_not_start_with() {
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
fn a_subnet_that_the_host_has_is_refused_before_the_first_guest() {
    let mut sandbox = Sandbox::new();
    sandbox.configure("[network]\nsubnet = '10.111.0.0/16'");
    let ip = |words: &str| {
        let words: Vec<_> = words.split(' ').collect();
        let status = Command::new("ip").args(words).status().expect("ip");
        assert!(status.success());
    };
    ip("link add lan type veth peer name lan-peer");
    ip("address add 10.111.3.1/24 dev lan");
    let (code, said) = run(&sandbox, &[], false, Stdio::null());
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("network.subnet: the interface lan has the address 10.111.3.1/24"),
        "{said}"
    );
    // The text alone is good on another machine.
    let (code, said) = run(&sandbox, &[], true, Stdio::null());
    assert_eq!(code, Some(0), "{said}");
    ip("address del 10.111.3.1/24 dev lan");
    let daemon = sandbox.start();
    let client = sandbox.client();
    let body = format!(
        r#"{{"name":"web","closure":"{}"}}"#,
        closure(Fixture::Agent)
    );
    client.finish(&client.call("POST", "/v1/guests", &body));
    daemon.stop();
    // A daemon that has guests starts: they could not be looked after otherwise.
    ip("address add 10.111.3.1/24 dev lan");
    let daemon = sandbox.start();
    client.finish(&client.call("DELETE", "/v1/guests/web", ""));
    daemon.stop();
}

#[test]
fn a_host_without_a_domain_for_previews_says_so() {
    let sandbox = Sandbox::new();
    let _daemon = sandbox.start();
    let client = sandbox.client();
    for (method, path) in [
        ("GET", "previews"),
        ("POST", "previews"),
        ("GET", "previews/web-7"),
        ("DELETE", "previews/web-7"),
        ("POST", "previews/web-7/update"),
        ("POST", "previews/web-7/approve"),
        ("POST", "previews/web-7/database/reset"),
        ("GET", "previews/web-7/logs"),
        ("GET", "previews/web-7/explain"),
        ("POST", "preview-builds"),
    ] {
        let path = format!("/v1/{path}");
        let failure = client.call(method, &path, "").failure();
        assert_says(&failure, "invalid_config", "previews");
        let remedy = failure.remedy.expect("a remedy");
        assert!(
            remedy.contains("previews.domain"),
            "{method} {path}: {remedy}"
        );
    }
}

#[test]
fn closures_that_cannot_boot_are_refused() {
    let sandbox = Sandbox::new();
    let _daemon = sandbox.start();
    let client = sandbox.client();
    let before = sandbox.traces();
    let empty = closure(Fixture::NoInit);
    assert_says(
        &refused(&client, &format!(r#"{{"name":"web","closure":"{empty}"}}"#)),
        "invalid_closure",
        &empty,
    );
    let absent = "/nix/store/00000000000000000000000000000000-nothing";
    assert_says(
        &refused(
            &client,
            &format!(r#"{{"name":"web","closure":"{absent}"}}"#),
        ),
        "closure_not_found",
        absent,
    );
    // Built only now, and then found to be of no use: rolled back.
    let failure = fails(
        &client,
        &format!(r#"{{"name":"web","flake":"{}"}}"#, flake(Fixture::NoInit)),
    );
    assert_says(&failure, "invalid_closure", "init");
    let failure = fails(&client, r#"{"name":"web","flake":"/nowhere/at/all"}"#);
    assert_says(&failure, "flake_not_found", "/nowhere/at/all");
    let broken = flake(Fixture::Agent).replace("#agent", "#failing");
    let failure = fails(&client, &format!(r#"{{"name":"web","flake":"{broken}"}}"#));
    assert_says(&failure, "build_failed", "failing");
    assert!(
        failure
            .log
            .iter()
            .any(|line| line.contains("line 50 of a build")),
        "{failure:?}"
    );
    before.assert_same(&sandbox.traces(), "after refusals");
}

#[test]
fn without_nix_a_build_says_so_and_a_ready_closure_still_boots() {
    let closure = closure(Fixture::Agent);
    let mut sandbox = Sandbox::new();
    sandbox.configure("program = '/nowhere/nix'");
    let _daemon = sandbox.start();
    let client = sandbox.client();
    let before = sandbox.traces();
    let body = format!(r#"{{"name":"web","flake":"{}"}}"#, flake(Fixture::Agent));
    assert_says(&fails(&client, &body), "nix_missing", "/nowhere/nix");
    // Nobody can say whether the path is valid, unless a guest boots from it already.
    let body = format!(r#"{{"name":"web","closure":"{closure}"}}"#);
    assert_says(
        &refused(&client, &body),
        "nix_missing",
        "/nowhere/nix-store",
    );
    let root = sandbox.path().join("gcroots/other");
    fs::create_dir_all(sandbox.path().join("gcroots")).expect("made");
    std::os::unix::fs::symlink(&closure, &root).expect("a root");
    client.create("web", &closure);
    client.destroy("web");
    fs::remove_file(root).expect("removed");
    before.assert_same(&sandbox.traces(), "afterwards");
}

#[test]
fn a_caller_who_is_not_root_cannot_have_a_local_flake_read() {
    let sandbox = Sandbox::new();
    let _daemon = sandbox.start();
    let socket = sandbox.path().join("run/api.sock");
    // As for the members of the group.
    for path in [sandbox.path(), &sandbox.path().join("run"), &socket] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("chmod");
    }
    let before = sandbox.traces();
    let refused = |path: &str, body: &str| -> Failure {
        let answer = Command::new("setpriv")
            .args(["--reuid=64999", "--regid=64999", "--clear-groups"])
            .args(["curl", "--silent", "--unix-socket"])
            .arg(&socket)
            .args(["--data", body, &format!("http://innkeeper{path}")])
            .output()
            .expect("curl");
        serde_json::from_slice(&answer.stdout).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
    };
    let local = flake(Fixture::Agent);
    let calls = [
        (
            "/v1/guests",
            format!(r#"{{"name":"web","flake":"{local}"}}"#),
        ),
        ("/v1/builds", format!(r#"{{"installable":"{local}"}}"#)),
    ];
    for (path, body) in calls {
        let failure = refused(path, &body);
        let reference = local.split('#').next().expect("a reference");
        assert_says(&failure, "flake_refused", reference);
    }
    before.assert_same(&sandbox.traces(), "after refusals");
}

#[test]
fn a_missing_nspawn_rolls_the_create_back() {
    let closure = closure(Fixture::Agent);
    let mut sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.state()).expect("made");
    // The setting stands in a section that the sandbox writes itself, so it comes from outside.
    sandbox.configure("");
    let _daemon = sandbox.start_with(&[("INNKEEPER_SUPERVISOR_NSPAWN", "/nowhere/systemd-nspawn")]);
    let client = sandbox.client();
    let before = sandbox.traces();
    let failure = fails(
        &client,
        &format!(r#"{{"name":"web","closure":"{closure}"}}"#),
    );
    assert_says(&failure, "program_missing", "/nowhere/systemd-nspawn");
    before.assert_same(&sandbox.traces(), "after the rollback");
}

#[test]
fn a_full_disk_refuses_new_guests_and_harms_no_other() {
    let closure = closure(Fixture::Agent);
    let mut sandbox = Sandbox::new();
    small_disk(&sandbox.state(), "48m");
    sandbox.configure("[storage]\nmin_free = '16M'");
    let _daemon = sandbox.start();
    let client = sandbox.client();
    // Stopped, so that nothing changes by itself.
    client.create("first", &closure);
    client.change("first", "stop");
    let before = sandbox.traces();
    fs::write(sandbox.state().join("filler"), vec![0; 40 << 20]).expect("written");
    let failure = fails(
        &client,
        &format!(r#"{{"name":"web","closure":"{closure}"}}"#),
    );
    assert_says(
        &failure,
        "disk_full",
        &sandbox.state().display().to_string(),
    );
    fs::remove_file(sandbox.state().join("filler")).expect("removed");
    before.assert_same(&sandbox.traces(), "after the refusal");
    client.create("web", &closure);
    client.destroy("web");
    client.destroy("first");
}

#[test]
fn a_destroy_works_on_a_disk_without_a_free_byte() {
    let closure = closure(Fixture::Agent);
    let mut sandbox = Sandbox::new();
    small_disk(&sandbox.state(), "48m");
    sandbox.configure("[storage]\nmin_free = '16M'");
    let _daemon = sandbox.start();
    let client = sandbox.client();
    let before = sandbox.traces();
    client.create("web", &closure);
    // The guest itself fills the disk.
    let hog = sandbox.state().join("guests/web/rootfs/hog");
    let mut file = fs::File::create(&hog).expect("made");
    while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
    let failure = fails(
        &client,
        &format!(r#"{{"name":"other","closure":"{closure}"}}"#),
    );
    assert_says(&failure, "disk_full", "state");
    client.change("web", "stop");
    client.destroy("web");
    before.assert_same(&sandbox.traces(), "afterwards");
}

#[test]
fn a_destroy_works_on_a_disk_without_a_free_inode() {
    let closure = closure(Fixture::Agent);
    let mut sandbox = Sandbox::new();
    small_disk(&sandbox.state(), "48m,nr_inodes=2000");
    sandbox.configure("[storage]\nmin_free = '16M'");
    let _daemon = sandbox.start();
    let client = sandbox.client();
    let before = sandbox.traces();
    client.create("web", &closure);
    let folder = sandbox.state().join("guests/web/rootfs/many");
    fs::create_dir(&folder).expect("made");
    let mut number = 0;
    while fs::write(folder.join(number.to_string()), "").is_ok() {
        number += 1;
    }
    client.change("web", "stop");
    client.destroy("web");
    before.assert_same(&sandbox.traces(), "afterwards");
}

#[test]
fn an_undo_and_gc_work_on_a_disk_without_a_free_byte() {
    let closure = closure(Fixture::Agent);
    let mut sandbox = Sandbox::new();
    small_disk(&sandbox.state(), "48m");
    sandbox.configure("[storage]\nmin_free = '16M'");
    // In nspawn's place: fills the disk, and fails.
    let (filler, nspawn) = (
        sandbox.state().join("filler"),
        sandbox.path().join("nspawn"),
    );
    let script = format!("#!/bin/sh\ncat /dev/zero > {}\nexit 1\n", filler.display());
    fs::write(&nspawn, script).expect("written");
    fs::set_permissions(&nspawn, fs::Permissions::from_mode(0o755)).expect("set");
    let _daemon = sandbox.start_with(&[(
        "INNKEEPER_SUPERVISOR_NSPAWN",
        nspawn.to_str().expect("text"),
    )]);
    let before = sandbox.traces();
    let orphan = sandbox.state().join("guests/ghost/rootfs/etc");
    fs::create_dir_all(&orphan).expect("made");
    let failure = fails(
        &sandbox.client(),
        &format!(r#"{{"name":"web","closure":"{closure}"}}"#),
    );
    assert!(
        fs::metadata(&filler).expect("made").len() > 0,
        "{failure:?}"
    );
    assert!(!sandbox.state().join("guests/web").exists(), "{failure:?}");
    let swept = sandbox.program("innkeeper", &["gc"], b"");
    assert!(swept.status.success(), "{swept:?}");
    assert!(!orphan.exists(), "{swept:?}");
    fs::remove_file(&filler).expect("removed");
    before.assert_same(&sandbox.traces(), "afterwards");
}

fn small_disk(path: &Path, size: &str) {
    fs::create_dir_all(path).expect("made");
    let options = format!("size={size},mode=0700");
    mount(
        Some("tmpfs"),
        path,
        Some("tmpfs"),
        MsFlags::empty(),
        Some(options.as_str()),
    )
    .expect("mounted");
}

/// Runs a daemon that must not start, and returns its exit code and what it said.
pub(crate) fn refuses_to_start(sandbox: &Sandbox, variables: &[(&str, &str)]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_innkeeperd"))
        .arg("--config")
        .arg(sandbox.config())
        .envs(variables.iter().copied())
        .output()
        .expect("runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("Hint: "), "no remedy: {said}");
    (output.status.code().expect("an exit code"), said)
}

#[test]
fn a_second_daemon_on_the_same_state_is_refused() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.start();
    let (code, said) = refuses_to_start(&sandbox, &[]);
    assert_eq!(code, 4, "{said}");
    assert!(
        said.contains("state_locked") && said.contains(&daemon.pid().to_string()),
        "{said}"
    );
    let state = format!("state_dir = \"{}\"", sandbox.state().display());
    let shared = [&state, "network.table = \"innkeeper\"", "network.slots = "];
    assert!(shared.iter().all(|one| said.contains(one)), "{said}");
    assert_eq!(
        sandbox.client().call("GET", "/v1/status", "").status,
        200,
        "the first goes on"
    );
}

#[test]
fn a_damaged_database_is_refused_and_kept() {
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.state()).expect("made");
    let file = sandbox.state().join("innkeeper.db");
    fs::write(&file, "this was a database once".repeat(1000)).expect("written");
    let (code, said) = refuses_to_start(&sandbox, &[]);
    assert_eq!(code, 7, "{said}");
    assert!(
        said.contains("store_damaged") && said.contains(&file.display().to_string()),
        "{said}"
    );
    assert!(
        fs::read_to_string(&file)
            .expect("there")
            .starts_with("this was"),
        "the file is untouched"
    );
}

#[test]
fn a_kernel_without_user_namespaces_is_named() {
    let mut sandbox = Sandbox::new();
    sandbox.configure("[guest]\nuser_namespace = 'on'");
    // Such a kernel answers with 0 here.
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
    let (code, said) = refuses_to_start(&sandbox, &[]);
    assert_eq!(code, 7, "{said}");
    assert!(
        said.contains("kernel_feature_missing") && said.contains("user namespace"),
        "{said}"
    );
}

#[test]
fn a_wrong_configuration_is_refused_with_its_place() {
    let mut sandbox = Sandbox::new();
    sandbox.configure("[guest]\nmemroy = '1G'");
    let (code, said) = refuses_to_start(&sandbox, &[]);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("invalid_config") && said.contains("memroy"),
        "{said}"
    );
}
