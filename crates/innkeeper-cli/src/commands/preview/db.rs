//! `preview db`.

use clap::{Args, Subcommand};

use super::{Context, Which};
use crate::confirm::{NoAnswer, confirm};
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
/// Everything in it is lost. Asks before, unless --yes is given. Returns when the app answers again.
#[derive(Args, Debug)]
struct Reset {
    #[command(flatten)]
    which: Which,

    /// Do not ask
    #[arg(long, short)]
    yes: bool,

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
        if !self.yes {
            // A slip of the finger is told before anything is asked.
            self.which.view(cx).await?;
            let without = NoAnswer {
                needs: format!("resetting the database of preview '{slug}'"),
                remedy: format!("`preview db reset {slug} --yes` does it without asking."),
                declined: format!("The database of preview {slug} stays as it is."),
            };
            let question = format!("Delete everything in the database of preview {slug}?");
            confirm(cx, &question, without)?;
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
