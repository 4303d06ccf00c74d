//! The time from `ensure` of an additional route to the first successful request.

use std::net::Ipv4Addr;
use std::time::Instant;

use innkeeper_facilities::{Resource as _, Routes as _};
use innkeeper_host::route::CaddyRoutes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::{APP, HELLO, Outcome, spec};

pub(crate) async fn measure(
    routes: &CaddyRoutes,
    port: u16,
    rounds: usize,
    counts: &[&str],
) -> Outcome<()> {
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
