//! Tests on a real Caddy in its own network namespace.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use innkeeper_facilities::RouteState;
use innkeeper_model::Code;
use innkeeper_model::preview::{ExtraHost, RoutePath, RouteProtocol, RouteRule, RouteTimeout};
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::command::command;
use crate::network::testing::enter_own_namespace;

mod access;
mod app;
mod changes;
mod client;
mod door;
mod hosts;
mod ownership;
mod requests;
mod responses;
mod settled;
mod unavailable;

use app::{run_h2c, serve_app, serve_ends, serve_silence};
use client::{Socket, get, read_head, request, request_on};

const FRONT: &str = "127.0.0.1:8080";
/// The port of innkeeper-dns.
const RESOLVER: u16 = 3053;
const LOOKUP: &str = "127.0.0.1:3180";
/// Addresses of the two guests.
const GUEST: [u8; 4] = [127, 0, 1, 3];
const OTHER_GUEST: [u8; 4] = [127, 0, 1, 5];

/// A Caddy, and two guests with apps on several ports.
struct Rig {
    dir: TempDir,
    caddy: tokio::process::Child,
    routes: CaddyRoutes,
}

impl Rig {
    async fn start(test: &str) -> Option<Self> {
        Self::start_with(test, "").await
    }

    /// Starts Caddy with an additional line in its main file.
    async fn start_with(test: &str, line: &str) -> Option<Self> {
        if command(caddy()).arg("version").output().await.is_err() {
            eprintln!("INNKEEPER-NOT-RUN: {test}: caddy is not installed");
            return None;
        }
        if !enter_own_namespace(test) {
            return None;
        }
        let up = ["link", "set", "lo", "up"];
        crate::command::run("ip", up, b"").await.expect("ip");
        for guest in [GUEST, OTHER_GUEST] {
            for port in [3000, 4000, 5000] {
                serve_app(SocketAddr::from((guest, port))).await;
            }
        }
        let dir = tempfile::tempdir().expect("directory");
        let root = dir.path();
        let main = format!(
            "{{\n\tadmin unix/{0}/admin.sock\n\tlog {{\n\t\toutput file {0}/log\n\t}}\n}}\n{line}\nimport {0}/previews/*.caddy\n",
            root.display()
        );
        std::fs::write(root.join("Caddyfile"), main).expect("Caddyfile");
        let routes = CaddyRoutes::new(config(root));
        let caddy = run_caddy(root).await;
        Some(Self { dir, caddy, routes })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn ensure(&self, spec: &RouteSpec) {
        self.routes.ensure(spec).await.expect("ensure");
    }

    /// Starts innkeeper-dns.
    async fn start_resolver(&self) {
        let directory = self.path("dns");
        let config = self.path("dns.toml");
        let text = format!(
            "[dns]\nport = {RESOLVER}\ndirectory = '{}'\n[caddy]\ntable = '{}'\n[network]\nsubnet = '127.0.1.0/24'\nnameservers = ['127.0.9.9']\n[log]\nlevel = 'warn'\n",
            directory.display(),
            self.path("table").display()
        );
        std::fs::write(&config, text).expect("written");
        let loaded = innkeeper_service::load(Some(&config), |_| None).expect("valid");
        std::thread::spawn(move || innkeeper_dns::run(&loaded).expect("runs"));
        // A link to a folder that may not exist yet.
        while std::fs::symlink_metadata(self.path("dns/table")).is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Stops innkeeper-dns.
    async fn stop_resolver(&self) {
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM)
            .expect("sent");
        while self.path("dns/listening").exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Settles all hosts that can be, as after a minute without a change.
    async fn settle(&self) {
        self.routes
            .settle_after(Duration::ZERO)
            .await
            .expect("settles");
    }

    fn link(&self, slug: &str, host: &str) -> PathBuf {
        self.path(&format!(
            "table/previews/{slug}/hosts/{host}.localhost/settled"
        ))
    }

    fn is_settled(&self, slug: &str, host: &str) -> bool {
        std::fs::symlink_metadata(self.link(slug, host)).is_ok()
    }

    async fn is_complete(&self, spec: &RouteSpec) -> bool {
        self.routes.is_complete(spec).await.expect("looks")
    }

    async fn refused(&self, spec: &RouteSpec) -> RouteError {
        let error = self.routes.ensure(spec).await.expect_err("refused");
        error.downcast().expect("an error of the routes")
    }

    async fn remove(&self, slug: &str) {
        self.routes.remove(&name(slug)).await.expect("remove");
    }

    /// Makes Caddy load all files again, as an administrator does.
    async fn reload(&self) {
        self.routes.load_main_file().await.expect("load");
    }

    /// Returns the number of loads in Caddy's log.
    fn loads(&self) -> usize {
        let log = std::fs::read_to_string(self.path("log")).expect("log");
        log.lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"))
            .filter(|entry| entry["uri"] == "/load")
            .count()
    }

    async fn found(&self) -> Vec<(Option<String>, String)> {
        let found = self.routes.observe().await.expect("observe");
        let root = format!("{}/", self.dir.path().display());
        found
            .into_iter()
            .map(|found| {
                let object = found.object.strip_prefix(&root).expect("inside");
                (found.guest.map(Into::into), object.to_owned())
            })
            .collect()
    }

    async fn stop(mut self) {
        self.caddy.kill().await.expect("kill");
    }
}

fn config(root: &Path) -> CaddyConfig {
    CaddyConfig {
        identity: crate::identity::Identity::of('a'),
        directory: root.join("previews"),
        caddyfile: root.join("Caddyfile"),
        table: root.join("table"),
        lookup: LOOKUP.parse().expect("address"),
        pages: root.join("pages.sock"),
        access: None,
        resolver: Some(RouteResolver {
            port: RESOLVER,
            table: root.join("dns/table"),
        }),
        admin: Admin::Unix(root.join("admin.sock")),
        domain: "localhost".to_owned(),
        tls: Tls::None,
        port: Some(8080),
        guest_port: Some(8082),
        is_https: false,
        trusted_proxies: Vec::new(),
        robots: Robots::parse("noindex"),
    }
}

/// Returns the Caddy to test: that of the variable `CADDY`, or the installed one.
fn caddy() -> std::ffi::OsString {
    std::env::var_os("CADDY").unwrap_or_else(|| "caddy".into())
}

async fn run_caddy(root: &Path) -> tokio::process::Child {
    let child = command(caddy())
        .args(["run", "--adapter", "caddyfile", "--config"])
        .arg(root.join("Caddyfile"))
        .env("HOME", root)
        .env("XDG_DATA_HOME", root.join("data"))
        .env("XDG_CONFIG_HOME", root.join("config"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("caddy");
    // The admin API listens before the sites do.
    let socket = root.join("admin.sock");
    let has_routes = root.join("previews/_innkeeper.caddy").exists();
    while has_routes && TcpStream::connect(FRONT).await.is_err() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    while tokio::net::UnixStream::connect(&socket).await.is_err() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    child
}

fn name(slug: &str) -> GuestName {
    GuestName::parse(slug).expect("name")
}

fn rule(path: &str, port: u16, strip_prefix: bool) -> RouteRule {
    RouteRule::new(RoutePath::parse(path).expect(path), port, strip_prefix)
}

/// A preview with one app for all paths.
fn simple(slug: &str) -> RouteSpec {
    RouteSpec {
        slug: name(slug),
        guest_address: GUEST.into(),
        routes: vec![rule("/", 3000, false)],
        extra_hosts: Vec::new(),
        state: RouteState::Live,
        checked: false,
    }
}

fn with_extra(slug: &str, prefix: &str) -> RouteSpec {
    RouteSpec {
        extra_hosts: vec![ExtraHost {
            prefix: name(prefix),
            routes: vec![rule("/", 5000, false)],
        }],
        ..simple(slug)
    }
}

fn placeholder(slug: &str) -> RouteSpec {
    RouteSpec {
        state: RouteState::Placeholder,
        ..simple(slug)
    }
}

/// A preview with apps on several paths and hosts.
fn full(slug: &str) -> RouteSpec {
    RouteSpec {
        routes: vec![
            rule("/", 3000, false),
            rule("/Api", 4000, true),
            rule("/api/docs/*", 5000, false),
            rule("/ws", 4000, false),
        ],
        ..with_extra(slug, "admin")
    }
}

/// Returns the start of the response of the app on `port` to a request.
fn response_start(port: u16, line: &str) -> String {
    format!("127.0.1.3:{port} {line} ")
}

async fn check_full(stage: &str) {
    for (path, port, forwarded) in [
        ("/", 3000, "/"),
        ("/x/y?q=1&r=%20", 3000, "/x/y?q=1&r=%20"),
        ("/apix", 3000, "/apix"),
        ("/api/", 4000, "/"),
        ("/api/users/1?q=/api", 4000, "/users/1?q=/api"),
        ("/API/a%2Fb", 4000, "/a%2Fb"),
        ("/api/docs", 4000, "/docs"),
        ("/api/docs/x", 5000, "/api/docs/x"),
        ("/ws", 4000, "/ws"),
        ("/ws/", 3000, "/ws/"),
        ("/WS", 4000, "/WS"),
    ] {
        let response = get("web.localhost", path).await;
        let expected = response_start(port, &format!("GET {forwarded}"));
        assert!(
            response.body.starts_with(&expected),
            "{stage}: {path}: {response:?}"
        );
    }
    let redirect = get("web.localhost", "/api").await;
    assert_eq!(redirect.status, 308, "{stage}: {redirect:?}");
    assert_eq!(redirect.header("location"), Some("/api/"), "{stage}");
    let redirect = request("web.localhost", "POST /api?a=1&b=%20", "", b"").await;
    assert_eq!(redirect.status, 308, "{stage}: {redirect:?}");
    assert_eq!(
        redirect.header("location"),
        Some("/api/?a=1&b=%20"),
        "{stage}"
    );
    let extra = get("ADMIN-Web.LocalHost", "/x").await;
    assert!(
        extra.body.starts_with(&response_start(5000, "GET /x")),
        "{stage}: {extra:?}"
    );
    let body = vec![b'x'; 1 << 20];
    let posted = request(
        "web.localhost",
        "POST /p",
        "Range: bytes=0-1\r\nIf-None-Match: *\r\n",
        &body,
    )
    .await;
    assert!(
        posted.body.starts_with(&response_start(3000, "POST /p")),
        "{stage}: {posted:?}"
    );
    assert!(
        posted
            .body
            .ends_with("host=web.localhost:8080 for=127.0.0.1 proto=http body=1048576"),
        "{stage}: {posted:?}"
    );
    assert!(
        Socket::open("web.localhost", "/ws").await.echoes().await,
        "{stage}"
    );
}
