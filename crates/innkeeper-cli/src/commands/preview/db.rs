//! `preview db`.

use clap::{Args, Subcommand};

use super::{Context, Which};
use crate::confirm::Prompt;
use crate::failure::Status;
use crate::settle::{Asked, Task, Waiting};

/// Work on a preview's database
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

/// Replace a preview's database by a new one
///
/// Everything in it is lost. Prompts on a terminal, unless --yes is given. Returns when the app answers again.
#[derive(Args, Debug)]
struct Reset {
    #[command(flatten)]
    which: Which,

    #[command(flatten)]
    prompt: Prompt,

    #[command(flatten)]
    waiting: Waiting,
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
        let slug = &self.which.slug;
        if self.prompt.is_needed() {
            // A mistyped slug fails before the prompt.
            self.which.view(cx).await?;
            let question = format!("Delete everything in the database of preview {slug}?");
            let declined = format!("The database of preview {slug} stays as it is.");
            self.prompt.confirm(cx, &question, declined)?;
        }
        let asked = Asked::now();
        let answer = (cx.client)
            .post_nothing(&self.which.path("/database/reset"))
            .await;
        let accepted = self.which.suggest(cx, answer).await?;
        Task::new("Resetting the database of", asked, accepted)
            .bring_up(cx, self.waiting)
            .await
    }
}
