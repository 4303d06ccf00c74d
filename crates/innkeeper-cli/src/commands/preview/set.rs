//! `preview set`.

use clap::Args;
use innkeeper_model::{IdlePolicy, IdleRequest, RestReport};

use super::PreviewArgument;
use crate::arguments::idle_policy;
use crate::context::Context;
use crate::failure::Status;

/// Change what happens to a preview while it is idle
///
/// The setting belongs to the preview's guest: it ends when the preview is removed.
#[derive(Args, Debug)]
pub(crate) struct Set {
    #[command(flatten)]
    preview: PreviewArgument,

    /// sleep (paused, then put to sleep), pause, or always-on
    #[arg(long, value_name = "POLICY", value_parser = idle_policy)]
    idle: IdlePolicy,
}

impl Set {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let request = IdleRequest {
            idle_policy: Some(self.idle),
        };
        let response = cx.client.post(&self.preview.path("/idle"), &request).await;
        let report: RestReport = self.preview.suggest(cx, response).await?;
        let slug = &self.preview.slug;
        cx.output.ok(format_args!(
            "Preview {slug} has the idle policy {}.",
            self.idle
        ))?;
        if cx.output.is_json() {
            cx.output.value(&report)?;
        }
        Ok(0)
    }
}
