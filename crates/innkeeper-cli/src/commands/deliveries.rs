//! `innkeeper deliveries`.

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use innkeeper_model::api::DEFAULT_DELIVERIES;
use innkeeper_model::preview::api::{DeliveryDetails, DeliveryView};
use innkeeper_model::preview::{CommitSha, PrAction, PullRequest, PullRequestEvent};

use super::Context;
use crate::arguments::DeliveryId;
use crate::describe::{plain, time};
use crate::failure::{CommandError, Status};
use crate::table::{or_dash, table};

/// Show what GitHub delivered, and what became of it
///
/// A delivery is kept as soon as GitHub is told that it was accepted, and for 30 days after it was done with.
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

/// List deliveries, the newest first; what `innkeeper deliveries` does by itself
#[derive(Args, Debug)]
struct List {
    /// Only those for this pull request
    #[arg(long, value_name = "OWNER/REPO#N", value_parser = PullRequest::parse)]
    pull_request: Option<PullRequest>,

    /// At most so many
    #[arg(long, short = 'n', value_name = "NUMBER", default_value_t = DEFAULT_DELIVERIES)]
    limit: usize,
}

/// Explain one: what came, what was decided and why, and what became of it
#[derive(Args, Debug)]
struct Show {
    /// Its id (X-GitHub-Delivery)
    #[arg(value_parser = DeliveryId::parse)]
    id: DeliveryId,
}

/// Have one acted on again, at its old place in the order
///
/// A newer delivery for the same pull request still takes its place.
#[derive(Args, Debug)]
struct Replay {
    /// Its id (X-GitHub-Delivery)
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
                cx.output.show(&details, words)?;
            }
            Command::Replay(replay) => replay.run(cx).await?,
        }
        Ok(0)
    }
}

/// The path of a delivery in the API, with what follows its id.
fn path(id: &DeliveryId, rest: &str) -> String {
    format!("/v1/deliveries/{}{rest}", id.as_str())
}

impl List {
    async fn run(self, cx: &Context) -> Result<(), CommandError> {
        let mut path = format!("/v1/deliveries?limit={}", self.limit);
        if let Some(PullRequest { repo, number }) = self.pull_request {
            // The '#' would end the query; nothing else in it has a meaning there.
            path.push_str(&format!("&pull_request={repo}%23{number}"));
        }
        let deliveries: Vec<DeliveryView> = cx.client.get(&path).await?;
        cx.output.show(&deliveries, |deliveries| rows(deliveries))
    }
}

fn rows(deliveries: &[DeliveryView]) -> String {
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
            delivery.state.to_string(),
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

/// Lines of `Name: value`.
fn words(details: &DeliveryDetails) -> String {
    let DeliveryDetails {
        delivery,
        event,
        preview,
    } = details;
    let mut lines = vec![
        ("Delivery", delivery.id.clone()),
        ("Received", time(delivery.received_at)),
        ("Says", what_it_says(event)),
        ("Commit", where_from(event)),
        ("State", delivery.state.to_string()),
    ];
    if let Some(explanation) = &delivery.explanation {
        lines.push(("Why", explanation.clone()));
    }
    if let Some(failure) = &delivery.failure {
        lines.push(("Cause", format!("{failure} ({})", failure.code)));
        lines.extend(failure.remedy.clone().map(|remedy| ("Hint", remedy)));
    }
    lines.push(("Attempts", delivery.attempts.to_string()));
    lines.extend(delivery.retry_at.map(|at| ("Tried again", time(at))));
    lines.extend(delivery.finished_at.map(|at| ("Finished", time(at))));
    lines.push(match preview {
        None => ("Preview", "none for this pull request".to_owned()),
        Some(preview) => {
            let commit = preview.live_sha.as_ref().map_or_else(
                || "nothing is served".to_owned(),
                |sha| format!("{} is served", sha.short()),
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

fn what_it_says(said: &PullRequestEvent) -> String {
    let label = match &said.action {
        PrAction::Labeled(label) => format!(" '{label}'"),
        _ => String::new(),
    };
    let merged = if said.merged { " (merged)" } else { "" };
    format!(
        "{} was {}{label}{merged} by {}; opened by {}",
        said.pull_request,
        past(&said.action),
        said.sender,
        said.author
    )
}

/// The action as it stands in a sentence. All of GitHub's are participles but one.
fn past(action: &PrAction) -> String {
    match action {
        PrAction::Synchronize => "synchronized".to_owned(),
        other => other.to_string(),
    }
}

fn where_from(said: &PullRequestEvent) -> String {
    let repo = match (&said.head_repo, said.is_fork) {
        (None, _) => " of a repository that is gone".to_owned(),
        (Some(repo), true) => format!(" of the fork {repo}"),
        (Some(_), false) => String::new(),
    };
    format!(
        "{} on {}{repo}, for {}",
        said.head_sha, said.head_branch, said.base_branch
    )
}

impl Replay {
    async fn run(self, cx: &Context) -> Result<(), CommandError> {
        let path = path(&self.id, "/replay");
        let delivery: DeliveryView = cx.client.post_nothing(&path).await?;
        if cx.output.is_json() {
            return cx.output.value(&delivery);
        }
        let id = self.id.as_str();
        match delivery.yields_to {
            None => cx
                .output
                .ok(format_args!("Delivery {id} will be acted on again.")),
            Some(newer) => {
                let newer = plain(&newer);
                cx.output.info(format_args!(
                    "Delivery {id} will not be acted on: the newer delivery {newer} for the same pull request takes its place. \
                     `innkeeper deliveries replay {newer}` has that one acted on again."
                ))
            }
        }
    }
}
