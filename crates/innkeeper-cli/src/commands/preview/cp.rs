//! `preview cp`.

use clap::Args;
use innkeeper_model::Failure;

use crate::arguments::existing_slug;
use crate::commands::cp::CpArguments;
use crate::context::Context;
use crate::failure::{CommandError, Status};
use crate::tunnel::Guest;

/// Copy files and directories between this machine and a preview's guest
///
/// One side is SLUG:PATH, such as web-7:/var/log/app.log; the other side is a path of this machine. The rest is as for `agent cp`.
#[derive(Args, Debug)]
pub(crate) struct Cp {
    #[command(flatten)]
    arguments: CpArguments,
}

impl Cp {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let guest = |slug: &str| {
            let slug = existing_slug(slug);
            slug.map(Guest::preview)
                .map_err(|error| CommandError::from(Failure::from(&error)))
        };
        self.arguments.run(cx, guest).await
    }
}
