//! What the tests and the benchmark need. innkeeperd's tests of the intake use some of these files, too, and
//! `load`, which no test here needs.

pub(crate) mod client;
pub(crate) mod intake;
pub(crate) mod payload;
pub(crate) mod program;

/// The user that nobody is.
pub(crate) const NOBODY: u32 = 65_534;

/// A directory that every user may pass through, as `/run/innkeeper` is.
pub(crate) fn directory() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().expect("directory");
    let passable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(directory.path(), passable).expect("permissions");
    directory
}

/// The program itself.
pub(crate) fn program_file() -> std::path::PathBuf {
    env!("CARGO_BIN_EXE_innkeeper-webhook").into()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place of these tests that runs programs; innkeeper-host is not below this crate"
)]
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>) -> std::process::Command {
    std::process::Command::new(program)
}
