//! `agent restore`.

use std::time::Instant;

use clap::Args;
use innkeeper_model::api::Accepted;
use innkeeper_model::{GuestName, GuestState, SnapshotLabel};

use super::at_address;
use super::snapshots::snapshot;
use crate::client::snapshot_path;
use crate::confirm::Prompt;
use crate::context::{Context, milliseconds_since};
use crate::describe::time;
use crate::failure::Status;
use crate::follow::complete;
use crate::suggest::suggest;

/// Restore an agent's files from a snapshot
///
/// Later changes to the files are lost. A running agent is restarted; a stopped one stays stopped, and one that rests is asleep. The snapshot is kept.
/// Prompts on a terminal, unless --yes is given.
#[derive(Args, Debug)]
pub(crate) struct Restore {
    /// Name of the agent
    name: GuestName,

    /// Label of the snapshot
    label: SnapshotLabel,

    #[command(flatten)]
    prompt: Prompt,
}

impl Restore {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let Self {
            name,
            label,
            prompt,
        } = self;
        if prompt.is_needed() {
            let snapshot = snapshot(cx, &name, &label).await?;
            let question = format!(
                "Agent {name}: changes to its files since snapshot {label} ({}) will be lost.\nRestore the snapshot?",
                time(snapshot.created_at)
            );
            prompt.confirm(cx, &question, format!("Agent {name} was not changed."))?;
        }
        let start = Instant::now();
        let path = snapshot_path(&name, &label, "/restore");
        let response: Result<Accepted, _> = cx.client.post_empty(&path).await;
        let accepted = suggest(&cx.client, &name, response).await?;
        let progress = format!("Restoring snapshot {label} of agent {name}");
        let view = complete(cx, &accepted, &progress, cx.guest(&name)).await?;
        let elapsed_ms = milliseconds_since(start);
        let up = match view.state {
            GuestState::Stopped => String::new(),
            GuestState::Asleep => " and asleep".to_owned(),
            _ => format!(" and up{}", at_address(&view)),
        };
        cx.output.ok(format_args!(
            "Agent {name} is restored from snapshot {label}{up} after {elapsed_ms} ms."
        ))?;
        cx.print_result(Some(accepted.operation), elapsed_ms, Some(view))?;
        Ok(0)
    }
}
