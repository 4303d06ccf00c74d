//! `preview start`.

use std::time::Instant;

use clap::Args;
use innkeeper_model::api::{Accepted, GuestView};

use super::{Context, Which};
use crate::commands::milliseconds_since;
use crate::failure::Status;
use crate::follow::{attended, follow, goes_on};

/// Start a preview that was stopped
///
/// Returns when its guest is up; innkeeperd starts the app in it then.
#[derive(Args, Debug)]
pub(crate) struct Start {
    #[command(flatten)]
    which: Which,
}

impl Start {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let slug = &self.which.slug;
        let start = Instant::now();
        let answer = cx.client.post_nothing(&self.which.path("/start")).await;
        let accepted: Accepted = self.which.suggest(cx, answer).await?;
        let attended = attended(|| goes_on(&accepted), async {
            let label = format!("Starting preview {slug}");
            follow(&cx.client, &cx.output, &accepted, &label).await?;
            cx.client.get(&self.which.path("/guest")).await
        });
        let view: GuestView = attended.await?;
        let elapsed_ms = milliseconds_since(start);
        cx.output.ok(format_args!(
            "The guest of preview {slug} is up after {elapsed_ms} ms."
        ))?;
        cx.ended(Some(accepted.operation), elapsed_ms, Some(view))?;
        Ok(0)
    }
}
