//! `innkeeper deliveries`.

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use innkeeper_model::api::DEFAULT_DELIVERIES;
use innkeeper_model::preview::api::{DeliveryDetails, DeliveryState, DeliveryView};
use innkeeper_model::preview::{CommitSha, DeliveryEvent, PrAction, PullRequest, PullRequestEvent};

use crate::arguments::DeliveryId;
use crate::context::Context;
use crate::describe::{plain, time};
use crate::failure::{CommandError, Status};
use crate::table::{or_dash, table};

/// List, explain and replay GitHub's webhook deliveries
///
/// A delivery is recorded before GitHub receives the response, and kept for 30 days after it is finished. Without a command,
/// deliveries are listed.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub(crate) struct Deliveries {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    list: List,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(List),
    Show(Show),
    Replay(Replay),
}

/// List deliveries, newest first (the default)
#[derive(Args, Debug)]
struct List {
    /// List only deliveries for this pull request
    #[arg(long, value_name = "OWNER/REPO#N", value_parser = PullRequest::parse)]
    pull_request: Option<PullRequest>,

    /// List at most NUMBER deliveries
    #[arg(long, short = 'n', value_name = "NUMBER", default_value_t = DEFAULT_DELIVERIES)]
    limit: usize,
}

/// Explain a delivery: its event, the decision and the result
#[derive(Args, Debug)]
struct Show {
    /// Delivery id (X-GitHub-Delivery)
    #[arg(value_parser = DeliveryId::parse)]
    id: DeliveryId,
}

/// Process a delivery again
///
/// It keeps its place in the order: a newer delivery for the same pull request still supersedes it.
#[derive(Args, Debug)]
struct Replay {
    /// Delivery id (X-GitHub-Delivery)
    #[arg(value_parser = DeliveryId::parse)]
    id: DeliveryId,
}

impl Deliveries {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        match self.command.unwrap_or(Command::List(self.list)) {
            Command::List(list) => list.run(cx).await?,
            Command::Show(show) => {
                let path = path(&show.id, "");
                let details: DeliveryDetails = cx.client.get(&path).await?;
                cx.output.show(&details, render)?;
            }
            Command::Replay(replay) => replay.run(cx).await?,
        }
        Ok(0)
    }
}

/// Returns the API path of a delivery, with `rest` appended.
fn path(id: &DeliveryId, rest: &str) -> String {
    format!("/v1/deliveries/{}{rest}", id.as_str())
}

impl List {
    async fn run(self, cx: &Context) -> Result<(), CommandError> {
        let mut path = format!("/v1/deliveries?limit={}", self.limit);
        if let Some(PullRequest { repo, number }) = self.pull_request {
            // Only the '#' needs escaping: it would end the query.
            path.push_str(&format!("&pull_request={repo}%23{number}"));
        }
        let deliveries: Vec<DeliveryView> = cx.client.get(&path).await?;
        cx.output
            .show(&deliveries, |deliveries| render_list(deliveries))
    }
}

fn render_list(deliveries: &[DeliveryView]) -> String {
    if deliveries.is_empty() {
        return "(no deliveries)\n".to_owned();
    }
    let row = |delivery: &DeliveryView| {
        [
            time(delivery.received_at),
            plain(&delivery.id),
            or_dash(delivery.pull_request.as_ref()),
            plain(&or_dash(delivery.action.as_ref())),
            or_dash(delivery.head_sha.as_ref().map(CommitSha::short)),
            or_dash(delivery.slug.as_ref()),
            state(delivery),
        ]
    };
    let header = [
        "RECEIVED",
        "DELIVERY",
        "PULL REQUEST",
        "ACTION",
        "COMMIT",
        "PREVIEW",
        "STATE",
    ];
    table(header, deliveries.iter().map(row).collect(), &[4, 3, 5, 0])
}

/// Formats the state of a delivery, with the reason of an ignored one.
fn state(delivery: &DeliveryView) -> String {
    match &delivery.failure {
        Some(reason) if delivery.state == DeliveryState::Ignored => {
            let reason = plain(&reason.to_string()).replace('\n', " ");
            format!("{}: {reason}", delivery.state)
        }
        _ => delivery.state.to_string(),
    }
}

