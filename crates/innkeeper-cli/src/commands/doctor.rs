//! `innkeeper doctor`.

use clap::Args;
use innkeeper_model::Kind;
use innkeeper_model::api::DoctorReport;

use crate::checks;
use crate::context::Context;
use crate::failure::Status;

/// Check the host, from the configuration to a guest's first packet
///
/// Prints a remedy for each broken check. Exits with 7 if a check is broken.
#[derive(Args, Debug)]
pub(crate) struct Doctor {}

impl Doctor {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let report: DoctorReport = cx.client.get("/v1/doctor").await?;
        if cx.output.is_json() {
            cx.output.value(&report)?;
        } else {
            checks::print(cx, &report.checks)?;
        }
        Ok(if report.is_healthy() {
            0
        } else {
            Kind::Host.exit_code()
        })
    }
}
