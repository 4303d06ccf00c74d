//! `preview wake`.

use std::time::Instant;

use clap::Args;
use innkeeper_model::api::{Accepted, GuestView};

use super::PreviewArgument;
use crate::context::{Context, milliseconds_since};
use crate::failure::Status;
use crate::follow::complete;

/// Wake a preview that is paused or asleep
///
/// Returns when its guest is awake. After sleep, innkeeperd then starts the app.
#[derive(Args, Debug)]
pub(crate) struct Wake {
    #[command(flatten)]
    preview: PreviewArgument,
}

impl Wake {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let slug = &self.preview.slug;
        let start = Instant::now();
        let response = cx.client.post_empty(&self.preview.path("/wake")).await;
        let accepted: Accepted = self.preview.suggest(cx, response).await?;
        let path = self.preview.path("/guest");
        let label = format!("Waking preview {slug}");
        let view: GuestView = complete(cx, &accepted, &label, cx.client.get(&path)).await?;
        let elapsed_ms = milliseconds_since(start);
        cx.output.ok(format_args!(
            "The guest of preview {slug} is awake after {elapsed_ms} ms."
        ))?;
        cx.print_result(Some(accepted.operation), elapsed_ms, Some(view))?;
        Ok(0)
    }
}
