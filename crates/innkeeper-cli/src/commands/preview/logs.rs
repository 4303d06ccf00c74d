//! `preview logs`.

use clap::Args;

use super::{Context, Which};
use crate::failure::Status;
use crate::log::Excerpt;

/// Show what became of a preview, and what its app wrote
///
/// First come Innkeeper's own lines, with the errors of an evaluation or a build, then the journal of the app's
/// services.
#[derive(Args, Debug)]
pub(crate) struct Logs {
    #[command(flatten)]
    which: Which,

    #[command(flatten)]
    excerpt: Excerpt,
}

impl Logs {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let path = self.which.path(&self.excerpt.call());
        let body = (self.which)
            .suggest(cx, cx.client.stream(&path).await)
            .await?;
        crate::log::print(cx, body).await
    }
}
