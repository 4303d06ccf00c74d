//! What the fake knows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use innkeeper_model::preview::{BranchName, CommitSha, RepoName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Everything in the fake. Tests look at it and change it as they like.
#[derive(Debug, Default)]
pub struct World {
    /// Repositories by their name.
    pub repos: BTreeMap<RepoName, Repo>,
    /// Former names of repositories, and the names that they have now.
    pub renamed: BTreeMap<RepoName, RepoName>,
    /// Tokens and what they may do.
    pub tokens: BTreeMap<String, Rights>,
    /// The App, when there is one.
    pub app: Option<AppRecord>,
    /// The webhook to which deliveries go.
    pub hook: Option<HookTarget>,
    /// Attempts to deliver, the oldest first.
    pub attempts: Vec<DeliveryAttempt>,
    /// Answers to be given in place of the right ones, in their order.
    pub failures: VecDeque<Failure>,
    /// Every request to the API, the oldest first.
    pub requests: Vec<Request>,
    /// The numbers of repositories that are or were there.
    pub used_ids: BTreeSet<u64>,
    /// How many things a page has at most, below what is asked for.
    pub page_size: Option<usize>,
    pub(super) last_id: u64,
}

/// A repository.
#[derive(Debug, Default, Serialize)]
pub struct Repo {
    /// Its number, which it keeps under each name.
    pub id: u64,
    /// The bare Git repository that holds its files.
    pub git: PathBuf,
    /// Its pull requests by number.
    pub pulls: BTreeMap<u64, Pull>,
    /// Comments, the oldest first.
    pub comments: Vec<CommentRecord>,
    /// Deployments, the oldest first.
    pub deployments: Vec<DeploymentRecord>,
    /// Who may do what: `admin`, `write`, `read`.
    pub permissions: BTreeMap<String, String>,
}

/// A pull request.
#[derive(Clone, Debug, Serialize)]
pub struct Pull {
    /// Its title.
    pub title: String,
    /// Its text.
    pub body: String,
    /// Whether it is open.
    pub open: bool,
    /// Whether it was merged.
    pub merged: bool,
    /// Who opened it.
    pub author: String,
    /// The repository with its commit; none when that was deleted.
    pub head_repo: Option<RepoName>,
    /// The branch with its commit.
    pub head_branch: BranchName,
    /// Its commit.
    pub head_sha: CommitSha,
    /// The branch that it wants to change.
    pub base_branch: BranchName,
    /// Its labels.
    pub labels: Vec<String>,
}

/// A comment.
#[derive(Clone, Debug, Serialize)]
pub struct CommentRecord {
    /// Its number.
    pub id: u64,
    /// The pull request that it is on.
    pub issue: u64,
    /// Who wrote it.
    pub author: String,
    /// Its text.
    pub body: String,
}

/// A deployment.
#[derive(Clone, Debug, Serialize)]
pub struct DeploymentRecord {
    /// Its number.
    pub id: u64,
    /// The commit.
    pub sha: CommitSha,
    /// The environment.
    pub environment: String,
    /// Its statuses as they were sent, the oldest first.
    pub statuses: Vec<Value>,
}

/// What a token may do.
#[derive(Clone, Debug)]
pub struct Rights {
    /// Whose it is.
    pub login: String,
    /// Until when it is valid.
    pub expires_at: Option<Timestamp>,
    /// The only repositories that it can see; none means all.
    pub repos: Option<BTreeSet<RepoName>>,
    /// Whether it can only read.
    pub read_only: bool,
}

/// An App with one installation.
#[derive(Clone, Debug)]
pub struct AppRecord {
    /// Its id.
    pub id: String,
    /// Its name in URLs; its login is that and `[bot]`.
    pub slug: String,
    /// The id of its installation.
    pub installation: u64,
    /// Its public key (PKCS #1, DER).
    pub public_key: Vec<u8>,
    /// How long its tokens are valid.
    pub token_lifetime: Duration,
    /// How far the fake's clock is ahead.
    pub clock_ahead: jiff::SignedDuration,
}

/// Where deliveries go.
#[derive(Clone, Debug, Deserialize)]
pub struct HookTarget {
    /// The webhook server's address, `http://` on the loopback.
    pub url: String,
    /// The secret that signs them.
    pub secret: String,
}

