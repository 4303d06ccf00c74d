//! Failed webhook deliveries: GitHub does not redeliver them automatically, and keeps them for three days
//! ("Handling failed webhook deliveries").

use std::collections::BTreeMap;

use hyper::Method;
use innkeeper_model::preview::RepoName;
use jiff::Timestamp;
use serde::Deserialize;

use super::call::{ApiCall, ApiResponse, repo_path};
use super::{Credentials, Github, GithubError, MAX_PAGES};
use crate::ping::without_slash;

/// A webhook.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// The App's own webhook.
    App,
    /// A webhook of a repository.
    Repo {
        /// The repository.
        repo: RepoName,
        /// The webhook's id.
        id: u64,
    },
}

/// Compares the payload URL of a webhook with the configured one.
fn is_same(url: &str, configured: &str) -> bool {
    without_slash(url) == without_slash(configured)
}

/// A delivery without a successful attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedDelivery {
    /// GitHub's id of the newest attempt, for [`Github::redeliver`].
    pub id: u64,
    /// The delivery's id, as in `X-GitHub-Delivery`; the same for each attempt.
    pub guid: String,
    /// The event's name.
    pub event: String,
    /// Status of the newest attempt; 0 without a response.
    pub status_code: u16,
    /// Time of the newest attempt.
    pub delivered_at: Timestamp,
    /// Time of the first attempt, of those examined.
    pub first_at: Timestamp,
    /// Number of attempts examined.
    pub attempts: usize,
}

#[derive(Deserialize)]
struct Attempt {
    id: u64,
    guid: String,
    delivered_at: Timestamp,
    #[serde(default)]
    status_code: Option<u16>,
    event: String,
}

#[derive(Deserialize)]
struct HookView {
    id: u64,
    config: HookConfig,
}

#[derive(Deserialize)]
struct HookConfig {
    #[serde(default)]
    url: String,
}

impl Attempt {
    fn succeeded(&self) -> bool {
        self.status_code
            .is_some_and(|code| (200..300).contains(&code))
    }
}

impl Hook {
    fn path(&self, rest: &str) -> String {
        match self {
            Self::App => format!("/app/hook/deliveries{rest}"),
            Self::Repo { repo, id } => repo_path(repo, &format!("/hooks/{id}/deliveries{rest}")),
        }
    }
}

impl std::fmt::Display for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::App => f.write_str("the App's webhook"),
            Self::Repo { repo, id } => write!(f, "webhook {id} of {repo}"),
        }
    }
}

impl Github {
    /// Returns the webhooks that deliver a repository's events to `url`: the App's own if it does, otherwise the
    /// repository's. The latter requires the permission to administer webhooks.
    ///
    /// # Errors
    /// [`GithubError`].
    pub async fn hooks(&self, repo: &RepoName, url: &str) -> Result<Vec<Hook>, GithubError> {
        if self.app_delivers_to(url).await? {
            return Ok(vec![Hook::App]);
        }
        self.repo_hooks(repo, url).await
    }

    async fn app_delivers_to(&self, url: &str) -> Result<bool, GithubError> {
        let Credentials::App(app) = self.session().credentials() else {
            return Ok(false);
        };
        let call = ApiCall::get("look up the App's webhook", "/app/hook/config");
        let response = self.session().send_as_app(app, &call).await?;
        if response.is_missing() {
            return Ok(false);
        }
        let config: HookConfig = response.success(&call)?.json(&call)?;
        Ok(is_same(&config.url, url))
    }

    async fn repo_hooks(&self, repo: &RepoName, url: &str) -> Result<Vec<Hook>, GithubError> {
        let call = ApiCall::get(
            format!("list the webhooks of {repo}"),
            repo_path(repo, "/hooks?per_page=100"),
        );
        let with_url = |page: Vec<HookView>| {
            page.into_iter()
                .filter(|hook| is_same(&hook.config.url, url))
                .map(|hook| Hook::Repo {
                    repo: repo.clone(),
                    id: hook.id,
                })
                .collect()
        };
        self.list(call, with_url).await
    }

    /// Returns the deliveries since `since` without a successful attempt, the oldest first.
    ///
    /// # Errors
    /// [`GithubError`].
    pub async fn failed_deliveries(
        &self,
        hook: &Hook,
        since: Timestamp,
    ) -> Result<Vec<FailedDelivery>, GithubError> {
        let mut call = ApiCall::get(
            format!("list the deliveries of {hook}"),
            hook.path("?per_page=100"),
        );
        let mut attempts: Vec<Attempt> = Vec::new();
        for _ in 0..MAX_PAGES {
            let response = self.send_for_hook(hook, &call).await?.success(&call)?;
            let page: Vec<Attempt> = response.json(&call)?;
            // The newest attempts are first.
            let past = page.iter().any(|attempt| attempt.delivered_at < since);
            attempts.extend(page.into_iter().filter(|a| a.delivered_at >= since));
            match self.next(&response, &call)? {
                Some(next) if !past => call.path = next,
                _ => break,
            }
        }
        Ok(without_success(attempts))
    }

    /// Requests a redelivery.
    ///
    /// # Errors
    /// [`GithubError`].
    pub async fn redeliver(&self, hook: &Hook, delivery: u64) -> Result<(), GithubError> {
        let call = ApiCall {
            method: Method::POST,
            // Receivers identify deliveries by their id, so another one is harmless.
            ..ApiCall::get(
                format!("request a redelivery of {delivery} of {hook}"),
                hook.path(&format!("/{delivery}/attempts")),
            )
        };
        self.send_for_hook(hook, &call)
            .await?
            .success(&call)
            .map(drop)
    }

    async fn send_for_hook(&self, hook: &Hook, call: &ApiCall) -> Result<ApiResponse, GithubError> {
        match (hook, self.session().credentials()) {
            (Hook::App, Credentials::App(app)) => self.session().send_as_app(app, call).await,
            _ => self.send(call).await,
        }
    }
}

fn without_success(attempts: Vec<Attempt>) -> Vec<FailedDelivery> {
    let mut by_guid: BTreeMap<String, Vec<Attempt>> = BTreeMap::new();
    for attempt in attempts {
        by_guid
            .entry(attempt.guid.clone())
            .or_default()
            .push(attempt);
    }
    let mut failed: Vec<FailedDelivery> = by_guid
        .into_values()
        .filter(|attempts| !attempts.iter().any(Attempt::succeeded))
        .filter_map(|attempts| {
            let (count, first) = (
                attempts.len(),
                attempts.iter().map(|a| a.delivered_at).min()?,
            );
            let newest = attempts.into_iter().max_by_key(|a| a.delivered_at)?;
            Some(FailedDelivery {
                id: newest.id,
                guid: newest.guid,
                event: newest.event,
                status_code: newest.status_code.unwrap_or(0),
                delivered_at: newest.delivered_at,
                first_at: first,
                attempts: count,
            })
        })
        .collect();
    failed.sort_by_key(|delivery| delivery.delivered_at);
    failed
}
