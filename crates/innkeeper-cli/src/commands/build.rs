//! `agent build`.

use std::time::Instant;

use clap::Args;
use innkeeper_model::StorePath;
use innkeeper_model::api::{Accepted, BuildRequest};
use serde::Serialize;

use crate::arguments::FlakeOutput;
use crate::context::{Context, milliseconds_since};
use crate::failure::Status;
use crate::follow::{continues_note, follow, until_interrupted};

/// Build the closure that agents boot from, ahead of `create`
#[derive(Args, Debug)]
pub(crate) struct Build {
    /// Flake output to build [default: innkeeperd's setting nix.flake]
    ///
    /// Callers other than root must use a remote reference, such as github:owner/repo.
    #[arg(value_name = "FLAKE[#ATTR]", value_parser = FlakeOutput::parse)]
    flake: Option<FlakeOutput>,
}

impl Build {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let request = BuildRequest {
            installable: self.flake.map(FlakeOutput::into_text),
        };
        let label = match &request.installable {
            Some(installable) => format!("Building {installable}"),
            None => "Building the configured flake output".to_owned(),
        };
        build(cx, "/v1/builds", &request, &label).await
    }
}

/// Additional field of the JSON result.
#[derive(Serialize)]
struct Built {
    closure: Option<StorePath>,
}

/// Requests a build and waits for its end.
pub(super) async fn build(
    cx: &Context,
    path: &str,
    request: &impl Serialize,
    label: &str,
) -> Status {
    let start = Instant::now();
    let accepted: Accepted = cx.client.post(path, request).await?;
    let followed = follow(cx, &accepted, label);
    let closure = until_interrupted(|| continues_note(&accepted), followed).await?;
    let elapsed_ms = milliseconds_since(start);
    cx.output
        .ok(format_args!("Closure built in {elapsed_ms} ms."))?;
    let built = Built { closure };
    cx.print_result(Some(accepted.operation), elapsed_ms, Some(built))?;
    Ok(0)
}
