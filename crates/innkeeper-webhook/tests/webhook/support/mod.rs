//! Shared by the tests and the benchmark. innkeeperd's tests of the intake use some of these files and `load`.

pub(crate) mod client;
pub(crate) mod intake;
pub(crate) mod payload;
pub(crate) mod program;

/// The user `nobody`.
pub(crate) const NOBODY: u32 = 65_534;

/// A directory that is searchable for every user, as `/run/innkeeper` is.
pub(crate) fn directory() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().expect("directory");
    let searchable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(directory.path(), searchable).expect("permissions");
    directory
}

/// The path of the program.
pub(crate) fn program_file() -> std::path::PathBuf {
    env!("CARGO_BIN_EXE_innkeeper-webhook").into()
}

#[expect(
    clippy::disallowed_methods,
    reason = "tests run programs here; this crate does not depend on innkeeper-host"
)]
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>) -> std::process::Command {
    std::process::Command::new(program)
}
