//! The fake's bare Git repositories.

use std::path::Path;
use std::process::Stdio;

use innkeeper_model::preview::CommitSha;

/// Returns a file of a commit.
pub(super) async fn file(git: &Path, sha: &CommitSha, path: &str) -> Option<Vec<u8>> {
    run(git, &["cat-file", "blob", &format!("{sha}:{path}")]).await
}

/// Returns the head commit of a branch.
pub(super) async fn branch(git: &Path, branch: &str) -> Option<CommitSha> {
    let name = format!("refs/heads/{branch}^{{commit}}");
    let output = run(git, &["rev-parse", "--verify", "--quiet", &name]).await?;
    CommitSha::parse(String::from_utf8(output).ok()?.trim()).ok()
}

/// Reports whether a commit exists.
pub(super) async fn has_commit(git: &Path, sha: &CommitSha) -> bool {
    run(git, &["cat-file", "-e", &format!("{sha}^{{commit}}")])
        .await
        .is_some()
}

/// Runs git and returns its output. `None` for any failure.
#[expect(
    clippy::disallowed_methods,
    reason = "the only place in this crate, and only in its fake"
)]
async fn run(git: &Path, arguments: &[&str]) -> Option<Vec<u8>> {
    let output = tokio::process::Command::new("git")
        // A test's repository may belong to another user.
        .args(["-c", "safe.directory=*", "--git-dir"])
        .arg(git)
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .ok()?;
    output.status.success().then_some(output.stdout)
}
