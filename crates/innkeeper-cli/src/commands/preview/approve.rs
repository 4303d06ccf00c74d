//! `preview approve`.

use clap::Args;
use innkeeper_model::preview::api::ApprovePreview;
use innkeeper_model::preview::{CommitSha, PreviewView};

use super::PreviewArgument;
use crate::confirm::{RequiredConfirmation, confirm};
use crate::context::Context;
use crate::describe::plain;
use crate::failure::{CommandError, Status};
use crate::preview_change::WaitOptions;

/// Approve a commit of a fork
///
/// Code of a fork is not evaluated before its commit is approved. The approval applies to this commit only, and previews of
/// forks never receive secrets. Without --sha, the commit is shown and confirmed on the terminal.
#[derive(Args, Debug)]
pub(crate) struct Approve {
    #[command(flatten)]
    preview: PreviewArgument,

    /// Reviewed commit, all 40 digits; rejected if the preview waits for another commit
    #[arg(long, value_name = "SHA")]
    sha: Option<CommitSha>,

    #[command(flatten)]
    wait: WaitOptions,
}

impl Approve {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let sha = match self.sha {
            Some(sha) => sha,
            None => confirmed_commit(cx, &self.preview.view(cx).await?)?,
        };
        let (path, body) = (self.preview.path("/approve"), ApprovePreview { sha });
        let request = cx.client.post(&path, &body);
        let change = self.preview.change(cx, "Approving", request).await?;
        change.wait_until_live(cx, self.wait).await
    }
}

/// Returns the commit that a preview waits for, once the user has confirmed it.
fn confirmed_commit(cx: &Context, view: &PreviewView) -> Result<CommitSha, CommandError> {
    let preview = &view.preview;
    let (slug, sha) = (&preview.slug, &preview.wanted_sha);
    let texts = RequiredConfirmation {
        action: format!("approving commit {sha} of preview '{slug}'"),
        remedy: format!("Review the commit, then run `preview approve {slug} --sha <SHA>`."),
        declined: format!("No commit of preview {slug} was approved."),
    };
    confirm(cx, &question(view), texts)?;
    Ok(sha.clone())
}

fn question(view: &PreviewView) -> String {
    let preview = &view.preview;
    let purpose = match preview.pull_request() {
        Some(pull_request) => format!("pull request {pull_request}"),
        None => format!("a branch of {}", preview.repo),
    };
    let repository = match &preview.head_repo {
        Some(repo) if *repo == preview.repo => format!("{repo}, not a fork"),
        Some(repo) => format!(
            "{repo}, a fork: https://github.com/{repo}/commit/{}",
            preview.wanted_sha
        ),
        None => "a deleted fork".to_owned(),
    };
    let text = format!(
        "Preview:     {}, {purpose}\nRepository:  {repository}\nBranch:      {}\nCommit:      {}\nRun the code of this commit on this host?",
        preview.slug, preview.branch, preview.wanted_sha
    );
    plain(&text)
}
