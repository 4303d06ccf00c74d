//! `agent pause`.

use std::time::Instant;

use clap::Args;
use innkeeper_model::GuestName;

use crate::context::{Context, milliseconds_since};
use crate::failure::Status;
use crate::follow::complete;

/// Freeze an agent's processes; memory, network and open connections stay
///
/// The agent uses no processor until it is woken: by `agent exec` or `agent ssh`, or by the first packet to it.
#[derive(Args, Debug)]
pub(crate) struct Pause {
    /// Name of the agent
    name: GuestName,
}

impl Pause {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let name = self.name;
        let start = Instant::now();
        let accepted = cx.change_guest(&name, "/pause").await?;
        let label = format!("Pausing agent {name}");
        let view = complete(cx, &accepted, &label, cx.guest(&name)).await?;
        let elapsed_ms = milliseconds_since(start);
        cx.output.ok(format_args!(
            "Agent {name} is paused after {elapsed_ms} ms."
        ))?;
        cx.print_result(Some(accepted.operation), elapsed_ms, Some(view))?;
        Ok(0)
    }
}
