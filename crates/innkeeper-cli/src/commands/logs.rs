//! `agent logs`.

use clap::Args;
use innkeeper_model::GuestName;
use innkeeper_model::api::GuestView;

use crate::client::guest_path;
use crate::context::Context;
use crate::describe::oom_kills;
use crate::failure::Status;
use crate::log::{self, LogOptions};
use crate::suggest::suggest;

/// Show an agent's console log
#[derive(Args, Debug)]
pub(crate) struct Logs {
    /// Name of the agent
    name: GuestName,

    #[command(flatten)]
    options: LogOptions,
}

impl Logs {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let path = guest_path(&self.name, &self.options.path());
        let response = cx.client.stream(&path).await;
        let body = suggest(&cx.client, &self.name, response).await?;
        let status = log::print(cx, body).await?;
        // The console does not contain the kernel's OOM kills.
        let view: Result<GuestView, _> = cx.client.get(&guest_path(&self.name, "")).await;
        if let Some(report) = view.ok().as_ref().and_then(oom_kills) {
            cx.output.note(&report);
        }
        Ok(status)
    }
}
