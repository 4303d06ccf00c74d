//! `innkeeper usage`.

use clap::Args;
use innkeeper_model::access::{ActorUse, Amount, QuotaReport, RepoUse};

use crate::context::Context;
use crate::describe::{mebibytes, plain};
use crate::failure::Status;
use crate::table::{or_dash, table};

/// Show what the owners of agents and previews use, and their quotas
///
/// Operators and users of the host see all owners, others themselves. A number without a limit stands alone. Repositories are
/// listed if they have a quota of their own.
#[derive(Args, Debug)]
pub(crate) struct Usage {}

impl Usage {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let report: QuotaReport = cx.client.get("/v1/quotas").await?;
        cx.output.show(&report, render)?;
        Ok(0)
    }
}

fn render(report: &QuotaReport) -> String {
    let mut text = match report.actors.is_empty() {
        true => "(no agent or preview has an owner)\n".to_owned(),
        false => {
            let header = [
                "OWNER", "ROLE", "AGENTS", "MEMORY", "CPUS", "DISK", "PREVIEWS",
            ];
            table(header, report.actors.iter().map(actor).collect(), &[])
        }
    };
    if !report.repositories.is_empty() {
        let rows = report.repositories.iter().map(repository).collect();
        text.push('\n');
        text.push_str(&table(["REPOSITORY", "PREVIEWS"], rows, &[]));
    }
    text
}

fn actor(one: &ActorUse) -> [String; 7] {
    let owner = match &one.name {
        Some(name) => format!("{} ({})", plain(name), plain(&one.actor)),
        None => plain(&one.actor),
    };
    [
        owner,
        or_dash(one.role),
        of(one.agents, |number| number.to_string()),
        of(one.memory_bytes, space),
        of(one.cpu_percent, processors),
        of(one.disk_bytes, space),
        of(one.previews, |number| number.to_string()),
    ]
}

fn repository(one: &RepoUse) -> [String; 2] {
    let previews = of(one.previews, |number| number.to_string());
    [one.repo.to_string(), previews]
}

/// Formats a sum with its limit: `3 of 5`.
fn of(amount: Amount, format: impl Fn(u64) -> String) -> String {
    match amount.limit {
        Some(limit) => format!("{} of {}", format(amount.used), format(limit)),
        None => format(amount.used),
    }
}

/// Formats bytes in GiB if they are whole ones, and in MiB otherwise.
fn space(bytes: u64) -> String {
    match bytes % (1 << 30) {
        0 if bytes > 0 => format!("{} GiB", bytes >> 30),
        _ => mebibytes(bytes),
    }
}

/// Formats percent of one processor as a number of processors: `1.5`.
fn processors(percent: u64) -> String {
    match percent % 100 {
        0 => (percent / 100).to_string(),
        rest if rest % 10 == 0 => format!("{}.{}", percent / 100, rest / 10),
        rest => format!("{}.{rest:02}", percent / 100),
    }
}
