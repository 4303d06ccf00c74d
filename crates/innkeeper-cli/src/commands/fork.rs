//! `agent fork`.

use std::time::Instant;

use clap::Args;
use innkeeper_model::api::{Accepted, ForkRequest};
use innkeeper_model::{GuestName, SnapshotLabel};

use super::at_address;
use crate::client::guest_path;
use crate::context::{Context, milliseconds_since};
use crate::failure::Status;
use crate::follow::complete;
use crate::suggest::suggest;

/// Create an agent as a copy of another agent, and start it
///
/// The copy has the same closure, limits and files, and a new address, SSH host key and machine id. Without --from, the
/// current files are copied, with the same requirements as `agent snapshot`.
#[derive(Args, Debug)]
pub(crate) struct Fork {
    /// Agent to copy
    name: GuestName,

    /// Name of the new agent: 1 to 63 of a-z, 0-9 and '-'
    new_name: GuestName,

    /// Copy the files from this snapshot
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
        let response: Result<Accepted, _> = cx.client.post(&path, &request).await;
        let accepted = suggest(&cx.client, &name, response).await?;
        let label = format!("Copying agent {name} to {new_name}");
        let view = complete(cx, &accepted, &label, cx.guest(&new_name)).await?;
        let (at, elapsed_ms) = (at_address(&view), milliseconds_since(start));
        cx.output.ok(format_args!(
            "Agent {new_name} is up{at} as a copy of {name} after {elapsed_ms} ms."
        ))?;
        cx.print_result(Some(accepted.operation), elapsed_ms, Some(view))?;
        Ok(0)
    }
}
