//! `innkeeper doctor`.

use clap::Args;
use innkeeper_model::Kind;
use innkeeper_model::api::DoctorReport;

use super::Context;
use crate::checks;
use crate::failure::Status;

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
            checks::print(cx, &report.checks)?;
        }
        Ok(if report.is_healthy() {
            0
        } else {
            Kind::Host.exit_code()
        })
    }
}
