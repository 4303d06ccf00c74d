//! The fake's state.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use innkeeper_model::preview::{BranchName, CommitSha, RepoName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The fake's whole state. Tests read and change it freely.
#[derive(Debug, Default)]
pub struct World {
    /// Repositories by name.
    pub repos: BTreeMap<RepoName, Repo>,
    /// Former names of repositories, with the current names.
    pub renamed: BTreeMap<RepoName, RepoName>,
    /// Tokens and their rights.
    pub tokens: BTreeMap<String, Rights>,
    /// The App, if registered.
    pub app: Option<AppRecord>,
    /// The webhook that receives deliveries.
    pub hook: Option<HookTarget>,
    /// Attempts of deliveries, the oldest first.
    pub attempts: Vec<DeliveryAttempt>,
    /// Injected failures, in order.
    pub failures: VecDeque<InjectedFailure>,
    /// Log of API requests, the oldest first.
    pub requests: Vec<Request>,
    /// Ids of all current and former repositories.
    pub used_ids: BTreeSet<u64>,
    /// Maximum number of items of a page, if smaller than requested.
    pub page_size: Option<usize>,
    /// Maximum number of entries of a folder's listing, if smaller than GitHub's.
    pub tree_limit: Option<usize>,
    /// Accounts of people by login.
    pub accounts: BTreeMap<String, AccountRecord>,
    /// The OAuth app, if registered.
    pub oauth: Option<OauthRecord>,
    /// Login of the person whose browser is logged in at GitHub. They authorize every app.
    pub visitor: Option<String>,
    pub(super) codes: BTreeMap<String, IssuedCode>,
    pub(super) last_id: u64,
}

/// A person's account.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccountRecord {
    /// Its number.
    pub id: u64,
    /// Logins of its organizations.
    pub organizations: Vec<String>,
    /// Its teams, as `organization/slug`.
    pub teams: Vec<String>,
}

/// An OAuth app.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OauthRecord {
    /// Its client id.
    pub client_id: String,
    /// Its client secret.
    pub client_secret: String,
    /// The address that browsers may return to.
    pub callback: String,
}

/// A code that no program has exchanged yet.
#[derive(Clone, Debug)]
pub(super) struct IssuedCode {
    pub(super) login: String,
    pub(super) redirect: String,
    pub(super) challenge: String,
    pub(super) scope: String,
}

/// A repository.
#[derive(Debug, Default, Serialize)]
pub struct Repo {
    /// Its id, which a rename does not change.
    pub id: u64,
    /// Its bare Git repository.
    pub git: PathBuf,
    /// Its pull requests by number.
    pub pulls: BTreeMap<u64, Pull>,
    /// Comments, the oldest first.
    pub comments: Vec<CommentRecord>,
    /// Deployments, the oldest first.
    pub deployments: Vec<DeploymentRecord>,
    /// Permissions by login: `admin`, `write`, `read`.
    pub permissions: BTreeMap<String, String>,
    /// Commit statuses, the oldest first.
    pub statuses: Vec<StatusRecord>,
    /// Check runs, the oldest first.
    pub check_runs: Vec<CheckRunRecord>,
    /// True if it is archived: nothing can be written.
    pub archived: bool,
    /// True if it is private.
    pub private: bool,
    /// Pull requests whose conversations are locked.
    pub locked: BTreeSet<u64>,
}

/// A commit status.
#[derive(Clone, Debug, Serialize)]
pub struct StatusRecord {
    /// The commit.
    pub sha: CommitSha,
    /// Login of its creator.
    pub creator: String,
    /// The status as received.
    pub status: Value,
}

/// A check run.
#[derive(Clone, Debug, Serialize)]
pub struct CheckRunRecord {
    /// Its id.
    pub id: u64,
    /// The commit.
    pub sha: CommitSha,
    /// The slug of its App.
    pub app: String,
    /// Its name, status, conclusion and output, as received.
    pub run: Value,
}

