//! GitHub's side and the webhook program, shared with the tests of `innkeeper-webhook`.

#![expect(dead_code, reason = "the webhook's own tests use more of it")]

#[path = "../../../../innkeeper-webhook/tests/webhook/support/client.rs"]
pub(crate) mod client;
#[path = "../../../../innkeeper-webhook/tests/webhook/support/load.rs"]
pub(crate) mod load;
#[path = "../../../../innkeeper-webhook/tests/webhook/support/payload.rs"]
pub(crate) mod payload;
#[path = "../../../../innkeeper-webhook/tests/webhook/support/program.rs"]
pub(crate) mod program;

use std::path::{Path, PathBuf};

/// The user `nobody`.
pub(crate) const NOBODY: u32 = 65_534;

/// The group of `nobody`.
pub(crate) const NOBODYS_GROUP: &str = "nogroup";

/// The path of the webhook, which is built beside the daemon.
pub(crate) fn program_file() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_innkeeperd")).with_file_name("innkeeper-webhook");
    assert!(
        program.exists(),
        "{} is not built: cargo build --workspace",
        program.display()
    );
    program
}

#[expect(clippy::disallowed_methods, reason = "tests run programs")]
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>) -> std::process::Command {
    std::process::Command::new(program)
}
