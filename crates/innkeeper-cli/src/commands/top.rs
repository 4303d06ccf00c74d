//! `innkeeper top`.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use clap::Args;
use innkeeper_model::{GuestUsage, Level};
use jiff::SignedDuration;

use crate::context::Context;
use crate::describe::{elapsed, mebibytes};
use crate::failure::Status;
use crate::table::{or_dash, table, truncate};
use crate::terminal::{output_height, output_width};

/// The interval between two tables: that of the daemon's measurements.
const INTERVAL: Duration = Duration::from_secs(2);

/// Show the guests that run or rest, what they use and how long they have been idle
///
/// On a terminal, the table is printed again every two seconds until the program is interrupted; elsewhere, once. A guest is
/// idle while it has no session, no operation, no new connection, and less traffic and processor time than configured. The
/// last line names the guest that is put to sleep next when the host's memory runs short.
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
            let guests: Vec<GuestUsage> = cx.client.get("/v1/usage").await?;
            if !repeats {
                cx.output.show(&guests, |guests| render(guests, None))?;
                return Ok(0);
            }
            cx.output.screen(render(&guests, output_height()))?;
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

/// Formats the table, in at most `height` lines. The line of the cursor, below it, is one of them.
fn render(guests: &[GuestUsage], height: Option<usize>) -> String {
    if guests.is_empty() {
        return "(no guest runs)\n".to_owned();
    }
    let next = next_to_sleep(guests);
    // The header, the empty line, the line below it and that of the cursor.
    let room = height.map_or(guests.len(), |height| height.saturating_sub(4).max(1));
    let (shown, omitted) = match guests.len() > room {
        // One line for their number.
        true => guests.split_at(room.saturating_sub(1).max(1)),
        false => (guests, &[][..]),
    };
    let header = [
        "NAME", "KIND", "STATUS", "CPU", "MEMORY", "LIMIT", "DISK", "IN", "OUT", "IDLE", "LAST USE",
    ];
    let rows = shown.iter().map(row).collect();
    let mut text = table(header, rows, &[5, 1, 6, 2, 10]);
    match omitted.len() {
        0 => {}
        1 => text.push_str("(1 more guest, which uses less)\n"),
        number => text.push_str(&format!("({number} more guests, which use less)\n")),
    }
    let next = match output_width().filter(|_| height.is_some()) {
        Some(width) => truncate(&next, width),
        None => next,
    };
    text.push_str(&format!("\n{next}\n"));
    text
}

/// Describes which guest is put to sleep next when memory runs short, and why.
fn next_to_sleep(guests: &[GuestUsage]) -> String {
    let next = guests.iter().find(|guest| guest.sleep_order == Some(1));
    match next {
        Some(guest) => {
            let (name, reason) = (&guest.name, &guest.sleep_reason);
            format!("Next to sleep when memory runs short: {name}, because {reason}.")
        }
        None => "No guest is to be put to sleep when memory runs short.".to_owned(),
    }
}

fn row(guest: &GuestUsage) -> [String; 11] {
    let idle = guest.idle_seconds.map(|seconds| {
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        elapsed(SignedDuration::from_secs(seconds))
    });
    let is_asleep = guest.level == Level::Asleep;
    let rate = |bytes| or_dash((!is_asleep).then(|| per_second(bytes)));
    [
        guest.name.to_string(),
        guest.kind.to_string(),
        guest.state.to_string(),
        or_dash(guest.cpu_percent.map(|percent| format!("{percent:.1} %"))),
        or_dash(guest.memory_bytes.map(mebibytes)),
        guest.memory_limit.to_string(),
        or_dash(guest.disk_bytes.map(mebibytes)),
        rate(guest.received_per_second),
        rate(guest.sent_per_second),
        or_dash(idle),
        or_dash(guest.last_use.as_ref()),
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
