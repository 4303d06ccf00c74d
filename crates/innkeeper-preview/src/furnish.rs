//! What a preview's guest is told: `/etc/preview.env` and `/etc/preview-token`.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use innkeeper_facilities::GuestFile;
use innkeeper_github::{EnvironmentFiles, SecretFileError};
use innkeeper_model::preview::{EnvName, Meta, PreviewEnv, PreviewRecord, RepoName};
use innkeeper_model::{Code, Explain, Failure, Guest, GuestName, Secret, chain};
use jiff::Timestamp;
use tracing::warn;

use crate::PreviewError;
use crate::bring_up::Version;
use crate::previews::Inner;

const ENVIRONMENT: &str = "/etc/preview.env";
const TOKEN: &str = "/etc/preview-token";

/// A guest's token is replaced when less is left of it: three looks, if GitHub is away at the first.
const RENEWED_BEFORE: Duration = Duration::from_secs(15 * 60);

/// After how long GitHub is asked again for a token that it refused.
const REFUSED_FOR: Duration = Duration::from_secs(3600);

/// What a guest is given to read its repository with.
struct Given {
    secret: Option<String>,
    /// When it is of no use any more; nothing means never.
    until: Option<Timestamp>,
}

/// The longest that a token is taken to be of use. GitHub's are for one hour.
const LONGEST_LIFETIME: Duration = Duration::from_secs(3600);

/// When a guest is to get another token.
#[derive(Clone, Copy, Debug)]
struct Renewal {
    /// By the wall clock, which counts the time for which the host was suspended.
    at: Timestamp,
    /// By the monotonic clock, which does not jump. Whichever comes first counts: a token is renewed too early rather
    /// than too late.
    or_at: Instant,
}

impl Renewal {
    /// Some time before the token ends.
    fn before(until: Timestamp, now: Timestamp, instant: Instant) -> Self {
        let left = Duration::try_from(until.duration_since(now)).unwrap_or_default();
        let wait = left.min(LONGEST_LIFETIME).saturating_sub(RENEWED_BEFORE);
        Self {
            at: until - RENEWED_BEFORE,
            or_at: instant + wait,
        }
    }

    fn is_due(&self, now: Timestamp, instant: Instant) -> bool {
        now >= self.at || instant >= self.or_at
    }
}

/// Until when the guests' tokens are of use. A restart of the daemon forgets it; then each is given another.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    until: Mutex<HashMap<GuestName, Option<Renewal>>>,
}

impl Tokens {
    fn given(&self, slug: &GuestName, until: Option<Timestamp>) {
        let mut tokens = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        let renewal = until.map(|until| Renewal::before(until, Timestamp::now(), Instant::now()));
        tokens.insert(slug.clone(), renewal);
    }

    /// Forgets the token of a guest that is gone, or that is to get another at the next look.
    pub(crate) fn forget(&self, slug: &GuestName) {
        let mut tokens = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.remove(slug);
    }

    fn is_due(&self, slug: &GuestName) -> bool {
        let tokens = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        match tokens.get(slug) {
            None => true,
            Some(None) => false,
            Some(Some(renewal)) => renewal.is_due(Timestamp::now(), Instant::now()),
        }
    }
}

impl Inner {
    /// Writes what the guest is told about a version. `database_url` is there when it has a database on the
    /// host. A fork gets no secret and no token. Unless it must have a token, it keeps the one that it has while GitHub
    /// gives none, and a later look brings the next.
    pub(crate) async fn furnish(
        &self,
        guest: &Guest,
        record: &PreviewRecord,
        version: &Version,
        database_url: Option<Secret>,
        must_have_token: bool,
    ) -> Result<(), PreviewError> {
        let head = record.head_repo.as_ref().unwrap_or(&record.repo);
        let environment = PreviewEnv {
            repo_url: format!("{}/{head}.git", self.config.clone_url),
            branch: record.branch.clone(),
            host: self.config.host(&record.slug),
            url: self.config.url(&record.slug),
            commit: Some(version.sha.clone()),
            database_url,
            host_secrets: self.host_secrets(record, &version.meta).await?,
            dashboard_secrets: Vec::new(),
        };
        let text = environment.render().map_err(|problems| {
            let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
            PreviewError::new(
                Code::PreviewConfigInvalid,
                format!(
                    "/etc/preview.env cannot be written: {}",
                    problems.join("; ")
                ),
                "Rename the branch, or correct the secret.",
            )
        })?;
        let mut files = vec![self.file(ENVIRONMENT, Some(text.expose().to_owned()))];
        let slug = &record.slug;
        let until = match self.token(record, head).await {
            Ok(token) => {
                files.push(self.file(TOKEN, token.secret));
                Some(token.until)
            }
            Err(error) if must_have_token => return Err(error),
            Err(error) => {
                warn!(%slug, code = %error.code(), "the guest keeps the token that it has: {}", chain(&error));
                None
            }
        };
        self.files.write(guest, files).await?;
        match until {
            Some(until) => self.tokens.given(slug, until),
            None => self.tokens.forget(slug),
        }
        Ok(())
    }

