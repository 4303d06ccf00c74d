//! `preview destroy`.

use clap::Args;

use super::{Context, Which};
use crate::failure::Status;
use crate::settle::{Asked, Task, Waiting};

/// Destroy a preview, with its database and everything else that is its own
#[derive(Args, Debug)]
pub(crate) struct Destroy {
    #[command(flatten)]
    which: Which,

    #[command(flatten)]
    waiting: Waiting,
}

impl Destroy {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let asked = Asked::now();
        let answer = cx.client.delete(&self.which.path("")).await;
        let accepted = self.which.suggest(cx, answer).await?;
        Task::new("Destroying", asked, accepted)
            .take_away(cx, self.waiting)
            .await
    }
}
