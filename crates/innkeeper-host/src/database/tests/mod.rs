//! Tests on a real PostgreSQL, created for each test and run by the user `postgres`.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::AtomicUsize;

use innkeeper_facilities::{FacilityError, Network as _};
use innkeeper_model::{Code, Explain as _};
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio_postgres::NoTls;

use super::*;
use crate::command::command;
use crate::network::testing::{Leader, enter_own_namespace, guest};
use crate::network::{NetworkConfig, VethNetwork};

mod access;
mod capacity;
mod collation;
mod dump;
mod lifecycle;
mod ownership;

const SUBNET: &str = "10.100.0.0/16";
const PORT: u16 = 5432;

/// A temporary cluster. [`Self::stop`] ends it.
struct Cluster {
    dir: TempDir,
    server: tokio::process::Child,
    databases: PostgresDatabases,
}

/// Returns the directory of the server's programs: Debian's newest version, or one in `PATH`.
fn programs() -> Option<PathBuf> {
    let debian = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let mut versions: Vec<_> = debian
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .collect();
    versions.sort();
    let path = std::env::var_os("PATH")?;
    let others = std::env::split_paths(&path);
    let mut all = versions.into_iter().rev().chain(others);
    all.find(|bin| bin.join("initdb").exists())
}

/// Returns a command that runs a program of PostgreSQL as another user: it refuses to run as root.
fn unprivileged(program: &Path, uid: u32) -> tokio::process::Command {
    let mut command = command("setpriv");
    let ids = [format!("--reuid={uid}"), format!("--regid={uid}")];
    command.args(ids).arg("--clear-groups").arg(program);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

impl Cluster {
    async fn start(test: &str, encoding: &str) -> Option<Self> {
        let not_run = |reason: &str| eprintln!("INNKEEPER-NOT-RUN: {test}: {reason}");
        let Some(bin) = programs() else {
            not_run("PostgreSQL is not installed");
            return None;
        };
        if !rustix::process::geteuid().is_root() {
            not_run("it needs root to become PostgreSQL's user");
            return None;
        }
        // Any user with a name will do.
        let users =
            ["postgres", "nobody"].map(|name| nix::unistd::User::from_name(name).ok().flatten());
        let Some(user) = users.into_iter().flatten().next() else {
            not_run("no user exists to run PostgreSQL");
            return None;
        };
        let uid = user.uid.as_raw();
        let dir = tempfile::tempdir().expect("directory");
        let root = dir.path();
        std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o711)).expect("mode");
        for name in ["data", "socket"] {
            std::fs::create_dir(root.join(name)).expect("directory");
            chown(root.join(name), Some(uid), Some(uid)).expect("chown");
        }
        let data = root.join("data");
        let made = unprivileged(&bin.join("initdb"), uid)
            .args([
                "--username=postgres",
                "--auth=reject",
                "--no-sync",
                "--locale=C",
                "--encoding",
                encoding,
            ])
            .arg("--pgdata")
            .arg(&data)
            .status()
            .await
            .expect("initdb");
        assert!(made.success(), "initdb: {made}");
        std::fs::write(
            data.join("pg_hba.conf"),
            format!(
                "local all postgres peer map=innkeeper\nlocal all all scram-sha-256\nhost sameuser all {SUBNET} scram-sha-256\nhost sameuser all 127.0.0.1/32 scram-sha-256\n"
            ),
        )
        .expect("write");
        std::fs::write(data.join("pg_ident.conf"), "innkeeper root postgres\n").expect("write");
        let server = run_server(&bin, root, uid).await;
        let databases = PostgresDatabases::new(PostgresConfig {
            socket_dir: root.join("socket"),
            port: PORT,
            role: "postgres".to_owned(),
            passwords: root.join("passwords"),
            connections: Some(5),
            previews: 0,
            statement_timeout: Some(Duration::from_secs(30)),
            idle_in_transaction_timeout: None,
            identity: Identity::of('a'),
            subnet: SUBNET.parse().expect("net"),
        });
        Some(Self {
            dir,
            server,
            databases,
        })
    }

    fn with(&self, change: impl FnOnce(&mut PostgresConfig)) -> PostgresDatabases {
        let mut config = (*self.databases.config).clone();
        change(&mut config);
        PostgresDatabases::new(config)
    }

    /// Returns a driver that fails before the statement with this number, counted from 0.
    fn failing_before(&self, statement: usize) -> PostgresDatabases {
        PostgresDatabases {
            fail_point: FailPoint {
                remaining: Some(Arc::new(AtomicUsize::new(statement))),
            },
            ..self.databases.clone()
        }
    }

    async fn ensure(&self, name: &str) -> DatabaseAccess {
        self.databases.ensure(&empty(name)).await.expect("ensure")
    }

    async fn remove(&self, name: &str) {
        self.databases.remove(&slug(name)).await.expect("remove");
    }

    /// Connects as an administrator.
    async fn admin(&self, database: &str) -> tokio_postgres::Client {
        let mut config = self.over_socket(database);
        connect(config.user("postgres")).await.expect("admin")
    }

    fn over_socket(&self, database: &str) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config
            .host_path(self.dir.path().join("socket"))
            .port(PORT)
            .dbname(database);
        config
    }

    /// Connects as a preview, to its own or another database.
    async fn login(
        &self,
        access: &DatabaseAccess,
        database: &str,
    ) -> Result<tokio_postgres::Client, String> {
        let mut config = self.over_socket(database);
        config.user(&access.role).password(access.password.expose());
        connect(&config).await
    }

    /// Starts a replication client that holds a logical slot until it ends.
    async fn start_slot_reader(&self, database: &str, slot: &str) -> tokio::process::Child {
        let mut reader = command("pg_recvlogical");
        reader
            .arg("--start")
            .args(["--file=-", "--dbname", database, "--slot", slot])
            .arg("--host")
            .arg(self.dir.path().join("socket"))
            .args(["--port", &PORT.to_string(), "--username=postgres"])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        reader.spawn().expect("pg_recvlogical")
    }

    async fn found(&self) -> Vec<(Option<String>, String)> {
        let root = format!("{}/", self.dir.path().display());
        let short = |found: Found| (found.guest.map(Into::into), found.object.replace(&root, ""));
        let found = self.databases.observe().await.expect("observe");
        let mut found: Vec<_> = found.into_iter().map(short).collect();
        found.sort();
        found
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).expect("log")
    }

    async fn stop(mut self) {
        let id = self.server.id().expect("runs");
        let id = Pid::from_raw(i32::try_from(id).expect("pid")).expect("pid");
        // "Immediate shutdown": the data is no longer needed.
        kill_process(id, Signal::QUIT).expect("kill");
        self.server.wait().await.expect("wait");
    }
}

