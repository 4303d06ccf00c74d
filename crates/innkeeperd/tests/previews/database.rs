//! A preview's database on the host's PostgreSQL.

#![expect(clippy::disallowed_methods, reason = "tests run programs")]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use innkeeper_model::Code;
use innkeeper_model::api::{DoctorReport, GcReport, Verdict};
use innkeeper_model::preview::PreviewState;
use innkeeper_model::preview::api::DeliveryState;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};

use crate::host::{PreviewHost, app, other_app, run};
use crate::support::wait_until;

/// A PostgreSQL cluster for one test, in its network.
struct Cluster {
    dir: tempfile::TempDir,
    server: Child,
}

impl Cluster {
    fn start(host: &PreviewHost) -> Self {
        let bin = programs();
        let user = user();
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path();
        fs::set_permissions(root, fs::Permissions::from_mode(0o711)).expect("set");
        for name in ["data", "socket"] {
            fs::create_dir(root.join(name)).expect("made");
            chown(
                root.join(name),
                Some(user.uid.as_raw()),
                Some(user.gid.as_raw()),
            )
            .expect("given");
        }
        let data = root.join("data");
        let made = unprivileged(&bin.join("initdb"), &user)
            .args([
                "--username=postgres",
                "--auth=reject",
                "--no-sync",
                "--locale=C",
                "--pgdata",
            ])
            .arg(&data)
            .status()
            .expect("initdb runs");
        assert!(made.success());
        let rules = "local all postgres peer map=innkeeper\n\
                     host sameuser all 10.100.0.0/16 scram-sha-256\n";
        fs::write(data.join("pg_hba.conf"), rules).expect("written");
        fs::write(data.join("pg_ident.conf"), "innkeeper root postgres\n").expect("written");
        let server = serve(root);
        let cluster = Self { dir, server };
        cluster.wait(host);
        cluster
    }

    fn wait(&self, host: &PreviewHost) {
        wait_until("PostgreSQL answers", || {
            self.sql("SELECT 1", host).is_some()
        });
    }

    /// Stops the server immediately.
    fn stop(&mut self) {
        let id = i32::try_from(self.server.id()).expect("a pid");
        kill(Pid::from_raw(id), Signal::SIGQUIT).expect("sent");
        self.server.wait().expect("waited");
    }

    /// Starts the stopped server.
    fn restart(&mut self, host: &PreviewHost) {
        self.server = serve(self.dir.path());
        self.wait(host);
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    /// Runs a query as the administrator.
    fn sql(&self, sql: &str, _town: &PreviewHost) -> Option<String> {
        let output = Command::new("psql")
            .args([
                "-X", "-A", "-t", "-U", "postgres", "-d", "postgres", "-c", sql, "-h",
            ])
            .arg(self.socket())
            .output()
            .expect("psql runs");
        let text = String::from_utf8(output.stdout).expect("text");
        output.status.success().then(|| text.trim().to_owned())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Ok(None) = self.server.try_wait() {
            self.stop();
        }
    }
}

/// Starts the server of the cluster in a folder.
fn serve(root: &Path) -> Child {
    unprivileged(&programs().join("postgres"), &user())
        .arg("-D")
        .arg(root.join("data"))
        .args([
            "-c",
            "listen_addresses=*",
            "-c",
            "fsync=off",
            "-c",
            "shared_buffers=16MB",
        ])
        .arg("-c")
        .arg(format!(
            "unix_socket_directories={}",
            root.join("socket").display()
        ))
        .spawn()
        .expect("postgres runs")
}

fn user() -> User {
    User::from_name("postgres")
        .expect("looked up")
        .expect("created by the package")
}

fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("postgresql is installed");
    let mut versions: Vec<_> = versions
        .map(|entry| entry.expect("entry").path().join("bin"))
        .collect();
    versions.sort();
    versions
        .pop()
        .expect("postgresql is installed: .ci/deps does it")
}

