//! `agent destroy`.

use std::time::Instant;

use clap::Args;
use innkeeper_model::api::{Accepted, ConfigReport};
use innkeeper_model::{Code, Failure, GuestKind, GuestName, OperationId};
use serde::Serialize;

use super::snapshots::snapshots_of;
use super::undelete::{is_missing, retained_ids};
use crate::client::guest_path;
use crate::confirm::Prompt;
use crate::context::{Context, milliseconds_since};
use crate::describe::count;
use crate::failure::{CommandError, Status, exit_code};
use crate::follow::{follow, until_interrupted};
use crate::suggest::suggest;

/// Destroy agents
///
/// Their files are retained for guest.retention_seconds (a setting of innkeeperd), or until space is needed: `agent
/// undelete` creates an agent again from them. Snapshots, addresses, keys and credentials are removed at once. A failure
/// does not stop the others; the exit status is that of the worst failure. Prompts on a terminal, unless --yes is given.
#[derive(Args, Debug)]
pub(crate) struct Destroy {
    /// Names of the agents
    #[arg(required = true, value_name = "NAME")]
    names: Vec<GuestName>,

    /// Remove the files at once, also retained files of an agent that is already destroyed
    #[arg(long)]
    now: bool,

    #[command(flatten)]
    prompt: Prompt,
}

/// JSON value for one agent.
#[derive(Debug, Serialize)]
struct DestroyResult {
    name: GuestName,
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<OperationId>,
    elapsed_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<Failure>,
}

impl Destroy {
    pub(crate) async fn run(mut self, cx: &Context) -> Status {
        let mut seen = std::collections::BTreeSet::new();
        self.names.retain(|name| seen.insert(name.clone()));
        let names = self.confirmed(cx).await?;
        let start = Instant::now();
        // All requests are sent first: the daemon processes them concurrently.
        let mut pending = Vec::new();
        for (name, lookup_error) in names {
            let responses = match lookup_error {
                Some(error) => vec![Err(error)],
                None => destroy(cx, &name, self.now).await,
            };
            pending.extend(
                responses
                    .into_iter()
                    .map(|response| (response, name.clone())),
            );
        }
        let note = || {
            "The operations continue in the background; `agent list` shows the agents that are left."
                .to_owned()
        };
        let all = until_interrupted(note, async {
            let mut all = Vec::new();
            for (response, name) in pending {
                all.push(wait_and_report(cx, start, name, response).await?);
            }
            Ok(all)
        });
        let all: Vec<DestroyResult> = all.await?;
        if cx.output.is_json() {
            cx.output.value(&all)?;
        }
        let failures = all.iter().filter_map(|result| result.failure.as_ref());
        Ok(failures.map(exit_code).max().unwrap_or(0))
    }

    /// Prompts if necessary. Returns each name, with the error if the lookup failed: the prompt did not show such an agent,
    /// so it must not be destroyed.
    async fn confirmed(
        &self,
        cx: &Context,
    ) -> Result<Vec<(GuestName, Option<CommandError>)>, CommandError> {
        let needed = self.prompt.is_needed();
        let retention = match needed && !self.now {
            true => retention(cx).await?,
            false => None,
        };
        let mut names = Vec::new();
        let mut lines = Vec::new();
        for name in &self.names {
            let lookup_error = match needed {
                true => match self.describe_loss(cx, name, retention.as_deref()).await {
                    Ok(line) => {
                        lines.extend(line);
                        None
                    }
                    Err(error) => Some(error),
                },
                false => None,
            };
            names.push((name.clone(), lookup_error));
        }
        if !lines.is_empty() {
            let agents = count(lines.len(), "agent");
            let question = format!("{}\nDestroy {agents}?", lines.join("\n"));
            let declined = "No agent was destroyed.".to_owned();
            self.prompt.confirm(cx, &question, declined)?;
        }
        Ok(names)
    }

