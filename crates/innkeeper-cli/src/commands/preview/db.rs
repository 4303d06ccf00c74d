//! `preview db`.

use clap::{Args, Subcommand};

use super::PreviewArgument;
use crate::confirm::Prompt;
use crate::context::Context;
use crate::failure::Status;
use crate::preview_change::WaitOptions;

/// Manage a preview's database
#[derive(Args, Debug)]
#[command(disable_help_subcommand = true)]
pub(crate) struct Db {
    #[command(subcommand)]
    command: DbCommand,
}

#[derive(Debug, Subcommand)]
enum DbCommand {
    Reset(Reset),
}

/// Replace a preview's database with a new one
///
/// All data in it is lost. Prompts on a terminal, unless --yes is given. Returns when the app responds again.
#[derive(Args, Debug)]
struct Reset {
    #[command(flatten)]
    preview: PreviewArgument,

    #[command(flatten)]
    prompt: Prompt,

    #[command(flatten)]
    wait: WaitOptions,
}

impl Db {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        match self.command {
            DbCommand::Reset(reset) => reset.run(cx).await,
        }
    }
}

impl Reset {
    async fn run(self, cx: &Context) -> Status {
        let slug = &self.preview.slug;
        if self.prompt.is_needed() {
            // A mistyped slug must fail before the prompt.
            self.preview.view(cx).await?;
            let question = format!("Delete all data in the database of preview {slug}?");
            let declined = format!("The database of preview {slug} was not changed.");
            self.prompt.confirm(cx, &question, declined)?;
        }
        let path = self.preview.path("/database/reset");
        let request = cx.client.post_empty(&path);
        let verb = "Resetting the database of";
        let change = self.preview.change(cx, verb, request).await?;
        change.wait_until_live(cx, self.wait).await
    }
}
