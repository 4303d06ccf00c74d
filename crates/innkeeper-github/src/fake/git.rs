//! The repositories behind the fake: bare Git repositories on this machine.

use std::path::Path;
use std::process::Stdio;

use innkeeper_model::preview::CommitSha;

/// The bytes of a file of a commit.
pub(super) async fn file(git: &Path, sha: &CommitSha, path: &str) -> Option<Vec<u8>> {
    run(git, &["cat-file", "blob", &format!("{sha}:{path}")]).await
}

/// The commit that a branch is at.
pub(super) async fn branch(git: &Path, branch: &str) -> Option<CommitSha> {
    let name = format!("refs/heads/{branch}^{{commit}}");
    let said = run(git, &["rev-parse", "--verify", "--quiet", &name]).await?;
    CommitSha::parse(String::from_utf8(said).ok()?.trim()).ok()
}

/// Whether a commit is there.
pub(super) async fn has_commit(git: &Path, sha: &CommitSha) -> bool {
    run(git, &["cat-file", "-e", &format!("{sha}^{{commit}}")])
        .await
        .is_some()
}

/// What git prints; nothing when it fails, whatever the reason.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place of this crate, and of its fake only"
)]
async fn run(git: &Path, arguments: &[&str]) -> Option<Vec<u8>> {
    let output = tokio::process::Command::new("git")
        // A test's repository may belong to another user than the one who runs the fake.
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
