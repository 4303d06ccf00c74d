//! `agent undelete`.

use std::time::Instant;

use clap::Args;
use innkeeper_model::api::{Accepted, RetainedView, UndeleteRequest};
use innkeeper_model::{Code, GuestName, RetainedId};

use super::at_address;
use crate::context::{Context, milliseconds_since};
use crate::failure::{CommandError, Status, unexpected_response};
use crate::follow::complete;

/// Create a destroyed agent again from its retained files, and start it
///
/// It has its former closure and limits, and a new address and SSH host key. Its snapshots are not restored. `agent list
/// --all` lists the destroyed agents with retained files and the time left. Files are removed earlier if space is needed.
#[derive(Args, Debug)]
pub(crate) struct Undelete {
    /// Former name of the agent; if several match, the last one that was destroyed
    name: GuestName,

    /// New name of the agent
    #[arg(long = "as", value_name = "NEW")]
    new_name: Option<GuestName>,

    /// Select one of several destroyed agents with this name (`agent list --all`)
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
            .ok_or_else(|| unexpected_response("accepted guest has no name"))?;
        let label = format!("Creating agent {guest} from the retained files of {name}");
        let view = complete(cx, &accepted, &label, cx.guest(&guest)).await?;
        let (at, elapsed_ms) = (at_address(&view), milliseconds_since(start));
        cx.output.ok(format_args!(
            "Agent {guest} is up{at} with its files after {elapsed_ms} ms."
        ))?;
        cx.print_result(Some(accepted.operation), elapsed_ms, Some(view))?;
        Ok(0)
    }
}

/// Returns the ids of the retained files of destroyed agents with a name, without those that are being removed.
pub(super) async fn retained_ids(
    cx: &Context,
    name: &GuestName,
) -> Result<Vec<RetainedId>, CommandError> {
    let all: Vec<RetainedView> = cx.client.get("/v1/retained").await?;
    let of_name = all.into_iter().map(|view| view.retained);
    let of_name = of_name.filter(|files| files.name == *name && !files.removing);
    Ok(of_name.map(|files| files.id).collect())
}

/// Reports whether an error means that the agent does not exist.
pub(super) fn is_missing(error: &CommandError) -> bool {
    matches!(error, CommandError::Failure(failure) if failure.code == Code::GuestNotFound)
}
