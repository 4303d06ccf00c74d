//! `agent fork`.

use std::time::Instant;

use clap::Args;
use innkeeper_model::api::{Accepted, ForkRequest};
use innkeeper_model::{GuestName, SnapshotLabel};

use super::{Context, at_address, milliseconds_since};
use crate::client::guest_path;
use crate::failure::Status;
use crate::follow::{attended, follow, goes_on};
use crate::suggest::suggest;

/// Make an agent that begins as a copy of another one, and start it
///
/// It has the same closure, limits and files, and an address, an SSH host key and a machine id of its own. Without
/// --from, it has the files as they are now; what that needs of the agent is what a snapshot needs.
#[derive(Args, Debug)]
pub(crate) struct Fork {
    /// The agent to copy
    name: GuestName,

    /// The new agent: 1 to 63 of a-z, 0-9 and '-'
    new_name: GuestName,

    /// Begin with the files as they were in this snapshot
    #[arg(long, value_name = "LABEL")]
    from: Option<SnapshotLabel>,
}

impl Fork {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let Self {
            name,
            new_name,
            from,
        } = self;
        let start = Instant::now();
        let request = ForkRequest {
            name: new_name.clone(),
            snapshot: from,
        };
        let path = guest_path(&name, "/fork");
        let answer: Result<Accepted, _> = cx.client.post(&path, &request).await;
        let accepted = suggest(&cx.client, &name, answer).await?;
        let attended = attended(|| goes_on(&accepted), async {
            let title = format!("Copying agent {name} to {new_name}");
            follow(&cx.client, &cx.output, &accepted, &title).await?;
            cx.guest(&new_name).await
        });
        let view = attended.await?;
        let (at, elapsed_ms) = (at_address(&view), milliseconds_since(start));
        cx.output.ok(format_args!(
            "Agent {new_name} is up{at} as a copy of {name} after {elapsed_ms} ms."
        ))?;
        cx.ended(Some(accepted.operation), elapsed_ms, Some(view))?;
        Ok(0)
    }
}
