//! `innkeeper doctor`.

use clap::Args;
use innkeeper_model::Kind;
use innkeeper_model::api::{Check, DoctorReport, Verdict};

use super::Context;
use crate::describe::{count, plain};
use crate::failure::{CommandError, Status};
use crate::output::Finding;

/// Check every link from the configuration to a guest's first packet
///
/// Exits with 7 when something is broken; each broken link has its remedy below.
#[derive(Args, Debug)]
pub(crate) struct Doctor {}

impl Doctor {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let report: DoctorReport = cx.client.get("/v1/doctor").await?;
        if cx.output.is_json() {
            cx.output.value(&report)?;
        } else {
            print(cx, &report)?;
        }
        Ok(if report.is_healthy() {
            0
        } else {
            Kind::Host.exit_code()
        })
    }
}

fn print(cx: &Context, report: &DoctorReport) -> Result<(), CommandError> {
    for check in &report.checks {
        print_check(cx, check)?;
    }
    let number = |verdict| {
        report
            .checks
            .iter()
            .filter(|c| c.verdict == verdict)
            .count()
    };
    let (broken, doubtful) = (number(Verdict::Broken), number(Verdict::Warning));
    let doubtful = match doubtful {
        0 => String::new(),
        _ => format!(", {}", count(doubtful, "warning")),
    };
    let links = count(report.checks.len(), "link");
    cx.output.text(match broken {
        0 => format!("{links} checked: nothing is broken{doubtful}.\n"),
        _ => format!("{links} checked: {broken} broken{doubtful}.\n"),
    })
}

fn print_check(cx: &Context, check: &Check) -> Result<(), CommandError> {
    let finding = match check.verdict {
        // Whoever wants to see little wants to see what is not as it should be.
        Verdict::Ok if cx.output.is_quiet() => return Ok(()),
        Verdict::Ok => Finding::Good,
        Verdict::Warning => Finding::Doubtful,
        Verdict::Broken => Finding::Bad,
    };
    let text = plain(&format!("{}: {}", check.subject, check.finding));
    cx.output.finding(finding, text, check.remedy.as_deref())
}
