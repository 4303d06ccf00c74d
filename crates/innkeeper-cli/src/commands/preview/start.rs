//! `preview start`.

use std::time::Instant;

use clap::Args;
use innkeeper_model::api::{Accepted, GuestView};

use super::PreviewArgument;
use crate::context::{Context, milliseconds_since};
use crate::failure::Status;
use crate::follow::complete;

/// Start a stopped preview
///
/// Returns when its guest is up. innkeeperd then starts the app.
#[derive(Args, Debug)]
pub(crate) struct Start {
    #[command(flatten)]
    preview: PreviewArgument,
}

impl Start {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let slug = &self.preview.slug;
        let start = Instant::now();
        let response = cx.client.post_empty(&self.preview.path("/start")).await;
        let accepted: Accepted = self.preview.suggest(cx, response).await?;
        let path = self.preview.path("/guest");
        let label = format!("Starting preview {slug}");
        let view: GuestView = complete(cx, &accepted, &label, cx.client.get(&path)).await?;
        let elapsed_ms = milliseconds_since(start);
        cx.output.ok(format_args!(
            "The guest of preview {slug} is up after {elapsed_ms} ms."
        ))?;
        cx.print_result(Some(accepted.operation), elapsed_ms, Some(view))?;
        Ok(0)
    }
}
