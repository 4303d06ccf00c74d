use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use innkeeper_github::fake::FakeGithub;
use innkeeper_model::preview::sources::OmittedReason;
use innkeeper_model::{Code, Explain};
use tempfile::TempDir;

use super::*;
use crate::fixture::{TOKEN, client, repo};

/// A repository on a fake GitHub.
pub(crate) struct Stage {
    pub(crate) directory: TempDir,
    github: FakeGithub,
    sources: Sources,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let github = FakeGithub::start().await.expect("the fake starts");
        github.with(|world| {
            world.add_token(TOKEN, "innkeeper-bot");
            world.add_repo(repo(), directory.path().join(".git"));
        });
        let sources = Sources::new(Some(client(&github)), FileTypes::default());
        let stage = Self {
            directory,
            github,
            sources,
        };
        stage.git(&["init", "--quiet"]);
        stage
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "tests prepare repositories with git"
    )]
    fn git(&self, arguments: &[&str]) -> String {
        let output = std::process::Command::new("git")
            .args(["-c", "user.name=Octo", "-c", "user.email=octo@example.org"])
            .args(arguments)
            .current_dir(self.directory.path())
            .output()
            .expect("git runs");
        assert!(output.status.success(), "git {arguments:?}: {output:?}");
        String::from_utf8(output.stdout)
            .expect("UTF-8")
            .trim()
            .to_owned()
    }

    pub(crate) fn write(&self, name: &str, contents: &str) {
        let file = self.directory.path().join(name);
        fs::create_dir_all(file.parent().unwrap_or(Path::new("/"))).expect("folder");
        fs::write(file, contents).expect("write");
    }

    fn link(&self, name: &str, target: &str) {
        symlink(target, self.directory.path().join(name)).expect("link");
    }

    /// Commits all files.
    pub(crate) fn commit(&self) -> CommitSha {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", "x"]);
        CommitSha::parse(&self.git(&["rev-parse", "HEAD"])).expect("a commit")
    }

    async fn tree(&self, sha: &CommitSha) -> SourceTree {
        let tree = self.sources.tree(&repo(), sha, &main()).await;
        tree.expect("readable").expect("it has a configuration")
    }

    /// Returns the number of requests since the last call.
    fn requests(&self) -> usize {
        self.github
            .with(|world| std::mem::take(&mut world.requests).len())
    }
}

fn main() -> SourcePath {
    path(SourceTree::MAIN)
}

fn path(text: &str) -> SourcePath {
    SourcePath::parse(text).expect(text)
}

fn names(tree: &SourceTree) -> Vec<&str> {
    tree.entries().keys().map(SourcePath::as_str).collect()
}

fn omitted(tree: &SourceTree) -> Vec<(&str, OmittedReason)> {
    let omitted = tree.omitted().iter();
    omitted.map(|one| (one.path.as_str(), one.reason)).collect()
}

#[tokio::test]
async fn tree_has_the_files_that_the_configuration_refers_to() {
    let stage = Stage::new().await;
    stage.write(
        SourceTree::MAIN,
        "{ imports = [ ./nix/app.nix ./mod ]; }\r\n",
    );
    stage.write(
        "nix/app.nix",
        "{ a = builtins.readFile ../versions.json; b = ./logo.svg; }",
    );
    stage.write("nix/unused.nix", "{ }");
    stage.write("nix/logo.svg", "named by its path");
    stage.write("versions.json", "{}");
    stage.write("package.json", "{}");
    stage.write("mod/default.nix", "import ./deep/x.nix");
    stage.write("mod/deep/x.nix", "./gone.nix");
    stage.write("mod/run.sh", "#!/bin/sh");
    stage.write("mod/logo.png", "of another type");
    let script = stage.directory.path().join("mod/run.sh");
    fs::set_permissions(script, fs::Permissions::from_mode(0o755)).expect("chmod");
    let sha = stage.commit();

    let tree = stage.tree(&sha).await;
    assert_eq!(
        names(&tree),
        [
            "mod/deep/x.nix",
            "mod/default.nix",
            "mod/run.sh",
            "nix/app.nix",
            "nix/logo.svg",
            "preview-config.nix",
            "versions.json",
        ]
    );
    assert_eq!(omitted(&tree), [("mod/logo.png", OmittedReason::Type)]);
    assert!(tree.is_partial(&path("mod")) && !tree.is_partial(&path("mod/deep")));
    assert_eq!(
        tree.text(&main()),
        Some("{ imports = [ ./nix/app.nix ./mod ]; }\n")
    );
    assert!(
        stage
            .sources
            .has_file(&repo(), &sha, &main())
            .await
            .expect("readable")
    );
}

#[tokio::test]
async fn push_without_a_changed_configuration_costs_one_request() {
    let stage = Stage::new().await;
    stage.write(SourceTree::MAIN, "{ imports = [ ./nix ./app.nix ]; }");
    stage.write("nix/default.nix", "{ }");
    stage.write("app.nix", "{ }");
    stage.write("src/main.rs", "1");
    let first = stage.tree(&stage.commit()).await;
    assert!(stage.requests() > 1);

    stage.write("src/main.rs", "2");
    stage.write("package.json", "{}");
    let sha = stage.commit();
    assert!(
        stage
            .sources
            .has_file(&repo(), &sha, &main())
            .await
            .expect("readable")
    );
    let second = stage.tree(&sha).await;
    assert_eq!(second.digest(), first.digest());
    assert_eq!(stage.requests(), 1);

    stage.write("app.nix", "{ a = 1; }");
    let third = stage.tree(&stage.commit()).await;
    assert_ne!(third.digest(), first.digest());
    assert_eq!(stage.requests(), 2);
}

