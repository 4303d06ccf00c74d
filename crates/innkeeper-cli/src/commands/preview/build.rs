//! `preview build`.

use clap::Args;
use innkeeper_model::preview::api::BuildPreview;

use super::BranchArguments;
use crate::commands::build::build;
use crate::context::Context;
use crate::failure::Status;

/// Build the closure of a branch's newest commit, ahead of `create`
#[derive(Args, Debug)]
pub(crate) struct Build {
    #[command(flatten)]
    branch: BranchArguments,
}

impl Build {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let BranchArguments { repo, branch } = self.branch;
        let label = format!("Building branch {branch} of {repo}");
        let request = BuildPreview { repo, branch };
        build(cx, "/v1/preview-builds", &request, &label).await
    }
}
