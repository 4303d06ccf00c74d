//! `preview list`.

use clap::Args;
use innkeeper_model::GuestState;
use innkeeper_model::api::GuestView;
use innkeeper_model::preview::{CommitSha, PreviewRecord, PreviewState, PreviewView};

use super::Context;
use crate::commands::names;
use crate::describe::{oom_kills, plain};
use crate::failure::Status;
use crate::table::{or_dash, table};

/// List the previews
///
/// COMMIT is the one that answers at the URL; a REPOSITORY is followed by the number of the pull request, if the
/// preview is for one. With --quiet, only the slugs are printed, one on each line.
#[derive(Args, Debug)]
pub(crate) struct List {}

impl List {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let previews: Vec<PreviewView> = cx.client.get("/v1/previews").await?;
        if cx.output.is_json() {
            cx.output.value(&previews)?;
            return Ok(0);
        }
        if cx.output.is_quiet() {
            let slugs = previews.iter().map(|view| &view.preview.slug);
            cx.output.text(names(slugs))?;
            return Ok(0);
        }
        // The list is shown all the same when the guests' states cannot be had.
        let guests: Vec<GuestView> = cx.client.get("/v1/guests").await.unwrap_or_default();
        cx.output.text(words(&previews, &guests))?;
        Ok(0)
    }
}

/// The preview's state; `stopped` for one that is live but whose guest is stopped.
fn state(preview: &PreviewRecord, guests: &[GuestView]) -> String {
    let guest = (guests.iter()).find(|view| view.guest.name == preview.slug);
    match guest.map(|view| view.state) {
        Some(state @ GuestState::Stopped) if preview.state == PreviewState::Live => {
            state.to_string()
        }
        _ => preview.state.to_string(),
    }
}

fn words(previews: &[PreviewView], guests: &[GuestView]) -> String {
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
            state(preview, guests),
            plain(preview.branch.as_str()),
            view.url.clone(),
            or_dash(preview.live_sha.as_ref().map(CommitSha::short)),
            repository,
        ]
    };
    let header = ["SLUG", "STATUS", "BRANCH", "URL", "COMMIT", "REPOSITORY"];
    let mut text = table(header, previews.iter().map(row).collect(), &[5, 4]);
    // What is retried until it succeeds; its cause would otherwise stay unseen.
    for view in previews {
        let preview = &view.preview;
        let Some(fault) = &preview.fault else {
            continue;
        };
        let (slug, cause) = (&preview.slug, plain(&fault.to_string()));
        if preview.state == PreviewState::Closing {
            text.push_str(&format!("{slug} is not removed yet: {cause}\n"));
        } else if fault.code.is_host_fault() {
            text.push_str(&format!("{slug} waits for this host: {cause}\n"));
            if let Some(remedy) = &fault.remedy {
                text.push_str(&format!("  {}\n", plain(remedy)));
            }
        }
        let mut guests = guests.iter();
        let guest = guests.find(|guest| guest.guest.name == preview.slug);
        if let Some(report) = guest.and_then(oom_kills) {
            text.push_str(&format!("{report}\n"));
        }
    }
    text
}
