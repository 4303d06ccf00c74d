//! `preview update`.

use clap::Args;

use super::{Context, Which};
use crate::failure::Status;
use crate::settle::{Asked, Task, Waiting};

/// Bring a preview to the newest commit of its branch or pull request
///
/// Its database stays. When the new commit does not come up, the one before goes on answering.
#[derive(Args, Debug)]
pub(crate) struct Update {
    #[command(flatten)]
    which: Which,

    #[command(flatten)]
    waiting: Waiting,
}

impl Update {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let asked = Asked::now();
        let answer = cx.client.post_nothing(&self.which.path("/update")).await;
        let accepted = self.which.suggest(cx, answer).await?;
        Task::new("Updating", asked, accepted)
            .bring_up(cx, self.waiting)
            .await
    }
}