fn unprivileged(program: &Path, user: &User) -> Command {
    let mut command = Command::new("setpriv");
    command
        .arg(format!("--reuid={}", user.uid))
        .arg(format!("--regid={}", user.gid))
        .arg("--clear-groups")
        .arg(program)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

#[test]
fn a_database_survives_updates_and_is_removed_with_its_preview() {
    let socket = tempfile::tempdir().expect("a directory");
    let link = socket.path().join("postgresql");
    let more = format!("[database]\nsocket_dir = '{}'", link.display());
    let more = format!("[network]\nhost_ports = ['tcp/5432']\n{more}");
    let mut host = PreviewHost::with(&more);
    let mut cluster = Cluster::start(&host);
    std::os::unix::fs::symlink(cluster.socket(), &link).expect("linked");
    let daemon = host.start();
    host.start_webhook();

    let with = |text: String| text.replace("database = \"container\"", "database = \"host\"");
    let sha = host.commit("topic", &[("preview-config.nix", &with(app()))]);
    host.pull(7, "topic", &sha);
    host.deliver(7, "opened");
    host.wait_for_state(7, &sha, PreviewState::Live);
    let url = || {
        let environment = host.exec("web-7", &["cat", "/etc/preview.env"]);
        let line = environment
            .lines()
            .find_map(|line| line.strip_prefix("DATABASE_URL="));
        line.unwrap_or_else(|| panic!("{environment}"))
            .trim_matches('\'')
            .to_owned()
    };
    let first = url();
    assert!(first.starts_with("postgresql://preview_web_7:"), "{first}");
    let gateway = host
        .client()
        .guest("web-7")
        .host_address
        .expect("an address");
    assert!(
        first.ends_with(&format!("@{gateway}:5432/preview_web_7")),
        "{first}"
    );

    // The guest reaches the server, and the password is not logged.
    let connect = format!("echo hello, who are you | timeout 5 nc {gateway} 5432");
    host.exec("web-7", &["sh", "-c", &connect]);
    let password = first.split([':', '@']).nth(2).expect("there").to_owned();
    assert!(!host.sandbox.log().contains(&password));

    // A table with the app's role as its owner.
    let create = "SET ROLE preview_web_7; CREATE TABLE kept (n int)";
    let in_database = |sql: &str| {
        run(
            Path::new("/"),
            "psql",
            &[
                "-X",
                "-A",
                "-t",
                "-U",
                "postgres",
                "-d",
                "preview_web_7",
                "-h",
                &cluster.socket().display().to_string(),
                "-c",
                sql,
            ],
        )
    };
    in_database(create);
    let pushed = host.push(
        7,
        "topic",
        &[("preview-config.nix", &with(other_app("two")))],
    );
    host.wait_for_state(7, &pushed, PreviewState::Live);
    assert_eq!(url(), first, "the password changed");
    let tables = "SELECT count(*) FROM pg_tables WHERE tablename = 'kept'";
    assert_eq!(in_database(tables).trim(), "1");

    let reset = host
        .client()
        .call("POST", "/v1/previews/web-7/database/reset", "");
    assert_eq!(reset.status, 202, "{reset:?}");
    host.wait_for_state(7, &pushed, PreviewState::Live);
    assert_eq!(in_database(tables).trim(), "0");
    assert_eq!(url(), first, "the password changed");

    // By a comment. A crash does not lose it.
    in_database("CREATE TABLE kept (n int)");
    daemon.stop();
    let point = [("INNKEEPER_CRASH_AT", "preview:reset-database:before")];
    let crashing = host.sandbox.start_with(&point);
    let (id, status) = host.comment(7, "maintainer", "/preview reset-db");
    assert_eq!(status, 202);
    assert!(!crashing.wait().success(), "the daemon was not killed");
    let daemon = host.start();
    wait_until("the database was reset", || {
        let log = host
            .client()
            .call("GET", "/v1/previews/web-7/logs?lines=50", "");
        log.body.matches("The database was reset.").count() == 2
    });
    host.wait_for_state(7, &pushed, PreviewState::Live);
    assert_eq!(in_database(tables).trim(), "0");
    let done = host.delivery(&id).expect("kept");
    assert_eq!(done.state, DeliveryState::Done, "{done:?}");

    // A failing removal is reported with its cause until it succeeds.
    cluster.stop();
    host.close(7);
    wait_until("doctor reports the failed removal", || {
        let report: DoctorReport = host.client().get("/v1/doctor");
        report.checks.iter().any(|check| {
            check.subject == "preview web-7"
                && check.verdict == Verdict::Broken
                && check.finding.starts_with("not removed yet, retrying: ")
        })
    });
    // It does not block gc of other objects.
    let key = "0".repeat(64);
    fs::create_dir_all(host.root().join("evaluation-roots").join(&key)).expect("made");
    let swept = host.sandbox.program("innkeeper", &["gc", "--json"], b"");
    assert_eq!(swept.status.code(), Some(7), "{swept:?}");
    let report: GcReport = serde_json::from_slice(&swept.stdout).expect("a report");
    assert_eq!(report.failures.len(), 1, "{report:?}");
    assert_eq!(report.failures[0].code, Code::DatabaseFailed, "{report:?}");
    let found = report.orphans.iter().find(|orphan| orphan.object == key);
    assert!(found.is_some_and(|orphan| orphan.removed), "{report:?}");
    cluster.restart(&host);
    host.wait_until_gone(7);
    let report: DoctorReport = host.client().get("/v1/doctor");
    let mut subjects = report.checks.iter().map(|check| &check.subject);
    assert!(subjects.all(|subject| subject != "preview web-7"));
    let left = "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'preview%'";
    assert_eq!(cluster.sql(left, &host).as_deref(), Some("0"));
    let left = "SELECT count(*) FROM pg_database WHERE datname LIKE 'preview%'";
    assert_eq!(cluster.sql(left, &host).as_deref(), Some("0"));
    daemon.stop();
}
