//! `preview update`.

use clap::Args;

use super::PreviewArgument;
use crate::context::Context;
use crate::failure::Status;
use crate::preview_change::WaitOptions;

/// Update a preview to the newest commit of its branch or pull request
///
/// The database is kept. If the new commit fails, the former commit stays live.
#[derive(Args, Debug)]
pub(crate) struct Update {
    #[command(flatten)]
    preview: PreviewArgument,

    #[command(flatten)]
    wait: WaitOptions,
}

impl Update {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let path = self.preview.path("/update");
        let request = cx.client.post_empty(&path);
        let change = self.preview.change(cx, "Updating", request).await?;
        change.wait_until_live(cx, self.wait).await
    }
}
