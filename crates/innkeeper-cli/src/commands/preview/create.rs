//! `preview create`.

use clap::Args;
use innkeeper_model::GuestName;
use innkeeper_model::preview::api::{CreatePreview, PreviewAccepted};
use innkeeper_model::preview::parse_slug;

use super::BranchArguments;
use crate::context::Context;
use crate::failure::Status;
use crate::preview_change::{PreviewChange, RequestTime, WaitOptions};

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
        let request = CreatePreview {
            repo: self.branch.repo,
            branch: self.branch.branch,
            slug: self.slug.map(String::from),
        };
        let requested = RequestTime::now();
        let accepted: PreviewAccepted = cx.client.post("/v1/previews", &request).await?;
        PreviewChange::new("Creating", requested, accepted)
            .wait_until_live(cx, self.wait)
            .await
    }
}
