//! `agent snapshot`.

use std::time::Instant;

use clap::Args;
use innkeeper_model::api::{Accepted, SnapshotAccepted, SnapshotRequest};
use innkeeper_model::{GuestName, OperationId, SnapshotLabel};
use serde::Serialize;

use super::snapshots::snapshot;
use super::{Context, milliseconds_since};
use crate::client::{guest_path, snapshot_path};
use crate::confirm::Prompt;
use crate::describe::time;
use crate::failure::Status;
use crate::follow::{attended, follow, goes_on};
use crate::suggest::suggest;

/// Take a snapshot of an agent's files, or delete one
///
/// Where guests are on thin volumes, the agent may run: the snapshot is as the disk would be after a loss of power at
/// that moment. Elsewhere it is a copy, for which the agent must be stopped. Snapshots go with their agent.
#[derive(Args, Debug)]
pub(crate) struct Snapshot {
    /// The agent
    name: GuestName,

    /// Its label: 1 to 32 of a-z, 0-9 and '-'; generated from the time if omitted
    #[arg(value_name = "LABEL", conflicts_with = "label")]
    called: Option<SnapshotLabel>,

    /// The same as LABEL
    #[arg(long, value_name = "LABEL")]
    label: Option<SnapshotLabel>,

    /// Delete the snapshot with this label instead
    #[arg(long, value_name = "LABEL", conflicts_with_all = ["called", "label"])]
    delete: Option<SnapshotLabel>,

    #[command(flatten)]
    prompt: Prompt,
}

/// Which snapshot it was, for programs.
#[derive(Serialize)]
struct Named<'a> {
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
                    let declined = format!("Snapshot {label} of agent {name} stays.");
                    self.prompt.confirm(cx, &question, declined)?;
                }
                delete(cx, name, &label).await
            }
            None => take(cx, name, self.called.or(self.label)).await,
        }
    }
}

async fn take(cx: &Context, name: &GuestName, label: Option<SnapshotLabel>) -> Status {
    let start = Instant::now();
    let request = SnapshotRequest { label };
    let path = guest_path(name, "/snapshots");
    let answer: Result<SnapshotAccepted, _> = cx.client.post(&path, &request).await;
    let SnapshotAccepted { accepted, label } = suggest(&cx.client, name, answer).await?;
    let title = format!("Taking snapshot {label} of agent {name}");
    let elapsed_ms = end(cx, start, &accepted, &title).await?;
    if cx.output.is_quiet() && !cx.output.is_json() {
        // It may have been made up, so it is what was asked for.
        cx.output.text(format_args!("{label}\n"))?;
    }
    cx.output.ok(format_args!(
        "Snapshot {label} of agent {name} is taken after {elapsed_ms} ms."
    ))?;
    report(cx, accepted.operation, elapsed_ms, name, &label)
}

async fn delete(cx: &Context, name: &GuestName, label: &SnapshotLabel) -> Status {
    let start = Instant::now();
    let answer: Result<Accepted, _> = cx.client.delete(&snapshot_path(name, label, "")).await;
    let accepted = suggest(&cx.client, name, answer).await?;
    let title = format!("Deleting snapshot {label} of agent {name}");
    let elapsed_ms = end(cx, start, &accepted, &title).await?;
    cx.output.ok(format_args!(
        "Snapshot {label} of agent {name} is gone after {elapsed_ms} ms."
    ))?;
    report(cx, accepted.operation, elapsed_ms, name, label)
}

/// Waits for the end of an operation, and returns the milliseconds that it took.
async fn end(
    cx: &Context,
    start: Instant,
    accepted: &Accepted,
    title: &str,
) -> Result<u64, crate::failure::CommandError> {
    let followed = follow(&cx.client, &cx.output, accepted, title);
    attended(|| goes_on(accepted), followed).await?;
    Ok(milliseconds_since(start))
}

fn report(
    cx: &Context,
    operation: OperationId,
    elapsed_ms: u64,
    guest: &GuestName,
    label: &SnapshotLabel,
) -> Status {
    cx.ended(Some(operation), elapsed_ms, Some(Named { guest, label }))?;
    Ok(0)
}
