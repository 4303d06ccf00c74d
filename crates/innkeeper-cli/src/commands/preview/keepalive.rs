//! `preview keepalive`.

use clap::Args;
use innkeeper_model::RestReport;

use super::PreviewArgument;
use crate::commands::KeepaliveTime;
use crate::context::Context;
use crate::failure::Status;

/// Keep a preview awake for a time: it is neither paused nor put to sleep by itself
///
/// A preview that is paused or asleep is woken first. A later keepalive replaces an earlier one.
#[derive(Args, Debug)]
pub(crate) struct Keepalive {
    #[command(flatten)]
    preview: PreviewArgument,

    #[command(flatten)]
    time: KeepaliveTime,
}

impl Keepalive {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let path = self.preview.path("/keepalive");
        let response = cx.client.post(&path, &self.time.request()).await;
        let report: RestReport = self.preview.suggest(cx, response).await?;
        let slug = &self.preview.slug;
        cx.output.ok(self.time.result(&format!("Preview {slug}")))?;
        if cx.output.is_json() {
            cx.output.value(&report)?;
        }
        Ok(0)
    }
}
