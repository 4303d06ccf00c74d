//! `innkeeper config`.

use clap::Args;
use innkeeper_model::api::{ConfigReport, Setting};

use crate::context::Context;
use crate::failure::Status;
use crate::table::table;

/// Show each setting with its value and its origin
#[derive(Args, Debug)]
pub(crate) struct Config {}

impl Config {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let report: ConfigReport = cx.client.get("/v1/config").await?;
        cx.output.show(&report, render)?;
        Ok(0)
    }
}

fn render(report: &ConfigReport) -> String {
    let file = report.file.as_deref().unwrap_or("(no file)");
    let row = |setting: &Setting| {
        [
            setting.name.clone(),
            setting.value.clone(),
            setting.origin.clone(),
        ]
    };
    let rows = report.settings.iter().map(row).collect();
    format!(
        "File: {file}\n\n{}",
        table(["SETTING", "VALUE", "ORIGIN"], rows, &[])
    )
}
