//! `preview create`.

use clap::Args;
use innkeeper_model::GuestName;
use innkeeper_model::preview::api::CreatePreview;
use innkeeper_model::preview::parse_slug;

use super::BranchArguments;
use crate::context::Context;
use crate::failure::Status;
use crate::preview_change::{PreviewChange, WaitOptions};

/// Create a preview of a branch
///
/// Returns when the app responds at its URL, and prints the URL on the last line. Previews of pull requests are created
/// automatically.
#[derive(Args, Debug)]
pub(crate) struct Create {
    #[command(flatten)]
    branch: BranchArguments,

    /// Slug and first label of the URL: 1 to 40 of a-z, 0-9 and '-' [default: from repository and branch]
    #[arg(long, value_parser = parse_slug)]
    slug: Option<GuestName>,

    #[command(flatten)]
    wait: WaitOptions,
}

impl Create {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let body = CreatePreview {
            repo: self.branch.repo,
            branch: self.branch.branch,
            slug: self.slug.map(String::from),
        };
        let request = cx.client.post("/v1/previews", &body);
        let change = PreviewChange::request("Creating", request).await?;
        change.wait_until_live(cx, self.wait).await
    }
}
