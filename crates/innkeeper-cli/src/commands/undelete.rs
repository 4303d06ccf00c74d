//! `agent undelete`.

use std::time::Instant;

use clap::Args;
use innkeeper_model::api::{Accepted, RetainedView, UndeleteRequest};
use innkeeper_model::{Code, GuestName, RetainedId};

use super::{Context, at_address, milliseconds_since};
use crate::failure::{CommandError, Status, not_understood};
use crate::follow::{attended, follow, goes_on};

/// Create a destroyed agent again, with the files that it left, and start it
///
/// It has the closure and the limits that it had, and an address and an SSH host key of its own; its snapshots are gone.
/// `agent list --all` shows the destroyed agents whose files are kept, and for how long. They go earlier when space is
/// needed.
#[derive(Args, Debug)]
pub(crate) struct Undelete {
    /// What the agent was called; of several, the one that was destroyed last
    name: GuestName,

    /// What to call it from now on
    #[arg(long = "as", value_name = "NEW")]
    new_name: Option<GuestName>,

    /// Another one of several destroyed agents of that name, as `agent list --all` shows it
    #[arg(long, value_name = "ID")]
    id: Option<RetainedId>,
}

impl Undelete {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let Self { name, new_name, id } = self;
        let start = Instant::now();
        let request = UndeleteRequest { new_name, id };
        let path = format!("/v1/retained/{name}/undelete");
        let accepted: Accepted = cx.client.post(&path, &request).await?;
        let guest = (accepted.guest.clone())
            .ok_or_else(|| not_understood("a guest was accepted without its name"))?;
        let attended = attended(|| goes_on(&accepted), async {
            let title = format!("Creating agent {guest} with the files of {name}");
            follow(&cx.client, &cx.output, &accepted, &title).await?;
            cx.guest(&guest).await
        });
        let view = attended.await?;
        let (at, elapsed_ms) = (at_address(&view), milliseconds_since(start));
        cx.output.ok(format_args!(
            "Agent {guest} is up{at} with its files after {elapsed_ms} ms."
        ))?;
        cx.ended(Some(accepted.operation), elapsed_ms, Some(view))?;
        Ok(0)
    }
}

/// The files that destroyed agents of a name left, and that can be brought back.
pub(super) async fn files_of(
    cx: &Context,
    name: &GuestName,
) -> Result<Vec<RetainedId>, CommandError> {
    let all: Vec<RetainedView> = cx.client.get("/v1/retained").await?;
    let of_name = all.into_iter().map(|view| view.retained);
    let of_name = of_name.filter(|files| files.name == *name && !files.removing);
    Ok(of_name.map(|files| files.id).collect())
}

/// Whether a failure means that there is no such agent.
pub(super) fn is_missing(error: &CommandError) -> bool {
    matches!(error, CommandError::Failure(failure) if failure.code == Code::GuestNotFound)
}
