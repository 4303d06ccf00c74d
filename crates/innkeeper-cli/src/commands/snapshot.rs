//! `agent snapshot`.

use std::time::Instant;

use clap::Args;
use innkeeper_model::api::{Accepted, SnapshotAccepted, SnapshotRequest};
use innkeeper_model::{GuestName, OperationId, SnapshotLabel};
use serde::Serialize;

use super::snapshots::snapshot;
use crate::client::{guest_path, snapshot_path};
use crate::confirm::Prompt;
use crate::context::{Context, milliseconds_since};
use crate::describe::time;
use crate::failure::{CommandError, Status};
use crate::follow::{continues_note, follow, until_interrupted};
use crate::suggest::suggest;

/// Take or delete a snapshot of an agent's files
///
/// On thin volumes, the agent may run: the snapshot is crash-consistent. In directories, the snapshot is a copy, and the
/// agent must be stopped. Destroying an agent deletes its snapshots.
#[derive(Args, Debug)]
pub(crate) struct Snapshot {
    /// Name of the agent
    name: GuestName,

    /// Label of the snapshot: 1 to 32 of a-z, 0-9 and '-' [default: generated from the time]
    #[arg(value_name = "LABEL", conflicts_with = "label")]
    label_argument: Option<SnapshotLabel>,

    /// Same as LABEL
    #[arg(long, value_name = "LABEL")]
    label: Option<SnapshotLabel>,

    /// Delete this snapshot instead
    #[arg(long, value_name = "LABEL", conflicts_with_all = ["label_argument", "label"])]
    delete: Option<SnapshotLabel>,

    #[command(flatten)]
    prompt: Prompt,
}

/// Additional fields of the JSON result.
#[derive(Serialize)]
struct SnapshotId<'a> {
    guest: &'a GuestName,
    label: &'a SnapshotLabel,
}

impl Snapshot {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let name = &self.name;
        match self.delete {
            Some(label) => {
                if self.prompt.is_needed() {
                    let taken = time(snapshot(cx, name, &label).await?.created_at);
                    let question = format!("Delete snapshot {label} of agent {name} ({taken})?");
                    let declined = format!("Snapshot {label} of agent {name} was not deleted.");
                    self.prompt.confirm(cx, &question, declined)?;
                }
                delete(cx, name, &label).await
            }
            None => take(cx, name, self.label_argument.or(self.label)).await,
        }
    }
}

async fn take(cx: &Context, name: &GuestName, label: Option<SnapshotLabel>) -> Status {
    let start = Instant::now();
    let request = SnapshotRequest { label };
    let path = guest_path(name, "/snapshots");
    let response: Result<SnapshotAccepted, _> = cx.client.post(&path, &request).await;
    let SnapshotAccepted { accepted, label } = suggest(&cx.client, name, response).await?;
    let title = format!("Taking snapshot {label} of agent {name}");
    let elapsed_ms = wait_for(cx, start, &accepted, &title).await?;
    if cx.output.is_quiet() && !cx.output.is_json() {
        // The label may be generated, so it is the result of the command.
        cx.output.text(format_args!("{label}\n"))?;
    }
    cx.output.ok(format_args!(
        "Snapshot {label} of agent {name} taken in {elapsed_ms} ms."
    ))?;
    report(cx, accepted.operation, elapsed_ms, name, &label)
}

async fn delete(cx: &Context, name: &GuestName, label: &SnapshotLabel) -> Status {
    let start = Instant::now();
    let response: Result<Accepted, _> = cx.client.delete(&snapshot_path(name, label, "")).await;
    let accepted = suggest(&cx.client, name, response).await?;
    let title = format!("Deleting snapshot {label} of agent {name}");
    let elapsed_ms = wait_for(cx, start, &accepted, &title).await?;
    cx.output.ok(format_args!(
        "Snapshot {label} of agent {name} deleted in {elapsed_ms} ms."
    ))?;
    report(cx, accepted.operation, elapsed_ms, name, label)
}

/// Follows an operation to its end and returns its duration in milliseconds.
async fn wait_for(
    cx: &Context,
    start: Instant,
    accepted: &Accepted,
    title: &str,
) -> Result<u64, CommandError> {
    let followed = follow(cx, accepted, title);
    until_interrupted(|| continues_note(accepted), followed).await?;
    Ok(milliseconds_since(start))
}

fn report(
    cx: &Context,
    operation: OperationId,
    elapsed_ms: u64,
    guest: &GuestName,
    label: &SnapshotLabel,
) -> Status {
    cx.print_result(
        Some(operation),
        elapsed_ms,
        Some(SnapshotId { guest, label }),
    )?;
    Ok(0)
}
