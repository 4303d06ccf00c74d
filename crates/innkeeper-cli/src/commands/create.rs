//! `agent create`.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::Args;
use innkeeper_model::api::{Accepted, CreateRequest, GuestView};
use innkeeper_model::{
    Code, Cpus, Failure, GuestName, IdlePolicy, MemorySize, OperationId, StorePath, UserIdCount,
};

use super::at_address;
use crate::arguments::{FlakeOutput, idle_policy};
use crate::context::{Context, milliseconds_since};
use crate::failure::{CommandError, Status, not_running, unexpected_response};
use crate::follow::{continues_note, follow, until_interrupted};
use crate::tunnel::Guest;
use crate::wait::accepts_connections;

/// Timeout of `--wait`.
const WAIT_LIMIT: Duration = Duration::from_secs(60);

/// Create an agent and start it
///
/// Returns when the agent's init runs. Omitted options use innkeeperd's defaults (`innkeeper config`).
#[derive(Args, Debug)]
pub(crate) struct Create {
    /// Name of the agent: 1 to 63 of a-z, 0-9 and '-' [default: generated]
    name: Option<GuestName>,

    /// Flake output to boot from; it is built if necessary
    ///
    /// Callers other than root must use a remote reference, such as github:owner/repo.
    #[arg(long, value_name = "FLAKE[#ATTR]", value_parser = FlakeOutput::parse)]
    flake: Option<FlakeOutput>,

    /// Closure to boot from; it must be in the Nix store
    #[arg(long, value_name = "STORE_PATH", conflicts_with = "flake")]
    closure: Option<StorePath>,

    /// Memory limit, such as 512M or 4G
    #[arg(long, value_name = "SIZE")]
    memory: Option<MemorySize>,

    /// Processor limit, such as 2 or 0.5
    #[arg(long, value_name = "NUMBER")]
    cpus: Option<Cpus>,

    /// Limit of processes and threads
    #[arg(long, value_name = "NUMBER")]
    tasks: Option<u32>,

    /// Number of user ids: a power of two from 65536 to 1048576
    ///
    /// More than 65536 leave room for the users of containers. The agent takes a slot for each 65536.
    #[arg(long, value_name = "NUMBER")]
    user_ids: Option<UserIdCount>,

    /// Let containers run in the agent (podman, Docker); it has at least 131072 user ids by default
    ///
    /// Requires guest.nesting in innkeeperd's configuration.
    #[arg(long)]
    nesting: bool,

    /// Use of its idle time: sleep (paused, then put to sleep), pause or always-on [default: rest.agents.idle]
    #[arg(long, value_name = "POLICY", value_parser = idle_policy)]
    idle: Option<IdlePolicy>,

    /// Wait until the agent accepts TCP connections; fail after 60 seconds
    #[arg(long)]
    wait: bool,

    /// Port for --wait
    #[arg(
        long,
        value_name = "PORT",
        default_value_t = 22,
        requires = "wait",
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    wait_port: u16,
}

impl Create {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let port = self.wait.then_some(self.wait_port);
        let request = self.request();
        let start = Instant::now();
        let accepted: Accepted = cx.client.post("/v1/guests", &request).await?;
        let name = (accepted.guest.clone())
            .ok_or_else(|| unexpected_response("accepted guest has no name"))?;
        let up = Cell::new(false);
        let note = || match up.get() {
            true => format!("Agent {name} is up; its port was not checked."),
            false => continues_note(&accepted),
        };
        let created = until_interrupted(note, async {
            follow(cx, &accepted, &format!("Creating agent {name}")).await?;
            up.set(true);
            let view = cx.guest(&name).await?;
            if let Some(port) = port {
                wait_for_port(cx, &view, port).await?;
            }
            Ok(view)
        });
        let view = created.await?;
        report(
            cx,
            view,
            port,
            accepted.operation,
            milliseconds_since(start),
        )?;
        Ok(0)
    }

    fn request(self) -> CreateRequest {
        CreateRequest {
            name: self.name,
            flake: self.flake.map(FlakeOutput::into_text),
            closure: self.closure,
            memory: self.memory,
            cpus: self.cpus,
            tasks: self.tasks,
            user_ids: self.user_ids,
            nesting: self.nesting,
            declared: false,
            idle_policy: self.idle,
        }
    }
}

/// Reports a created agent.
fn report(
    cx: &Context,
    view: GuestView,
    port: Option<u16>,
    operation: OperationId,
    elapsed_ms: u64,
) -> Result<(), CommandError> {
    let name = &view.guest.name;
    if cx.output.is_quiet() && !cx.output.is_json() {
        // The name may be generated, so it is the result of the command.
        return cx.output.text(format_args!("{name}\n"));
    }
    let at = at_address(&view);
    let port = port
        .map(|port| format!(" and accepts connections on port {port}"))
        .unwrap_or_default();
    cx.output.ok(format_args!(
        "Agent {name} is up{at}{port} after {elapsed_ms} ms."
    ))?;
    cx.print_result(Some(operation), elapsed_ms, Some(view))
}

/// Waits until the guest accepts connections on the port.
async fn wait_for_port(cx: &Context, view: &GuestView, port: u16) -> Result<(), CommandError> {
    let name = &view.guest.name;
    if cx.client.gateway().is_some() {
        // The guest's address is the host's: the daemon connects.
        let guest = Guest::agent(name.clone());
        return guest
            .connect(cx, port, WAIT_LIMIT.as_secs())
            .await
            .map(drop);
    }
    let address = view
        .guest_address
        .ok_or_else(|| not_running(&view.guest, "it has no address"))?;
    let address = SocketAddr::from((address, port));
    if accepts_connections(address, WAIT_LIMIT).await {
        return Ok(());
    }
    let limit = WAIT_LIMIT.as_secs();
    let message = format!(
        "agent '{name}' is up, but did not accept connections on {address} within {limit} s"
    );
    Err(Failure::new(Code::TimedOut, message)
        .with_remedy(format!(
            "`agent logs {name}` shows its console. The agent is kept; `agent destroy {name}` destroys it."
        ))
        .into())
}
