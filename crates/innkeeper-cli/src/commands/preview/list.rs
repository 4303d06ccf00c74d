//! `preview list`.

use clap::Args;
use innkeeper_model::GuestState;
use innkeeper_model::api::GuestView;
use innkeeper_model::preview::{CommitSha, Outlook, PreviewState, PreviewView};
use jiff::Timestamp;

use crate::commands::name_lines;
use crate::context::Context;
use crate::describe::{elapsed, mebibytes, oom_kills, plain};
use crate::failure::Status;
use crate::table::{or_dash, table};

/// List previews
///
/// COMMIT is the live commit. REPOSITORY includes the number of the pull request, if any. VISITED is the time since the last
/// visit. MEMORY is without inactive file cache. DISK is the size of the guest's file tree and of its database on the host,
/// measured at most once an hour. WAITING FOR names who has to act. Below
/// the table are the previews that are not public. With --quiet, prints slugs only, one on each line.
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
            cx.output.text(name_lines(slugs))?;
            return Ok(0);
        }
        // Best effort: without the guests, the list is still useful.
        let guests: Vec<GuestView> = cx.client.get("/v1/guests").await.unwrap_or_default();
        cx.output.text(render(&previews, &guests))?;
        Ok(0)
    }
}

/// Returns the preview's state, or for a live preview `stopped`, `paused` or `asleep` if its guest is, and `restarting` if
/// its app is down.
fn state(view: &PreviewView, guests: &[GuestView]) -> String {
    let preview = &view.preview;
    if preview.state != PreviewState::Live {
        return preview.state.to_string();
    }
    let guest = (guests.iter()).find(|view| view.guest.name == preview.slug);
    match guest.map(|view| view.state) {
        Some(state @ (GuestState::Stopped | GuestState::Paused | GuestState::Asleep)) => {
            state.to_string()
        }
        _ if view.app_trouble.is_some() => "restarting".to_owned(),
        _ => preview.state.to_string(),
    }
}

/// Formats the action that a preview waits for, and its removal.
fn waiting(outlook: &Outlook) -> String {
    let waits = outlook.waits_for.iter().map(ToString::to_string);
    let removal = outlook.removal.iter().map(ToString::to_string);
    let all: Vec<String> = waits.chain(removal).collect();
    or_dash((!all.is_empty()).then(|| plain(&all.join("; "))))
}

/// Returns the secrets of which the guest has a former value.
fn stale_secrets(outlook: &Outlook) -> Option<String> {
    let names: Vec<_> = (outlook.stale_secrets.iter())
        .map(ToString::to_string)
        .collect();
    (!names.is_empty()).then(|| names.join(", "))
}

fn render(previews: &[PreviewView], guests: &[GuestView]) -> String {
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
        let outlook = &view.outlook;
        let age = |time: Timestamp| {
            let now = outlook.observed_at.unwrap_or_else(Timestamp::now);
            elapsed(now.duration_since(time))
        };
        [
            preview.slug.to_string(),
            state(view, guests),
            plain(preview.branch.as_str()),
            view.url.clone(),
            or_dash(preview.live_sha.as_ref().map(CommitSha::short)),
            repository,
            age(preview.created_at),
            or_dash(outlook.visited_at.map(age)),
            or_dash(outlook.memory_bytes.map(mebibytes)),
            or_dash(outlook.disk_bytes.map(mebibytes)),
            waiting(outlook),
        ]
    };
    let header = [
        "SLUG",
        "STATUS",
        "BRANCH",
        "URL",
        "COMMIT",
        "REPOSITORY",
        "AGE",
        "VISITED",
        "MEMORY",
        "DISK",
        "WAITING FOR",
    ];
    let rows = previews.iter().map(row).collect();
    let mut text = table(header, rows, &[5, 4, 9, 8, 7, 6, 10]);
    // Causes of changes that are retried until they succeed, which no failed state shows.
    for view in previews {
        let preview = &view.preview;
        if view.visibility.is_checked() {
            let (slug, visibility) = (&preview.slug, view.visibility);
            text.push_str(&format!(
                "{slug} is {visibility}: its URLs serve {}\n",
                visibility.visitors()
            ));
        }
        if let Some(trouble) = &view.app_trouble {
            let (slug, reason) = (&preview.slug, plain(&trouble.reason));
            text.push_str(&format!(
                "{slug}: the app is down and is being started again: {reason}\n"
            ));
        }
        if let Some(names) = stale_secrets(&view.outlook) {
            let slug = &preview.slug;
            text.push_str(&format!(
                "{slug} has a former value of {names}: `preview update {slug}` restarts it\n"
            ));
        }
        let Some(fault) = &preview.fault else {
            continue;
        };
        let (slug, cause) = (&preview.slug, plain(&fault.to_string()));
        if preview.state == PreviewState::Closing {
            text.push_str(&format!(
                "{slug} cannot be removed yet, retrying: {cause}\n"
            ));
        } else if fault.code.is_host_fault() {
            text.push_str(&format!("{slug} has a host problem, retrying: {cause}\n"));
            if let Some(remedy) = &fault.remedy {
                text.push_str(&format!("  {}\n", plain(remedy)));
            }
        } else if preview.state == PreviewState::Failed
            && preview.live_sha.as_ref() == Some(&preview.wanted_sha)
        {
            text.push_str(&format!("{slug}: the app has failed: {cause}\n"));
        }
        let mut guests = guests.iter();
        let guest = guests.find(|guest| guest.guest.name == preview.slug);
        if let Some(report) = guest.and_then(oom_kills) {
            text.push_str(&format!("{report}\n"));
        }
    }
    text
}
