//! A sandbox with the requirements of previews: Caddy, the webhook, and a fake GitHub with one repository.

#![expect(clippy::disallowed_methods, reason = "tests run programs")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use innkeeper_github::fake::{FakeGithub, HookTarget, Pull};
use innkeeper_model::preview::api::DeliveryView;
use innkeeper_model::preview::{BranchName, CommitSha, PreviewState, PreviewView, RepoName};
use innkeeper_store::Store;
use tokio::runtime::Runtime;

use crate::github::NOBODYS_GROUP;
use crate::github::payload::SECRET;
use crate::github::program::{Program, without_rights, write_secret};
use crate::servers::{run_caddy, run_pages};
use crate::support::{Client, Daemon, Sandbox, wait_until};

/// The port on which Caddy serves previews.
pub(crate) const WEB: u16 = 8080;

/// The address of the webhook.
const HOOK: &str = "127.0.0.1:3100";

pub(crate) const TOKEN: &str = "ghp_token_of_the_host";

pub(crate) struct PreviewHost {
    pub(crate) sandbox: Sandbox,
    pub(crate) github: FakeGithub,
    pub(crate) repo: RepoName,
    pub(crate) runtime: Runtime,
    webhook: Option<Program>,
    caddy: Child,
    pages: Child,
}

impl PreviewHost {
    pub(crate) fn new() -> Self {
        Self::with("")
    }

    /// Adds lines to the configuration. Sections of this file must not be repeated.
    pub(crate) fn with(more: &str) -> Self {
        Self::configured(more, "interval_seconds = 3600")
    }

    /// Runs the resync every second, with further settings of `[previews]`.
    pub(crate) fn resyncing(previews: &str) -> Self {
        Self::configured("", &format!("interval_seconds = 1\n{previews}"))
    }

    /// With further settings of `[previews]`.
    pub(crate) fn with_previews(previews: &str) -> Self {
        Self::configured("", &format!("interval_seconds = 3600\n{previews}"))
    }

    /// Expires previews after an hour, without a grace period.
    pub(crate) fn expiring() -> Self {
        Self::without_grace_at_start("ttl_hours = 1")
    }

    /// Runs the resync every second without a grace period after the start, with further settings of `[previews]`.
    pub(crate) fn without_grace_at_start(previews: &str) -> Self {
        let engine = "[engine]\nexpiry_grace_seconds = 0";
        Self::configured(engine, &format!("interval_seconds = 1\n{previews}"))
    }

    /// With further settings of `[pages]`.
    pub(crate) fn with_pages(pages: &str) -> Self {
        Self::with_all("", "interval_seconds = 3600", pages)
    }

    fn configured(more: &str, previews: &str) -> Self {
        Self::with_all(more, previews, "")
    }

