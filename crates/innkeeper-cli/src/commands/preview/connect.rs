//! `preview connect`.

use clap::Args;

use super::PreviewArgument;
use crate::commands::connect::ConnectArguments;
use crate::context::Context;
use crate::failure::Status;
use crate::tunnel::Guest;

/// Connect standard input and output to a TCP port of a preview's guest
///
/// For programs that start another program to connect, such as ssh with its option ProxyCommand. A guest that is paused or
/// asleep is woken first. Ends when the guest closes the connection.
#[derive(Args, Debug)]
pub(crate) struct Connect {
    #[command(flatten)]
    preview: PreviewArgument,

    #[command(flatten)]
    arguments: ConnectArguments,
}

impl Connect {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        self.arguments
            .run(cx, &Guest::preview(self.preview.slug))
            .await
    }
}
