//! `preview exec`.

use clap::Args;

use super::PreviewArgument;
use crate::commands::exec::ExecArguments;
use crate::context::Context;
use crate::failure::Status;

/// Run a command in a preview's guest, without SSH
///
/// Forwards standard input, output and error. The exit status is the command's (128 + n for signal n).
///
/// When the command exits or this program is interrupted, background processes of the command are killed. Use `--detach`
/// for a command that runs until it exits or the guest stops.
#[derive(Args, Debug)]
pub(crate) struct Exec {
    #[command(flatten)]
    preview: PreviewArgument,

    #[command(flatten)]
    arguments: ExecArguments,
}

impl Exec {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let path = self.preview.path("/exec");
        self.arguments.run(cx, &self.preview.slug, &path).await
    }
}
