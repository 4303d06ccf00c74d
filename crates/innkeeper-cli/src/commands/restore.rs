//! `agent restore`.

use std::time::Instant;

use clap::Args;
use innkeeper_model::api::Accepted;
use innkeeper_model::{GuestName, GuestState, SnapshotLabel};

use super::snapshots::snapshot;
use super::{Context, at_address, milliseconds_since};
use crate::client::snapshot_path;
use crate::confirm::Prompt;
use crate::describe::time;
use crate::failure::Status;
use crate::follow::{attended, follow, goes_on};
use crate::suggest::suggest;

/// Make an agent's files be as they were in a snapshot
///
/// What was written since is lost, unless another snapshot is taken before. An agent that runs is stopped for it and
/// started again; one that is stopped stays so. The snapshot stays, too. Prompts on a terminal, unless --yes is given.
#[derive(Args, Debug)]
pub(crate) struct Restore {
    /// The agent
    name: GuestName,

    /// The snapshot
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
                "Agent {name}: what was written to its files since snapshot {label} ({}) will be lost.\nRestore the snapshot?",
                time(snapshot.created_at)
            );
            prompt.confirm(cx, &question, format!("Agent {name} stays as it is."))?;
        }
        let start = Instant::now();
        let path = snapshot_path(&name, &label, "/restore");
        let answer: Result<Accepted, _> = cx.client.post_nothing(&path).await;
        let accepted = suggest(&cx.client, &name, answer).await?;
        let attended = attended(|| goes_on(&accepted), async {
            let title = format!("Restoring snapshot {label} of agent {name}");
            follow(&cx.client, &cx.output, &accepted, &title).await?;
            cx.guest(&name).await
        });
        let view = attended.await?;
        let elapsed_ms = milliseconds_since(start);
        let up = match view.state {
            GuestState::Stopped => String::new(),
            _ => format!(" and up{}", at_address(&view)),
        };
        cx.output.ok(format_args!(
            "Agent {name} is as in snapshot {label}{up} after {elapsed_ms} ms."
        ))?;
        cx.ended(Some(accepted.operation), elapsed_ms, Some(view))?;
        Ok(0)
    }
}
