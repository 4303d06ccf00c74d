//! `agent list`.

use clap::Args;
use innkeeper_model::GuestKind;
use innkeeper_model::api::{GuestView, RetainedView};
use serde::Serialize;

use super::name_lines;
use crate::context::Context;
use crate::describe::{mebibytes, oom_kills, own_system_failure, plain, time};
use crate::failure::Status;
use crate::table::{or_dash, table};

/// List agents
///
/// With --quiet, prints names only, one on each line.
#[derive(Args, Debug)]
pub(crate) struct List {
    /// Also list destroyed agents with retained files
    #[arg(long)]
    all: bool,
}

/// JSON value for `--all`.
#[derive(Serialize)]
struct All {
    agents: Vec<GuestView>,
    destroyed: Vec<RetainedView>,
}

impl List {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let mut guests: Vec<GuestView> = cx.client.get("/v1/guests").await?;
        guests.retain(|view| view.guest.kind == GuestKind::Agent);
        if !self.all {
            let quiet = cx.output.is_quiet();
            cx.output.show(&guests, |guests| match quiet {
                true => name_lines(guests.iter().map(|view| &view.guest.name)),
                false => render(guests),
            })?;
            return Ok(0);
        }
        let all = All {
            agents: guests,
            destroyed: cx.client.get("/v1/retained").await?,
        };
        cx.output.show(&all, |All { agents, destroyed }| {
            format!("{}\n{}", render(agents), render_destroyed(destroyed))
        })?;
        Ok(0)
    }
}

fn render_destroyed(all: &[RetainedView]) -> String {
    if all.is_empty() {
        return "(no retained files of destroyed agents)\n".to_owned();
    }
    let row = |view: &RetainedView| {
        let files = &view.retained;
        let left = match files.removing {
            true => "being removed".to_owned(),
            false => format!("{} min", view.remaining_seconds.div_ceil(60)),
        };
        [
            files.name.to_string(),
            files.id.to_string(),
            or_dash(files.bytes.map(mebibytes)),
            left,
            time(files.destroyed_at),
        ]
    };
    let header = ["DESTROYED", "ID", "SIZE", "TIME LEFT", "DESTROYED AT"];
    table(header, all.iter().map(row).collect(), &[4, 2])
}

fn render(guests: &[GuestView]) -> String {
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
            or_dash(
                view.owner_name
                    .as_ref()
                    .or(guest.owner.as_ref())
                    .map(|owner| plain(owner)),
            ),
        ]
    };
    let header = [
        "NAME", "STATUS", "ADDRESS", "SLOT", "MEMORY", "CPUS", "CREATED", "OWNER",
    ];
    let mut text = table(header, guests.iter().map(row).collect(), &[7, 6, 5, 4]);
    for report in guests.iter().filter_map(oom_kills) {
        text.push_str(&format!("{report}\n"));
    }
    for report in guests.iter().filter_map(own_system_failure) {
        text.push_str(&format!("{report}\n"));
    }
    text
}
