//! `innkeeper backup` and `innkeeper restore`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use innkeeper_model::GuestName;
use innkeeper_model::api::{Accepted, BackupRequest, RestoreRequest};
use serde::Serialize;

use crate::context::{Context, milliseconds_since};
use crate::failure::{CommandError, Status};
use crate::follow::{continues_note, follow, until_interrupted};

/// The directory of backup sets that the daemon's unit may write to.
const DIRECTORY: &str = "/var/lib/innkeeper-backup";

/// Make a backup set of all guests
///
/// The set is a directory of plain files for a backup program such as restic or borg: records, guests' files, and the
/// databases of previews. It contains secrets, and only root can read it. It replaces the former set when it is complete. A
/// running guest whose files are in a directory is suspended while they are copied; on thin volumes, it runs on. A guest or
/// database that cannot be copied is left out, and the command fails once the set has all others.
#[derive(Args, Debug)]
pub(crate) struct Backup {
    /// Directory of the set
    #[arg(long, value_name = "DIRECTORY", default_value = DIRECTORY)]
    to: PathBuf,

    /// Copy the guests' closures too, for a host without access to their sources
    #[arg(long)]
    with_closures: bool,

    /// Succeed although guests or databases were left out, so that a backup program stores the others
    #[arg(long)]
    allow_incomplete: bool,
}

/// Restore guests from a backup set
///
/// Without names, restores everything, on a host without guests and previews. The set is checked before anything is
/// changed. Guests keep their addresses where these are free. A guest whose closure is neither on this host nor in the set is
/// built again from its flake; if it has none, it stays stopped.
#[derive(Args, Debug)]
pub(crate) struct RestoreBackup {
    /// Directory of the set
    #[arg(long, value_name = "DIRECTORY", default_value = DIRECTORY)]
    from: PathBuf,

    /// Guests and previews to restore, none of which may exist [default: all]
    #[arg(value_name = "GUEST")]
    guests: Vec<GuestName>,
}

/// Additional field of the JSON result.
#[derive(Serialize)]
struct Directory<'a> {
    directory: &'a Path,
}

impl Backup {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        cx.client.require_host("innkeeper backup")?;
        let directory = absolute(&self.to);
        let request = BackupRequest {
            directory: directory.clone(),
            closures: self.with_closures,
            allow_incomplete: self.allow_incomplete,
        };
        let label = "Making a backup set";
        run(cx, "/v1/backups", &request, &directory, label, "made").await
    }
}

impl RestoreBackup {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        cx.client.require_host("innkeeper restore")?;
        let directory = absolute(&self.from);
        let request = RestoreRequest {
            directory: directory.clone(),
            guests: self.guests,
        };
        let label = "Restoring a backup set";
        let path = "/v1/backups/restore";
        run(cx, path, &request, &directory, label, "restored").await
    }
}

/// Requests an operation and waits for its end.
async fn run(
    cx: &Context,
    path: &str,
    request: &impl Serialize,
    directory: &Path,
    label: &str,
    done: &str,
) -> Status {
    let start = Instant::now();
    let accepted: Accepted = cx.client.post(path, request).await?;
    let followed = follow(cx, &accepted, label);
    until_interrupted(|| continues_note(&accepted), followed).await?;
    let elapsed_ms = milliseconds_since(start);
    let shown = directory.display();
    cx.output.ok(format_args!(
        "Backup set in {shown} {done} in {elapsed_ms} ms."
    ))?;
    let result = Directory { directory };
    cx.print_result(Some(accepted.operation), elapsed_ms, Some(result))?;
    Ok::<u8, CommandError>(0)
}

/// Returns the path from the root: the daemon has another working directory.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
