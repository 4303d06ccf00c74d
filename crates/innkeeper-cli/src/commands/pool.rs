//! `innkeeper pool`.

use clap::Args;
use innkeeper_model::api::{PoolReport, PoolVolume};

use crate::context::Context;
use crate::describe::{count, mebibytes};
use crate::failure::Status;
use crate::table::{or_dash, table};

/// Show the storage pool of the guests' files and its usage
#[derive(Args, Debug)]
pub(crate) struct Pool {}

impl Pool {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let report: PoolReport = cx.client.get("/v1/pool").await?;
        cx.output.show(&report, render)?;
        Ok(0)
    }
}

fn render(report: &PoolReport) -> String {
    let PoolReport { driver, place, .. } = report;
    let mut text = format!(
        "{place} ({driver}): {:.1} % of {} in use",
        report.data_percent,
        mebibytes(report.size_bytes)
    );
    if let Some(percent) = report.metadata_percent {
        text.push_str(&format!(", {percent:.1} % of the metadata"));
    }
    if let Some(limit) = report.limit_percent {
        text.push_str(&format!(
            "; new guests and snapshots are refused from {limit} % of either"
        ));
    }
    if let Some(bytes) = report.min_free_bytes {
        let bytes = mebibytes(bytes);
        text.push_str(&format!("; a new guest or snapshot needs {bytes} free"));
    }
    text.push_str(".\n");
    if report.retained.agents > 0 {
        let agents = count(report.retained.agents, "destroyed agent");
        let bytes = mebibytes(report.retained.bytes);
        text.push_str(&format!(
            "Retained files of {agents} use {bytes}; they are removed when space is needed (`agent list --all`).\n"
        ));
    }
    if let Some(remedy) = &report.remedy {
        text.push_str(&format!("The pool is full. {remedy}\n"));
    }
    if !report.volumes.is_empty() {
        let header = ["VOLUME", "GUEST", "SNAPSHOT", "SIZE", "USED"];
        let rows = report.volumes.iter().map(row).collect();
        text.push_str(&format!("\n{}", table(header, rows, &[])));
    }
    text
}

fn row(volume: &PoolVolume) -> [String; 5] {
    [
        volume.name.clone(),
        or_dash(volume.guest.as_ref()),
        or_dash(volume.snapshot.as_ref()),
        mebibytes(volume.size_bytes),
        or_dash(volume.data_percent.map(|used| format!("{used:.1} %"))),
    ]
}
