//! `preview update`.

use clap::Args;

use super::PreviewArgument;
use crate::context::Context;
use crate::failure::Status;
use crate::preview_change::{PreviewChange, RequestTime, WaitOptions};

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
        let requested = RequestTime::now();
        let response = cx.client.post_empty(&self.preview.path("/update")).await;
        let accepted = self.preview.suggest(cx, response).await?;
        PreviewChange::new("Updating", requested, accepted)
            .wait_until_live(cx, self.wait)
            .await
    }
}