/// A pull request.
#[derive(Clone, Debug, Serialize)]
pub struct Pull {
    /// Its title.
    pub title: String,
    /// Its text.
    pub body: String,
    /// True if it is open.
    pub open: bool,
    /// True if it was merged.
    pub merged: bool,
    /// Login of its author.
    pub author: String,
    /// The head repository; `None` when it was deleted.
    pub head_repo: Option<RepoName>,
    /// The head branch.
    pub head_branch: BranchName,
    /// The head commit.
    pub head_sha: CommitSha,
    /// The base branch.
    pub base_branch: BranchName,
    /// Its labels.
    pub labels: Vec<String>,
    /// True if it is a draft.
    pub draft: bool,
}

/// A comment.
#[derive(Clone, Debug, Serialize)]
pub struct CommentRecord {
    /// Its id.
    pub id: u64,
    /// The number of its pull request.
    pub issue: u64,
    /// Login of its author.
    pub author: String,
    /// Its text.
    pub body: String,
    /// Reactions, each with the login of its author and GitHub's name, the oldest first.
    pub reactions: Vec<(String, String)>,
}

/// A deployment.
#[derive(Clone, Debug, Serialize)]
pub struct DeploymentRecord {
    /// Its id.
    pub id: u64,
    /// The commit.
    pub sha: CommitSha,
    /// The environment.
    pub environment: String,
    /// Its statuses as received, the oldest first.
    pub statuses: Vec<Value>,
}

/// The rights of a token.
#[derive(Clone, Debug)]
pub struct Rights {
    /// Login of its account.
    pub login: String,
    /// Time at which it expires.
    pub expires_at: Option<Timestamp>,
    /// The repositories that it is restricted to; `None` for all.
    pub repos: Option<BTreeSet<RepoName>>,
    /// True if it is read-only.
    pub read_only: bool,
    /// The scopes of a classic token, as GitHub lists them; `None` for other tokens.
    pub scopes: Option<String>,
    /// The permissions that it lacks, in GitHub's notation, such as `checks=write`.
    pub lacks: BTreeSet<String>,
}

/// An App with one installation.
#[derive(Clone, Debug)]
pub struct AppRecord {
    /// Its id.
    pub id: String,
    /// Its slug; its login is `<slug>[bot]`.
    pub slug: String,
    /// The id of its installation.
    pub installation: u64,
    /// Its public key (PKCS #1, DER).
    pub public_key: Vec<u8>,
    /// Validity of its tokens.
    pub token_lifetime: Duration,
    /// Its permissions.
    pub permissions: BTreeMap<String, String>,
    /// The events that it receives.
    pub events: Vec<String>,
    /// The permissions that it lacks, in GitHub's notation, such as `checks=write`.
    pub lacks: BTreeSet<String>,
    /// Time by which the fake's clock is ahead.
    pub clock_ahead: jiff::SignedDuration,
}

/// A webhook.
#[derive(Clone, Debug, Deserialize)]
pub struct HookTarget {
    /// Its URL, `http://` on the loopback.
    pub url: String,
    /// Its secret.
    pub secret: String,
}

/// An attempt of a delivery.
#[derive(Clone, Debug, Serialize)]
pub struct DeliveryAttempt {
    /// Its id.
    pub id: u64,
    /// The delivery's id.
    pub guid: String,
    /// The event's name.
    pub event: String,
    /// Status of the response; 0 without one.
    pub status_code: u16,
    /// Time of the attempt.
    pub delivered_at: Timestamp,
    /// True for a redelivery.
    pub redelivery: bool,
    /// The payload.
    #[serde(skip)]
    pub payload: String,
}

/// A failure to inject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InjectedFailure {
    /// Restricts it to requests of this method.
    #[serde(default)]
    pub method: Option<String>,
    /// Restricts it to requests whose path contains this.
    #[serde(default)]
    pub path: String,
    /// Number of requests that fail.
    #[serde(default = "once")]
    pub times: u32,
    /// The kind of failure.
    pub kind: FailureKind,
}

fn once() -> u32 {
    1
}

/// The kind of an injected failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// Responds with this status.
    Status(u16),
    /// Responds with this JSON and success.
    Answer(Value),
    /// Rejects the request with `retry-after`, in seconds.
    RetryAfter(u64),
    /// Rejects the request because the rate limit is exhausted for this many seconds.
    UsedUp(u64),
    /// Carries the request out as the last one for this many seconds.
    Last(u64),
    /// Redirects permanently.
    Redirect(String),
    /// Delays the response by this many milliseconds.
    Slow(u64),
    /// Carries the request out, and cuts the connection within the response.
    CutOff,
}

