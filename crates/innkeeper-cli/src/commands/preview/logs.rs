//! `preview logs`.

use clap::Args;

use super::PreviewArgument;
use crate::context::Context;
use crate::failure::Status;
use crate::log::LogOptions;
use crate::preview_log::{self, SelectionOptions};

/// Show a preview's log
///
/// Innkeeper's lines and those of the app's services are in the order of their times (UTC), each with its source. A line
/// separates the attempts to bring a commit up.
#[derive(Args, Debug)]
pub(crate) struct Logs {
    #[command(flatten)]
    preview: PreviewArgument,

    #[command(flatten)]
    options: LogOptions,

    #[command(flatten)]
    selection: SelectionOptions,
}

impl Logs {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let query = format!("{}{}", self.options.path(), self.selection.query());
        let path = self.preview.path(&query);
        let body = (self.preview)
            .suggest(cx, cx.client.stream(&path).await)
            .await?;
        preview_log::print(cx, body).await
    }
}
