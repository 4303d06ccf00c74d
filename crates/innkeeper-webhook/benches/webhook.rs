//! The cost of durability: deliveries accepted per second, by the real programs and by a baseline server that verifies the
//! same deliveries and discards them.
//!
//! `make bench` runs it and creates a table from its output: one JSON object for each measurement. The deliveries are
//! recorded ones of GitHub. `--bin DIR` is the directory of the measured programs, `--id NAME` the name of the daemon's
//! cgroup, `--rounds N` the number of measurements of each server. It requires root for the daemon, and enters a network
//! namespace of its own.

#![expect(
    clippy::print_stdout,
    reason = "the figures are the benchmark's output"
)]
#![expect(clippy::panic, reason = "a failed measurement ends with a panic")]
#![expect(dead_code, reason = "the tests use more of the shared modules")]

#[path = "../tests/webhook/support/load.rs"]
mod load;
#[path = "../tests/webhook/support/mod.rs"]
mod support;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use hyper::body::Bytes;
use innkeeper_github::signature::SecretSet;
use innkeeper_model::Secret;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use support::payload::{RawDelivery, SECRET};
use support::program::{Program, built_without_rights, write_secret};
use support::{client, command, payload};

/// The variable that selects the baseline server.
const LEAST: &str = "INNKEEPER_WEBHOOK_BENCH_LEAST";

/// Numbers of connections and deliveries: each measurement takes about a second.
const LOADS: [(usize, usize); 3] = [(1, 1_000), (16, 5_000), (64, 5_000)];

/// Timeout for the daemon's start, in units of 10 ms.
const TRIES: usize = 3_000;

const RECORDED: &str =
    include_str!("../../innkeeper-github/tests/payloads/pull_request.opened.json");

/// The command line.
struct Options {
    bin: PathBuf,
    id: String,
    rounds: usize,
}

fn main() {
    if std::env::var_os(LEAST).is_some() {
        runtime().block_on(serve_least());
        return;
    }
    // nextest lists the tests of every target.
    if std::env::args().any(|argument| argument == "--list") {
        return;
    }
    let options = options();
    leave_the_host();
    // Created here, so that its threads are in the new network namespace.
    let runtime = runtime();
    let deliveries = deliveries();
    for round in 0..options.rounds {
        for (connections, count) in LOADS {
            let all = Arc::new(deliveries[..count].to_vec());
            let least = || {
                let (least, address) = start_least();
                runtime.block_on(measure("least", address, &all, connections));
                stop(least);
            };
            // Alternating order, so that neither server always runs second.
            if round % 2 == 0 {
                least();
            }
            // A new store each time: deliveries of another measurement would be duplicates.
            let place = support::directory();
            let config = configure(place.path(), &options.id);
            let daemon = start_daemon(place.path(), &config, &options.bin);
            let webhook = start_webhook(place.path(), &config, &options.bin);
            runtime.block_on(measure("innkeeper", webhook.address, &all, connections));
            drop(webhook);
            stop(daemon);
            if round % 2 == 1 {
                least();
            }
        }
    }
}

fn options() -> Options {
    let mut options = Options {
        bin: Path::new(env!("CARGO_BIN_EXE_innkeeper-webhook")).with_file_name(""),
        id: format!("innkeeper-bench-{}", std::process::id()),
        rounds: 5,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().expect("a value");
        match word.as_str() {
            "--bin" => options.bin = value().into(),
            "--id" => options.id = value(),
            "--rounds" => options.rounds = value().parse().expect("a number"),
            // Added by cargo.
            "--bench" => {}
            other => panic!("unknown option {other}"),
        }
    }
    options
}

/// Enters namespaces for the daemon's nftables table and mounts.
fn leave_the_host() {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("needs root");
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("private");
    let up = command("ip").args(["link", "set", "lo", "up"]).status();
    assert!(up.expect("ip runs").success());
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().expect("runtime")
}

