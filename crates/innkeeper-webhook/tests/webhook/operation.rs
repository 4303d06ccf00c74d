//! Running the program: privileges, signals, socket activation, `--check-config`.

use std::collections::BTreeSet;
use std::net::TcpListener;

use rustix::process::Signal;

use crate::support::client::Client;
use crate::support::payload::{RawDelivery, SECRET, sign};
use crate::support::program::{Program, configure, without_rights, write_secret};
use crate::support::{command, directory, intake};

/// A field of `/proc/<pid>/status`.
fn status(program: &Program, field: &str) -> String {
    let path = format!("/proc/{}/status", program.child.id());
    let text = std::fs::read_to_string(path).expect("reads");
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let words = line.expect("a field of the kernel").split_whitespace();
    words.collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn the_program_needs_no_privileges() {
    let directory = directory();
    let (_store, _serving) = intake::start(directory.path());
    let program = Program::start(directory.path());
    assert_eq!(status(&program, "Uid:"), "65534 65534 65534 65534");
    assert_eq!(status(&program, "Groups:"), "");
    assert_eq!(status(&program, "CapEff:"), "0000000000000000");
    assert_eq!(status(&program, "CapBnd:"), "0000000000000000");
    assert_eq!(status(&program, "NoNewPrivs:"), "1");
    let sent = RawDelivery::pull_request("d-1", "opened", 7, 1);
    let answer = Client::new(program.address).deliver(&sent).await;
    assert_eq!(answer.expect("answers").status, 202);
}

#[tokio::test]
async fn secrets_are_rotated_without_a_gap() {
    let directory = directory();
    let (_store, _serving) = intake::start(directory.path());
    let other = directory.path().join("other");
    write_secret(&other, "new");
    let both = format!(
        "[webhook]\nlisten = '127.0.0.1:0'\nallowed_repos = []\nsecret_files = ['{}', '{}']\n",
        other.display(),
        directory.path().join("secret").display()
    );
    let program = Program::start(directory.path());
    let mut client = Client::new(program.address);
    let config = directory.path().join("config.toml");
    let runtime = format!("runtime_dir = '{}'\n", directory.path().display());
    let mut tried = 0;
    let mut expect = async |secret: &str, status: u16| {
        tried += 1;
        let mut sent = RawDelivery::pull_request(&format!("d-{tried}"), "opened", 7, 1);
        sent.signature = Some(sign(secret, &sent.body));
        let answer = client.deliver(&sent).await.expect("answers");
        assert_eq!(answer.status, status, "{secret}");
    };
    let reload = |text: &str| {
        std::fs::write(&config, text).expect("writes");
        program.signal(Signal::HUP);
        program.wait_for("RELOADING=1");
        program.wait_for("READY=1");
    };
    expect(SECRET, 202).await;
    expect("new", 401).await;
    reload(&format!("{runtime}{both}"));
    expect(SECRET, 202).await;
    expect("new", 202).await;
    reload("this is not TOML");
    expect(SECRET, 202).await;
    expect("new", 202).await;
    reload(&format!(
        "{runtime}[webhook]\nallowed_repos = []\nsecret_files = ['{}']\n",
        other.display()
    ));
    expect(SECRET, 401).await;
    expect("new", 202).await;
}

#[tokio::test]
async fn requests_in_flight_are_answered_before_the_stop() {
    let directory = directory();
    let mut program = Program::start(directory.path());
    let address = program.address;
    let listener = intake::bind(directory.path());
    let in_flight = tokio::spawn(async move {
        let mut client = Client::new(address);
        let sent = RawDelivery::pull_request("d-1", "opened", 7, 1);
        client.deliver(&sent).await.expect("answers").status
    });
    // A sender has connected, so it has the delivery. It gets no answer, then innkeeperd stops.
    let connected = listener.accept().await.expect("connects");
    program.signal(Signal::TERM);
    program.wait_for("STOPPING=1");
    drop((connected, listener));
    let (_store, _serving) = intake::start(directory.path());
    assert_eq!(in_flight.await.expect("ends"), 202);
    let ended = tokio::task::spawn_blocking(move || program.child.wait().expect("ends"));
    assert!(ended.await.expect("joins").success());
}

#[tokio::test]
async fn a_connection_that_was_accepted_before_the_stop_is_served() {
    let directory = directory();
    let (_store, _serving) = intake::start(directory.path());
    let mut program = Program::start(directory.path());
    let mut early = Client::connected(program.address).await;
    // Connections are accepted in their order, so the program has accepted the first one once the second is served.
    let mut other = Client::new(program.address);
    let sent = RawDelivery::pull_request("d-1", "opened", 7, 1);
    assert_eq!(other.deliver(&sent).await.expect("answers").status, 202);
    program.signal(Signal::TERM);
    // The second one is between two requests, so the stop closes it.
    other.wait_until_closed().await;
    let sent = RawDelivery::pull_request("d-2", "opened", 8, 1);
    assert_eq!(early.deliver(&sent).await.expect("answers").status, 202);
    let ended = tokio::task::spawn_blocking(move || program.child.wait().expect("ends"));
    assert!(ended.await.expect("joins").success());
}

#[tokio::test]
async fn a_socket_from_systemd_is_used() {
    let test = "operation::a_socket_from_systemd_is_used";
    if command("systemd-socket-activate")
        .arg("--version")
        .output()
        .is_err()
    {
        eprintln!("INNKEEPER-NOT-RUN: {test}: systemd-socket-activate is not installed");
        return;
    }
    let directory = directory();
    let (_store, _serving) = intake::start(directory.path());
    let free = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = free.local_addr().expect("address");
    drop(free);
    // It does not pass the notify socket, so the program's address is unknown. The configured port 0 is not used.
    let config = configure(directory.path(), "");
    let program = without_rights(directory.path());
    let mut activate = command("systemd-socket-activate");
    activate
        .arg(format!("--listen={address}"))
        .arg(program.get_program())
        .args(program.get_args())
        .args(["--config".as_ref(), config.as_os_str()]);
    let mut child = activate.spawn().expect("starts");
    let mut client = None;
    while client.is_none() {
        client = tokio::net::TcpStream::connect(address).await.ok();
    }
    let sent = RawDelivery::pull_request("d-1", "opened", 7, 1);
    let answer = Client::new(address).deliver(&sent).await;
    child.kill().expect("kills");
    child.wait().expect("ends");
    assert_eq!(answer.expect("answers").status, 202);
}

/// Returns the options in a manual page or in the program's help.
fn options(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_lowercase() && c != '-');
    let options = words.filter(|word| word.starts_with("--") && word.len() > 2);
    options.map(str::to_owned).collect()
}

