//! `innkeeper status`.

use std::fmt::Write as _;

use clap::Args;
use innkeeper_model::{HostMemory, MemoryBand, api};

use crate::context::Context;
use crate::describe::{mebibytes, time};
use crate::failure;
use crate::table::{or_dash, table};

/// Show the daemon's status
#[derive(Args, Debug)]
pub(crate) struct Status {}

impl Status {
    pub(crate) async fn run(self, cx: &Context) -> failure::Status {
        let status: api::Status = cx.client.get("/v1/status").await?;
        cx.output.show(&status, render)?;
        Ok(0)
    }
}

fn render(status: &api::Status) -> String {
    let guests: Vec<String> = (status.guests.iter())
        .filter(|(_, number)| *number > 0)
        .map(|(state, number)| format!("{number} {state}"))
        .collect();
    let guests = if guests.is_empty() {
        "none".to_owned()
    } else {
        guests.join(", ")
    };
    let namespaces = if status.user_namespaces {
        "one per guest"
    } else {
        "none"
    };
    let running = match status.operations.len() {
        0 => "none in progress".to_owned(),
        number => format!("{number} in progress"),
    };
    let lines = [
        (
            "Daemon",
            format!("innkeeperd {}, process {}", status.version, status.pid),
        ),
        ("Started", time(status.started_at)),
        (
            "Memory",
            format!("{} resident", mebibytes(status.resident_bytes)),
        ),
        ("Supervisor", status.supervisor.clone()),
        ("User namespaces", namespaces.to_owned()),
        ("Guests", guests),
        (
            "Slots",
            format!("{} of {} in use", status.slots_taken, status.slots),
        ),
        ("Operations", running),
    ];
    let memory = status
        .memory
        .map(|memory| ("Host memory", host_memory(&memory)));
    let audit = status.audit.map(|audit| {
        let limits = format!(
            "kept for {} days, {} entries at most",
            audit.days, audit.entries
        );
        ("Audit log", limits)
    });
    let retained = status.retained;
    let destroyed = (retained.agents > 0).then(|| {
        let bytes = mebibytes(retained.bytes);
        (
            "Destroyed",
            format!("{} with retained files ({bytes})", retained.agents),
        )
    });
    let pools = status.pools.iter();
    let pools = pools.map(|check| ("Waiting", check.finding.clone()));
    let mut text = String::new();
    for (name, value) in lines
        .into_iter()
        .chain(memory)
        .chain(audit)
        .chain(destroyed)
        .chain(pools)
    {
        writeln!(text, "{:<17}{value}", format!("{name}:")).ok();
    }
    if !status.operations.is_empty() {
        let row = |operation: &innkeeper_model::Operation| {
            [
                operation.id.to_string(),
                operation.verb.to_string(),
                or_dash(operation.guest.as_ref()),
                operation.actor.clone(),
                time(operation.started_at),
            ]
        };
        let header = ["OPERATION", "VERB", "GUEST", "ACTOR", "STARTED"];
        text.push('\n');
        text.push_str(&table(
            header,
            status.operations.iter().map(row).collect(),
            &[],
        ));
    }
    text
}

/// Describes the host's memory, and what the daemon does about a lack of it.
fn host_memory(memory: &HostMemory) -> String {
    let (percent, total) = (memory.available_percent, mebibytes(memory.total_bytes));
    let action = match memory.band {
        MemoryBand::Normal => return format!("{percent} % of {total} available"),
        MemoryBand::Pause => "idle guests are paused",
        MemoryBand::Sleep => "idle guests are put to sleep",
        MemoryBand::Refuse => "no guest is started, and idle guests are put to sleep",
        MemoryBand::Emergency => "guests in use are put to sleep",
    };
    format!("{percent} % of {total} available: {action}")
}
