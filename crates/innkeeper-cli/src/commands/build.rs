//! `agent build`.

use std::time::Instant;

use clap::Args;
use innkeeper_model::StorePath;
use innkeeper_model::api::{Accepted, BuildRequest};
use serde::Serialize;

use super::{Context, milliseconds_since};
use crate::arguments::FlakeOutput;
use crate::failure::Status;
use crate::follow::{attended, follow, goes_on};

/// Build the closure that agents boot from, so that creating one need not
#[derive(Args, Debug)]
pub(crate) struct Build {
    /// The flake output; the one configured in innkeeperd when left out
    ///
    /// Callers other than root give a remote reference, such as github:owner/repo.
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

/// What programs are told besides.
#[derive(Serialize)]
struct Built {
    closure: Option<StorePath>,
}

/// Asks for a closure to be built and returns when it is.
pub(super) async fn build(
    cx: &Context,
    path: &str,
    request: &impl Serialize,
    label: &str,
) -> Status {
    let start = Instant::now();
    let accepted: Accepted = cx.client.post(path, request).await?;
    let followed = follow(&cx.client, &cx.output, &accepted, label);
    let closure = attended(|| goes_on(&accepted), followed).await?;
    let elapsed_ms = milliseconds_since(start);
    cx.output
        .ok(format_args!("The closure is built after {elapsed_ms} ms."))?;
    let built = Built { closure };
    cx.ended(Some(accepted.operation), elapsed_ms, Some(built))?;
    Ok(0)
}
