//! What durability costs: deliveries accepted in a second, by the real programs, and by the least server that
//! verifies the same deliveries and forgets them.
//!
//! `make bench` runs it and makes a table of what it prints: one JSON object for each turn of a server. The
//! deliveries are GitHub's recorded ones. `--bin DIR` says where the programs are that are measured, `--id NAME`
//! what the daemon's cgroup is called, `--rounds N` how often each server has its turn. It needs root, for the
//! daemon, and leaves the host's network before it starts one.

#![expect(
    clippy::print_stdout,
    reason = "the figures are what the benchmark is for"
)]
#![expect(clippy::panic, reason = "what cannot be measured ends with a panic")]
#![expect(dead_code, reason = "the tests use more of what they share with this")]

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
use support::payload::{SECRET, Sent};
use support::program::{Program, built_without_rights, write_secret};
use support::{client, command, payload};

/// Tells a process of ours to be the least server.
const LEAST: &str = "INNKEEPER_WEBHOOK_BENCH_LEAST";

/// Over how many connections, and how many deliveries then: each turn takes about a second.
const LOADS: [(usize, usize); 3] = [(1, 1_000), (16, 5_000), (64, 5_000)];

/// How long the daemon may take to be there, in tries of 10 ms.
const TRIES: usize = 3_000;

const RECORDED: &str =
    include_str!("../../innkeeper-github/tests/payloads/pull_request.opened.json");

/// What was asked for.
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
    // Cargo asks every target for its tests.
    if std::env::args().any(|argument| argument == "--list") {
        return;
    }
    let options = options();
    leave_the_host();
    // Its threads are started in the network that this one is in.
    let runtime = runtime();
    let deliveries = deliveries();
    for round in 0..options.rounds {
        for (connections, count) in LOADS {
            let all = Arc::new(deliveries[..count].to_vec());
            let least = || {
                let (least, address) = start_least();
                runtime.block_on(turn("least", address, &all, connections));
                stop(least);
            };
            // Neither always comes after the other.
            if round % 2 == 0 {
                least();
            }
            // A new store each time, so that no turn meets the deliveries of another.
            let place = support::directory();
            let config = configure(place.path(), &options.id);
            let daemon = start_daemon(place.path(), &config, &options.bin);
            let webhook = start_webhook(place.path(), &config, &options.bin);
            runtime.block_on(turn("innkeeper", webhook.address, &all, connections));
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
            // Cargo adds it.
            "--bench" => {}
            other => panic!("what is {other}?"),
        }
    }
    options
}

/// The daemon has an nftables table and mounts; none of it is to be the host's.
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

/// One turn of a server. Each delivery must be accepted.
async fn turn(server: &str, address: SocketAddr, all: &Arc<Vec<Sent>>, connections: usize) {
    let storm = load::storm(address, all, connections);
    let (shots, took) = storm.passes().await;
    let refused = shots.iter().filter(|shot| shot.status() != 202).count();
    assert_eq!(refused, 0, "{server} refused some");
    let (rate, median, last) = load::figures(&shots, took);
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

/// GitHub's recorded delivery for a hundred pull requests, each id once.
fn deliveries() -> Vec<Sent> {
    let recorded: Value = serde_json::from_str(RECORDED).expect("JSON");
    let of_pull_request = |number: usize| {
        let mut payload = recorded.clone();
        payload["number"] = json!(number);
        payload["pull_request"]["number"] = json!(number);
        Sent::signed("", "pull_request", payload.to_string())
    };
    let sent: Vec<_> = (1..=100).map(of_pull_request).collect();
    let most = LOADS.iter().map(|(_, count)| *count).max().unwrap_or(0);
    let numbered = (0..most).map(|n| Sent {
        id: format!("72d3162e-cc78-11e3-81ab-{n:012}"),
        ..sent[n % sent.len()].clone()
    });
    numbered.collect()
}

/// One configuration for both programs.
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
    panic!("innkeeperd does not answer");
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
