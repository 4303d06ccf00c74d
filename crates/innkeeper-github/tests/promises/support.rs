//! A fake GitHub with one repository, and its clients.

use std::path::{Path, PathBuf};
use std::time::Duration;

use innkeeper_github::client::{Credentials, Github, Settings};
use innkeeper_github::fake::{FakeGithub, Pull};
use innkeeper_model::Secret;
use innkeeper_model::preview::{BranchName, CommitSha, PullRequest, RepoName};

pub(crate) const TOKEN: &str = "ghp_hunter2";
pub(crate) const CONFIG: &str = "{ pkgs, ... }: { }\n";

/// A GitHub with `octo/web`, whose `main` has a `preview-config.nix`.
pub(crate) struct Stage {
    pub(crate) fake: FakeGithub,
    pub(crate) directory: tempfile::TempDir,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        let directory = tempfile::tempdir().expect("tempdir");
        let fake = FakeGithub::start().await.expect("the fake starts");
        let stage = Self { fake, directory };
        stage.git(&["init", "--quiet", "--bare", "--initial-branch=main", "."]);
        stage.commit("main", &[("preview-config.nix", CONFIG)]);
        stage.fake.with(|world| {
            world.add_repo(repo(), stage.git_directory());
            world.add_token(TOKEN, "innkeeper-bot");
        });
        stage
    }

    pub(crate) fn git_directory(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    /// Runs git in the repository and returns what it prints.
    #[expect(
        clippy::disallowed_methods,
        reason = "tests prepare repositories with git"
    )]
    pub(crate) fn git(&self, arguments: &[&str]) -> String {
        let mut command = std::process::Command::new("git");
        command.args(["-c", "user.name=Octo", "-c", "user.email=octo@example.org"]);
        let output = command
            .args(arguments)
            .current_dir(self.directory.path())
            .output()
            .expect("git runs");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {arguments:?}: {stderr}");
        String::from_utf8(output.stdout)
            .expect("UTF-8")
            .trim()
            .to_owned()
    }

    /// Commits exactly these files to a branch.
    pub(crate) fn commit(&self, branch: &str, files: &[(&str, &str)]) -> CommitSha {
        let mut tree = String::new();
        for (name, content) in files {
            let file = self.directory.path().join("staged");
            std::fs::write(&file, content).expect("write");
            let blob = self.git(&["hash-object", "-w", "staged"]);
            tree.push_str(&format!("100644 blob {blob}\t{name}\n"));
        }
        std::fs::write(self.directory.path().join("tree"), tree).expect("write");
        let tree = self.shell("git mktree < tree");
        let sha = self.git(&["commit-tree", "-m", branch, &tree]);
        self.git(&["update-ref", &format!("refs/heads/{branch}"), &sha]);
        CommitSha::parse(&sha).expect("a commit")
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "tests prepare repositories with git"
    )]
    fn shell(&self, script: &str) -> String {
        let output = std::process::Command::new("sh")
            .args(["-c", script])
            .current_dir(self.directory.path())
            .output()
            .expect("sh runs");
        assert!(output.status.success(), "{script}");
        String::from_utf8(output.stdout)
            .expect("UTF-8")
            .trim()
            .to_owned()
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings {
            base_url: self.fake.base_url(),
            timeout: Duration::from_secs(10),
            attempts: 3,
            first_wait: Duration::from_millis(1),
            patience: Duration::from_secs(5),
            ..Settings::default()
        }
    }

    /// Creates a client with a token.
    pub(crate) fn github(&self) -> Github {
        self.client(self.settings())
    }

    pub(crate) fn client(&self, settings: Settings) -> Github {
        Github::new(settings, Credentials::Token(Secret::new(TOKEN))).expect("a client")
    }

    /// Opens pull request 7 from the branch `change`.
    pub(crate) fn open_pull(&self) -> (PullRequest, CommitSha) {
        let sha = self.commit("change", &[("preview-config.nix", CONFIG), ("x", "1")]);
        let pull = Pull {
            title: "Adds a login".to_owned(),
            body: "Adds a login.".to_owned(),
            open: true,
            merged: false,
            author: "octocat".to_owned(),
            head_repo: Some(repo()),
            head_branch: branch("change"),
            head_sha: sha.clone(),
            base_branch: branch("main"),
            labels: Vec::new(),
            draft: false,
        };
        self.fake.with(|world| {
            let found = world.repos.get_mut(&repo()).expect("the repository");
            found.pulls.insert(7, pull);
        });
        let pull_request = PullRequest {
            repo: repo(),
            number: 7,
        };
        (pull_request, sha)
    }

    pub(crate) fn count(&self, method: &str, path: &str) -> usize {
        self.fake.with(|world| world.count(method, path))
    }
}

/// Creates a private key in GitHub's format (`PEM`) or in PKCS #8 (`PKCS8`).
#[expect(clippy::disallowed_methods, reason = "tests make keys with ssh-keygen")]
pub(crate) fn key(directory: &Path, format: &str) -> PathBuf {
    let path = directory.join(format);
    let made = std::process::Command::new("ssh-keygen")
        .args([
            "-q", "-t", "rsa", "-b", "2048", "-N", "", "-m", format, "-f",
        ])
        .arg(&path)
        .status()
        .expect("ssh-keygen runs");
    assert!(made.success());
    path
}

pub(crate) fn repo() -> RepoName {
    RepoName::parse("octo/web").expect("a repository")
}

pub(crate) fn branch(name: &str) -> BranchName {
    BranchName::parse(name).expect("a branch")
}

pub(crate) fn unknown_sha() -> CommitSha {
    CommitSha::parse(&"1".repeat(40)).expect("a commit")
}