    /// With further sections, and further settings of `[previews]` and `[pages]`.
    pub(crate) fn with_all(more: &str, previews: &str, more_pages: &str) -> Self {
        let mut sandbox = Sandbox::new();
        let runtime = Runtime::new().expect("a runtime");
        let root = sandbox.path().to_owned();
        // Searchable for the users of the evaluator, Caddy and the webhook.
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).expect("set");
        write_secret(&root.join("secret"), SECRET);
        fs::write(root.join("preview.env"), format!("GITHUB_TOKEN={TOKEN}\n")).expect("written");
        let github = runtime
            .block_on(FakeGithub::start())
            .expect("a fake GitHub");
        let repo = RepoName::parse("octo/web").expect("a name");
        let git = root.join("web.git");
        run(
            &root,
            "git",
            &["init", "--quiet", "--bare", "-b", "main", "web.git"],
        );
        github.with(|world| {
            world.add_token(TOKEN, "innkeeper-bot");
            world
                .add_repo(repo.clone(), &git)
                .permissions
                .insert("maintainer".to_owned(), "write".to_owned());
        });
        let nixpkgs = nixpkgs();
        let setting = |name: &str| root.join(name).display().to_string();
        sandbox.configure(&format!(
            "[log]\nlevel = 'info'\n\
             [webhook]\nlisten = '{HOOK}'\nallowed_repos = []\ngroup = '{NOBODYS_GROUP}'\n\
             secret_files = ['{secret}']\nenvironment_files = ['{env}']\n\
             [github]\napi_url = '{api}'\nwebhook_url = 'http://{HOOK}/webhook/github'\n\
             [caddy]\ndirectory = '{sites}'\ncaddyfile = '{caddyfile}'\ntable = '{table}'\nadmin = '{admin}'\n\
             tls = 'none'\n[pages]\ndirectory = '{pages}'\nsocket = '{pages_socket}'\ngroup = '{NOBODYS_GROUP}'\n{more_pages}\n\
             [evaluation]\nnixpkgs = '{nixpkgs}'\nbase_module = '{nixpkgs}/base/base.nix'\nuser = '64999'\n\
             gcroots_dir = '{roots}'\n\
             {more}\n\
             [previews]\ndomain = 'localhost'\nport = {WEB}\nsecrets_dir = '{secrets}'\n\
             health_timeout_seconds = 5\nsetup_timeout_seconds = 60\n{previews}\n",
            secret = setting("secret"),
            env = setting("preview.env"),
            api = github.base_url(),
            sites = setting("previews"),
            caddyfile = setting("Caddyfile"),
            table = setting("table"),
            admin = setting("admin.sock"),
            pages = setting("pages"),
            pages_socket = setting("pages-run/pages.sock"),
            nixpkgs = nixpkgs.display(),
            roots = setting("evaluation-roots"),
            secrets = setting("secrets"),
        ));
        let caddy = run_caddy(&root);
        let pages = run_pages(&root, &sandbox.config());
        Self {
            sandbox,
            github,
            repo,
            runtime,
            webhook: None,
            caddy,
            pages,
        }
    }

    pub(crate) fn root(&self) -> &Path {
        self.sandbox.path()
    }

    pub(crate) fn client(&self) -> Client {
        self.sandbox.client()
    }

    /// Starts the daemon.
    pub(crate) fn start(&self) -> Daemon {
        self.sandbox.start()
    }

    /// Starts the webhook in front of the daemon, and registers it with GitHub.
    pub(crate) fn start_webhook(&mut self) {
        let mut command = without_rights(self.root());
        command
            .arg("--config")
            .arg(self.sandbox.config())
            .env("INNKEEPER_LOG_LEVEL", "error");
        self.webhook = Some(Program::run(self.root(), command));
        self.register_webhook();
    }

    /// Registers the webhook with GitHub.
    pub(crate) fn register_webhook(&self) {
        self.github.with(|world| {
            world.hook = Some(HookTarget {
                url: format!("http://{HOOK}/webhook/github"),
                secret: SECRET.to_owned(),
            });
        });
    }

    /// Returns a delivery, if it is recorded.
    pub(crate) fn delivery(&self, id: &str) -> Option<DeliveryView> {
        let answer = self
            .client()
            .call("GET", &format!("/v1/deliveries/{id}"), "");
        (answer.status == 200).then(|| answer.read())
    }

    /// Returns the id of GitHub's last delivery.
    pub(crate) fn last_delivery(&self) -> String {
        self.github.with(|world| {
            let last = world.attempts.last().expect("there is one");
            last.guid.clone()
        })
    }

    /// Adds a repository with the same branches and commits.
    pub(crate) fn add_repo(&self, name: &str) -> RepoName {
        let repo = RepoName::parse(name).expect("a name");
        let git = self.root().join("web.git");
        self.github.with(|world| {
            world.add_repo(repo.clone(), git);
        });
        repo
    }

    /// Advances the running time, while no daemon runs.
    pub(crate) fn advance_running_time(&self, time: Duration) {
        self.with_store(async |store| {
            let moved = store.advance_running_time(time).await;
            moved.expect("recorded");
        });
    }

    /// Records a visit of a preview, while no daemon runs.
    pub(crate) fn visit(&self, number: u64) {
        self.mark_active(number, jiff::Timestamp::now());
    }

    /// Sets the time of the last use of a preview, while no daemon runs.
    pub(crate) fn mark_active(&self, number: u64, time: jiff::Timestamp) {
        self.with_store(async |store| {
            let slug = Self::slug(number).parse().expect("a slug");
            let active = vec![innkeeper_store::PreviewFact::Active(time)];
            store.set_preview(&slug, active).await.expect("recorded");
        });
    }

    /// Opens the store, while no daemon runs.
    pub(crate) fn with_store<T>(&self, work: impl AsyncFnOnce(&Store) -> T) -> T {
        let range = "10.100.0.0/16".parse().expect("a range");
        let store = Store::open(&self.sandbox.state().join("innkeeper.db"), range).expect("opens");
        self.runtime.block_on(async {
            let done = work(&store).await;
            store.close().await.expect("closes");
            done
        })
    }

    /// Commits these files to a branch, and returns the commit.
    pub(crate) fn commit(&self, branch: &str, files: &[(&str, &str)]) -> CommitSha {
        let work = self.root().join("work");
        if !work.exists() {
            run(self.root(), "git", &["clone", "--quiet", "web.git", "work"]);
        }
        run(&work, "git", &["checkout", "--quiet", "-B", branch]);
        for (name, text) in files {
            let file = work.join(name);
            fs::create_dir_all(file.parent().expect("a folder")).expect("created");
            fs::write(file, text).expect("written");
        }
        run(&work, "git", &["add", "--all"]);
        self.commit_all(branch)
    }

    /// Commits the removal of a file to a branch, and returns the commit.
    pub(crate) fn remove(&self, branch: &str, file: &str) -> CommitSha {
        let work = self.root().join("work");
        run(&work, "git", &["checkout", "--quiet", branch]);
        run(&work, "git", &["rm", "--quiet", file]);
        self.commit_all(branch)
    }

    /// Commits and pushes the staged changes.
    fn commit_all(&self, branch: &str) -> CommitSha {
        let work = self.root().join("work");
        let identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"];
        let commit = [
            &identity[..],
            &["commit", "--quiet", "--allow-empty", "-m", "x"],
        ]
        .concat();
        run(&work, "git", &commit);
        run(
            &work,
            "git",
            &["push", "--quiet", "--force", "origin", branch],
        );
        let sha = run(&work, "git", &["rev-parse", "HEAD"]);
        CommitSha::parse(sha.trim()).expect("a commit")
    }

    /// Commits the fixtures' app.
    pub(crate) fn commit_app(&self, branch: &str) -> CommitSha {
        self.commit(branch, &[("preview-config.nix", &app())])
    }

    /// Opens or reopens a pull request of a branch without a delivery, and returns the action of the event.
    pub(crate) fn pull(&self, number: u64, branch: &str, sha: &CommitSha) -> &'static str {
        self.pull_from(number, branch, sha, &self.repo)
    }

    pub(crate) fn pull_from(
        &self,
        number: u64,
        branch: &str,
        sha: &CommitSha,
        head: &RepoName,
    ) -> &'static str {
        self.pull_in(&self.repo, number, branch, sha, head)
    }

    pub(crate) fn pull_in(
        &self,
        repo: &RepoName,
        number: u64,
        branch: &str,
        sha: &CommitSha,
        head: &RepoName,
    ) -> &'static str {
        let pull = Pull {
            title: format!("Change {number}"),
            body: String::new(),
            open: true,
            merged: false,
            author: "alice".to_owned(),
            head_repo: Some(head.clone()),
            head_branch: BranchName::parse(branch).expect("a branch"),
            head_sha: sha.clone(),
            base_branch: BranchName::parse("main").expect("a branch"),
            labels: Vec::new(),
            draft: false,
        };
        self.github.with(|world| {
            let repo = world.repos.get_mut(repo).expect("there");
            match repo.pulls.insert(number, pull) {
                None => "opened",
                Some(_) => "reopened",
            }
        })
    }

    /// Changes a pull request.
    pub(crate) fn change(&self, number: u64, change: impl FnOnce(&mut Pull)) {
        self.github.with(|world| {
            let repo = world.repos.get_mut(&self.repo).expect("there");
            change(repo.pulls.get_mut(&number).expect("there"));
        });
    }

    /// Delivers an event with the pull request's current state.
    pub(crate) fn deliver(&self, number: u64, action: &str) {
        self.deliver_of(number, action, "alice");
    }

    pub(crate) fn deliver_of(&self, number: u64, action: &str, sender: &str) {
        let deliver = self.github.deliver(&self.repo, number, action, sender);
        let attempt = self.runtime.block_on(deliver).expect("a webhook");
        assert_eq!(attempt.status_code, 202, "{action}");
    }

    /// Has a user comment on a pull request, and returns the id of the delivery and the status of the webhook's response.
    pub(crate) fn comment(&self, number: u64, author: &str, body: &str) -> (String, u16) {
        let comment = self.github.comment(&self.repo, number, author, body);
        let attempt = self.runtime.block_on(comment).expect("a webhook");
        (attempt.guid, attempt.status_code)
    }

    /// Has a user comment on a pull request, waits until the command in it was processed, and returns its delivery.
    pub(crate) fn command(&self, number: u64, author: &str, body: &str) -> DeliveryView {
        let (id, status) = self.comment(number, author, body);
        assert_eq!(status, 202, "{body}");
        self.wait_for_delivery(&id);
        self.delivery(&id).expect("kept")
    }

    /// Returns the reactions to a user's comments on a pull request, the oldest first.
    pub(crate) fn reactions(&self, number: u64, author: &str) -> Vec<String> {
        self.github.with(|world| {
            let comments = &world.repos[&self.repo].comments;
            let by_author = comments
                .iter()
                .filter(|comment| comment.issue == number && comment.author == author);
            let reactions = by_author.flat_map(|comment| &comment.reactions);
            reactions.map(|(_, content)| content.clone()).collect()
        })
    }

    /// Kills innkeeper-pages and starts it again.
    pub(crate) fn kill_pages(&mut self) {
        self.pages.kill().expect("killed");
        self.pages.wait().expect("waited");
        self.pages = run_pages(self.root(), &self.sandbox.config());
    }

    /// Simulates a reboot: ends all processes, and restarts Caddy and innkeeper-pages.
    pub(crate) fn reboot(&mut self) {
        self.sandbox.traces().kill_everything();
        self.caddy.wait().expect("waited");
        self.caddy = run_caddy(self.root());
        self.kill_pages();
    }

    /// Sends a delivery to the webhook and returns the response's status.
    pub(crate) fn send(&self, sent: &crate::github::payload::RawDelivery) -> u16 {
        let address = self.webhook.as_ref().expect("runs").address;
        let mut client = crate::github::client::Client::new(address);
        self.runtime
            .block_on(client.deliver(sent))
            .expect("a response")
            .status
    }

    /// Waits until a delivery was processed.
    pub(crate) fn wait_for_delivery(&self, id: &str) {
        wait_until("the delivery was processed", || {
            let answer = self
                .client()
                .call("GET", &format!("/v1/deliveries/{id}"), "");
            answer.status == 200 && answer.body.contains("\"finished_at\":\"")
        });
    }

    pub(crate) fn webhook_address(&self) -> std::net::SocketAddr {
        self.webhook.as_ref().expect("runs").address
    }

    /// As [`Self::deliver`], while the daemon may die before it answers. Then the daemon requests a redelivery.
    pub(crate) fn try_deliver(&self, number: u64, action: &str) {
        let deliver = self.github.deliver(&self.repo, number, action, "alice");
        self.runtime.block_on(deliver).expect("a webhook");
    }

    /// Opens a pull request with the fixtures' app and waits until it is live.
    pub(crate) fn open(&self, number: u64, branch: &str) -> PreviewView {
        let sha = self.commit_app(branch);
        let action = self.pull(number, branch, &sha);
        self.deliver(number, action);
        self.wait_for_state(number, &sha, PreviewState::Live)
    }

    /// Pushes a commit to a pull request's branch, and delivers the event.
    pub(crate) fn push(&self, number: u64, branch: &str, files: &[(&str, &str)]) -> CommitSha {
        let sha = self.commit(branch, files);
        self.change(number, |pull| pull.head_sha = sha.clone());
        self.deliver(number, "synchronize");
        sha
    }

    pub(crate) fn close(&self, number: u64) {
        self.change(number, |pull| pull.open = false);
        self.deliver(number, "closed");
    }

    pub(crate) fn slug(number: u64) -> String {
        format!("web-{number}")
    }

    /// Returns the preview of a pull request, if it exists.
    pub(crate) fn preview(&self, number: u64) -> Option<PreviewView> {
        self.preview_named(&Self::slug(number))
    }

    pub(crate) fn preview_named(&self, slug: &str) -> Option<PreviewView> {
        let path = format!("/v1/previews/{slug}");
        let answer = self.client().call("GET", &path, "");
        (answer.status == 200).then(|| answer.read())
    }

    /// Waits until a commit of a pull request has this state.
    pub(crate) fn wait_for_state(
        &self,
        number: u64,
        sha: &CommitSha,
        state: PreviewState,
    ) -> PreviewView {
        self.wait_for_state_of(&Self::slug(number), sha, state)
    }

    pub(crate) fn wait_for_state_of(
        &self,
        slug: &str,
        sha: &CommitSha,
        state: PreviewState,
    ) -> PreviewView {
        let mut last = None;
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let now = self.preview_named(slug);
            if let Some(view) = &now
                && view.preview.wanted_sha == *sha
                && view.preview.state == state
            {
                return now.expect("just seen");
            }
            assert!(
                Instant::now() < deadline,
                "preview {slug} is not {state}: {now:#?}, before: {last:#?}"
            );
            last = now;
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until a pull request's preview is completely removed.
    pub(crate) fn wait_until_gone(&self, number: u64) {
        self.wait_until_slug_is_gone(&Self::slug(number));
    }

    pub(crate) fn wait_until_slug_is_gone(&self, slug: &str) {
        wait_until("the preview is gone", || self.preview_named(slug).is_none());
        let guests = self.client().call("GET", &format!("/v1/guests/{slug}"), "");
        assert_eq!(guests.status, 404, "{guests:?}");
        let site = self.root().join(format!("previews/{slug}.caddy"));
        assert!(!site.exists(), "{} is left", site.display());
    }

    /// Requests a preview's URL, and returns the status and the whole response.
    pub(crate) fn browse(&self, slug: &str, path: &str, accept: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", WEB)).expect("Caddy listens");
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .expect("set");
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {slug}.localhost\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
        )
        .expect("sent");
        let mut response = Vec::new();
        stream.read_to_end(&mut response).expect("a response");
        let response = String::from_utf8_lossy(&response).into_owned();
        let status = response.get(9..12).and_then(|status| status.parse().ok());
        (status.unwrap_or_else(|| panic!("{response}")), response)
    }

    pub(crate) fn page(&self, slug: &str) -> String {
        let (status, answer) = self.browse(slug, "/", "text/html");
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// Returns the comments on a pull request.
    pub(crate) fn comments(&self, number: u64) -> Vec<String> {
        self.comments_in(&self.repo, number)
    }

    pub(crate) fn comments_in(&self, repo: &RepoName, number: u64) -> Vec<String> {
        self.github.with(|world| {
            let comments = &world.repos[repo].comments;
            let on_it = comments.iter().filter(|comment| comment.issue == number);
            on_it.map(|comment| comment.body.clone()).collect()
        })
    }

    /// Runs a command in a preview's guest and returns its output.
    pub(crate) fn exec(&self, slug: &str, command: &[&str]) -> String {
        let arguments = [&["exec", slug, "--"], command].concat();
        let output = self.sandbox.program("preview", &arguments, b"");
        assert!(output.status.success(), "{command:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    }
}

impl Drop for PreviewHost {
    fn drop(&mut self) {
        drop(self.webhook.take());
        drop(self.caddy.kill());
        drop(self.caddy.wait());
        drop(self.pages.kill());
        drop(self.pages.wait());
    }
}

/// Returns the preview-config.nix of the fixtures' app.
pub(crate) fn app() -> String {
    let file = "../../tests/fixtures/preview-app/preview-config.nix";
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect("the fixture")
}

/// Returns the fixtures' app with another closure.
pub(crate) fn other_app(tag: &str) -> String {
    app().replacen(
        "{\n  system.build",
        &format!("{{\n  environment.etc.tag.text = \"{tag}\";\n  system.build"),
        1,
    )
}

/// Returns the path of the substitute for nixpkgs.
fn nixpkgs() -> PathBuf {
    let prepare = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/prepare");
    let printed = run(Path::new("/"), &prepare.display().to_string(), &["preview"]);
    printed.trim().into()
}

/// Runs a program until it exits and returns its output.
pub(crate) fn run(directory: &Path, program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {output:?}"
    );
    String::from_utf8(output.stdout).expect("text")
}
