//! `preview destroy`.

use clap::Args;

use super::{Context, Which};
use crate::confirm::Prompt;
use crate::failure::Status;
use crate::settle::{Asked, Task, Waiting};

/// Destroy a preview, with its database and everything else that is its own
///
/// Prompts on a terminal, unless --yes is given. None of it can be brought back; as long as its pull request is open,
/// the preview can be made anew.
#[derive(Args, Debug)]
pub(crate) struct Destroy {
    #[command(flatten)]
    which: Which,

    #[command(flatten)]
    prompt: Prompt,

    #[command(flatten)]
    waiting: Waiting,
}

impl Destroy {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        if self.prompt.is_needed() {
            let preview = self.which.view(cx).await?.preview;
            let slug = &preview.slug;
            let source = match preview.pull_request() {
                Some(pull_request) => pull_request.to_string(),
                None => format!("{} {}", preview.repo, preview.branch),
            };
            let question = format!(
                "Preview {slug} ({source}): its database and its files will be deleted.\nDestroy it?"
            );
            let declined = format!("Preview {slug} stays as it is.");
            self.prompt.confirm(cx, &question, declined)?;
        }
        let asked = Asked::now();
        let answer = cx.client.delete(&self.which.path("")).await;
        let accepted = self.which.suggest(cx, answer).await?;
        Task::new("Destroying", asked, accepted)
            .take_away(cx, self.waiting)
            .await
    }
}
