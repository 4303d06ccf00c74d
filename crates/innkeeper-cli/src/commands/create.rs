//! `agent create`.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::Args;
use innkeeper_model::api::{Accepted, CreateRequest, GuestView};
use innkeeper_model::{Code, Cpus, Failure, GuestName, MemorySize, OperationId, StorePath};

use super::{Context, at_address, milliseconds_since};
use crate::arguments::FlakeOutput;
use crate::failure::{CommandError, Status, not_running, not_understood};
use crate::follow::{attended, follow, goes_on};
use crate::wait::answers;

/// How long `--wait` waits.
const WAIT_LIMIT: Duration = Duration::from_secs(60);

/// Make an agent and start it
///
/// Returns when the agent's init has taken over. Omitted options use innkeeperd's defaults (`innkeeper config`).
#[derive(Args, Debug)]
pub(crate) struct Create {
    /// Its name: 1 to 63 of a-z, 0-9 and '-'; one is made up when none is given
    name: Option<GuestName>,

    /// The flake output to boot from, built when it was not built before
    ///
    /// Callers other than root give a remote reference, such as github:owner/repo.
    #[arg(long, value_name = "FLAKE[#ATTR]", value_parser = FlakeOutput::parse)]
    flake: Option<FlakeOutput>,

    /// The closure to boot from, already in the Nix store
    #[arg(long, value_name = "STORE_PATH", conflicts_with = "flake")]
    closure: Option<StorePath>,

    /// The most memory it may use, such as 512M or 4G
    #[arg(long, value_name = "SIZE")]
    memory: Option<MemorySize>,

    /// The most processors it may use, such as 2 or 0.5
    #[arg(long, value_name = "NUMBER")]
    cpus: Option<Cpus>,

    /// The most processes and threads it may have
    #[arg(long, value_name = "NUMBER")]
    tasks: Option<u32>,

    /// Return when it answers on TCP, or fail after 60 seconds
    #[arg(long)]
    wait: bool,

    /// The port that --wait waits for
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
            .ok_or_else(|| not_understood("a guest was accepted without its name"))?;
        let up = Cell::new(false);
        let note = || match up.get() {
            true => format!("Agent {name} is there; whether it answers was not waited for."),
            false => goes_on(&accepted),
        };
        let attended = attended(note, async {
            follow(
                &cx.client,
                &cx.output,
                &accepted,
                &format!("Creating agent {name}"),
            )
            .await?;
            up.set(true);
            let view = cx.guest(&name).await?;
            if let Some(port) = port {
                wait_for(&view, port).await?;
            }
            Ok(view)
        });
        let view = attended.await?;
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
        }
    }
}

/// Says how it ended.
fn report(
    cx: &Context,
    view: GuestView,
    port: Option<u16>,
    operation: OperationId,
    elapsed_ms: u64,
) -> Result<(), CommandError> {
    let name = &view.guest.name;
    if cx.output.is_quiet() && !cx.output.is_json() {
        // It may have been made up, so it is what was asked for.
        return cx.output.text(format_args!("{name}\n"));
    }
    let at = at_address(&view);
    let answers = port
        .map(|port| format!(" and accepts connections on port {port}"))
        .unwrap_or_default();
    cx.output.ok(format_args!(
        "Agent {name} is up{at}{answers} after {elapsed_ms} ms."
    ))?;
    cx.ended(Some(operation), elapsed_ms, Some(view))
}

/// Waits until the guest answers on the port.
async fn wait_for(view: &GuestView, port: u16) -> Result<(), CommandError> {
    let name = &view.guest.name;
    let address = view
        .guest_address
        .ok_or_else(|| not_running(&view.guest, "it has no address"))?;
    let address = SocketAddr::from((address, port));
    if answers(address, WAIT_LIMIT).await {
        return Ok(());
    }
    let limit = WAIT_LIMIT.as_secs();
    let message = format!("agent '{name}' runs, but does not answer on {address} within {limit} s");
    Err(Failure::new(Code::TimedOut, message)
        .with_remedy(format!(
            "The agent stays. `agent logs {name}` shows its console; `agent destroy {name}` removes it."
        ))
        .into())
}
