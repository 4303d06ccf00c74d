//! `agent sleep`.

use std::time::Instant;

use clap::Args;
use innkeeper_model::GuestName;

use crate::context::{Context, milliseconds_since};
use crate::failure::Status;
use crate::follow::complete;

/// Shut an agent down until it is woken; its files and its address are kept
///
/// Other than a stopped agent, it is started by `agent exec` and `agent ssh`.
#[derive(Args, Debug)]
pub(crate) struct Sleep {
    /// Name of the agent
    name: GuestName,
}

impl Sleep {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let name = self.name;
        let start = Instant::now();
        let accepted = cx.change_guest(&name, "/sleep").await?;
        let label = format!("Putting agent {name} to sleep");
        let view = complete(cx, &accepted, &label, cx.guest(&name)).await?;
        let elapsed_ms = milliseconds_since(start);
        cx.output.ok(format_args!(
            "Agent {name} is asleep after {elapsed_ms} ms."
        ))?;
        cx.print_result(Some(accepted.operation), elapsed_ms, Some(view))?;
        Ok(0)
    }
}