#[test]
fn the_manual_has_all_options() {
    let page: &str = include_str!("../../../innkeeper-cli/src/commands/man/innkeeper-webhook.8");
    let directory = directory();
    let help = without_rights(directory.path()).arg("--help").output();
    let help = String::from_utf8(help.expect("runs").stdout).expect("text");
    assert_eq!(
        options(&page.replace("\\f", " ").replace('\\', "")),
        options(&help)
    );
}

#[test]
fn check_config_does_not_start_the_program() {
    let directory = directory();
    let check = |config: &std::path::Path| {
        let output = without_rights(directory.path())
            .args([
                "--check-config".as_ref(),
                "--config".as_ref(),
                config.as_os_str(),
            ])
            .output()
            .expect("runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    let good = configure(directory.path(), "");
    let (code, output, _) = check(&good);
    assert_eq!(code, Some(0));
    assert!(
        output.contains("webhook.listen = \"127.0.0.1:0\" # file"),
        "{output}"
    );
    assert!(
        output.contains("# deliveries of all repositories are accepted"),
        "{output}"
    );
    assert!(!output.contains(SECRET), "{output}");

    // As in `innkeeper-webhook --check-config | head -1`, when `head` has ended.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = without_rights(directory.path())
        .args([
            "--check-config".as_ref(),
            "--config".as_ref(),
            good.as_os_str(),
        ])
        .stdout(writer)
        .output()
        .expect("runs");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");

    let typo = ("INNKEEPER_WEBHOOK_LISTENS", directory.path());
    let (code, output) = check_with(directory.path(), "", typo);
    assert_eq!(code, Some(1), "{output}");
    assert!(
        output.contains("did you mean INNKEEPER_WEBHOOK_LISTEN?"),
        "{output}"
    );

    let bad = directory.path().join("bad.toml");
    std::fs::write(&bad, "[webhook]\nsecret_files = ['/nowhere']\n").expect("writes");
    let (code, _, output) = check(&bad);
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("cannot read /nowhere"), "{output}");
}

/// Runs `--check-config` on a file, with a variable, and returns its exit status and output.
fn check_with(
    directory: &std::path::Path,
    text: &str,
    variable: (&str, &std::path::Path),
) -> (Option<i32>, String) {
    let config = directory.join("config.toml");
    std::fs::write(&config, text).expect("writes");
    let output = without_rights(directory)
        .args([
            "--check-config".as_ref(),
            "--config".as_ref(),
            config.as_os_str(),
        ])
        .env(variable.0, variable.1)
        .output()
        .expect("runs");
    let bytes = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&bytes).into_owned(),
    )
}

#[test]
fn an_unreadable_list_of_repositories_is_an_error() {
    let directory = directory();
    let credentials = directory.path().join("credentials");
    std::fs::create_dir(&credentials).expect("makes");
    write_secret(&credentials.join("webhook-secret"), SECRET);
    let systemd = ("CREDENTIALS_DIRECTORY", credentials.as_path());
    let file = directory.path().join("preview.env");
    write_secret(&file, "ALLOWED_REPOS=octo/web\n");
    let text = format!("[webhook]\nenvironment_files = ['{}']\n", file.display());

    let (code, output) = check_with(directory.path(), &text, systemd);
    assert_eq!(code, Some(0), "{output}");
    assert!(
        output.contains("# deliveries of these repositories are accepted: octo/web"),
        "{output}"
    );
    // Now the file is readable for root only, as in the contract.
    std::os::unix::fs::chown(&file, Some(0), Some(0)).expect("takes back");
    let (code, output) = check_with(directory.path(), &text, systemd);
    assert_eq!(code, Some(7), "{output}");
    assert!(output.contains("webhook.allowed_repos"), "{output}");
    let listed = format!("{text}allowed_repos = ['octo/web']\n");
    let (code, output) = check_with(directory.path(), &listed, systemd);
    assert_eq!(code, Some(0), "{output}");
}
