//! `agent list`.

use clap::Args;
use innkeeper_model::GuestKind;
use innkeeper_model::api::GuestView;

use super::{Context, names};
use crate::describe::time;
use crate::failure::Status;
use crate::table::{or_dash, table};

/// List the agents
///
/// With --quiet, only their names, one on each line.
#[derive(Args, Debug)]
pub(crate) struct List {}

impl List {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let mut guests: Vec<GuestView> = cx.client.get("/v1/guests").await?;
        guests.retain(|view| view.guest.kind == GuestKind::Agent);
        let quiet = cx.output.is_quiet();
        cx.output.show(&guests, |guests| match quiet {
            true => names(guests.iter().map(|view| &view.guest.name)),
            false => words(guests),
        })?;
        Ok(0)
    }
}

fn words(guests: &[GuestView]) -> String {
    if guests.is_empty() {
        return "(no agents)\n".to_owned();
    }
    let row = |view: &GuestView| {
        let guest = &view.guest;
        [
            guest.name.to_string(),
            view.state.to_string(),
            or_dash(view.guest_address),
            guest.slot.to_string(),
            guest.limits.memory.to_string(),
            guest.limits.cpus.to_string(),
            time(guest.created_at),
        ]
    };
    let header = [
        "NAME", "STATUS", "ADDRESS", "SLOT", "MEMORY", "CPUS", "CREATED",
    ];
    table(header, guests.iter().map(row).collect(), &[6, 5, 4])
}
