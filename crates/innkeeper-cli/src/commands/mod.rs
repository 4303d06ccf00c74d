//! One file for each command, named as the command.

pub(crate) mod apply;
mod audit;
mod backup;
mod build;
mod completions;
mod config;
mod connect;
mod context;
mod cp;
mod create;
mod deliveries;
mod destroy;
mod doctor;
mod events;
mod exec;
pub(crate) mod explain;
mod fork;
mod gc;
mod keepalive;
mod list;
mod login;
mod logout;
mod logs;
mod man;
mod pause;
mod pool;
mod port_forward;
mod prefetch;
pub(crate) mod preview;
mod restore;
mod secret;
mod set;
mod show;
mod sleep;
mod slots;
mod snapshot;
mod snapshots;
mod ssh;
mod start;
pub(crate) mod status;
mod stop;
mod switch_preview;
mod token;
mod top;
mod undelete;
mod usage;
mod wake;

use innkeeper_model::GuestName;
use innkeeper_model::api::GuestView;

pub(crate) use self::apply::Apply;
pub(crate) use self::audit::Audit;
pub(crate) use self::backup::{Backup, RestoreBackup};
pub(crate) use self::build::Build;
pub(crate) use self::completions::Completions;
pub(crate) use self::config::Config;
pub(crate) use self::connect::Connect;
pub(crate) use self::context::ContextCommands;
pub(crate) use self::cp::Cp;
pub(crate) use self::create::Create;
pub(crate) use self::deliveries::Deliveries;
pub(crate) use self::destroy::Destroy;
pub(crate) use self::doctor::Doctor;
pub(crate) use self::events::Events;
pub(crate) use self::exec::Exec;
pub(crate) use self::explain::Explain;
pub(crate) use self::fork::Fork;
pub(crate) use self::gc::Gc;
pub(crate) use self::keepalive::{Keepalive, KeepaliveTime};
pub(crate) use self::list::List;
pub(crate) use self::login::Login;
pub(crate) use self::logout::Logout;
pub(crate) use self::logs::Logs;
pub(crate) use self::man::Man;
pub(crate) use self::pause::Pause;
pub(crate) use self::pool::Pool;
pub(crate) use self::port_forward::PortForward;
pub(crate) use self::prefetch::Prefetch;
pub(crate) use self::restore::Restore;
pub(crate) use self::secret::SecretCommands;
pub(crate) use self::set::Set;
pub(crate) use self::show::Show;
pub(crate) use self::sleep::Sleep;
pub(crate) use self::slots::Slots;
pub(crate) use self::snapshot::Snapshot;
pub(crate) use self::snapshots::Snapshots;
pub(crate) use self::ssh::Ssh;
pub(crate) use self::start::Start;
pub(crate) use self::stop::Stop;
pub(crate) use self::switch_preview::SwitchPreview;
pub(crate) use self::token::TokenCommands;
pub(crate) use self::top::Top;
pub(crate) use self::undelete::Undelete;
pub(crate) use self::usage::Usage;
pub(crate) use self::wake::Wake;

/// Returns the names, one on each line, as lists print them with `--quiet`.
fn name_lines<'n>(names: impl Iterator<Item = &'n GuestName>) -> String {
    names.map(|name| format!("{name}\n")).collect()
}

/// Returns ` at <address>`, or an empty string if the guest has no address.
fn at_address(view: &GuestView) -> String {
    view.guest_address
        .map(|address| format!(" at {address}"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    /// Fails for a command without a module of tests of the same name in `tests/cli`.
    #[test]
    fn commands_have_test_modules() {
        check_test_modules("src/commands", "tests/cli/main.rs");
        check_test_modules("src/commands/preview", "tests/cli/preview/mod.rs");
    }

    fn check_test_modules(folder: &str, tests: &str) {
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
