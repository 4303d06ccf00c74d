//! `innkeeper gc`.

use clap::Args;
use innkeeper_model::api::{GcReport, GcRequest, Orphan};

use super::Context;
use crate::confirm::Prompt;
use crate::describe::count;
use crate::failure::{CommandError, Status, exit_code};

/// Remove what has our naming and belongs to no guest
///
/// On a terminal it lists what it found and prompts, unless --yes is given.
#[derive(Args, Debug)]
pub(crate) struct Gc {
    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    prompt: Prompt,
}

impl Gc {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        if self.prompt.is_needed() && !self.dry_run {
            let found: GcReport = cx
                .client
                .post("/v1/gc", &GcRequest { dry_run: true })
                .await?;
            if !found.orphans.is_empty() {
                let declined = "Nothing was removed.".to_owned();
                self.prompt.confirm(cx, &question(&found), declined)?;
            }
        }
        let request = GcRequest {
            dry_run: self.dry_run,
        };
        let report: GcReport = cx.client.post("/v1/gc", &request).await?;
        if cx.output.is_json() {
            cx.output.value(&report)?;
        } else {
            print(cx, &report)?;
        }
        let failures = report
            .orphans
            .iter()
            .filter_map(|orphan| orphan.failure.as_ref());
        Ok(failures.map(exit_code).max().unwrap_or(0))
    }
}

fn question(found: &GcReport) -> String {
    let line = |Orphan {
                    resource, object, ..
                }: &Orphan| format!("{resource} {object}\n");
    let lines: String = found.orphans.iter().map(line).collect();
    format!("{lines}Remove {}?", count(found.orphans.len(), "orphan"))
}

fn print(cx: &Context, report: &GcReport) -> Result<(), CommandError> {
    if report.orphans.is_empty() {
        return cx.output.text("(no orphans)\n");
    }
    for orphan in &report.orphans {
        print_orphan(cx, report, orphan)?;
    }
    let removed = report
        .orphans
        .iter()
        .filter(|orphan| orphan.removed)
        .count();
    let found = count(report.orphans.len(), "orphan");
    match report.dry_run {
        true => cx
            .output
            .ok(format_args!("{found} found, nothing removed.")),
        false => cx.output.ok(format_args!("{removed} of {found} removed.")),
    }
}

fn print_orphan(cx: &Context, report: &GcReport, orphan: &Orphan) -> Result<(), CommandError> {
    let (resource, object) = (&orphan.resource, &orphan.object);
    if let Some(failure) = &orphan.failure {
        cx.output.failure(failure);
        return Ok(());
    }
    let what = match (report.dry_run, orphan.removed) {
        (true, _) => "Would remove",
        (false, true) => "Removed",
        (false, false) => "Left",
    };
    cx.output.text(format_args!("{what} {resource} {object}\n"))
}
