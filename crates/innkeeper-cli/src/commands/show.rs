//! `agent show`.

use std::fmt::Write as _;

use clap::Args;
use innkeeper_model::api::GuestView;
use innkeeper_model::{GuestName, LastChange};

use crate::context::Context;
use crate::describe::{oom_kills, own_system_failure, plain, time};
use crate::failure::Status;
use crate::table::or_dash;

/// Show an agent's closure, own system, limits and last change
#[derive(Args, Debug)]
pub(crate) struct Show {
    /// Name of the agent
    name: GuestName,
}

impl Show {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let view = cx.guest(&self.name).await?;
        cx.output.show(&view, render)?;
        Ok(0)
    }
}

/// Returns the owner with the login or the name of the token: `octocat (github:583231)`.
fn owner(view: &GuestView) -> Option<String> {
    let actor = plain(view.guest.owner.as_deref()?);
    Some(match &view.owner_name {
        Some(name) => format!("{} ({actor})", plain(name)),
        None => actor,
    })
}

fn render(view: &GuestView) -> String {
    let guest = &view.guest;
    let limits = &guest.limits;
    let lines = [
        ("Name", guest.name.to_string()),
        ("Status", view.state.to_string()),
        ("Address", or_dash(view.guest_address)),
        ("Slot", guest.slot.to_string()),
        ("Source", guest.source.to_string()),
        ("Closure", or_dash(guest.closure.as_ref())),
        ("Memory", limits.memory.to_string()),
        ("CPUs", limits.cpus.to_string()),
        ("Tasks", limits.tasks.to_string()),
        ("Created", time(guest.created_at)),
        ("Owner", or_dash(owner(view))),
    ];
    let change = guest.last_change.as_ref().map(|last| {
        let described = format!("{} at {}", last.outcome, time(last.at));
        ("Last change", described)
    });
    let own = guest.own_system.as_ref().map(|own| {
        let described = format!("{} ({} at {})", own.system, own.state, time(own.at));
        ("Own system", described)
    });
    let mut text = String::new();
    for (name, value) in lines.into_iter().chain(own).chain(change) {
        writeln!(text, "{:<13}{value}", format!("{name}:")).ok();
    }
    let fault = guest.fault.as_ref();
    for line in guest.last_change.iter().filter_map(refusal) {
        writeln!(text, "\n{line}").ok();
    }
    if let Some(fault) = fault {
        writeln!(
            text,
            "\nThe last attempt to reach the desired state failed: {}",
            plain(&fault.message)
        )
        .ok();
    }
    if let Some(failure) = &guest.wake_failure {
        writeln!(
            text,
            "\nThe last attempt to wake it failed: {}",
            plain(&failure.message)
        )
        .ok();
    }
    if let Some(report) = own_system_failure(view) {
        writeln!(text, "\n{report}").ok();
        let own = guest.own_system.as_ref();
        let failure = own.and_then(|own| own.failure.as_ref());
        for line in failure.map_or(&[][..], |failure| &failure.log) {
            writeln!(text, "  {}", plain(line)).ok();
        }
    }
    if let Some(report) = oom_kills(view) {
        writeln!(text, "\n{report}").ok();
    }
    text
}

/// Describes the failure of a change, with the requested closure and the end of the log.
fn refusal(last: &LastChange) -> Option<String> {
    let failure = last.failure.as_ref()?;
    let mut text = format!(
        "The last change failed ({}): {}",
        failure.code,
        plain(&failure.message)
    );
    if let Some(closure) = &last.closure {
        write!(text, "\nThe requested closure was {closure}.").ok();
    }
    for line in &failure.log {
        write!(text, "\n  {}", plain(line)).ok();
    }
    Some(text)
}
