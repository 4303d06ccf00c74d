//! `preview build`.

use clap::Args;
use innkeeper_model::preview::api::BuildPreview;

use super::{Context, Source};
use crate::commands::build::build;
use crate::failure::Status;

/// Build the closure of a branch's newest commit, so that its preview need not
#[derive(Args, Debug)]
pub(crate) struct Build {
    #[command(flatten)]
    source: Source,
}

impl Build {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let Source { repo, branch } = self.source;
        let label = format!("Building branch {branch} of {repo}");
        let request = BuildPreview { repo, branch };
        build(cx, "/v1/preview-builds", &request, &label).await
    }
}
