//! How the program is run: without rights, told by signals, given its socket.

use std::collections::BTreeSet;
use std::net::TcpListener;

use rustix::process::Signal;

use crate::support::client::Client;
use crate::support::payload::{SECRET, Sent, sign};
use crate::support::program::{Program, configure, without_rights, write_secret};
use crate::support::{command, directory, intake};

/// A field of `/proc/<pid>/status`.
fn status(program: &Program, field: &str) -> String {
    let path = format!("/proc/{}/status", program.child.id());
    let text = std::fs::read_to_string(path).expect("reads");
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let words = line.expect("the kernel knows it").split_whitespace();
    words.collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn it_needs_no_rights() {
    let directory = directory();
    let (_store, _serving) = intake::start(directory.path());
    let program = Program::start(directory.path());
    assert_eq!(status(&program, "Uid:"), "65534 65534 65534 65534");
    assert_eq!(status(&program, "Groups:"), "");
    assert_eq!(status(&program, "CapEff:"), "0000000000000000");
    assert_eq!(status(&program, "CapBnd:"), "0000000000000000");
    assert_eq!(status(&program, "NoNewPrivs:"), "1");
    let sent = Sent::pull_request("d-1", "opened", 7, 1);
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
        let mut sent = Sent::pull_request(&format!("d-{tried}"), "opened", 7, 1);
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
async fn what_it_has_taken_is_answered_before_it_stops() {
    let directory = directory();
    let mut program = Program::start(directory.path());
    let address = program.address;
    let silent = intake::bind(directory.path());
    let under_way = tokio::spawn(async move {
        let mut client = Client::new(address);
        let sent = Sent::pull_request("d-1", "opened", 7, 1);
        client.deliver(&sent).await.expect("answers").status
    });
    // Whoever connects has a delivery in hand. It is not answered, and then innkeeperd is gone.
    let connected = silent.accept().await.expect("connects");
    program.signal(Signal::TERM);
    program.wait_for("STOPPING=1");
    drop((connected, silent));
    let (_store, _serving) = intake::start(directory.path());
    assert_eq!(under_way.await.expect("ends"), 202);
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
    // It gives no notify socket on, so the configuration's own address tells who listens: nobody.
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
    let sent = Sent::pull_request("d-1", "opened", 7, 1);
    let answer = Client::new(address).deliver(&sent).await;
    child.kill().expect("kills");
    child.wait().expect("ends");
    assert_eq!(answer.expect("answers").status, 202);
}

/// The options that a page of the manual and the program's own help name.
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
fn a_configuration_can_be_checked_without_starting() {
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
    let (code, said, _) = check(&good);
    assert_eq!(code, Some(0));
    assert!(
        said.contains("webhook.listen = \"127.0.0.1:0\" # file"),
        "{said}"
    );
    assert!(
        said.contains("# deliveries of all repositories are accepted"),
        "{said}"
    );
    assert!(!said.contains(SECRET), "{said}");

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
    let (code, said) = check_with(directory.path(), "", typo);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("did you mean INNKEEPER_WEBHOOK_LISTEN?"),
        "{said}"
    );

    let bad = directory.path().join("bad.toml");
    std::fs::write(&bad, "[webhook]\nsecret_files = ['/nowhere']\n").expect("writes");
    let (code, _, said) = check(&bad);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("cannot read /nowhere"), "{said}");
}

/// Runs `--check-config` on a file, with a variable, and returns its exit status and what it said.
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
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

#[test]
fn a_list_of_repositories_that_it_may_not_read_is_no_empty_list() {
    let directory = directory();
    let credentials = directory.path().join("credentials");
    std::fs::create_dir(&credentials).expect("makes");
    write_secret(&credentials.join("webhook-secret"), SECRET);
    let systemd = ("CREDENTIALS_DIRECTORY", credentials.as_path());
    let file = directory.path().join("preview.env");
    write_secret(&file, "ALLOWED_REPOS=octo/web\n");
    let text = format!("[webhook]\nenvironment_files = ['{}']\n", file.display());

    let (code, said) = check_with(directory.path(), &text, systemd);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("# deliveries of these repositories are accepted: octo/web"),
        "{said}"
    );
    // Now the file is root's alone, as the contract has it.
    std::os::unix::fs::chown(&file, Some(0), Some(0)).expect("takes back");
    let (code, said) = check_with(directory.path(), &text, systemd);
    assert_eq!(code, Some(7), "{said}");
    assert!(said.contains("webhook.allowed_repos"), "{said}");
    let listed = format!("{text}allowed_repos = ['octo/web']\n");
    let (code, said) = check_with(directory.path(), &listed, systemd);
    assert_eq!(code, Some(0), "{said}");
}
