//! Sets routes by commands, with the real driver. `tests/browser` starts Caddy for it.
//!
//! `route_commands DIRECTORY PORT PAGES ACCESS`: Caddy's main file and its admin socket are in the directory, its sites listen on
//! the port of loopback, PAGES is the socket of innkeeper-pages, and ACCESS is that of innkeeper-gateway for the check of visitors.
//! Reads commands, one a line, and prints `ok` after each:
//!
//! - `live SLUG PORT`: requests go to the port of loopback.
//! - `held SLUG PORT`: requests wait for the port.
//! - `private SLUG PORT`, `private-held SLUG PORT`: the same after a check of the visitor.
//! - `page SLUG`: requests go to the page.
//! - `remove SLUG`

#![expect(clippy::print_stdout, reason = "the output is the result")]

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use innkeeper_facilities::{Resource as _, RouteSpec, RouteState, Routes as _};
use innkeeper_host::route::{Admin, CaddyConfig, CaddyRoutes, Tls};
use innkeeper_model::GuestName;
use innkeeper_model::preview::{RoutePath, RouteRule};
use tokio::io::{AsyncBufReadExt as _, BufReader};

type Outcome<T> = Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, port, pages, access] = arguments.as_slice() else {
        return Err("usage: route_commands DIRECTORY PORT PAGES ACCESS".into());
    };
    let routes = CaddyRoutes::new(config(
        Path::new(directory),
        port.parse()?,
        Path::new(pages),
        Path::new(access),
    ));
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let words: Vec<_> = line.split(' ').collect();
        match words.as_slice() {
            [
                command @ ("live" | "held" | "private" | "private-held"),
                slug,
                port,
            ] => {
                let rule = RouteRule::new(RoutePath::parse("/")?, port.parse()?, false);
                let state = match *command {
                    "live" | "private" => RouteState::Live,
                    _ => RouteState::Held,
                };
                let mut spec = spec(slug, vec![rule], state)?;
                spec.checked = command.starts_with("private");
                routes.ensure(&spec).await?;
            }
            ["page", slug] => {
                routes
                    .ensure(&spec(slug, Vec::new(), RouteState::Placeholder)?)
                    .await?;
            }
            ["remove", slug] => routes.remove(&GuestName::parse(slug)?).await?,
            _ => return Err(format!("unknown command: {line}").into()),
        }
        println!("ok");
    }
    Ok(())
}

fn spec(slug: &str, routes: Vec<RouteRule>, state: RouteState) -> Outcome<RouteSpec> {
    Ok(RouteSpec {
        slug: GuestName::parse(slug)?,
        guest_address: Ipv4Addr::LOCALHOST,
        routes,
        extra_hosts: Vec::new(),
        state,
        checked: false,
    })
}

fn identity() -> innkeeper_host::identity::Identity {
    let daemon = innkeeper_model::DaemonId::parse(&"0".repeat(32)).expect("32 digits");
    innkeeper_host::identity::Identity::new(daemon, false)
}

fn config(directory: &Path, port: u16, pages: &Path, access: &Path) -> CaddyConfig {
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
        pages: pages.to_owned(),
        access: Some(access.to_owned()),
        resolver: None,
        guest_port: None,
        is_https: false,
        trusted_proxies: Vec::new(),
        robots: None,
    }
}