#[tokio::test]
async fn links_are_followed_inside_the_repository_only() {
    let stage = Stage::new().await;
    stage.write(
        SourceTree::MAIN,
        "[ ./in.nix ./through/x.nix ./absolute.nix ./up.nix ./loop.nix ./gone.nix ./all ]",
    );
    stage.write("real/deep/x.nix", "{ }");
    stage.write("real/deep/y.nix", "{ }");
    stage.write("all/z.nix", "{ }");
    stage.link("in.nix", "real/../real/deep/y.nix");
    stage.link("through", "real/deep");
    stage.link("absolute.nix", "/etc/passwd");
    stage.link("up.nix", "../../etc/passwd");
    stage.link("loop.nix", "loop.nix");
    stage.link("gone.nix", "nothing.nix");
    stage.link("all/a.nix", "../real/deep/x.nix");
    stage.link("all/out.nix", "../../x.nix");
    let tree = stage.tree(&stage.commit()).await;
    assert_eq!(
        names(&tree),
        [
            "all/a.nix",
            "all/z.nix",
            "in.nix",
            "preview-config.nix",
            "real/deep/x.nix",
            "real/deep/y.nix",
            "through",
        ]
    );
    let links: Vec<_> = omitted(&tree)
        .into_iter()
        .map(|(path, reason)| {
            assert_eq!(reason, OmittedReason::Link, "{path}");
            path
        })
        .collect();
    assert_eq!(
        links,
        [
            "absolute.nix",
            "gone.nix",
            "loop.nix",
            "up.nix",
            "all/out.nix"
        ]
    );
}

#[tokio::test]
async fn limits_keep_nix_files_and_name_the_rest() {
    let mut stage = Stage::new().await;
    stage.sources.limits.files = 20;
    stage.write(SourceTree::MAIN, "./all");
    for number in 0..30 {
        stage.write(&format!("all/{number}.json"), &number.to_string());
    }
    stage.write("all/deep/er/x.nix", "{ }");
    stage.write("all/large.json", &"x".repeat(1 << 21));
    let tree = stage.tree(&stage.commit()).await;
    assert_eq!(tree.entries().len(), 20);
    assert!(tree.entries().contains_key(&path("all/deep/er/x.nix")));
    let of = |reason| {
        tree.omitted()
            .iter()
            .filter(move |one| one.reason == reason)
            .count()
    };
    assert_eq!(
        (of(OmittedReason::TooLarge), of(OmittedReason::Limit)),
        (1, 12)
    );

    stage.write(SourceTree::MAIN, &"x".repeat((256 << 10) + 1));
    let large = stage.sources.tree(&repo(), &stage.commit(), &main()).await;
    let error = large.expect_err("too large");
    assert_eq!(error.code(), Code::PreviewConfigInvalid);
    assert!(
        !error.is_transient() && error.to_string().contains("262145 bytes"),
        "{error}"
    );
}

#[tokio::test]
async fn truncated_folder_is_incomplete() {
    let stage = Stage::new().await;
    stage.write(SourceTree::MAIN, "./all");
    for number in 0..9 {
        stage.write(&format!("all/{number}.nix"), "{ }");
    }
    let sha = stage.commit();
    stage.github.with(|world| world.tree_limit = Some(5));
    let tree = stage.tree(&sha).await;
    assert_eq!(tree.entries().len(), 6);
    assert!(tree.is_partial(&path("all")));
    assert_eq!(omitted(&tree), [("all/…", OmittedReason::Limit)]);
}

#[tokio::test]
async fn missing_configuration_and_missing_access_are_distinguished() {
    let stage = Stage::new().await;
    stage.write("README.md", "x");
    let sha = stage.commit();
    let tree = stage.sources.tree(&repo(), &sha, &main()).await;
    assert_eq!(tree.expect("readable"), None);
    let unknown = CommitSha::parse(&"a".repeat(40)).expect("a commit");
    let tree = stage.sources.tree(&repo(), &unknown, &main()).await;
    assert_eq!(tree.expect_err("no commit").code(), Code::BranchNotFound);
    let other = RepoName::parse("octo/other").expect("a name");
    let tree = stage.sources.tree(&other, &sha, &main()).await;
    assert_eq!(
        tree.expect_err("no repository").code(),
        Code::RepoNotAccessible
    );
    // A folder with the name is not a configuration.
    stage.write("preview-config.nix/default.nix", "{ }");
    let sha = stage.commit();
    assert!(
        !stage
            .sources
            .has_file(&repo(), &sha, &main())
            .await
            .expect("readable")
    );
}

#[tokio::test]
async fn text_that_is_not_utf_8_is_named() {
    let stage = Stage::new().await;
    stage.write(SourceTree::MAIN, "./a.nix");
    fs::write(stage.directory.path().join("a.nix"), b"\xff").expect("write");
    let tree = stage.sources.tree(&repo(), &stage.commit(), &main()).await;
    let error = tree.expect_err("not UTF-8");
    assert_eq!(error.to_string(), "a.nix is not UTF-8");
    assert_eq!(error.code(), Code::PreviewConfigInvalid);
}
