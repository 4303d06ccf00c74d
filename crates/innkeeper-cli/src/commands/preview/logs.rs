//! `preview logs`.

use clap::Args;

use super::PreviewArgument;
use crate::context::Context;
use crate::failure::Status;
use crate::log::LogOptions;

/// Show a preview's log and its app's journal
///
/// Innkeeper's lines come first, with errors of evaluations and builds, then the journal of the app's services.
#[derive(Args, Debug)]
pub(crate) struct Logs {
    #[command(flatten)]
    preview: PreviewArgument,

    #[command(flatten)]
    options: LogOptions,
}

impl Logs {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let path = self.preview.path(&self.options.path());
        let body = (self.preview)
            .suggest(cx, cx.client.stream(&path).await)
            .await?;
        crate::log::print(cx, body).await
    }
}
