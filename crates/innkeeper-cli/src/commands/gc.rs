//! `innkeeper gc`.

use clap::Args;
use innkeeper_model::Ownership;
use innkeeper_model::api::{GcReport, GcRequest, Orphan};

use crate::confirm::Prompt;
use crate::context::Context;
use crate::describe::count;
use crate::failure::{CommandError, Status, exit_code};

/// Remove orphaned resources: those that belong to no guest
///
/// Resources of other daemons are never removed. On a terminal, it lists the orphans and prompts, unless --yes is given.
#[derive(Args, Debug)]
pub(crate) struct Gc {
    /// List orphans without removing them
    #[arg(long)]
    dry_run: bool,
    /// Also remove orphans that are named like Innkeeper's but have no daemon's mark
    #[arg(long)]
    unmarked: bool,

    #[command(flatten)]
    prompt: Prompt,
}

impl Gc {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        if self.prompt.is_needed() && !self.dry_run {
            let found: GcReport = cx.client.post("/v1/gc", &self.request(true)).await?;
            let mut orphans = found.orphans;
            orphans.retain(|orphan| self.removes(orphan));
            if !orphans.is_empty() {
                let declined = "No orphan was removed.".to_owned();
                self.prompt.confirm(cx, &question(&orphans), declined)?;
            }
        }
        let request = self.request(self.dry_run);
        let report: GcReport = cx.client.post("/v1/gc", &request).await?;
        if cx.output.is_json() {
            cx.output.value(&report)?;
        } else {
            print(cx, request, &report)?;
        }
        let of_orphans = report
            .orphans
            .iter()
            .filter_map(|orphan| orphan.failure.as_ref());
        let failures = report.failures.iter().chain(of_orphans);
        Ok(failures.map(exit_code).max().unwrap_or(0))
    }

    fn request(&self, dry_run: bool) -> GcRequest {
        GcRequest {
            dry_run,
            unmarked: self.unmarked,
        }
    }

    /// Reports whether this command would remove an orphan.
    fn removes(&self, orphan: &Orphan) -> bool {
        match orphan.ownership {
            Ownership::Ours => true,
            Ownership::Unmarked => self.unmarked,
            Ownership::Other => false,
        }
    }
}

fn question(orphans: &[Orphan]) -> String {
    let line = |Orphan {
                    resource, object, ..
                }: &Orphan| format!("{resource} {object}\n");
    let lines: String = orphans.iter().map(line).collect();
    format!("{lines}Remove {}?", count(orphans.len(), "orphan"))
}

fn print(cx: &Context, request: GcRequest, report: &GcReport) -> Result<(), CommandError> {
    for failure in &report.failures {
        cx.output.failure(failure);
    }
    if report.orphans.is_empty() {
        let line = match report.failures.is_empty() {
            true => "(no orphans)\n",
            false => "(no orphans; some checks failed)\n",
        };
        return cx.output.text(line);
    }
    for orphan in &report.orphans {
        print_orphan(cx, request, orphan)?;
    }
    let removed = report
        .orphans
        .iter()
        .filter(|orphan| orphan.removed)
        .count();
    let removable = |orphan: &&Orphan| orphan.ownership != Ownership::Other;
    let found = report.orphans.iter().filter(removable).count();
    let found = count(found, "orphan");
    match report.dry_run {
        true => cx
            .output
            .ok(format_args!("{found} found, nothing removed.")),
        false => cx.output.ok(format_args!("{removed} of {found} removed.")),
    }
}

fn print_orphan(cx: &Context, request: GcRequest, orphan: &Orphan) -> Result<(), CommandError> {
    let (resource, object) = (&orphan.resource, &orphan.object);
    if let Some(failure) = &orphan.failure {
        cx.output.failure(failure);
        return Ok(());
    }
    let reason = match orphan.ownership {
        Ownership::Other => Some("it belongs to another daemon on this host"),
        Ownership::Unmarked if !request.unmarked => {
            Some("it has no daemon's mark; --unmarked removes it too")
        }
        Ownership::Ours | Ownership::Unmarked => None,
    };
    if let Some(reason) = reason {
        let line = format_args!("Kept {resource} {object}: {reason}\n");
        return cx.output.text(line);
    }
    let action = match (request.dry_run, orphan.removed) {
        (true, _) => "Would remove",
        (false, true) => "Removed",
        (false, false) => "Kept",
    };
    cx.output
        .text(format_args!("{action} {resource} {object}\n"))
}
