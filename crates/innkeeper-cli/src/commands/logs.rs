//! `agent logs`.

use clap::Args;
use innkeeper_model::GuestName;

use super::Context;
use crate::client::guest_path;
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
        crate::log::print(cx, body).await
    }
}