/// One attempt to deliver something.
#[derive(Clone, Debug, Serialize)]
pub struct DeliveryAttempt {
    /// Its number.
    pub id: u64,
    /// The delivery's id.
    pub guid: String,
    /// The event's name.
    pub event: String,
    /// What was answered; 0 when nothing was.
    pub status_code: u16,
    /// When.
    pub delivered_at: Timestamp,
    /// Whether it was asked for again.
    pub redelivery: bool,
    /// What was sent.
    #[serde(skip)]
    pub payload: String,
}

/// An answer to be given in place of the right one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Only for requests of this method.
    #[serde(default)]
    pub method: Option<String>,
    /// Only for requests whose path contains this.
    #[serde(default)]
    pub path: String,
    /// For how many requests.
    #[serde(default = "once")]
    pub times: u32,
    /// What happens.
    pub kind: FailureKind,
}

fn once() -> u32 {
    1
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// It is answered with this status.
    Status(u16),
    /// It is refused with `retry-after`, in seconds.
    RetryAfter(u64),
    /// It is refused because no requests are left for this many seconds.
    UsedUp(u64),
    /// It is carried out, and is the last one for this many seconds.
    Last(u64),
    /// It is sent elsewhere for good.
    Redirect(String),
    /// It is answered after this many milliseconds.
    Slow(u64),
    /// It is carried out, and the connection ends within the answer.
    CutOff,
}

/// A request that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// Whose token it had; never the token.
    pub by: Option<String>,
    /// The answer's status.
    pub status: u16,
    /// The body's JSON, if it had any.
    pub body: Option<Value>,
}

impl World {
    /// A number that was not given before.
    pub fn id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Adds a repository whose files are in the bare Git repository `git`.
    pub fn add_repo(&mut self, repo: RepoName, git: impl Into<PathBuf>) -> &mut Repo {
        self.renamed.remove(&repo);
        let mut id = id_of(&repo);
        let is_new = !self.repos.contains_key(&repo);
        // One that had the name before keeps its number.
        while is_new && self.used_ids.contains(&id) {
            id += 1;
        }
        self.used_ids.insert(id);
        let there = self.repos.entry(repo).or_default();
        if is_new {
            there.id = id;
        }
        there.git = git.into();
        there
    }

    /// The payload of a `repository` event, about a repository that may be gone.
    #[must_use]
    pub fn repository_payload(name: &RepoName, id: u64, action: &str) -> Value {
        json!({
            "action": action,
            "repository": repo_json(name, id),
            "sender": { "login": "octocat" },
        })
    }

    /// Gives a repository another name. The former one redirects.
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

    /// Where a path of a former name leads now.
    pub(super) fn moved(&self, path: &str) -> Option<String> {
        let rest = path.strip_prefix("/repos/")?;
        let end = rest.match_indices(['/', '?']).map(|(at, _)| at).nth(1);
        let (name, rest) = rest.split_at(end.unwrap_or(rest.len()));
        let now = self.renamed.get(&RepoName::parse(name).ok()?)?;
        Some(format!("/repos/{now}{rest}"))
    }

    /// Accepts a token as the one of `login`, with all rights.
    pub fn add_token(&mut self, token: impl Into<String>, login: impl Into<String>) {
        let rights = Rights {
            login: login.into(),
            expires_at: None,
            repos: None,
            read_only: false,
        };
        self.tokens.insert(token.into(), rights);
    }

    /// Arranges for the next request to fail.
    pub fn fail(&mut self, method: &str, path: &str, times: u32, kind: FailureKind) {
        self.failures.push_back(Failure {
            method: (!method.is_empty()).then(|| method.to_owned()),
            path: path.to_owned(),
            times,
            kind,
        });
    }

    /// The requests whose method and path are these, without their queries.
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

    /// The payload of a `pull_request` event, with the fields that GitHub always sends.
    #[must_use]
    pub fn payload(
        &self,
        repo: &RepoName,
        number: u64,
        action: &str,
        sender: &str,
    ) -> Option<Value> {
        let there = self.repos.get(repo)?;
        let pull = there.pulls.get(&number)?;
        Some(json!({
            "action": action,
            "number": number,
            "pull_request": pull.json(repo, there.id, number),
            "repository": repo_json(repo, there.id),
            "sender": { "login": sender },
        }))
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
            "draft": false,
            // To the second, as GitHub has it.
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

/// The number of the first repository with a name: the same in each run.
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
    })
}
