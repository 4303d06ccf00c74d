//! `preview port-forward`.

use clap::Args;

use super::PreviewArgument;
use crate::commands::port_forward::PortForwardArguments;
use crate::context::Context;
use crate::failure::Status;
use crate::tunnel::Guest;

/// Forward local TCP ports to ports of a preview's guest, until Ctrl-C
///
/// Listens on this machine only. Servers in the guest are reached on any of its addresses, its loopback too. A guest that is
/// paused or asleep is woken by a connection, and does not rest by itself while one is open.
#[derive(Args, Debug)]
pub(crate) struct PortForward {
    #[command(flatten)]
    preview: PreviewArgument,

    #[command(flatten)]
    arguments: PortForwardArguments,
}

impl PortForward {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        // A mistyped slug must fail before the first connection.
        self.preview.view(cx).await?;
        self.arguments
            .run(cx, Guest::preview(self.preview.slug))
            .await
    }
}
