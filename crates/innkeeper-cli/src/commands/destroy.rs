//! `agent destroy`.

use std::time::Instant;

use clap::Args;
use innkeeper_model::api::Accepted;
use innkeeper_model::{Failure, GuestName, OperationId};
use serde::Serialize;

use super::{Context, milliseconds_since};
use crate::client::guest_path;
use crate::failure::{CommandError, Status, exit_code};
use crate::follow::{attended, follow};
use crate::suggest::suggest;

/// Destroy agents, with everything that is theirs
///
/// Each one is tried, whatever becomes of the others; the exit status is that of the worst failure.
#[derive(Args, Debug)]
pub(crate) struct Destroy {
    /// Their names
    #[arg(required = true, value_name = "NAME")]
    names: Vec<GuestName>,
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
        let start = Instant::now();
        // All of them are asked for first: the daemon works on them at the same time.
        let mut asked = Vec::new();
        for name in self.names {
            let answer: Result<Accepted, _> = cx.client.delete(&guest_path(&name, "")).await;
            asked.push((suggest(&cx.client, &name, answer).await, name));
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
