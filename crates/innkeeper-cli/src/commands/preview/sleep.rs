//! `preview sleep`.

use std::time::Instant;

use clap::Args;
use innkeeper_model::api::{Accepted, GuestView};

use super::PreviewArgument;
use crate::context::{Context, milliseconds_since};
use crate::failure::Status;
use crate::follow::complete;

/// Shut a preview down until it is woken; its files, its database and its URL are kept
///
/// It is woken by a request to its URL, by `preview wake`, `exec`, `ssh`, `start` or `update`, and by a push to its branch.
#[derive(Args, Debug)]
pub(crate) struct Sleep {
    #[command(flatten)]
    preview: PreviewArgument,
}

impl Sleep {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let slug = &self.preview.slug;
        let start = Instant::now();
        let response = cx.client.post_empty(&self.preview.path("/sleep")).await;
        let accepted: Accepted = self.preview.suggest(cx, response).await?;
        let path = self.preview.path("/guest");
        let label = format!("Putting preview {slug} to sleep");
        let view: GuestView = complete(cx, &accepted, &label, cx.client.get(&path)).await?;
        let elapsed_ms = milliseconds_since(start);
        cx.output.ok(format_args!(
            "The guest of preview {slug} is asleep after {elapsed_ms} ms."
        ))?;
        cx.print_result(Some(accepted.operation), elapsed_ms, Some(view))?;
        Ok(0)
    }
}