/// A logged request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// Login of the caller; never the token.
    pub by: Option<String>,
    /// The response's status.
    pub status: u16,
    /// The body's JSON, if any.
    pub body: Option<Value>,
}

impl World {
    /// Returns an unused id.
    pub fn id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Adds a repository whose files are in the bare Git repository `git`.
    pub fn add_repo(&mut self, repo: RepoName, git: impl Into<PathBuf>) -> &mut Repo {
        self.renamed.remove(&repo);
        let mut id = id_of(&repo);
        let is_new = !self.repos.contains_key(&repo);
        // The id of a repository that had the name before is not reused.
        while is_new && self.used_ids.contains(&id) {
            id += 1;
        }
        self.used_ids.insert(id);
        let found = self.repos.entry(repo).or_default();
        if is_new {
            found.id = id;
        }
        found.git = git.into();
        found
    }

    /// Returns the payload of a `repository` event. The repository may be deleted.
    #[must_use]
    pub fn repository_payload(name: &RepoName, id: u64, action: &str) -> Value {
        json!({
            "action": action,
            "repository": repo_json(name, id),
            "sender": { "login": "octocat" },
        })
    }

    /// Renames a repository. The former name redirects.
    pub fn rename_repo(&mut self, former: &RepoName, now: RepoName) {
        if let Some(repo) = self.repos.remove(former) {
            self.repos.insert(now.clone(), repo);
        }
        for repo in self.repos.values_mut() {
            for pull in repo.pulls.values_mut() {
                if pull.head_repo.as_ref() == Some(former) {
                    pull.head_repo = Some(now.clone());
                }
            }
        }
        self.renamed.insert(former.clone(), now);
    }

    /// Returns the target of a path with a former name.
    pub(super) fn moved(&self, path: &str) -> Option<String> {
        let rest = path.strip_prefix("/repos/")?;
        let end = rest.match_indices(['/', '?']).map(|(at, _)| at).nth(1);
        let (name, rest) = rest.split_at(end.unwrap_or(rest.len()));
        let now = self.renamed.get(&RepoName::parse(name).ok()?)?;
        Some(format!("/repos/{now}{rest}"))
    }

    /// Registers a token of `login`, with all rights.
    pub fn add_token(&mut self, token: impl Into<String>, login: impl Into<String>) {
        let rights = Rights {
            login: login.into(),
            expires_at: None,
            repos: None,
            read_only: false,
            scopes: None,
            lacks: BTreeSet::new(),
        };
        self.tokens.insert(token.into(), rights);
    }

    /// Makes the next matching requests fail.
    pub fn fail(&mut self, method: &str, path: &str, times: u32, kind: FailureKind) {
        self.failures.push_back(InjectedFailure {
            method: (!method.is_empty()).then(|| method.to_owned()),
            path: path.to_owned(),
            times,
            kind,
        });
    }

    /// Answers the next request for the root folder of a commit with these files.
    pub fn answer_root(&mut self, files: &[&str]) {
        let entry = |path: &&str| json!({ "path": path, "mode": "100644", "sha": "f".repeat(40), "size": 1 });
        let tree: Vec<Value> = files.iter().map(entry).collect();
        let answer = FailureKind::Answer(json!({ "tree": tree }));
        self.fail("GET", "/git/trees/", 1, answer);
    }

    /// Counts requests by method and path, ignoring queries.
    #[must_use]
    pub fn count(&self, method: &str, path: &str) -> usize {
        let same = |request: &&Request| {
            request.method == method && request.path.split('?').next() == Some(path)
        };
        self.requests.iter().filter(same).count()
    }

    pub(super) fn take_failure(&mut self, method: &str, path: &str) -> Option<FailureKind> {
        let at = self.failures.iter().position(|failure| {
            failure.method.as_deref().is_none_or(|m| m == method) && path.contains(&failure.path)
        })?;
        let failure = self.failures.get_mut(at)?;
        let kind = failure.kind.clone();
        failure.times = failure.times.saturating_sub(1);
        if failure.times == 0 {
            self.failures.remove(at);
        }
        Some(kind)
    }

