//! `agent destroy`.

use std::time::Instant;

use clap::Args;
use innkeeper_model::api::Accepted;
use innkeeper_model::{Failure, GuestKind, GuestName, OperationId};
use serde::Serialize;

use super::snapshots::of_agent;
use super::{Context, milliseconds_since};
use crate::client::guest_path;
use crate::confirm::Prompt;
use crate::describe::count;
use crate::failure::{CommandError, Status, exit_code};
use crate::follow::{attended, follow};
use crate::suggest::suggest;

/// Destroy agents, with everything that is theirs
///
/// Each one is tried, whatever becomes of the others; the exit status is that of the worst failure. Prompts on a
/// terminal, unless --yes is given.
#[derive(Args, Debug)]
pub(crate) struct Destroy {
    /// Their names
    #[arg(required = true, value_name = "NAME")]
    names: Vec<GuestName>,

    #[command(flatten)]
    prompt: Prompt,
}

/// What became of one of them, for programs.
#[derive(Debug, Serialize)]
struct Destroyed {
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
        // All of them are asked for first: the daemon works on them at the same time.
        let mut asked = Vec::new();
        for (name, refusal) in names {
            let answer: Result<Accepted, _> = match refusal {
                Some(error) => Err(error),
                None => {
                    let answer = cx.client.delete(&guest_path(&name, "")).await;
                    suggest(&cx.client, &name, answer).await
                }
            };
            asked.push((answer, name));
        }
        let note = || {
            "What was asked for goes on without this program; `agent list` shows what is left."
                .to_owned()
        };
        let all = attended(note, async {
            let mut all = Vec::new();
            for (answer, name) in asked {
                all.push(report(cx, start, name, answer).await?);
            }
            Ok(all)
        });
        let all: Vec<Destroyed> = all.await?;
        if cx.output.is_json() {
            cx.output.value(&all)?;
        }
        let failures = all.iter().filter_map(|one| one.failure.as_ref());
        Ok(failures.map(exit_code).max().unwrap_or(0))
    }

    /// Prompts if need be. Agents that cannot be looked up are not shown in the prompt and must not be destroyed.
    async fn confirmed(
        &self,
        cx: &Context,
    ) -> Result<Vec<(GuestName, Option<CommandError>)>, CommandError> {
        let needed = self.prompt.is_needed();
        let mut names = Vec::new();
        let mut lines = Vec::new();
        for name in &self.names {
            let refusal = match needed {
                true => match loss(cx, name).await {
                    Ok(line) => {
                        lines.extend(line);
                        None
                    }
                    Err(error) => Some(error),
                },
                false => None,
            };
            names.push((name.clone(), refusal));
        }
        if !lines.is_empty() {
            let agents = count(lines.len(), "agent");
            let question = format!("{}\nDestroy {agents}?", lines.join("\n"));
            let declined = "No agent was destroyed.".to_owned();
            self.prompt.confirm(cx, &question, declined)?;
        }
        Ok(names)
    }
}

/// What is lost with an agent, as a line. `None` for a preview's guest, which the daemon refuses to destroy as an agent.
async fn loss(cx: &Context, name: &GuestName) -> Result<Option<String>, CommandError> {
    let view = cx.guest(name).await?;
    if view.guest.kind == GuestKind::Preview {
        return Ok(None);
    }
    let mut lost = "its files".to_owned();
    let snapshots = of_agent(cx, name).await?;
    if !snapshots.is_empty() {
        let labels: Vec<&str> = snapshots.iter().map(|one| one.label.as_str()).collect();
        let snapshots = count(labels.len(), "snapshot");
        lost.push_str(&format!(" and {snapshots} ({})", labels.join(", ")));
    }
    let state = view.state;
    Ok(Some(format!(
        "Agent {name} ({state}): {lost} will be deleted."
    )))
}

/// Waits for the end of one of them and says how it ended. Only what concerns all of them is an error.
async fn report(
    cx: &Context,
    start: Instant,
    name: GuestName,
    answer: Result<Accepted, CommandError>,
) -> Result<Destroyed, CommandError> {
    let mut operation = None;
    let result = match answer {
        Ok(accepted) => {
            operation = Some(accepted.operation);
            let label = format!("Destroying agent {name}");
            follow(&cx.client, &cx.output, &accepted, &label)
                .await
                .map(drop)
        }
        Err(error) => Err(error),
    };
    let elapsed_ms = milliseconds_since(start);
    let failure = match result {
        Ok(()) => {
            cx.output
                .ok(format_args!("Agent {name} is gone after {elapsed_ms} ms."))?;
            None
        }
        Err(CommandError::Failure(failure)) => {
            cx.output.failure(&failure);
            Some(failure)
        }
        Err(other) => return Err(other),
    };
    Ok(Destroyed {
        name,
        operation,
        elapsed_ms,
        failure,
    })
}
