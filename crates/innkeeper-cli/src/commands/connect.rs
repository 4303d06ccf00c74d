//! `agent connect`.

use clap::Args;
use innkeeper_model::api::connect::MAX_WAIT;
use innkeeper_model::{Code, Failure, GuestName};

use crate::context::Context;
use crate::failure::Status;
use crate::tunnel::{self, Guest};

/// Connect standard input and output to a TCP port of an agent
///
/// For programs that start another program to connect, such as ssh with its option ProxyCommand. An agent that is paused or
/// asleep is woken first. Ends when the agent closes the connection.
#[derive(Args, Debug)]
pub(crate) struct Connect {
    /// Name of the agent
    name: GuestName,

    #[command(flatten)]
    arguments: ConnectArguments,
}

/// Arguments of `agent connect` and `preview connect`.
#[derive(Args, Debug)]
pub(super) struct ConnectArguments {
    /// Port of the guest, on any of its addresses, its loopback too
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,

    /// Wait up to this number of seconds until the port accepts connections
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=MAX_WAIT))]
    wait: u64,
}

impl Connect {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        self.arguments.run(cx, &Guest::agent(self.name)).await
    }
}

impl ConnectArguments {
    pub(super) async fn run(self, cx: &Context, guest: &Guest) -> Status {
        let connection = guest.connect(cx, self.port, self.wait).await?;
        let carried = tunnel::carry_standard(connection, cx.output);
        carried.await.map_err(|error| {
            let (port, name) = (self.port, guest.name());
            let message = format!("lost the connection to port {port} of '{name}': {error}");
            Failure::new(Code::DaemonUnreachable, message).with_remedy(cx.client.check_remedy())
        })?;
        Ok(0)
    }
}
