//! `agent wake`.

use std::time::Instant;

use clap::Args;
use innkeeper_model::GuestName;

use crate::context::{Context, milliseconds_since};
use crate::failure::Status;
use crate::follow::complete;

/// Wake an agent that is paused or asleep
#[derive(Args, Debug)]
pub(crate) struct Wake {
    /// Name of the agent
    name: GuestName,
}

impl Wake {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let name = self.name;
        let start = Instant::now();
        let accepted = cx.change_guest(&name, "/wake").await?;
        let label = format!("Waking agent {name}");
        let view = complete(cx, &accepted, &label, cx.guest(&name)).await?;
        let elapsed_ms = milliseconds_since(start);
        cx.output
            .ok(format_args!("Agent {name} is awake after {elapsed_ms} ms."))?;
        cx.print_result(Some(accepted.operation), elapsed_ms, Some(view))?;
        Ok(0)
    }
}
