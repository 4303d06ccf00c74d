//! `agent logs`.

use clap::Args;
use innkeeper_model::GuestName;
use innkeeper_model::api::GuestView;

use super::Context;
use crate::client::guest_path;
use crate::describe::oom_kills;
use crate::failure::Status;
use crate::log::Excerpt;
use crate::suggest::suggest;

/// Show what an agent wrote to its console
#[derive(Args, Debug)]
pub(crate) struct Logs {
    /// The agent
    name: GuestName,

    #[command(flatten)]
    excerpt: Excerpt,
}

impl Logs {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let path = guest_path(&self.name, &self.excerpt.call());
        let answer = cx.client.stream(&path).await;
        let body = suggest(&cx.client, &self.name, answer).await?;
        let status = crate::log::print(cx, body).await?;
        // The kernel's kills are in no guest's console.
        let view: Result<GuestView, _> = cx.client.get(&guest_path(&self.name, "")).await;
        if let Some(report) = view.ok().as_ref().and_then(oom_kills) {
            cx.output.note(&report);
        }
        Ok(status)
    }
}
