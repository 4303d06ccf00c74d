//! `preview destroy`.

use clap::Args;

use super::PreviewArgument;
use crate::confirm::Prompt;
use crate::context::Context;
use crate::failure::Status;
use crate::preview_change::WaitOptions;

/// Destroy a preview with its files and its database
///
/// The data cannot be restored. While the pull request is open, the preview can be created again. Prompts on a terminal,
/// unless --yes is given.
#[derive(Args, Debug)]
pub(crate) struct Destroy {
    #[command(flatten)]
    preview: PreviewArgument,

    #[command(flatten)]
    prompt: Prompt,

    #[command(flatten)]
    wait: WaitOptions,
}

impl Destroy {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        if self.prompt.is_needed() {
            let preview = self.preview.view(cx).await?.preview;
            let slug = &preview.slug;
            let source = match preview.pull_request() {
                Some(pull_request) => pull_request.to_string(),
                None => format!("{} {}", preview.repo, preview.branch),
            };
            let question = format!(
                "Preview {slug} ({source}): its database and its files will be deleted.\nDestroy it?"
            );
            let declined = format!("Preview {slug} was not changed.");
            self.prompt.confirm(cx, &question, declined)?;
        }
        let path = self.preview.path("");
        let request = cx.client.delete(&path);
        let change = self.preview.change(cx, "Destroying", request).await?;
        change.wait_until_gone(cx, self.wait).await
    }
}
