//! `agent port-forward`.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use clap::Args;
use innkeeper_model::{Code, Failure, GuestName};
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::context::Context;
use crate::failure::{CommandError, Status};
use crate::follow::until_interrupted;
use crate::tunnel::{self, Guest};

/// Maximum number of open connections. Further ones wait.
const MAX_CONNECTIONS: usize = 256;

/// Forward local TCP ports to ports of an agent, until Ctrl-C
///
/// Listens on this machine only. Servers in the agent are reached on any of its addresses, its loopback too. An agent that is
/// paused or asleep is woken by a connection, and does not rest by itself while one is open.
#[derive(Args, Debug)]
pub(crate) struct PortForward {
    /// Name of the agent
    name: GuestName,

    #[command(flatten)]
    arguments: PortForwardArguments,
}

/// Arguments of `agent port-forward` and `preview port-forward`.
#[derive(Args, Debug)]
pub(super) struct PortForwardArguments {
    /// Local port and port of the guest; PORT alone is both. The local port 0 selects a free one
    #[arg(required = true, value_name = "[LOCAL:]PORT", value_parser = Forward::parse)]
    forwards: Vec<Forward>,
}

/// A local port and the guest's port that it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Forward {
    local: u16,
    port: u16,
}

impl Forward {
    fn parse(text: &str) -> Result<Self, String> {
        let (local, port) = text.split_once(':').unwrap_or((text, text));
        let number = |text: &str| text.parse::<u16>().ok();
        match (number(local), number(port)) {
            (Some(local), Some(port)) if port > 0 => Ok(Self { local, port }),
            _ => Err("write two ports such as 8080:3000, or one such as 3000".to_owned()),
        }
    }
}

/// A forward that is ready, as JSON.
#[derive(Debug, Serialize)]
struct Ready {
    address: SocketAddr,
    port: u16,
}

impl PortForward {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let name = self.name.clone();
        // A mistyped name must fail before the first connection.
        cx.guest(&name).await?;
        self.arguments.run(cx, Guest::agent(name)).await
    }
}

impl PortForwardArguments {
    pub(super) async fn run(self, cx: &Context, guest: Guest) -> Status {
        let mut listeners = Vec::new();
        for forward in self.forwards {
            listeners.push((listen(forward).await?, forward.port));
        }
        for (listener, port) in &listeners {
            let address = listener
                .local_addr()
                .map_err(|error| cannot_listen(0, &error))?;
            let port = *port;
            cx.output.ok(format_args!(
                "{address} leads to port {port} of {}.",
                guest.name()
            ))?;
            if cx.output.is_json() {
                cx.output.value(&Ready { address, port })?;
            }
        }
        let shared = Arc::new(Shared {
            cx: cx.clone(),
            guest,
            free: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        });
        let note = || "The ports are no longer forwarded.".to_owned();
        until_interrupted(note, async {
            let mut accepting = JoinSet::new();
            for (listener, port) in listeners {
                accepting.spawn(Arc::clone(&shared).accept(listener, port));
            }
            // They never end.
            while accepting.join_next().await.is_some() {}
            Ok(0)
        })
        .await
    }
}

async fn listen(forward: Forward) -> Result<TcpListener, CommandError> {
    let address = (IpAddr::V4(Ipv4Addr::LOCALHOST), forward.local);
    let listener = TcpListener::bind(address).await;
    Ok(listener.map_err(|error| cannot_listen(forward.local, &error))?)
}

fn cannot_listen(port: u16, error: &io::Error) -> Failure {
    Failure::new(
        Code::InvalidRequest,
        format!("cannot listen on port {port} of this machine: {error}"),
    )
    .with_remedy("Use another local port, such as 8080 in `8080:3000`, or 0 for any.")
}

/// What all connections use.
struct Shared {
    cx: Context,
    guest: Guest,
    free: Arc<Semaphore>,
}

impl Shared {
    /// Accepts connections to a local port, each carried by a task.
    async fn accept(self: Arc<Self>, listener: TcpListener, port: u16) {
        loop {
            let Ok(permit) = Arc::clone(&self.free).acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let shared = Arc::clone(&self);
                    tokio::spawn(async move {
                        shared.carry(stream, port).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    self.report(port, &error);
                    // Too many open files: connections that end free some.
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Carries one connection. A failure is reported and ends this connection only.
    async fn carry(&self, mut stream: TcpStream, port: u16) {
        let connection = match self.guest.connect(&self.cx, port, 0).await {
            Ok(connection) => connection,
            Err(CommandError::Failure(failure)) => {
                reset(&stream);
                return self.cx.output.failure(&failure);
            }
            Err(error) => return self.report(port, &error),
        };
        stream.set_nodelay(true).ok();
        let (from, to) = stream.split();
        if tunnel::carry(connection, from, to).await.is_err() {
            // One side broke the connection, which the other one notices by a reset.
            reset(&stream);
        }
    }

    fn report(&self, port: u16, problem: &dyn fmt::Display) {
        let note = format!(
            "A connection to port {port} of {} failed: {problem}",
            self.guest.name()
        );
        self.cx.output.note(&note);
    }
}

/// Has a connection end with a reset instead of an end of data, which would look like success.
fn reset(stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    socket.set_linger(Some(std::time::Duration::ZERO)).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_given_together_or_apart() {
        let forward = |local, port| Ok(Forward { local, port });
        assert_eq!(Forward::parse("8080:3000"), forward(8080, 3000));
        assert_eq!(Forward::parse("3000"), forward(3000, 3000));
        assert_eq!(Forward::parse("0:3000"), forward(0, 3000));
        for bad in ["", "0", "1:0", ":1", "1:", "a:1", "65536", "1:2:3", "-1"] {
            Forward::parse(bad).expect_err(bad);
        }
    }
}
