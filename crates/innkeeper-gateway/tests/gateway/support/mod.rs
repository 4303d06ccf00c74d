//! Shared by the tests.

pub(crate) mod client;
pub(crate) mod daemon;
pub(crate) mod program;
pub(crate) mod visitor;

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use innkeeper_model::access::{
    PublishedToken, TOKENS_FILE, TokenId, TokenName, TokenText, TokensFile,
};

/// A secret of the file of tokens, to be found in no output.
pub(crate) const SECRET: &str = "hunter2-hunter2-hunter2";

/// A directory that is searchable for every user, as `/run/innkeeper` is.
pub(crate) fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("directory");
    let searchable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(directory.path(), searchable).expect("permissions");
    directory
}

/// Returns the token with this number.
pub(crate) fn token(id: i64) -> TokenText {
    TokenText::new(TokenId(id), &[7; 32])
}

/// Returns the value of the header `Authorization` with a token.
pub(crate) fn bearer(id: i64) -> String {
    format!("Bearer {}", token(id).text().expose())
}

/// Writes the digests of tokens as innkeeperd does.
pub(crate) fn publish(directory: &Path, ids: &[i64]) {
    let published = |id: &i64| {
        let mut sha256 = String::new();
        for byte in token(*id).digest() {
            write!(sha256, "{byte:02x}").expect("a string");
        }
        PublishedToken {
            id: TokenId(*id),
            name: TokenName::parse("laptop").expect("a name"),
            sha256,
            expires: None,
        }
    };
    let file = TokensFile {
        version: TokensFile::VERSION,
        tokens: ids.iter().map(published).collect(),
    };
    let path = directory.join(TOKENS_FILE);
    std::fs::create_dir_all(path.parent().expect("a directory")).expect("makes");
    let new = path.with_extension("new");
    std::fs::write(&new, serde_json::to_vec(&file).expect("JSON")).expect("writes");
    std::fs::rename(new, path).expect("renames");
}

#[expect(
    clippy::disallowed_methods,
    reason = "tests run programs here; this crate does not depend on innkeeper-host"
)]
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>) -> std::process::Command {
    std::process::Command::new(program)
}

/// Reports whether a program runs with an argument; prints a line for the list of tests that were not run otherwise.
pub(crate) fn is_installed(test: &str, program: &str, argument: &str) -> bool {
    let found = command(program).arg(argument).output().is_ok();
    if !found {
        let line = format!("INNKEEPER-NOT-RUN: {test}: {program} is not installed\n");
        std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).expect("written");
    }
    found
}
