//! `innkeeper slots`.

use clap::Args;
use innkeeper_model::api::{SlotReport, TakenSlot};

use crate::context::Context;
use crate::failure::Status;
use crate::table::{or_dash, table};

/// Show the slots and addresses in use
#[derive(Args, Debug)]
pub(crate) struct Slots {}

impl Slots {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let report: SlotReport = cx.client.get("/v1/slots").await?;
        cx.output.show(&report, render)?;
        Ok(0)
    }
}

fn render(report: &SlotReport) -> String {
    let SlotReport {
        subnet,
        counter,
        capacity,
        taken,
    } = report;
    let head = format!(
        "{subnet}: {} of {capacity} slots in use; the highest assigned so far is {counter}.\n",
        report.in_use()
    );
    if taken.is_empty() {
        return head;
    }
    let row = |slot: &TakenSlot| {
        [
            match slot.count {
                1 => slot.slot.to_string(),
                count => format!("{}-{}", slot.slot, slot.slot.number() + count - 1),
            },
            slot.owner.clone(),
            slot.kind
                .map_or_else(|| "older installation".to_owned(), |kind| kind.to_string()),
            or_dash(slot.guest_address),
        ]
    };
    let rows = taken.iter().map(row).collect();
    format!(
        "{head}\n{}",
        table(["SLOT", "OWNER", "KIND", "ADDRESS"], rows, &[])
    )
}