    /// Gives the guest another token before the one that it has ends. A guest of a fork has none. That it cannot
    /// be had now is no fault of the preview: the next look tries again.
    pub(crate) async fn renew_token(&self, guest: &Guest, record: &PreviewRecord) {
        let slug = &record.slug;
        if record.is_from_fork() || !self.tokens.is_due(slug) {
            return;
        }
        let head = record.head_repo.as_ref().unwrap_or(&record.repo);
        let renew = async {
            let token = self.token(record, head).await?;
            let file = self.file(TOKEN, token.secret);
            self.files.write(guest, vec![file]).await?;
            self.tokens.given(slug, token.until);
            Ok::<_, PreviewError>(())
        };
        if let Err(error) = renew.await {
            warn!(%slug, code = %error.code(), "the guest gets no new token: {}", chain(&error));
        }
    }

    fn file(&self, path: &'static str, contents: Option<String>) -> GuestFile {
        GuestFile {
            path,
            contents: contents.map(String::into_bytes),
            group: self.config.group,
        }
    }

    /// The secrets that the configuration asks for, out of the file for its repository. One that is not there
    /// is given with an empty value, as the contract says.
    async fn host_secrets(
        &self,
        record: &PreviewRecord,
        meta: &Meta,
    ) -> Result<Vec<(EnvName, Secret)>, PreviewError> {
        if meta.host_secrets.is_empty() {
            return Ok(Vec::new());
        }
        let names = || meta.host_secrets.iter().map(ToString::to_string);
        let slug = &record.slug;
        if record.is_from_fork() {
            let names: Vec<_> = names().collect();
            let text = format!("Forks get no secrets: {} are left out.", names.join(", "));
            self.note(slug, text);
            return Ok(Vec::new());
        }
        let repo = &record.repo;
        let Some(file) = self.secrets_file(repo).await? else {
            let text = format!(
                "The secrets of {repo} are those of another repository that had the name before, and are left out."
            );
            self.note(slug, text);
            return Ok(Vec::new());
        };
        // The path is in the log only: the failure is shown on the pull request.
        let refuse = |subject: String, error: &SecretFileError| {
            warn!(%slug, "{subject} cannot be used: {}", chain(error));
            PreviewError::new(
                Code::InvalidConfig,
                format!("{subject} cannot be used: {}", error.without_path()),
                format!("On the host, correct the file of {repo} below `previews.secrets_dir`."),
            )
        };
        let allowed = EnvironmentFiles::read([file])
            .map_err(|error| refuse(format!("the file of secrets for {repo}"), &error))?;
        let mut given = Vec::new();
        for name in &meta.host_secrets {
            let value = allowed
                .get(name.as_str())
                .map_err(|error| refuse(format!("the secret {name} of {repo}"), &error))?;
            if value.is_none() {
                let text = format!("This host has no secret {name} for {repo}: it is empty.");
                self.note(slug, text);
            }
            let value = value.map_or("", |value| value.expose());
            given.push((name.clone(), Secret::new(value)));
        }
        Ok(given)
    }

    /// The file with a repository's secrets: the one with its number, or the one with its name if no other repository
    /// had the name before.
    async fn secrets_file(
        &self,
        repo: &RepoName,
    ) -> Result<Option<std::path::PathBuf>, PreviewError> {
        let identity = self.store.repo_identity(repo).await?;
        if let Some(id) = identity.id {
            let numbered = self.config.secrets.join(format!("{id}.env"));
            if numbered.exists() {
                return Ok(Some(numbered));
            }
        }
        let named = self.config.secrets.join(format!("{}.env", repo.key()));
        Ok(identity.is_first.then_some(named))
    }

    /// A token that reads the repository, if there is one that may be given away.
    async fn token(&self, record: &PreviewRecord, head: &RepoName) -> Result<Given, PreviewError> {
        let none = |until| Given {
            secret: None,
            until,
        };
        let Some(github) = self.github.as_ref().filter(|_| !record.is_from_fork()) else {
            return Ok(none(None));
        };
        let token = match github.guest_token(head).await {
            Ok(token) => token,
            Err(error) if error.is_transient() => return Err(error.into()),
            Err(error) => {
                let text = format!(
                    "The guest gets no token for {head}: {}.",
                    Failure::from(&error)
                );
                self.note(&record.slug, text);
                return Ok(none(Some(Timestamp::now() + REFUSED_FOR)));
            }
        };
        let may_be_given = token.narrowed || self.config.share_token;
        Ok(Given {
            secret: may_be_given.then(|| token.secret.expose().to_owned()),
            until: token.expires_at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_in_time_whichever_way_the_clock_jumps() {
        let now = Timestamp::from_second(1_800_000_000).expect("a time");
        let instant = Instant::now();
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        let renewal = Renewal::before(now + minutes(60), now, instant);
        let is_due = |wall: Timestamp, passed| renewal.is_due(wall, instant + minutes(passed));
        assert!(!is_due(now + minutes(44), 44));
        assert!(is_due(now + minutes(46), 46));
        let days = minutes(2 * 24 * 60);
        // The clock went back, or was behind when the token came.
        assert!(is_due(now - days, 46));
        let behind = Renewal::before(now + minutes(60), now - days, instant);
        assert!(behind.is_due(now - days, instant + minutes(46)));
        // The host was suspended, or the clock is ahead.
        assert!(is_due(now + days, 1));
    }
}
