//! Clients of SSH and PostgreSQL, which know nothing of Innkeeper, and a guest that rests.

#![expect(clippy::disallowed_methods, reason = "tests run programs")]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use innkeeper_model::api::Status;
use innkeeper_model::{GuestState, Level};

use crate::support::{Fixture, Sandbox, closure, wait_until};

/// The guest's user `agent`.
const AGENT: u32 = 1000;

/// The directories in the guest of PostgreSQL's data, and of its program with the libraries.
const DATA: &str = "/home/agent/postgres";
const PROGRAMS: &str = "/opt";

const SETTINGS: &str = "listen_addresses = '*'\nunix_socket_directories = ''\nshared_buffers = '1MB'\nmax_connections = 10\n\
                        timezone = 'GMT'\nlog_timezone = 'GMT'\nfsync = off\n";

/// A client's connection waits until the guest that rests is awake, and then has its result.
#[test]
fn ssh_and_postgresql_wake_a_guest() {
    let closure = closure(Fixture::Ssh);
    let mut sandbox = Sandbox::new();
    let key = sandbox.path().join("key").display().to_string();
    sandbox.run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &key]);
    let public = fs::read_to_string(format!("{key}.pub")).expect("made");
    sandbox.configure(&format!("[ssh]\nauthorized_keys = ['{}']", public.trim()));
    let _daemon = sandbox.start();
    let client = sandbox.client();
    let guest = client.create("web", &closure);
    let address = guest.guest_address.expect("an address");
    client.change("web", "stop");
    install_postgresql(&sandbox.state().join("guests/web/rootfs"), sandbox.path());
    client.change("web", "start");
    wait_until("PostgreSQL answers", || query(address).is_some());

    for (verb, state) in [("pause", GuestState::Paused), ("sleep", GuestState::Asleep)] {
        for connect in [
            (|_: &str, address| query(address)) as fn(&str, Ipv4Addr) -> Option<String>,
            |key, address| output(ssh(key, address).arg("echo $((6 * 7))")),
        ] {
            client.change("web", verb);
            assert_eq!(client.guest("web").state, state);
            assert_eq!(connect(&key, address).as_deref(), Some("42\n"), "{verb}");
            // In this order: an awake guest's wake has been recorded as an operation.
            wait_until("the wake has ended", || {
                client.guest("web").guest.level == Level::Awake
                    && client.get::<Status>("/v1/status").operations.is_empty()
            });
        }
    }

    let mut session = Session::open(&key, address);
    assert_eq!(session.exchange("before"), "before\n");
    client.change("web", "pause");
    assert_eq!(session.exchange("meanwhile"), "meanwhile\n");
}

/// An SSH session with a program that returns what it receives.
struct Session {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Session {
    fn open(key: &str, address: Ipv4Addr) -> Self {
        let mut child = ssh(key, address)
            .arg("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("ssh runs");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, output }
    }

    fn exchange(&mut self, line: &str) -> String {
        let input = self.child.stdin.as_mut().expect("piped");
        writeln!(input, "{line}").expect("sent");
        let mut received = String::new();
        self.output.read_line(&mut received).expect("received");
        received
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn ssh(key: &str, address: Ipv4Addr) -> Command {
    let mut command = Command::new("ssh");
    command
        .args([
            "-F",
            "none",
            "-i",
            key,
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            "BatchMode=yes",
        ])
        .args([
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
        ])
        .args(["-o", "LogLevel=ERROR"])
        .arg(format!("agent@{address}"));
    command
}

fn query(address: Ipv4Addr) -> Option<String> {
    let mut command = Command::new("psql");
    command
        .args([
            "--no-psqlrc",
            "--tuples-only",
            "--no-align",
            "--username=agent",
        ])
        .args(["--dbname=postgres", "--command=SELECT 6 * 7", "--host"])
        .arg(address.to_string());
    output(&mut command)
}

/// Runs a program. Returns its output if it succeeds.
fn output(command: &mut Command) -> Option<String> {
    let output = command.output().expect("runs");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    output.status.success().then_some(text)
}

/// Installs this machine's PostgreSQL into the files of a guest, which runs it from its next boot on.
fn install_postgresql(root: &Path, temporary: &Path) {
    let server = server();
    let bin = server.parent().expect("a directory");
    let data = temporary.join("postgres");
    fs::create_dir(&data).expect("made");
    let script = format!(
        "set -eu
        chmod a+x {temporary}
        chown postgres: {data}
        setpriv --reuid=postgres --regid=postgres --clear-groups \
            {bin}/initdb --username=agent --auth=trust --no-sync --locale=C --encoding=UTF8 --pgdata={data} > {temporary}/initdb.log
        echo 'host all all 0.0.0.0/0 trust' >> {data}/pg_hba.conf
        cp -a {data} {root}{DATA}
        chown -R {AGENT}:{AGENT} {root}{DATA}
        mkdir -p {root}{PROGRAMS}{modules}
        libraries=$(ldd {server} | grep -o '/[^ ]*')
        cp -L --parents {server} $libraries {root}{PROGRAMS}
        cp -r --parents /usr/share/postgresql {root}{PROGRAMS}
        loader=$(grep /ld-linux <<< \"$libraries\")
        path=$(sed 's|^|{PROGRAMS}|; s|/[^/]*$||' <<< \"$libraries\" | sort -u | paste -sd :)
        echo \"{PROGRAMS}$loader --library-path $path {PROGRAMS}{server} -D {DATA}\"",
        temporary = temporary.display(),
        data = data.display(),
        bin = bin.display(),
        root = root.display(),
        server = server.display(),
        // The server requires its directory of modules, and loads none for a query.
        modules = bin.with_file_name("lib").display(),
    );
    let command = output(Command::new("bash").args(["-c", &script])).expect("installed");
    let settings = root.join(&DATA[1..]).join("postgresql.conf");
    fs::write(&settings, SETTINGS).expect("written");
    let boot = root.join("etc/boot");
    let program = format!("#!/bin/sh\nexec su agent -c '{}'\n", command.trim());
    fs::write(&boot, program).expect("written");
    fs::set_permissions(&boot, fs::Permissions::from_mode(0o755)).expect("set");
}

/// The newest PostgreSQL of this machine.
fn server() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("installed: .ci/deps does it");
    let programs = versions.filter_map(|version| Some(version.ok()?.path().join("bin/postgres")));
    programs
        .filter(|program| program.exists())
        .max()
        .expect("installed: .ci/deps does it")
}
