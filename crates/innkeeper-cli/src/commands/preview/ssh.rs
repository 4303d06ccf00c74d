//! `preview ssh`.

use clap::Args;
use innkeeper_model::api::{Accepted, GuestView};

use super::PreviewArgument;
use crate::commands::ssh::{SshArguments, awake};
use crate::context::Context;
use crate::failure::Status;
use crate::tunnel::Guest;

/// Open an SSH session in a preview's guest
///
/// A guest that is paused or asleep is woken first. Only the host key that innkeeperd generated for the guest is accepted. The exit status is ssh's.
#[derive(Args, Debug)]
#[command(mut_arg("user", |user| user.default_value("preview").required(false)))]
pub(crate) struct Ssh {
    #[command(flatten)]
    preview: PreviewArgument,

    #[command(flatten)]
    arguments: SshArguments,
}

impl Ssh {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let response = cx.client.get(&self.preview.path("/guest")).await;
        let view: GuestView = self.preview.suggest(cx, response).await?;
        let wake = async || {
            let response: Result<Accepted, _> =
                cx.client.post_empty(&self.preview.path("/wake")).await;
            self.preview.suggest(cx, response).await
        };
        let path = self.preview.path("/guest");
        let again = async || Ok(cx.client.get(&path).await?);
        let view = Box::pin(awake(cx, view, wake, again)).await?;
        let guest = Guest::preview(self.preview.slug);
        self.arguments.open_session(cx, &guest, &view)
    }
}
