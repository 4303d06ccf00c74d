//! `preview exec`.

use clap::Args;

use super::{Context, Which};
use crate::commands::exec::ExecOptions;
use crate::failure::Status;

/// Run a command in a preview's guest, without SSH
///
/// Standard input, output and error are passed on, and the exit status is the command's (128 + n for signal n).
#[derive(Args, Debug)]
pub(crate) struct Exec {
    #[command(flatten)]
    options: ExecOptions,

    #[command(flatten)]
    which: Which,

    /// The command and its arguments, best after `--`
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Exec {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let path = self.which.path("/exec");
        (self.options)
            .run(cx, &self.which.slug, &path, self.command)
            .await
    }
}
