//! The permissions of people in repositories, as GitHub states them to the host's own token. Remembered for a minute.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use innkeeper_github::client::{GithubError, Permission};
use innkeeper_model::chain;
use innkeeper_model::preview::RepoName;
use parking_lot::Mutex;
use tracing::warn;

/// The time for which a permission is remembered.
const AGE: Duration = Duration::from_secs(60);

/// The time for which a failed query is remembered: a list or a stream of events needs the same permission many times.
const FAILURE_AGE: Duration = Duration::from_secs(1);

/// The maximum number of permissions that are remembered.
const MAX_PERMISSIONS: usize = 10_000;

/// Permissions by repository and login; `None` after a failed query.
#[derive(Debug, Default)]
pub(crate) struct Permissions(Mutex<HashMap<(String, String), Known>>);

type Known = (Instant, Option<Permission>);

impl Permissions {
    /// Returns a person's permission: the remembered one, or the one that `query` returns. `None` if it is unknown.
    pub(crate) async fn get(
        &self,
        repo: &RepoName,
        login: &str,
        now: Instant,
        query: impl Future<Output = Result<Permission, GithubError>>,
    ) -> Option<Permission> {
        let key = (
            repo.to_string().to_ascii_lowercase(),
            login.to_ascii_lowercase(),
        );
        let is_fresh = |(at, permission): &Known| {
            let age = if permission.is_some() {
                AGE
            } else {
                FAILURE_AGE
            };
            now.saturating_duration_since(*at) < age
        };
        if let Some(known) = self.0.lock().get(&key).copied().filter(is_fresh) {
            return known.1;
        }
        let permission = match query.await {
            Ok(permission) => Some(permission),
            Err(error) => {
                warn!(%repo, login, error = chain(&error), "a permission is unknown, and so refused");
                None
            }
        };
        let mut known = self.0.lock();
        if known.len() >= MAX_PERMISSIONS {
            known.retain(|_, known| is_fresh(known));
        }
        if known.len() < MAX_PERMISSIONS {
            known.insert(key, (now, permission));
        }
        permission
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn permission_is_remembered_for_a_minute_and_refused_when_unknown() {
        let permissions = Permissions::default();
        let repo = RepoName::parse("octo/web").expect("a repository");
        let start = Instant::now();
        let answer = async |login, after, result| {
            let now = start + Duration::from_secs(after);
            permissions.get(&repo, login, now, async { result }).await
        };
        let lost = || Err(GithubError::RepoNotAccessible(repo.clone()));
        assert_eq!(answer("mona", 0, lost()).await, None);
        assert_eq!(answer("mona", 0, Ok(Permission::Read)).await, None);
        assert_eq!(
            answer("mona", 1, Ok(Permission::Read)).await,
            Some(Permission::Read)
        );
        assert_eq!(answer("Mona", 60, lost()).await, Some(Permission::Read));
        assert_eq!(
            answer("hubot", 60, Ok(Permission::None)).await,
            Some(Permission::None)
        );
        assert_eq!(answer("mona", 61, lost()).await, None);
        assert_eq!(
            answer("mona", 62, Ok(Permission::None)).await,
            Some(Permission::None)
        );
    }
}