/// Formats a delivery as lines of `Name: value`.
fn render(details: &DeliveryDetails) -> String {
    let DeliveryDetails {
        delivery,
        event,
        preview,
    } = details;
    let mut lines = vec![
        ("Delivery", delivery.id.clone()),
        ("Received", time(delivery.received_at)),
        ("Event", describe_event(event)),
    ];
    let pull_request = event.as_pull_request();
    lines.extend(pull_request.map(|event| ("Commit", describe_commit(event))));
    lines.push(("State", delivery.state.to_string()));
    if let Some(explanation) = &delivery.explanation {
        lines.push(("Decision", explanation.clone()));
    }
    let is_ignored = delivery.state == DeliveryState::Ignored;
    if let Some(failure) = &delivery.failure {
        // The decision has the reason of an ignored one.
        if !is_ignored {
            lines.push(("Error", format!("{failure} ({})", failure.code)));
        }
        lines.extend(failure.remedy.clone().map(|remedy| ("Hint", remedy)));
    }
    lines.push(("Attempts", delivery.attempts.to_string()));
    lines.extend(delivery.retry_at.map(|at| ("Next retry", time(at))));
    lines.extend(delivery.finished_at.map(|at| ("Finished", time(at))));
    lines.push(match preview {
        None => ("Preview", "none for this pull request".to_owned()),
        Some(preview) => {
            let commit = preview.live_sha.as_ref().map_or_else(
                || "no commit is live".to_owned(),
                |sha| format!("{} is live", sha.short()),
            );
            (
                "Preview",
                format!("{}, {}; {commit}", preview.slug, preview.state),
            )
        }
    });
    let mut text = String::new();
    for (name, value) in lines {
        let value = plain(&value).replace('\n', " ");
        writeln!(text, "{:<13}{value}", format!("{name}:")).ok();
    }
    for line in delivery.failure.iter().flat_map(|failure| &failure.log) {
        writeln!(text, "  | {}", plain(line).trim_end()).ok();
    }
    text
}

fn describe_event(event: &DeliveryEvent) -> String {
    match event {
        DeliveryEvent::PullRequest(event) => describe_change(event),
        DeliveryEvent::Command(event) => format!(
            "the comment `/preview {}` on {} by {}",
            event.command, event.pull_request, event.sender
        ),
    }
}

fn describe_change(event: &PullRequestEvent) -> String {
    let label = match &event.action {
        PrAction::Labeled(label) => format!(" '{label}'"),
        _ => String::new(),
    };
    let merged = if event.merged { " (merged)" } else { "" };
    format!(
        "{} was {}{label}{merged} by {}; opened by {}",
        event.pull_request,
        participle(&event.action),
        event.sender,
        event.author
    )
}

/// Returns the action as a participle, which most of GitHub's actions are.
fn participle(action: &PrAction) -> String {
    match action {
        PrAction::Synchronize => "synchronized".to_owned(),
        PrAction::ReadyForReview => "marked as ready for review".to_owned(),
        PrAction::ConvertedToDraft => "converted to a draft".to_owned(),
        other => other.to_string(),
    }
}

fn describe_commit(event: &PullRequestEvent) -> String {
    let repo = match (&event.head_repo, event.is_fork) {
        (None, _) => " of a deleted repository".to_owned(),
        (Some(repo), true) => format!(" of the fork {repo}"),
        (Some(_), false) => String::new(),
    };
    format!(
        "{} on {}{repo}, for {}",
        event.head_sha, event.head_branch, event.base_branch
    )
}

impl Replay {
    async fn run(self, cx: &Context) -> Result<(), CommandError> {
        let path = path(&self.id, "/replay");
        let delivery: DeliveryView = cx.client.post_empty(&path).await?;
        if cx.output.is_json() {
            return cx.output.value(&delivery);
        }
        let id = self.id.as_str();
        match delivery.yields_to {
            None => cx
                .output
                .ok(format_args!("Delivery {id} will be processed again.")),
            Some(newer) => {
                let newer = plain(&newer);
                cx.output.info(format_args!(
                    "Delivery {id} is superseded by the newer delivery {newer} for the same pull request. \
                     `innkeeper deliveries replay {newer}` processes that one again."
                ))
            }
        }
    }
}