    /// Describes the data that is lost with an agent, in one line. Returns `None` for a preview's guest: the daemon rejects
    /// its destruction as an agent.
    async fn describe_loss(
        &self,
        cx: &Context,
        name: &GuestName,
        retention: Option<&str>,
    ) -> Result<Option<String>, CommandError> {
        let view = match cx.guest(name).await {
            Err(error) if self.now && is_missing(&error) => {
                return match retained_ids(cx, name).await?.is_empty() {
                    true => Err(error),
                    false => Ok(Some(format!(
                        "Destroyed agent {name}: its retained files will be deleted."
                    ))),
                };
            }
            view => view?,
        };
        if view.guest.kind == GuestKind::Preview {
            return Ok(None);
        }
        let snapshots = snapshots_of(cx, name).await?;
        let labels: Vec<&str> = snapshots
            .iter()
            .map(|snapshot| snapshot.label.as_str())
            .collect();
        let number = count(labels.len(), "snapshot");
        let snapshots = format!("{number} ({})", labels.join(", "));
        let lost = match (retention, labels.is_empty()) {
            (None, true) => "its files will be deleted".to_owned(),
            (None, false) => format!("its files and {snapshots} will be deleted"),
            (Some(time), true) => format!("its files are retained for {time} at most"),
            (Some(time), false) => {
                format!("its files are retained for {time} at most, {snapshots} will be deleted")
            }
        };
        Ok(Some(format!("Agent {name} ({}): {lost}.", view.state)))
    }
}

/// Requests the destruction of an agent. With `now`, if no agent has the name, requests the removal of the retained files
/// of destroyed agents with this name.
async fn destroy(cx: &Context, name: &GuestName, now: bool) -> Vec<Result<Accepted, CommandError>> {
    let path = guest_path(name, if now { "?now=true" } else { "" });
    let response: Result<Accepted, _> = cx.client.delete(&path).await;
    if let Err(error) = &response
        && now
        && is_missing(error)
        && let Ok(retained) = retained_ids(cx, name).await
        && !retained.is_empty()
    {
        let mut responses = Vec::new();
        for id in retained {
            responses.push(cx.client.delete(&format!("/v1/retained/{id}")).await);
        }
        return responses;
    }
    vec![suggest(&cx.client, name, response).await]
}

/// Returns how long the daemon retains the files of destroyed agents, as text; `None` if it removes them at once.
async fn retention(cx: &Context) -> Result<Option<String>, CommandError> {
    let config: ConfigReport = match cx.client.get("/v1/config").await {
        // Settings are shown on the host only.
        Err(CommandError::Failure(failure)) if failure.code == Code::Forbidden => {
            return Ok(Some("a while".to_owned()));
        }
        config => config?,
    };
    let mut settings = config.settings.into_iter();
    let setting = settings.find(|setting| setting.name == "guest.retention_seconds");
    let seconds: u64 = setting
        .and_then(|setting| setting.value.parse().ok())
        .unwrap_or(0);
    Ok((seconds > 0).then(|| format!("{} min", seconds.div_ceil(60))))
}

/// Waits until an agent is destroyed and reports the result. Returns an error only if it concerns all agents.
async fn wait_and_report(
    cx: &Context,
    start: Instant,
    name: GuestName,
    response: Result<Accepted, CommandError>,
) -> Result<DestroyResult, CommandError> {
    let mut operation = None;
    let result = match response {
        Ok(accepted) => {
            operation = Some(accepted.operation);
            let label = format!("Destroying agent {name}");
            follow(cx, &accepted, &label).await.map(drop)
        }
        Err(error) => Err(error),
    };
    let elapsed_ms = milliseconds_since(start);
    let failure = match result {
        Ok(()) => {
            cx.output
                .ok(format_args!("Agent {name} destroyed in {elapsed_ms} ms."))?;
            None
        }
        Err(CommandError::Failure(failure)) => {
            cx.output.failure(&failure);
            Some(failure)
        }
        Err(other) => return Err(other),
    };
    Ok(DestroyResult {
        name,
        operation,
        elapsed_ms,
        failure,
    })
}
