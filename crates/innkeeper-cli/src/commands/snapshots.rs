//! `agent snapshots`.

use clap::Args;
use innkeeper_model::{Code, Failure, GuestName, Snapshot, SnapshotLabel};

use crate::client::guest_path;
use crate::context::Context;
use crate::describe::time;
use crate::failure::{CommandError, Status};
use crate::suggest::suggest;
use crate::table::table;

/// List the snapshots of one agent or of all agents
#[derive(Args, Debug)]
pub(crate) struct Snapshots {
    /// Name of the agent [default: all agents]
    name: Option<GuestName>,
}

impl Snapshots {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let snapshots: Vec<Snapshot> = match &self.name {
            None => cx.client.get("/v1/snapshots").await?,
            Some(name) => snapshots_of(cx, name).await?,
        };
        cx.output.show(&snapshots, |snapshots| render(snapshots))?;
        Ok(0)
    }
}

/// Returns the snapshots of an agent.
pub(super) async fn snapshots_of(
    cx: &Context,
    name: &GuestName,
) -> Result<Vec<Snapshot>, CommandError> {
    let response = cx.client.get(&guest_path(name, "/snapshots")).await;
    suggest(&cx.client, name, response).await
}

/// Returns a snapshot of an agent, to show it in a prompt.
pub(super) async fn snapshot(
    cx: &Context,
    name: &GuestName,
    label: &SnapshotLabel,
) -> Result<Snapshot, CommandError> {
    let all = snapshots_of(cx, name).await?;
    let found = all.into_iter().find(|snapshot| snapshot.label == *label);
    found.ok_or_else(|| {
        let message = format!("guest '{name}' has no snapshot '{label}'");
        Failure::new(Code::SnapshotNotFound, message)
            .with_remedy(format!("`agent snapshots {name}` lists its snapshots."))
            .into()
    })
}

fn render(snapshots: &[Snapshot]) -> String {
    if snapshots.is_empty() {
        return "(no snapshots)\n".to_owned();
    }
    let row = |snapshot: &Snapshot| {
        [
            snapshot.guest.to_string(),
            snapshot.label.to_string(),
            time(snapshot.created_at),
        ]
    };
    let rows = snapshots.iter().map(row).collect();
    table(["AGENT", "LABEL", "TAKEN"], rows, &[])
}
