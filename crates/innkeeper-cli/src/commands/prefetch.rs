//! `innkeeper prefetch`.

use std::time::Instant;

use clap::Args;
use innkeeper_model::api::Accepted;

use crate::context::{Context, milliseconds_since};
use crate::failure::Status;
use crate::follow::{continues_note, follow, until_interrupted};

/// Build the closures that agents and previews will need
///
/// Builds the flake outputs of agents (nix.flake of the configuration, and those that agents were created from), and the preview
/// configurations on the default branches of repositories with previews, if they have changed. The next create, set or pull request
/// finds them ready. One closure at a time is built, at low priority, and none while the host lacks disk space (exit
/// status 5). A closure that cannot be built is reported and does not keep the others from it. If a prefetch is in progress, the
/// command follows that. For root only.
#[derive(Args, Debug)]
pub(crate) struct Prefetch {}

impl Prefetch {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let Self {} = self;
        cx.client.require_host("innkeeper prefetch")?;
        let start = Instant::now();
        let accepted: Accepted = cx.client.post("/v1/prefetches", &()).await?;
        let followed = follow(cx, &accepted, "Building closures in advance");
        until_interrupted(|| continues_note(&accepted), followed).await?;
        let elapsed_ms = milliseconds_since(start);
        cx.output
            .ok(format_args!("Prefetched in {elapsed_ms} ms."))?;
        cx.print_result(Some(accepted.operation), elapsed_ms, None::<()>)?;
        Ok(0)
    }
}
