//! `agent stop`.

use std::time::Instant;

use clap::Args;
use innkeeper_model::GuestName;

use super::{Context, milliseconds_since};
use crate::failure::Status;
use crate::follow::{attended, follow, goes_on};

/// Stop an agent and keep its files and its address
#[derive(Args, Debug)]
pub(crate) struct Stop {
    /// The agent
    name: GuestName,
}

impl Stop {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let name = self.name;
        let start = Instant::now();
        let accepted = cx.change(&name, "/stop").await?;
        let attended = attended(|| goes_on(&accepted), async {
            follow(
                &cx.client,
                &cx.output,
                &accepted,
                &format!("Stopping agent {name}"),
            )
            .await?;
            cx.guest(&name).await
        });
        let view = attended.await?;
        let elapsed_ms = milliseconds_since(start);
        cx.output.ok(format_args!(
            "Agent {name} has stopped after {elapsed_ms} ms."
        ))?;
        cx.ended(Some(accepted.operation), elapsed_ms, Some(view))?;
        Ok(0)
    }
}
