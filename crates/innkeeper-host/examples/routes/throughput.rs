//! The requests per second to previews, beside those through a plain `reverse_proxy`.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use innkeeper_facilities::{RouteSpec, Routes as _};
use innkeeper_host::route::CaddyRoutes;
use innkeeper_model::preview::{RoutePath, RouteRule};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::{APP, HELLO, Outcome, spec};

/// Number of concurrent connections.
const CONNECTIONS: usize = 16;

/// Time of one measurement. Those of a round follow each other, so that a busy machine affects all of them.
const TIME: Duration = Duration::from_millis(500);

pub(crate) async fn measure(
    routes: &CaddyRoutes,
    port: u16,
    rounds: usize,
    count: usize,
) -> Outcome<()> {
    match TcpListener::bind(APP).await {
        Ok(app) => drop(tokio::spawn(serve(app))),
        // Another program is the app.
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {}
        Err(error) => return Err(error.into()),
    }
    for number in 0..count {
        routes.ensure(&simple(&format!("web-{number}"))?).await?;
    }
    routes.ensure(&simple("settled")?).await?;
    // Without the minute that the daemon waits.
    routes.settle_after(Duration::ZERO).await?;
    routes.ensure(&simple("unchanged")?).await?;
    routes.ensure(&spec("paths")?).await?;
    routes.ensure(&three("three")?).await?;
    let mut private = simple("private")?;
    private.checked = true;
    routes.ensure(&private).await?;
    let mut found: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for round in 0..rounds {
        for (name, port, path) in [
            ("plain", port + 1, "/"),
            ("settled", port, "/"),
            ("unchanged", port, "/"),
            ("paths", port, "/index.html"),
            ("three", port, "/api/users"),
            ("private", port, "/"),
            ("changed", port, "/"),
        ] {
            if name == "changed" {
                // Another set of routes each time.
                let changed = if round % 2 == 0 {
                    simple(name)
                } else {
                    spec(name)
                };
                routes.ensure(&changed?).await?;
            }
            found
                .entry(name)
                .or_default()
                .push(load(port, name, path).await?);
        }
    }
    println!("{}", serde_json::to_string(&found)?);
    Ok(())
}

/// Specifies a preview with one app.
fn simple(slug: &str) -> Outcome<RouteSpec> {
    let mut spec = spec(slug)?;
    spec.routes.truncate(1);
    spec.extra_hosts.clear();
    Ok(spec)
}

/// Specifies a preview with three rules, one of which removes its path.
fn three(slug: &str) -> Outcome<RouteSpec> {
    let mut spec = spec(slug)?;
    spec.routes.truncate(1);
    for (path, strip_prefix) in [("/api", true), ("/ws", false)] {
        let path = RoutePath::parse(path)?;
        let rule = RouteRule::new(path, APP.port(), strip_prefix);
        spec.routes.push(rule);
    }
    Ok(spec)
}

/// Returns the requests per second over all connections.
async fn load(port: u16, slug: &str, path: &'static str) -> Outcome<f64> {
    let started = Instant::now();
    let connections: Vec<_> = (0..CONNECTIONS)
        .map(|_| tokio::spawn(repeat(port, slug.to_owned(), path, started + TIME)))
        .collect();
    let mut count = 0;
    for connection in connections {
        count += connection
            .await?
            .map_err(|error| format!("{slug}: {error}"))?;
    }
    Ok(f64::from(count) / started.elapsed().as_secs_f64())
}

/// Sends requests one after the other, and returns their number. Only the app's response is accepted.
async fn repeat(port: u16, slug: String, path: &'static str, end: Instant) -> Result<u32, String> {
    let cookie = std::env::var("VISITOR").unwrap_or_default();
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {slug}.localhost:{port}\r\nCookie: {cookie}\r\n\r\n");
    let broken = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
        .await
        .map_err(broken)?;
    let mut count = 0;
    while Instant::now() < end {
        stream.write_all(request.as_bytes()).await.map_err(broken)?;
        let mut response = Vec::new();
        while !response.ends_with(HELLO.as_bytes()) {
            if stream.read_buf(&mut response).await.map_err(broken)? == 0 || response.len() > 4096 {
                return Err(String::from_utf8_lossy(&response).into_owned());
            }
        }
        count += 1;
    }
    Ok(count)
}

async fn serve(app: TcpListener) {
    while let Ok((stream, _)) = app.accept().await {
        tokio::spawn(answer(stream));
    }
}

/// Answers the requests of a connection. They have no bodies, and the next one follows the response.
async fn answer(mut stream: TcpStream) {
    let length = HELLO.len();
    let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{HELLO}");
    let mut request = Vec::new();
    while let Ok(1..) = stream.read_buf(&mut request).await {
        if request.ends_with(b"\r\n\r\n") {
            request.clear();
            if stream.write_all(response.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}
