//! One file for each command, named as the command.

mod build;
mod completions;
mod config;
mod create;
mod deliveries;
mod destroy;
mod doctor;
mod events;
pub(crate) mod exec;
mod fork;
mod gc;
mod list;
mod logs;
mod man;
mod pool;
pub(crate) mod preview;
mod restore;
mod slots;
mod snapshot;
mod snapshots;
pub(crate) mod ssh;
mod start;
pub(crate) mod status;
mod stop;
mod undelete;

use std::time::Instant;

use innkeeper_model::api::{Accepted, GuestView};
use innkeeper_model::{GuestName, OperationId};
use serde::Serialize;

pub(crate) use self::build::Build;
pub(crate) use self::completions::Completions;
pub(crate) use self::config::Config;
pub(crate) use self::create::Create;
pub(crate) use self::deliveries::Deliveries;
pub(crate) use self::destroy::Destroy;
pub(crate) use self::doctor::Doctor;
pub(crate) use self::events::Events;
pub(crate) use self::exec::Exec;
pub(crate) use self::fork::Fork;
pub(crate) use self::gc::Gc;
pub(crate) use self::list::List;
pub(crate) use self::logs::Logs;
pub(crate) use self::man::Man;
pub(crate) use self::pool::Pool;
pub(crate) use self::restore::Restore;
pub(crate) use self::slots::Slots;
pub(crate) use self::snapshot::Snapshot;
pub(crate) use self::snapshots::Snapshots;
pub(crate) use self::ssh::Ssh;
pub(crate) use self::start::Start;
pub(crate) use self::stop::Stop;
pub(crate) use self::undelete::Undelete;
use crate::client::{Client, guest_path};
use crate::failure::CommandError;
use crate::output::Output;
use crate::suggest::suggest;

/// What every command works with.
#[derive(Debug)]
pub struct Context {
    pub(crate) client: Client,
    pub(crate) output: Output,
}

/// Names, one on each line: what lists print with `--quiet`.
pub(crate) fn names<'n>(names: impl Iterator<Item = &'n GuestName>) -> String {
    names.map(|name| format!("{name}\n")).collect()
}

impl Context {
    /// What the daemon knows about a guest; a name that nobody has gets a suggestion.
    async fn guest(&self, name: &GuestName) -> Result<GuestView, CommandError> {
        let answer = self.client.get(&guest_path(name, "")).await;
        suggest(&self.client, name, answer).await
    }

    /// Asks for a change of a guest that exists.
    async fn change(&self, name: &GuestName, verb: &str) -> Result<Accepted, CommandError> {
        let answer = self.client.post_nothing(&guest_path(name, verb)).await;
        suggest(&self.client, name, answer).await
    }

    /// Tells programs how an operation ended: its number, the milliseconds from the request to its end (with
    /// `--wait`, to the guest's answer), and the guest or the preview.
    pub(crate) fn ended(
        &self,
        operation: Option<OperationId>,
        elapsed_ms: u64,
        object: Option<impl Serialize>,
    ) -> Result<(), CommandError> {
        #[derive(Serialize)]
        struct Ended<T> {
            #[serde(skip_serializing_if = "Option::is_none")]
            operation: Option<OperationId>,
            elapsed_ms: u64,
            #[serde(flatten)]
            object: Option<T>,
        }
        if !self.output.is_json() {
            return Ok(());
        }
        self.output.value(&Ended {
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

/// ` at <address>`, or nothing while there is no address.
fn at_address(view: &GuestView) -> String {
    view.guest_address
        .map(|address| format!(" at {address}"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    /// Every command has its promises written down: in a module of tests in `tests/cli`, named as the command.
    #[test]
    fn every_command_has_a_module_of_tests() {
        tests_of_all_in("src/commands", "tests/cli/main.rs");
        tests_of_all_in("src/commands/preview", "tests/cli/preview/mod.rs");
    }

    fn tests_of_all_in(folder: &str, tests: &str) {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/");
        let modules = std::fs::read_to_string(format!("{root}{tests}")).expect("the tests");
        let mut commands = 0;
        for entry in std::fs::read_dir(format!("{root}{folder}")).expect("the commands") {
            let path = entry.expect("a file").path();
            let name = path
                .file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            if name != "mod" {
                commands += 1;
                assert!(
                    modules.contains(&format!("mod {name};")),
                    "{tests} has no tests of {name}"
                );
            }
        }
        assert!(commands > 0);
    }
}
