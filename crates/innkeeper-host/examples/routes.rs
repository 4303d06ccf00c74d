//! Measures the time from `ensure` of an additional route to the first successful request, with few and many existing
//! routes. `tests/bench/routes.py` starts Caddy for it.
//!
//! `routes DIRECTORY PORT ROUNDS COUNT…`: Caddy's main file and its admin socket are in the directory, and its sites listen
//! on the port of loopback. For each count, in ascending order, prints one line of JSON:
//! `{"routes": 10, "milliseconds": [5.1, …]}`.

#![expect(clippy::print_stdout, reason = "the output is the result")]

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Instant;

use innkeeper_facilities::{Resource as _, RouteSpec, RouteState, Routes as _};
use innkeeper_host::route::{Admin, CaddyConfig, CaddyRoutes, Tls};
use innkeeper_model::GuestName;
use innkeeper_model::preview::{ExtraHost, RoutePath, RouteRule};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Address of the app of all previews.
const APP: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 3000);

/// The app's response.
const HELLO: &str = "hello from the app";

#[tokio::main]
async fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, port, rounds, counts @ ..] = arguments.as_slice() else {
        return Err("usage: routes DIRECTORY PORT ROUNDS COUNT…".into());
    };
    let (port, rounds): (u16, usize) = (port.parse()?, rounds.parse()?);
    let routes = CaddyRoutes::new(config(Path::new(directory), port));
    let app = TcpListener::bind(APP).await?;
    tokio::spawn(answer_all(app));
    let mut existing = 0;
    for count in counts {
        let count: usize = count.parse()?;
        for number in existing..count {
            routes.ensure(&spec(&format!("web-{number}"))?).await?;
        }
        existing = count;
        let mut milliseconds = Vec::new();
        for round in 0..rounds {
            // A new name each time, so that no cache has it.
            let one_more = spec(&format!("more-{count}-{round}"))?;
            let started = Instant::now();
            routes.ensure(&one_more).await?;
            request(port, one_more.slug.as_str()).await?;
            milliseconds.push(started.elapsed().as_secs_f64() * 1000.0);
            routes.remove(&one_more.slug).await?;
        }
        println!("{{\"routes\": {count}, \"milliseconds\": {milliseconds:?}}}");
    }
    Ok(())
}

fn identity() -> innkeeper_host::identity::Identity {
    let daemon = innkeeper_model::DaemonId::parse(&"0".repeat(32)).expect("32 digits");
    innkeeper_host::identity::Identity::new(daemon, false)
}

fn config(directory: &Path, port: u16) -> CaddyConfig {
    CaddyConfig {
        identity: identity(),
        directory: directory.join("previews"),
        caddyfile: directory.join("Caddyfile"),
        table: directory.join("table"),
        lookup: SocketAddr::from((Ipv4Addr::LOCALHOST, 3180)),
        admin: Admin::Unix(directory.join("admin.sock")),
        domain: "localhost".to_owned(),
        tls: Tls::None,
        port: Some(port),
    }
}

/// Specifies a preview with two rules and an extra host.
fn spec(slug: &str) -> Outcome<RouteSpec> {
    let rule = |path: &str| -> Outcome<RouteRule> {
        Ok(RouteRule::new(RoutePath::parse(path)?, APP.port(), false))
    };
    Ok(RouteSpec {
        slug: GuestName::parse(slug)?,
        guest_address: Ipv4Addr::LOCALHOST,
        routes: vec![rule("/")?, rule("/api/*")?],
        extra_hosts: vec![ExtraHost {
            prefix: GuestName::parse("admin")?,
            routes: vec![rule("/")?],
        }],
        state: RouteState::Live,
    })
}

/// Requests a preview once. [`CaddyRoutes`] guarantees that the route is in force, so only the app's response is accepted.
async fn request(port: u16, slug: &str) -> Outcome<()> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let request =
        format!("GET / HTTP/1.1\r\nHost: {slug}.localhost:{port}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut response = String::new();
    stream.read_to_string(&mut response).await?;
    if response.ends_with(HELLO) {
        Ok(())
    } else {
        Err(format!("{slug}: {response}").into())
    }
}

async fn answer_all(app: TcpListener) {
    let length = HELLO.len();
    let response =
        format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{HELLO}");
    while let Ok((mut stream, _)) = app.accept().await {
        // A request without a body arrives in one piece. The client reports a missing response.
        if let Ok(1..) = stream.read(&mut [0; 4096]).await {
            stream.write_all(response.as_bytes()).await.ok();
        }
    }
}
