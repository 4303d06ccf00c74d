//! `preview stop`.

use std::time::Instant;

use clap::Args;
use innkeeper_model::api::{Accepted, GuestView};

use super::{Context, Which};
use crate::commands::milliseconds_since;
use crate::failure::Status;
use crate::follow::{attended, follow, goes_on};

/// Stop a preview and keep its files, its database and its URL
///
/// It stays stopped until `preview start`, `preview update` or a push to its branch.
#[derive(Args, Debug)]
pub(crate) struct Stop {
    #[command(flatten)]
    which: Which,
}

impl Stop {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let slug = &self.which.slug;
        let start = Instant::now();
        let answer = cx.client.post_nothing(&self.which.path("/stop")).await;
        let accepted: Accepted = self.which.suggest(cx, answer).await?;
        let attended = attended(|| goes_on(&accepted), async {
            let label = format!("Stopping preview {slug}");
            follow(&cx.client, &cx.output, &accepted, &label).await?;
            cx.client.get(&self.which.path("/guest")).await
        });
        let view: GuestView = attended.await?;
        let elapsed_ms = milliseconds_since(start);
        cx.output.ok(format_args!(
            "The guest of preview {slug} has stopped after {elapsed_ms} ms."
        ))?;
        cx.ended(Some(accepted.operation), elapsed_ms, Some(view))?;
        Ok(0)
    }
}
