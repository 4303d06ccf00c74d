//! `agent start`.

use std::time::Instant;

use clap::Args;
use innkeeper_model::GuestName;

use super::at_address;
use crate::context::{Context, milliseconds_since};
use crate::failure::Status;
use crate::follow::complete;

/// Start a stopped agent
///
/// An agent that is paused or asleep is woken.
#[derive(Args, Debug)]
pub(crate) struct Start {
    /// Name of the agent
    name: GuestName,
}

impl Start {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let name = self.name;
        let start = Instant::now();
        let accepted = cx.change_guest(&name, "/start").await?;
        let label = format!("Starting agent {name}");
        let view = complete(cx, &accepted, &label, cx.guest(&name)).await?;
        let (at, elapsed_ms) = (at_address(&view), milliseconds_since(start));
        cx.output.ok(format_args!(
            "Agent {name} is up{at} after {elapsed_ms} ms."
        ))?;
        cx.print_result(Some(accepted.operation), elapsed_ms, Some(view))?;
        Ok(0)
    }
}
