//! `agent destroy`.

use std::time::Instant;

use clap::Args;
use innkeeper_model::api::{Accepted, ConfigReport};
use innkeeper_model::{Failure, GuestKind, GuestName, OperationId};
use serde::Serialize;

use super::snapshots::of_agent;
use super::undelete::{files_of, is_missing};
use super::{Context, milliseconds_since};
use crate::client::guest_path;
use crate::confirm::Prompt;
use crate::describe::count;
use crate::failure::{CommandError, Status, exit_code};
use crate::follow::{attended, follow};
use crate::suggest::suggest;

/// Destroy agents, with everything that is theirs
///
/// Their files are kept for a while, as configured in innkeeperd (guest.retention_seconds) and as long as no space is
/// needed: `agent undelete` creates an agent again with them. Snapshots, addresses, keys and credentials go at once. Each one is tried, whatever becomes of the others; the exit status is that of the worst failure. Prompts on a
/// terminal, unless --yes is given.
#[derive(Args, Debug)]
pub(crate) struct Destroy {
    /// Their names
    #[arg(required = true, value_name = "NAME")]
    names: Vec<GuestName>,

    /// Remove the files at once; those of an agent that was destroyed before, too
    #[arg(long)]
    now: bool,

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
            let answers = match refusal {
                Some(error) => vec![Err(error)],
                None => destroy(cx, &name, self.now).await,
            };
            asked.extend(answers.into_iter().map(|answer| (answer, name.clone())));
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
        let kept_for = match needed && !self.now {
            true => kept_for(cx).await?,
            false => None,
        };
        let mut names = Vec::new();
        let mut lines = Vec::new();
        for name in &self.names {
            let refusal = match needed {
                true => match self.loss(cx, name, kept_for.as_deref()).await {
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

    /// What is lost with an agent, as a line. `None` for a preview's guest, which the daemon refuses to destroy as an
    /// agent.
    async fn loss(
        &self,
        cx: &Context,
        name: &GuestName,
        kept_for: Option<&str>,
    ) -> Result<Option<String>, CommandError> {
        let view = match cx.guest(name).await {
            Err(error) if self.now && is_missing(&error) => {
                return match files_of(cx, name).await?.is_empty() {
                    true => Err(error),
                    false => Ok(Some(format!(
                        "Destroyed agent {name}: the files that it left will be deleted."
                    ))),
                };
            }
            view => view?,
        };
        if view.guest.kind == GuestKind::Preview {
            return Ok(None);
        }
        let snapshots = of_agent(cx, name).await?;
        let labels: Vec<&str> = snapshots.iter().map(|one| one.label.as_str()).collect();
        let number = count(labels.len(), "snapshot");
        let snapshots = format!("{number} ({})", labels.join(", "));
        let lost = match (kept_for, labels.is_empty()) {
            (None, true) => "its files will be deleted".to_owned(),
            (None, false) => format!("its files and {snapshots} will be deleted"),
            (Some(time), true) => format!("its files are kept for {time} at most"),
            (Some(time), false) => {
                format!("its files are kept for {time} at most, {snapshots} will be deleted")
            }
        };
        Ok(Some(format!("Agent {name} ({}): {lost}.", view.state)))
    }
}

/// Asks for an agent to be destroyed; with `now` for what destroyed agents of its name left, when there is none.
async fn destroy(cx: &Context, name: &GuestName, now: bool) -> Vec<Result<Accepted, CommandError>> {
    let path = guest_path(name, if now { "?now=true" } else { "" });
    let answer: Result<Accepted, _> = cx.client.delete(&path).await;
    if let Err(error) = &answer
        && now
        && is_missing(error)
        && let Ok(left) = files_of(cx, name).await
        && !left.is_empty()
    {
        let mut answers = Vec::new();
        for id in left {
            answers.push(cx.client.delete(&format!("/v1/retained/{id}")).await);
        }
        return answers;
    }
    vec![suggest(&cx.client, name, answer).await]
}

/// How long the daemon keeps the files of destroyed agents, in words; `None` when it does not.
async fn kept_for(cx: &Context) -> Result<Option<String>, CommandError> {
    let config: ConfigReport = cx.client.get("/v1/config").await?;
    let mut settings = config.settings.into_iter();
    let setting = settings.find(|setting| setting.name == "guest.retention_seconds");
    let seconds: u64 = setting
        .and_then(|setting| setting.value.parse().ok())
        .unwrap_or(0);
    Ok((seconds > 0).then(|| format!("{} min", seconds.div_ceil(60))))
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
