//! `agent explain`.

use std::fmt::Write as _;

use clap::Args;
use innkeeper_model::{GuestName, RestReport};
use jiff::SignedDuration;

use crate::client::guest_path;
use crate::context::Context;
use crate::describe::elapsed;
use crate::failure::Status;
use crate::suggest::suggest;

/// Show what keeps an agent awake, and when it is paused and put to sleep
#[derive(Args, Debug)]
pub(crate) struct Explain {
    /// Name of the agent
    name: GuestName,
}

impl Explain {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let response = cx.client.get(&guest_path(&self.name, "/rest")).await;
        let report: RestReport = suggest(&cx.client, &self.name, response).await?;
        cx.output.show(&report, render)?;
        Ok(0)
    }
}

/// Describes what keeps a guest awake, in lines.
pub(crate) fn render(report: &RestReport) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        writeln!(text, "{:<15}{value}", format!("{name}:")).ok();
    };
    line("Guest", format!("{} is {}", report.name, report.state));
    let source = match report.is_own_policy {
        true => "its own",
        false => "that of its kind in the configuration",
    };
    line("Idle policy", format!("{}, {source}", report.idle_policy));
    if let (Some(last), Some(idle)) = (&report.last_use, report.idle_seconds) {
        line("Last use", format!("{last}, {} ago", time(idle)));
    }
    if let Some(left) = report.keepalive_seconds {
        line("Keepalive", format!("for {} more", time(left)));
    }
    if let Some(reason) = &report.kept_awake_by {
        line("Kept awake by", reason.clone());
    }
    for (name, left) in [
        ("Is paused", report.pause_in_seconds),
        ("Sleeps", report.sleep_in_seconds),
    ] {
        if let Some(left) = left {
            line(name, format!("in {}, if it is not used", time(left)));
        }
    }
    text
}

fn time(seconds: u64) -> String {
    elapsed(SignedDuration::from_secs(
        i64::try_from(seconds).unwrap_or(i64::MAX),
    ))
}

#[cfg(test)]
mod tests {
    use innkeeper_model::{GuestState, IdlePolicy};

    use super::*;

    #[test]
    fn report_names_the_reason_or_the_times() {
        let report = RestReport {
            name: GuestName::parse("web").expect("a name"),
            state: GuestState::Running,
            idle_policy: IdlePolicy::Sleep,
            is_own_policy: false,
            idle_seconds: Some(60),
            last_use: Some("a new connection to it".to_owned()),
            kept_awake_by: None,
            keepalive_seconds: None,
            pause_in_seconds: Some(240),
            sleep_in_seconds: Some(2040),
        };
        let text = render(&report);
        assert!(
            text.contains("Last use:      a new connection to it"),
            "{text}"
        );
        assert!(text.contains("Is paused:     in 4"), "{text}");
        let kept = RestReport {
            kept_awake_by: Some("a keepalive".to_owned()),
            keepalive_seconds: Some(7200),
            pause_in_seconds: None,
            sleep_in_seconds: None,
            ..report
        };
        let text = render(&kept);
        assert!(text.contains("Kept awake by: a keepalive"), "{text}");
        assert!(!text.contains("Is paused"), "{text}");
    }
}
