//! What durability costs: deliveries accepted in a second, by the real program with the real store behind
//! it, and by the least server that verifies the same deliveries and forgets them.
//!
//! `cargo bench -p innkeeper-webhook` prints a table. The deliveries are GitHub's recorded ones.

#![expect(
    clippy::print_stdout,
    reason = "the table is what the benchmark is for"
)]
#![expect(dead_code, reason = "the tests use more of what they share with this")]

#[path = "../tests/webhook/support/mod.rs"]
mod support;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::sync::Arc;

use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use hyper::body::Bytes;
use innkeeper_github::Secret;
use innkeeper_github::signature::SecretSet;
use serde_json::{Value, json};
use support::intake::{self, IntakeProcess};
use support::payload::{SECRET, Sent};
use support::program::Program;
use support::{command, directory, load};

/// Tells a process of ours to be the least server.
const LEAST: &str = "INNKEEPER_WEBHOOK_BENCH_LEAST";

/// How many deliveries are sent in each round.
const DELIVERIES: usize = 10_000;

/// Over how many connections.
const CONNECTIONS: [usize; 3] = [1, 16, 64];

const RECORDED: &str =
    include_str!("../../innkeeper-github/tests/payloads/pull_request.opened.json");

fn main() {
    intake::serve_if_child();
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    if std::env::var_os(LEAST).is_some() {
        runtime.block_on(serve_least());
        return;
    }
    // Cargo asks every target for its tests.
    if std::env::args().any(|argument| argument == "--list") {
        return;
    }
    runtime.block_on(measure());
}

async fn measure() {
    println!("| server | connections | accepted a second | median | 99th percentile |");
    println!("| --- | ---: | ---: | ---: | ---: |");
    let deliveries = deliveries();
    for connections in CONNECTIONS {
        let (least, address) = start_least();
        round("verifies and forgets", address, &deliveries, connections).await;
        stop(least);

        // A new store each time, so that no round meets the deliveries of another.
        let directory = directory();
        let daemon = IntakeProcess::start(directory.path(), &[]);
        let program = Program::start(directory.path());
        round(
            "innkeeper-webhook and its store",
            program.address,
            &deliveries,
            connections,
        )
        .await;
        drop((program, daemon));
    }
}

async fn round(server: &str, address: SocketAddr, all: &Arc<Vec<Sent>>, connections: usize) {
    let storm = load::storm(address, all, connections);
    let (shots, took) = storm.passes().await;
    let refused = shots.iter().filter(|shot| shot.status() != 202).count();
    assert_eq!(refused, 0, "{server} refused some");
    let (rate, median, last) = load::figures(&shots, took);
    println!("| {server} | {connections} | {rate:.0} | {median:.2?} | {last:.2?} |");
}

/// GitHub's recorded delivery for a hundred pull requests, each id once.
fn deliveries() -> Arc<Vec<Sent>> {
    let recorded: Value = serde_json::from_str(RECORDED).expect("JSON");
    let of_pull_request = |number: usize| {
        let mut payload = recorded.clone();
        payload["number"] = json!(number);
        payload["pull_request"]["number"] = json!(number);
        Sent::signed("", "pull_request", payload.to_string())
    };
    let sent: Vec<_> = (1..=100).map(of_pull_request).collect();
    let numbered = (0..DELIVERIES).map(|n| Sent {
        id: format!("72d3162e-cc78-11e3-81ab-{n:012}"),
        ..sent[n % sent.len()].clone()
    });
    Arc::new(numbered.collect())
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