    /// Returns the payload of a `pull_request` event, with the fields that GitHub always sends.
    #[must_use]
    pub fn payload(
        &self,
        repo: &RepoName,
        number: u64,
        action: &str,
        sender: &str,
    ) -> Option<Value> {
        let found = self.repos.get(repo)?;
        let pull = found.pulls.get(&number)?;
        Some(json!({
            "action": action,
            "number": number,
            "pull_request": found.pull_json(repo, pull, number),
            "repository": repo_json(repo, found.id),
            "sender": { "login": sender },
        }))
    }
}

impl World {
    /// Adds a comment to a pull request and returns the payload of its `issue_comment` event. `None` without such a pull
    /// request.
    pub fn add_comment(
        &mut self,
        repo: &RepoName,
        number: u64,
        author: &str,
        body: &str,
    ) -> Option<Value> {
        let id = self.id();
        let found = self.repos.get_mut(repo)?;
        let pull = found.pulls.get(&number)?;
        let account = |login: &str| {
            let kind = if login.ends_with("[bot]") {
                "Bot"
            } else {
                "User"
            };
            json!({ "login": login, "type": kind })
        };
        let payload = json!({
            "action": "created",
            "issue": {
                "number": number,
                "state": if pull.open { "open" } else { "closed" },
                "title": pull.title,
                "user": account(&pull.author),
                "pull_request": { "url": format!("https://api.github.com/repos/{repo}/pulls/{number}") },
            },
            "comment": {
                "id": id,
                "user": account(author),
                "body": body,
                "created_at": Timestamp::from_second(Timestamp::now().as_second()).ok(),
                // It must have no effect, whatever it is.
                "author_association": "OWNER",
                "performed_via_github_app": null,
            },
            "repository": repo_json(repo, found.id),
            "sender": account(author),
        });
        found.comments.push(CommentRecord {
            id,
            issue: number,
            author: author.to_owned(),
            body: body.to_owned(),
            reactions: Vec::new(),
        });
        Some(payload)
    }
}

impl Pull {
    pub(super) fn json(&self, repo: &RepoName, repo_id: u64, number: u64) -> Value {
        let head = |head: &RepoName| {
            let is_itself = head == repo;
            repo_json(head, if is_itself { repo_id } else { id_of(head) })
        };
        json!({
            "number": number,
            "state": if self.open { "open" } else { "closed" },
            "title": self.title,
            "body": (!self.body.is_empty()).then_some(&self.body),
            "draft": self.draft,
            // In whole seconds, like GitHub.
            "updated_at": Timestamp::from_second(Timestamp::now().as_second()).ok(),
            "labels": self.labels.iter().map(|name| json!({ "name": name })).collect::<Vec<_>>(),
            "merged": self.merged,
            "user": { "login": self.author },
            "head": {
                "ref": self.head_branch,
                "sha": self.head_sha,
                "repo": self.head_repo.as_ref().map(head),
            },
            "base": {
                "ref": self.base_branch,
                "sha": "0".repeat(40),
                "repo": repo_json(repo, repo_id),
            },
        })
    }
}

impl Repo {
    /// Returns one of its pull requests as GitHub does.
    pub(super) fn pull_json(&self, name: &RepoName, pull: &Pull, number: u64) -> Value {
        let mut json = pull.json(name, self.id, number);
        json["base"]["repo"]["private"] = self.private.into();
        json
    }
}

/// Returns the id of the first repository with a name: the same in each run.
fn id_of(repo: &RepoName) -> u64 {
    let step = |sum: u64, byte: u8| (sum * 31 + u64::from(byte)) % 900_000_000;
    100_000_000 + repo.key().bytes().fold(0, step)
}

pub(super) fn repo_json(repo: &RepoName, id: u64) -> Value {
    json!({
        "id": id,
        "name": repo.name(),
        "full_name": repo,
        "owner": { "login": repo.owner() },
        "fork": false,
        "private": false,
        "default_branch": "main",
    })
}
