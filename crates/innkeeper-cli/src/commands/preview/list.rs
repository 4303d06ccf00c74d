//! `preview list`.

use clap::Args;
use innkeeper_model::preview::{CommitSha, PreviewView};

use super::Context;
use crate::describe::plain;
use crate::failure::Status;
use crate::table::{or_dash, table};

/// List the previews
///
/// COMMIT is the one that answers at the URL; a REPOSITORY is followed by the number of the pull request, if the
/// preview is for one.
#[derive(Args, Debug)]
pub(crate) struct List {}

impl List {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let previews: Vec<PreviewView> = cx.client.get("/v1/previews").await?;
        cx.output.show(&previews, |previews| words(previews))?;
        Ok(0)
    }
}

fn words(previews: &[PreviewView]) -> String {
    if previews.is_empty() {
        return "(no previews)\n".to_owned();
    }
    let row = |view: &PreviewView| {
        let preview = &view.preview;
        let mut repository = (preview.pull_request())
            .map_or_else(|| preview.repo.to_string(), |pull| pull.to_string());
        if let Some(trouble) = &view.repo_trouble {
            repository.push_str(&format!(" ({})", plain(trouble)));
        }
        [
            preview.slug.to_string(),
            preview.state.to_string(),
            plain(preview.branch.as_str()),
            view.url.clone(),
            or_dash(preview.live_sha.as_ref().map(CommitSha::short)),
            repository,
        ]
    };
    let header = ["SLUG", "STATUS", "BRANCH", "URL", "COMMIT", "REPOSITORY"];
    table(header, previews.iter().map(row).collect())
}
