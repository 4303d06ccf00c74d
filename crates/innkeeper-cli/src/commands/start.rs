//! `agent start`.

use std::time::Instant;

use clap::Args;
use innkeeper_model::GuestName;

use super::{Context, at_address, milliseconds_since};
use crate::failure::Status;
use crate::follow::{attended, follow, goes_on};

/// Start an agent that was stopped
#[derive(Args, Debug)]
pub(crate) struct Start {
    /// The agent
    name: GuestName,
}

impl Start {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let name = self.name;
        let start = Instant::now();
        let accepted = cx.change(&name, "/start").await?;
        let attended = attended(|| goes_on(&accepted), async {
            follow(
                &cx.client,
                &cx.output,
                &accepted,
                &format!("Starting agent {name}"),
            )
            .await?;
            cx.guest(&name).await
        });
        let view = attended.await?;
        let (at, elapsed_ms) = (at_address(&view), milliseconds_since(start));
        cx.output.ok(format_args!(
            "Agent {name} is up{at} after {elapsed_ms} ms."
        ))?;
        cx.ended(Some(accepted.operation), elapsed_ms, Some(view))?;
        Ok(0)
    }
}
