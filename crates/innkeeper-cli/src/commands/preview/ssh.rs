//! `preview ssh`.

use clap::Args;
use innkeeper_model::api::GuestView;

use super::PreviewArgument;
use crate::commands::ssh::SshArguments;
use crate::context::Context;
use crate::failure::Status;

/// Open an SSH session in a preview's guest
///
/// Only the host key that innkeeperd generated for the guest is accepted. The exit status is ssh's.
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
        self.arguments.open_session(&view)
    }
}
