//! The client and the output that every command uses.

use std::path::PathBuf;
use std::time::Instant;

use innkeeper_model::api::{Accepted, GuestView};
use innkeeper_model::{GuestName, OperationId};
use serde::Serialize;

use crate::client::{Client, guest_path};
use crate::failure::CommandError;
use crate::output::Output;
use crate::suggest::suggest;

/// The client and the output of a command.
#[derive(Clone, Debug)]
pub struct Context {
    pub(crate) client: Client,
    pub(crate) output: Output,
    /// The path of this machine's own daemon's socket.
    pub(crate) socket: PathBuf,
}

impl Context {
    /// Returns a context whose output has no progress: standard output belongs to another program.
    pub(crate) fn silent(&self) -> Self {
        Self {
            client: self.client.clone(),
            output: Output::new(false, true),
            socket: self.socket.clone(),
        }
    }

    /// Returns a guest, or a failure with a suggestion if no guest has this name.
    pub(crate) async fn guest(&self, name: &GuestName) -> Result<GuestView, CommandError> {
        let response = self.client.get(&guest_path(name, "")).await;
        suggest(&self.client, name, response).await
    }

    /// Requests a change of an existing guest.
    pub(crate) async fn change_guest(
        &self,
        name: &GuestName,
        verb: &str,
    ) -> Result<Accepted, CommandError> {
        let response = self.client.post_empty(&guest_path(name, verb)).await;
        suggest(&self.client, name, response).await
    }

    /// With `--json`, prints the result of an operation: its number, the milliseconds from the request to the end (with
    /// `--wait`, to the first accepted connection), and the guest or the preview. Prints nothing otherwise.
    pub(crate) fn print_result(
        &self,
        operation: Option<OperationId>,
        elapsed_ms: u64,
        object: Option<impl Serialize>,
    ) -> Result<(), CommandError> {
        #[derive(Serialize)]
        struct OperationResult<T> {
            #[serde(skip_serializing_if = "Option::is_none")]
            operation: Option<OperationId>,
            elapsed_ms: u64,
            #[serde(flatten)]
            object: Option<T>,
        }
        if !self.output.is_json() {
            return Ok(());
        }
        self.output.value(&OperationResult {
            operation,
            elapsed_ms,
            object,
        })
    }
}

/// Whole milliseconds since `start`.
pub(crate) fn milliseconds_since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}