/// Measures a server. Each delivery must be accepted.
async fn measure(
    server: &str,
    address: SocketAddr,
    all: &Arc<Vec<RawDelivery>>,
    connections: usize,
) {
    let storm = load::storm(address, all, connections);
    let (results, duration) = storm.finish().await;
    let refused = results
        .iter()
        .filter(|result| result.status() != 202)
        .count();
    assert_eq!(refused, 0, "{server} rejected some");
    let (rate, median, last) = load::figures(&results, duration);
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    let line = json!({
        "server": server,
        "connections": connections,
        "rate": rate,
        "median": milliseconds(median),
        "p99": milliseconds(last),
    });
    println!("{line}");
}

/// Returns copies of GitHub's recorded delivery for a hundred pull requests, with unique ids.
fn deliveries() -> Vec<RawDelivery> {
    let recorded: Value = serde_json::from_str(RECORDED).expect("JSON");
    let of_pull_request = |number: usize| {
        let mut payload = recorded.clone();
        payload["number"] = json!(number);
        payload["pull_request"]["number"] = json!(number);
        RawDelivery::signed("", "pull_request", payload.to_string())
    };
    let sent: Vec<_> = (1..=100).map(of_pull_request).collect();
    let most = LOADS.iter().map(|(_, count)| *count).max().unwrap_or(0);
    let numbered = (0..most).map(|n| RawDelivery {
        id: format!("72d3162e-cc78-11e3-81ab-{n:012}"),
        ..sent[n % sent.len()].clone()
    });
    numbered.collect()
}

/// Writes one configuration for both programs.
fn configure(place: &Path, id: &str) -> PathBuf {
    let secret = place.join("secret");
    write_secret(&secret, SECRET);
    let file = place.join("config.toml");
    let text = format!(
        "state_dir = '{place}/state'\nruntime_dir = '{place}/run'\n\
         [supervisor]\nkind = 'direct'\ncgroup = '{id}'\n\
         [credentials]\ndirectory = ''\n[legacy]\ndirectories = []\n\
         [nix]\ngcroots_dir = '{place}/gcroots'\n[log]\nlevel = 'error'\n\
         [webhook]\nlisten = '127.0.0.1:0'\nallowed_repos = []\ngroup = 'nogroup'\n\
         secret_files = ['{secret}']\n",
        place = place.display(),
        secret = secret.display(),
    );
    std::fs::write(&file, text).expect("written");
    file
}

fn start_daemon(place: &Path, config: &Path, bin: &Path) -> Child {
    let mut daemon = command(bin.join("innkeeperd"))
        .arg("--config")
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("innkeeperd starts");
    for _ in 0..TRIES {
        if UnixStream::connect(place.join("run/api.sock")).is_ok() {
            return daemon;
        }
        assert!(
            daemon.try_wait().expect("asked").is_none(),
            "innkeeperd ended"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("innkeeperd does not respond");
}

fn start_webhook(place: &Path, config: &Path, bin: &Path) -> Program {
    let mut command = built_without_rights(place, &bin.join("innkeeper-webhook"));
    command.arg("--config").arg(config);
    Program::run(place, command)
}

fn start_least() -> (Child, SocketAddr) {
    let mut child = command(std::env::current_exe().expect("own path"))
        .env(LEAST, "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut line = String::new();
    let mut said = BufReader::new(child.stdout.take().expect("piped"));
    said.read_line(&mut line).expect("reads");
    (child, line.trim().parse().expect("an address"))
}

fn stop(mut child: Child) {
    child.kill().expect("kills");
    child.wait().expect("ends");
}

async fn serve_least() {
    let secrets = SecretSet::new([Secret::new(SECRET)]).expect("a secret");
    let app = Router::new().route(
        "/webhook/github",
        post(async move |headers: HeaderMap, body: Bytes| {
            let header = headers.get("X-Hub-Signature-256");
            let header = header.and_then(|value| value.to_str().ok());
            match secrets.verify(&body, header) {
                Ok(()) => (StatusCode::ACCEPTED, Json(json!({ "status": "accepted" }))),
                Err(_) => (StatusCode::UNAUTHORIZED, Json(json!({}))),
            }
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("binds");
    println!("{}", listener.local_addr().expect("address"));
    axum::serve(listener, app).await.expect("serves");
}
