//! `innkeeper top`.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use clap::Args;
use innkeeper_model::{GuestUsage, UsageReport};
use jiff::SignedDuration;

use crate::context::Context;
use crate::describe::{elapsed, mebibytes};
use crate::failure::Status;
use crate::table::{or_dash, table};

/// The interval between two tables: that of the daemon's measurements.
const INTERVAL: Duration = Duration::from_secs(2);

/// Show the guests that run, what they use and how long they have been idle
///
/// On a terminal, the table is printed again every two seconds until the program is interrupted; elsewhere, once. A guest is
/// idle while it has no session, no operation, no new connection, and less traffic and processor time than configured.
#[derive(Args, Debug)]
pub(crate) struct Top {
    /// Print the table once, also on a terminal
    #[arg(long)]
    once: bool,
}

impl Top {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let repeats = !self.once && !cx.output.is_silent() && io::stdout().is_terminal();
        loop {
            let report: UsageReport = cx.client.get("/v1/usage").await?;
            if !repeats {
                cx.output.show(&report, render)?;
                return Ok(0);
            }
            cx.output.screen(render(&report))?;
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

fn render(report: &UsageReport) -> String {
    if report.guests.is_empty() {
        return "(no guest runs)\n".to_owned();
    }
    let header = [
        "NAME", "KIND", "STATUS", "CPU", "MEMORY", "LIMIT", "IN", "OUT", "IDLE", "LAST USE",
    ];
    table(
        header,
        report.guests.iter().map(row).collect(),
        &[5, 1, 2, 9],
    )
}

fn row(guest: &GuestUsage) -> [String; 10] {
    let idle = i64::try_from(guest.idle_seconds).unwrap_or(i64::MAX);
    [
        guest.name.to_string(),
        guest.kind.to_string(),
        guest.state.to_string(),
        or_dash(guest.cpu_percent.map(|percent| format!("{percent:.1} %"))),
        or_dash(guest.memory_bytes.map(mebibytes)),
        guest.memory_limit.to_string(),
        per_second(guest.received_per_second),
        per_second(guest.sent_per_second),
        elapsed(SignedDuration::from_secs(idle)),
        guest.last_use.clone(),
    ]
}

/// Formats bytes per second.
fn per_second(bytes: f64) -> String {
    if bytes < 1e3 {
        format!("{bytes:.0} B/s")
    } else if bytes < 1e6 {
        format!("{:.1} kB/s", bytes / 1e3)
    } else {
        format!("{:.1} MB/s", bytes / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_suitable_units() {
        let all = [0.0, 999.4, 1_500.0, 999_000.0, 12_345_678.0];
        let shown = all.map(per_second);
        let expected = ["0 B/s", "999 B/s", "1.5 kB/s", "999.0 kB/s", "12.3 MB/s"];
        assert_eq!(shown, expected);
    }
}
