//! `preview approve`.

use clap::Args;
use innkeeper_model::preview::api::ApprovePreview;
use innkeeper_model::preview::{CommitSha, PreviewView};

use super::{Context, Which};
use crate::confirm::{NoAnswer, confirm};
use crate::describe::plain;
use crate::failure::{CommandError, Status};
use crate::settle::{Asked, Task, Waiting};

/// Allow one commit of a fork to run
///
/// Nothing of a fork is evaluated before somebody has approved the commit. The approval is for this commit alone, and
/// it never gets secrets. Without --sha the commit is shown, and whether to approve it is asked on the terminal.
#[derive(Args, Debug)]
pub(crate) struct Approve {
    #[command(flatten)]
    which: Which,

    /// The commit that was looked at, with all its 40 digits; refused when another one is wanted by now
    #[arg(long, value_name = "SHA")]
    sha: Option<CommitSha>,

    #[command(flatten)]
    waiting: Waiting,
}

impl Approve {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let sha = match self.sha {
            Some(sha) => sha,
            None => looked_at(cx, &self.which.view(cx).await?)?,
        };
        let asked = Asked::now();
        let path = self.which.path("/approve");
        let answer = cx.client.post(&path, &ApprovePreview { sha }).await;
        let accepted = self.which.suggest(cx, answer).await?;
        Task::new("Approving", asked, accepted)
            .bring_up(cx, self.waiting)
            .await
    }
}

/// The commit that a preview waits for, once the caller has said yes to it.
fn looked_at(cx: &Context, view: &PreviewView) -> Result<CommitSha, CommandError> {
    let preview = &view.preview;
    let (slug, sha) = (&preview.slug, &preview.wanted_sha);
    let without = NoAnswer {
        needs: format!("approving commit {sha} of preview '{slug}'"),
        remedy: format!("Look at the commit, then `preview approve {slug} --sha <SHA>`."),
        declined: format!("Nothing of preview {slug} was approved."),
    };
    confirm(cx, &question(view), without)?;
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
        None => "a fork that is gone".to_owned(),
    };
    let text = format!(
        "Preview:     {}, {purpose}\nRepository:  {repository}\nBranch:      {}\nCommit:      {}\nRun the code of this commit on this host?",
        preview.slug, preview.branch, preview.wanted_sha
    );
    plain(&text)
}
