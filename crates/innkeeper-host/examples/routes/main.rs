//! Measures the routes of previews. `tests/bench/routes.py` starts Caddy for it.
//!
//! `routes add DIRECTORY PORT ROUNDS COUNT…`: the time from `ensure` of an additional route to the first successful request,
//! with few and many existing routes. Prints one line of JSON for each count, in ascending order:
//! `{"routes": 10, "milliseconds": [5.1, …]}`.
//!
//! `routes throughput DIRECTORY PORT ROUNDS COUNT`: the requests per second to previews of which COUNT exist, beside those
//! through a plain `reverse_proxy` on the next port. Prints one line of JSON:
//! `{"plain": [4020.5, …], "settled": […], "unchanged": […], "paths": […], "three": […], "private": […], "changed": […]}`. If a program
//! listens at the app's address, that is the app. `innkeeper-dns` must run, with its folder `dns` in the directory, and
//! `innkeeper-gateway`, with its `access.sock` there. The variable `VISITOR` has the cookie of a visitor of the private preview.
//!
//! Caddy's main file and its admin socket are in the directory, and its sites listen on the port of loopback.

#![expect(clippy::print_stdout, reason = "the output is the result")]

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use innkeeper_facilities::{RouteSpec, RouteState};
use innkeeper_host::route::{Admin, CaddyConfig, CaddyRoutes, Robots, RouteResolver, Tls};
use innkeeper_model::GuestName;
use innkeeper_model::preview::{ExtraHost, RoutePath, RouteRule};

mod add;
mod throughput;

type Outcome<T> = Result<T, Box<dyn Error>>;

const USAGE: &str =
    "usage: routes add DIRECTORY PORT ROUNDS COUNT…, routes throughput DIRECTORY PORT ROUNDS COUNT";

/// The address of all guests, in the subnet that `innkeeper-dns` is started with.
const GUEST: Ipv4Addr = Ipv4Addr::new(127, 100, 0, 3);

/// The port of `innkeeper-dns`.
const RESOLVER: u16 = 3053;

/// Address of the app of all previews.
const APP: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(GUEST), 3000);

/// The app's response.
const HELLO: &str = "hello from the app";

#[tokio::main]
async fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [measure, directory, port, rounds, counts @ ..] = arguments.as_slice() else {
        return Err(USAGE.into());
    };
    let (port, rounds): (u16, usize) = (port.parse()?, rounds.parse()?);
    let routes = CaddyRoutes::new(config(Path::new(directory), port));
    match (*measure, counts) {
        ("add", counts) => add::measure(&routes, port, rounds, counts).await,
        ("throughput", [count]) => throughput::measure(&routes, port, rounds, count.parse()?).await,
        _ => Err(USAGE.into()),
    }
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
        pages: directory.join("pages.sock"),
        access: Some(directory.join("access.sock")),
        resolver: Some(RouteResolver {
            port: RESOLVER,
            table: directory.join("dns/table"),
        }),
        admin: Admin::Unix(directory.join("admin.sock")),
        domain: "localhost".to_owned(),
        tls: Tls::None,
        port: Some(port),
        guest_port: None,
        is_https: false,
        trusted_proxies: Vec::new(),
        robots: Robots::parse("noindex"),
    }
}

/// Specifies a preview with two rules and an extra host.
fn spec(slug: &str) -> Outcome<RouteSpec> {
    let rule = |path: &str| -> Outcome<RouteRule> {
        Ok(RouteRule::new(RoutePath::parse(path)?, APP.port(), false))
    };
    Ok(RouteSpec {
        slug: GuestName::parse(slug)?,
        guest_address: GUEST,
        routes: vec![rule("/")?, rule("/api/*")?],
        extra_hosts: vec![ExtraHost {
            prefix: GuestName::parse("admin")?,
            routes: vec![rule("/")?],
        }],
        state: RouteState::Live,
        checked: false,
    })
}
