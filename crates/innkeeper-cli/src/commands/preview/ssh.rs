//! `preview ssh`.

use std::ffi::OsString;

use clap::Args;
use innkeeper_model::api::GuestView;

use super::{Context, Which};
use crate::commands::ssh::log_in;
use crate::failure::Status;

/// Open an SSH session in a preview's guest
///
/// The guest's host key is the one that innkeeperd made for it; any other is refused. The exit status is ssh's.
#[derive(Args, Debug)]
pub(crate) struct Ssh {
    #[command(flatten)]
    which: Which,

    /// The user to log in as
    #[arg(long, short, default_value = "preview")]
    user: String,

    /// A command to run, or after `--` further options of ssh
    #[arg(trailing_var_arg = true, value_name = "SSH ARGS")]
    arguments: Vec<OsString>,
}

impl Ssh {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let answer = cx.client.get(&self.which.path("/guest")).await;
        let view: GuestView = self.which.suggest(cx, answer).await?;
        log_in(&view, &self.user, &self.arguments)
    }
}
