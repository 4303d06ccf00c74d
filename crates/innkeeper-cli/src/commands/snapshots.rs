//! `agent snapshots`.

use clap::Args;
use innkeeper_model::{GuestName, Snapshot};

use super::Context;
use crate::client::guest_path;
use crate::describe::time;
use crate::failure::Status;
use crate::suggest::suggest;
use crate::table::table;

/// List the snapshots of one agent, or of all
#[derive(Args, Debug)]
pub(crate) struct Snapshots {
    /// The agent
    name: Option<GuestName>,
}

impl Snapshots {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let snapshots: Vec<Snapshot> = match &self.name {
            None => cx.client.get("/v1/snapshots").await?,
            Some(name) => {
                let answer = cx.client.get(&guest_path(name, "/snapshots")).await;
                suggest(&cx.client, name, answer).await?
            }
        };
        cx.output.show(&snapshots, |snapshots| words(snapshots))?;
        Ok(0)
    }
}

fn words(snapshots: &[Snapshot]) -> String {
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
    table(["AGENT", "LABEL", "TAKEN"], rows)
}
