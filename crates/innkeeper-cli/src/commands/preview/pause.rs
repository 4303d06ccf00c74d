//! `preview pause`.

use std::time::Instant;

use clap::Args;
use innkeeper_model::api::{Accepted, GuestView};

use super::PreviewArgument;
use crate::context::{Context, milliseconds_since};
use crate::failure::Status;
use crate::follow::complete;

/// Freeze the processes of a preview; memory, network and open connections stay
///
/// It is woken by a request, by `preview wake`, `exec`, `ssh`, `start` or `update`, and by a push to its branch.
#[derive(Args, Debug)]
pub(crate) struct Pause {
    #[command(flatten)]
    preview: PreviewArgument,
}

impl Pause {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let slug = &self.preview.slug;
        let start = Instant::now();
        let response = cx.client.post_empty(&self.preview.path("/pause")).await;
        let accepted: Accepted = self.preview.suggest(cx, response).await?;
        let path = self.preview.path("/guest");
        let label = format!("Pausing preview {slug}");
        let view: GuestView = complete(cx, &accepted, &label, cx.client.get(&path)).await?;
        let elapsed_ms = milliseconds_since(start);
        cx.output.ok(format_args!(
            "The guest of preview {slug} is paused after {elapsed_ms} ms."
        ))?;
        cx.print_result(Some(accepted.operation), elapsed_ms, Some(view))?;
        Ok(0)
    }
}
