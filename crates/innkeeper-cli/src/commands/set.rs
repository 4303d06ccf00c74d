//! `agent set`.

use std::time::Instant;

use clap::Args;
use innkeeper_model::api::{Accepted, GuestView, SetRequest};
use innkeeper_model::{
    ChangeOutcome, Cpus, GuestName, GuestState, IdlePolicy, IdleRequest, MemorySize, RestReport,
    StorePath,
};

use crate::arguments::{FlakeOutput, idle_policy};
use crate::client::guest_path;
use crate::context::{Context, milliseconds_since};
use crate::failure::Status;
use crate::follow::complete;
use crate::suggest::suggest;

/// Change an agent's closure, limits or idle policy; its files and its address are kept
///
/// A running agent switches to the closure in place if its present and its new closure have
/// `bin/switch-to-configuration`, as NixOS systems do. Otherwise, for other limits, and if only one of the closures has a
/// Nix of its own, it is restarted. A flake is built again if it has changed. If the agent does not come up, it gets its
/// former closure and limits back, and the command fails. An agent that is stopped or asleep boots from the closure at its next
/// start; one that is paused is woken.
///
/// A closure also takes the place of a system that the agent has built for itself (`nixos-rebuild` in the agent): the agent
/// does not boot that any more until its profile names another one.
#[derive(Args, Debug)]
pub(crate) struct Set {
    /// Name of the agent
    name: GuestName,

    /// Flake output to boot from; it is built if necessary
    ///
    /// Callers other than root must use a remote reference, such as github:owner/repo.
    #[arg(long, value_name = "FLAKE[#ATTR]", value_parser = FlakeOutput::parse)]
    flake: Option<FlakeOutput>,

    /// Closure to boot from; it must be in the Nix store
    #[arg(long, value_name = "STORE_PATH", conflicts_with = "flake")]
    closure: Option<StorePath>,

    /// Memory limit, such as 512M or 4G
    #[arg(long, value_name = "SIZE")]
    memory: Option<MemorySize>,

    /// Processor limit, such as 2 or 0.5
    #[arg(long, value_name = "NUMBER")]
    cpus: Option<Cpus>,

    /// Limit of processes and threads
    #[arg(long, value_name = "NUMBER")]
    tasks: Option<u32>,

    /// Use of its idle time: sleep (paused, then put to sleep), pause, or always-on
    ///
    /// Takes effect at once, without a restart.
    #[arg(long, value_name = "POLICY", value_parser = idle_policy)]
    idle: Option<IdlePolicy>,

    /// Restart the agent even if it could switch in place, or if nothing has changed
    #[arg(long)]
    restart: bool,
}

impl Set {
    fn has_only_idle(&self) -> bool {
        let has_source = self.flake.is_some() || self.closure.is_some();
        let has_limits = self.memory.is_some() || self.cpus.is_some() || self.tasks.is_some();
        !has_source && !has_limits && !self.restart
    }

    pub(crate) async fn run(self, cx: &Context) -> Status {
        let is_all = self.has_only_idle();
        let name = self.name;
        let start = Instant::now();
        if let Some(policy) = self.idle {
            let request = IdleRequest {
                idle_policy: Some(policy),
            };
            let response = cx.client.post(&guest_path(&name, "/idle"), &request).await;
            let report: RestReport = suggest(&cx.client, &name, response).await?;
            cx.output
                .ok(format_args!("Agent {name} has the idle policy {policy}."))?;
            if is_all {
                if cx.output.is_json() {
                    cx.output.value(&report)?;
                }
                return Ok(0);
            }
        }
        let request = SetRequest {
            flake: self.flake.map(FlakeOutput::into_text),
            closure: self.closure,
            memory: self.memory,
            cpus: self.cpus,
            tasks: self.tasks,
            declared: false,
            restart: self.restart,
        };
        let response: Result<Accepted, _> =
            cx.client.post(&guest_path(&name, "/set"), &request).await;
        let accepted = suggest(&cx.client, &name, response).await?;
        let label = format!("Changing agent {name}");
        let view = complete(cx, &accepted, &label, cx.guest(&name)).await?;
        let elapsed_ms = milliseconds_since(start);
        cx.output
            .ok(format_args!("{}", result(&view, elapsed_ms)))?;
        cx.print_result(Some(accepted.operation), elapsed_ms, Some(view))?;
        Ok(0)
    }
}

/// Describes a successful change in a sentence.
fn result(view: &GuestView, elapsed_ms: u64) -> String {
    let name = &view.guest.name;
    let outcome = view.guest.last_change.as_ref().map(|last| last.outcome);
    match outcome {
        Some(ChangeOutcome::Unchanged) => {
            format!("Agent {name} is unchanged: its closure and limits are the same.")
        }
        Some(ChangeOutcome::AtNextStart) => {
            let rests = match view.state {
                GuestState::Asleep => "asleep",
                _ => "stopped",
            };
            format!(
                "Agent {name} is {rests}, and has the new closure and limits at its next start."
            )
        }
        Some(ChangeOutcome::Switched) => {
            format!("Agent {name} switched to the new closure in place after {elapsed_ms} ms.")
        }
        _ => format!("Agent {name} was restarted and is up after {elapsed_ms} ms."),
    }
}
