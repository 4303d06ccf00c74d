//! Running the program: privileges, the socket, `--check-config`, metrics.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::process::Stdio;

use crate::limits::{metrics, metrics_at};
use crate::support::client::get;
use crate::support::daemon::Daemon;
use crate::support::program::{Program, configure, without_rights};
use crate::support::{SECRET, bearer, command, directory, is_installed, publish};

#[tokio::test]
async fn socket_is_for_one_group_only() {
    let directory = directory();
    let program = Program::start(directory.path());
    let metadata = std::fs::metadata(&program.socket).expect("exists");
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.mode() & 0o777, 0o660);
    assert_eq!((metadata.uid(), metadata.gid()), (65_534, 65_534));
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.child.id()));
    let status = status.expect("reads");
    for line in [
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "NoNewPrivs:\t1",
    ] {
        assert!(status.contains(line), "{line}");
    }
}

#[test]
fn group_that_does_not_exist_is_an_error() {
    let directory = directory();
    let config = configure(directory.path(), "");
    let text = std::fs::read_to_string(&config).expect("reads");
    let text = text.replace("'nogroup'", "'no-such-group'");
    std::fs::write(&config, text).expect("writes");
    let output = without_rights(directory.path())
        .arg("--config")
        .arg(&config)
        .output();
    let output = output.expect("runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("no-such-group") && text.contains("Hint: "),
        "{text}"
    );
}

#[tokio::test]
async fn sockets_from_systemd_are_used() {
    let test = "operation::sockets_from_systemd_are_used";
    if !is_installed(test, "systemd-socket-activate", "--version") {
        return;
    }
    let directory = directory();
    publish(directory.path(), &[7]);
    let _daemon = Daemon::start(directory.path());
    let config = configure(directory.path(), "");
    let socket = directory.path().join("passed.sock");
    let program = without_rights(directory.path());
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = free.local_addr().expect("an address").to_string();
    drop(free);
    let mut activate = command("systemd-socket-activate");
    activate
        .arg(format!("--listen={}", socket.display()))
        .arg(format!("--listen={address}"))
        .arg(program.get_program())
        .args(program.get_args())
        .args(["--config".as_ref(), config.as_os_str()])
        .stderr(Stdio::null());
    let mut child = activate.spawn().expect("starts");
    while !socket.exists() {
        tokio::task::yield_now().await;
    }
    let token = bearer(7);
    let answer = get(&socket, "/v1/guests", &[("authorization", &token)]).await;
    let metrics = metrics_at(&address).await;
    child.kill().expect("kills");
    child.wait().expect("ends");
    assert_eq!(answer.status(), 200);
    assert!(metrics.contains("result=\"forwarded\"} 1\n"), "{metrics}");
}

#[tokio::test]
async fn metrics_are_on_an_address_of_their_own() {
    let directory = directory();
    publish(directory.path(), &[7, 8]);
    let _daemon = Daemon::start(directory.path());
    let program = Program::start(directory.path());
    let token = bearer(7);
    get(&program.socket, "/v1/guests", &[("authorization", &token)]).await;
    get(&program.socket, "/v1/guests", &[]).await;
    get(&program.socket, "/healthz", &[]).await;
    let text = metrics(&program).await;
    assert!(
        text.contains("\r\ncontent-type: text/plain; version=0.0.4"),
        "{text}"
    );
    let (_, text) = text.split_once("\r\n\r\n").expect("a body");
    insta::assert_snapshot!(text);
    let test = "operation::metrics_are_on_an_address_of_their_own";
    if !is_installed(test, "promtool", "--version") {
        return;
    }
    let mut check = command("promtool");
    check.args(["check", "metrics"]).stdin(Stdio::piped());
    check.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = check.spawn().expect("starts");
    let mut input = child.stdin.take().expect("piped");
    input.write_all(text.as_bytes()).expect("writes");
    drop(input);
    let output = child.wait_with_output().expect("ends");
    let complaints = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&complaints)
    );
    assert_eq!(String::from_utf8_lossy(&complaints), "");
}

/// Runs `--check-config`, and returns its exit status and its output.
fn check(directory: &std::path::Path, config: &std::path::Path) -> (Option<i32>, String) {
    let output = without_rights(directory)
        .args([
            "--check-config".as_ref(),
            "--config".as_ref(),
            config.as_os_str(),
        ])
        .output()
        .expect("runs");
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

#[test]
fn check_config_names_the_tokens_and_shows_none() {
    let directory = directory();
    let config = configure(directory.path(), "");
    let (code, text) = check(directory.path(), &config);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("gateway.enabled = true # file"), "{text}");
    assert!(
        text.contains("# tokens besides those of `innkeeper token`: ci"),
        "{text}"
    );
    assert!(!text.contains(SECRET), "{text}");

    let tokens = directory.path().join("tokens.env");
    std::fs::write(&tokens, format!("INNKEEPER_API_TOKENS={SECRET}\n")).expect("writes");
    let (code, text) = check(directory.path(), &config);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("pair 1 of INNKEEPER_API_TOKENS"), "{text}");
    assert!(!text.contains(SECRET), "{text}");

    // Readable for root only.
    std::fs::set_permissions(&tokens, std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .expect("permissions");
    let (code, text) = check(directory.path(), &config);
    assert_eq!(code, Some(7), "{text}");
}

#[test]
fn disabled_gateway_does_not_start() {
    let directory = directory();
    let config = configure(directory.path(), "");
    let text = std::fs::read_to_string(&config).expect("reads");
    std::fs::write(&config, text.replace("enabled = true", "enabled = false")).expect("writes");
    let output = without_rights(directory.path())
        .arg("--config")
        .arg(&config)
        .output();
    let output = output.expect("runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("gateway.enabled is false"), "{text}");
}

/// Returns the options in a manual page or in the program's help.
fn options(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_lowercase() && c != '-');
    let options = words.filter(|word| word.starts_with("--") && word.len() > 2);
    options.map(str::to_owned).collect()
}

#[test]
fn manual_has_all_options() {
    let page: &str = include_str!("../../../innkeeper-cli/src/commands/man/innkeeper-gateway.8");
    let directory = directory();
    let help = without_rights(directory.path()).arg("--help").output();
    let help = String::from_utf8(help.expect("runs").stdout).expect("text");
    assert_eq!(
        options(&page.replace("\\f", " ").replace('\\', "")),
        options(&help)
    );
}
