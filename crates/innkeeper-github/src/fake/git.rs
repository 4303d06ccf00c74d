//! The fake's bare Git repositories.

use std::path::Path;
use std::process::Stdio;

use innkeeper_model::preview::CommitSha;
use serde_json::{Value, json};

/// Returns a file of a commit.
pub(super) async fn file(git: &Path, sha: &CommitSha, path: &str) -> Option<Vec<u8>> {
    run(git, &["cat-file", "blob", &format!("{sha}:{path}")]).await
}

/// Returns the contents of a file by its hash.
pub(super) async fn blob(git: &Path, id: &CommitSha) -> Option<Vec<u8>> {
    run(git, &["cat-file", "blob", id.as_str()]).await
}

/// Returns the entries of a folder by its hash or by that of a commit, as in GitHub's API.
pub(super) async fn tree(git: &Path, id: &CommitSha, recursive: bool) -> Option<Vec<Value>> {
    let below: &[&str] = if recursive { &["-r", "-t"] } else { &[] };
    let arguments = [&["ls-tree", "-z", "--long"], below, &[id.as_str()]].concat();
    let output = String::from_utf8(run(git, &arguments).await?).ok()?;
    let entry = |line: &str| {
        let (attributes, path) = line.split_once('\t')?;
        let mut attributes = attributes.split_whitespace();
        let (mode, kind, sha) = (attributes.next()?, attributes.next()?, attributes.next()?);
        let mut entry = json!({ "path": path, "mode": mode, "type": kind, "sha": sha });
        // Only files have one.
        if let Some(size) = attributes.next().and_then(|size| size.parse::<u64>().ok()) {
            entry["size"] = size.into();
        }
        Some(entry)
    };
    output.split_terminator('\0').map(entry).collect()
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