async fn run_server(bin: &Path, root: &Path, uid: u32) -> tokio::process::Child {
    let log = std::fs::File::create(root.join("log")).expect("log");
    let socket = root.join("socket");
    let settings = [
        format!("unix_socket_directories={}", socket.display()),
        format!("port={PORT}"),
        // In the test's own network namespace, if it has one.
        "listen_addresses=*".to_owned(),
        "fsync=off".to_owned(),
        "shared_buffers=16MB".to_owned(),
        "max_connections=60".to_owned(),
        // Off by default, but removal must work with them, too.
        "wal_level=logical".to_owned(),
        "max_prepared_transactions=5".to_owned(),
        // Maximum logging.
        "log_statement=all".to_owned(),
        "log_min_messages=debug1".to_owned(),
        "log_min_duration_statement=0".to_owned(),
    ];
    let mut command = unprivileged(&bin.join("postgres"), uid);
    command.arg("-D").arg(root.join("data"));
    for setting in settings {
        command.arg("-c").arg(setting);
    }
    let server = command.stderr(log).spawn().expect("postgres");
    let ready = root.join(format!("socket/.s.PGSQL.{PORT}"));
    let mut admin = tokio_postgres::Config::new();
    admin
        .host_path(&socket)
        .port(PORT)
        .user("postgres")
        .dbname("postgres");
    while !ready.exists() || connect(&admin).await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server
}

async fn connect(config: &tokio_postgres::Config) -> Result<tokio_postgres::Client, String> {
    match config.connect(NoTls).await {
        Ok((client, connection)) => {
            tokio::spawn(connection);
            Ok(client)
        }
        Err(error) => Err(PostgresError::from(error).to_string()),
    }
}

/// Specifies an empty database.
fn empty(slug: &str) -> DatabaseSpec {
    copy_of(None, slug)
}

fn copy_of(template: Option<&str>, slug: &str) -> DatabaseSpec {
    DatabaseSpec {
        slug: GuestName::parse(slug).expect(slug),
        template: template.map(str::to_owned),
    }
}

fn slug(text: &str) -> GuestName {
    GuestName::parse(text).expect(text)
}

async fn one<T>(client: &tokio_postgres::Client, sql: &str) -> T
where
    T: for<'a> tokio_postgres::types::FromSql<'a>,
{
    client.query_one(sql, &[]).await.expect(sql).get(0)
}

async fn refused(client: &tokio_postgres::Client, sql: &str) -> String {
    let error = client.batch_execute(sql).await.expect_err(sql);
    PostgresError::from(error).to_string()
}

fn database_error(outcome: Result<DatabaseAccess, FacilityError>) -> DatabaseError {
    let error = outcome.expect_err("an error");
    error.downcast().expect("an error of the database")
}

/// Starts a cluster in its own network namespace, where all ports are free.
async fn cluster(test: &str) -> Option<Cluster> {
    cluster_in(test, "UTF8").await
}

/// Starts a cluster with another encoding.
async fn cluster_in(test: &str, encoding: &str) -> Option<Cluster> {
    if !enter_own_namespace(test) {
        return None;
    }
    let up = ["link", "set", "lo", "up"];
    crate::command::run("ip", up, b"").await.expect("ip");
    Cluster::start(test, encoding).await
}
