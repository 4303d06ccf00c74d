//! Files of a preview's guest: `/etc/preview.env` and `/etc/preview-token`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use innkeeper_facilities::{GuestFile, GuestFiles};
use innkeeper_github::client::Github;
use innkeeper_github::{EnvironmentFiles, SecretFileError};
use innkeeper_model::preview::{EnvName, Meta, PreviewEnv, PreviewRecord, RepoName};
use innkeeper_model::{Code, Explain, Failure, Guest, GuestName, Secret, chain};
use innkeeper_store::Store;
use jiff::Timestamp;
use parking_lot::Mutex;
use tracing::warn;

use crate::journal::Journal;
use crate::masks::Masks;
use crate::secret_files::secrets_file;
use crate::steps::Version;
use crate::{PreviewError, PreviewsConfig};

const ENVIRONMENT: &str = "/etc/preview.env";
const TOKEN: &str = "/etc/preview-token";

/// Remaining lifetime at which a guest's token is renewed: enough for three checks, if GitHub is down at the first.
const RENEWED_BEFORE: Duration = Duration::from_secs(15 * 60);

/// Delay before a token that GitHub refused is requested again.
const REFUSED_FOR: Duration = Duration::from_secs(3600);

/// Token with which a guest reads its repository.
struct GuestToken {
    /// The token; `None` if the guest gets none.
    secret: Option<String>,
    /// Time at which it expires; `None` means never.
    expires_at: Option<Timestamp>,
}

/// A preview's database on the host, as its guest sees it.
pub(crate) struct GuestDatabase {
    /// The address with the password.
    pub(crate) url: Secret,
    /// The password alone, which is masked in logs.
    pub(crate) password: Secret,
    /// Identifies the database: another one after a reset.
    pub(crate) id: String,
}

/// Upper bound of a token's lifetime. GitHub's expire after one hour.
const LONGEST_LIFETIME: Duration = Duration::from_secs(3600);

/// Time at which a guest's token is renewed, by both clocks. The earlier one counts: a token is renewed too early rather
/// than too late.
#[derive(Clone, Copy, Debug)]
struct Renewal {
    /// By the wall clock, which counts the time for which the host was suspended.
    at: Timestamp,
    /// By the monotonic clock, which does not jump.
    or_at: Instant,
}

impl Renewal {
    /// Returns the time of renewal of a token that expires at `until`.
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

/// Renewal times of the guests' tokens. A restart of the daemon forgets them; then each token is renewed.
#[derive(Debug, Default)]
struct Renewals {
    of: Mutex<HashMap<GuestName, Option<Renewal>>>,
}

impl Renewals {
    fn schedule(&self, slug: &GuestName, expires_at: Option<Timestamp>) {
        let mut renewals = self.of.lock();
        let renewal =
            expires_at.map(|until| Renewal::before(until, Timestamp::now(), Instant::now()));
        renewals.insert(slug.clone(), renewal);
    }

    fn forget(&self, slug: &GuestName) {
        let mut renewals = self.of.lock();
        renewals.remove(slug);
    }

    fn is_due(&self, slug: &GuestName) -> bool {
        let renewals = self.of.lock();
        match renewals.get(slug) {
            None => true,
            Some(None) => false,
            Some(Some(renewal)) => renewal.is_due(Timestamp::now(), Instant::now()),
        }
    }
}

/// Writes the environment, the secrets and the token into guests.
#[derive(Clone)]
pub(crate) struct GuestEnvironment {
    config: Arc<PreviewsConfig>,
    store: Store,
    github: Option<Github>,
    files: Arc<dyn GuestFiles>,
    journal: Journal,
    masks: Masks,
    renewals: Arc<Renewals>,
}

impl GuestEnvironment {
    pub(crate) fn new(
        config: Arc<PreviewsConfig>,
        store: Store,
        github: Option<Github>,
        files: Arc<dyn GuestFiles>,
        journal: Journal,
        masks: Masks,
    ) -> Self {
        Self {
            config,
            store,
            github,
            files,
            journal,
            masks,
            renewals: Arc::default(),
        }
    }

    /// Writes the files for a version. `database` is that on the host, if the version has one. A fork
    /// gets no secrets and no token. Unless `require_token`, the guest keeps its former token while GitHub issues none,
    /// and a later check renews it.
    ///
    /// # Errors
    /// A secret cannot be read, GitHub issues no required token, or a file cannot be written.
    pub(crate) async fn write(
        &self,
        guest: &Guest,
        record: &PreviewRecord,
        version: &Version,
        database: Option<GuestDatabase>,
        require_token: bool,
    ) -> Result<(), PreviewError> {
        let head = record.head_repo.as_ref().unwrap_or(&record.repo);
        // Before the secrets are read: a change during this write is not part of it.
        let last_change = self.store.last_stale_secret(&record.slug).await?;
        let password = database.as_ref().map(|database| database.password.clone());
        let (database_url, database_id) =
            database.map(|database| (database.url, database.id)).unzip();
        let environment = PreviewEnv {
            repo_url: format!("{}/{head}.git", self.config.clone_url),
            branch: record.branch.clone(),
            host: self.config.host(&record.slug),
            url: self.config.url(&record.slug),
            commit: Some(version.sha.clone()),
            database_url,
            database_id,
            host_secrets: self.host_secrets(record, &version.meta).await?,
            dashboard_secrets: Vec::new(),
        };
        let secrets = environment.host_secrets.iter().map(|(_, value)| value);
        self.masks
            .learn(&record.slug, secrets.chain(&password))
            .await;
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
        let expires_at = match self.issue_token(record, head).await {
            Ok(token) => {
                files.push(self.file(TOKEN, token.secret));
                Some(token.expires_at)
            }
            Err(error) if require_token => return Err(error),
            Err(error) => {
                warn!(%slug, code = %error.code(), "the guest keeps its former token: {}", chain(&error));
                None
            }
        };
        self.files.write(guest, files).await?;
        self.store.forget_stale_secrets(slug, last_change).await?;
        match expires_at {
            Some(expires_at) => self.renewals.schedule(slug, expires_at),
            None => self.renewals.forget(slug),
        }
        Ok(())
    }

    /// Forgets the token of a guest that is stopped or gone.
    pub(crate) fn forget_token(&self, slug: &GuestName) {
        self.renewals.forget(slug);
    }

    /// Renews the guest's token before it expires. A guest of a fork has none. A failure is no fault of the preview: the
    /// next check retries.
    pub(crate) async fn renew_token(&self, guest: &Guest, record: &PreviewRecord) {
        let slug = &record.slug;
        if record.is_from_fork() || !self.renewals.is_due(slug) {
            return;
        }
        let head = record.head_repo.as_ref().unwrap_or(&record.repo);
        let renew = async {
            let token = self.issue_token(record, head).await?;
            let file = self.file(TOKEN, token.secret);
            self.files.write(guest, vec![file]).await?;
            self.renewals.schedule(slug, token.expires_at);
            Ok::<_, PreviewError>(())
        };
        if let Err(error) = renew.await {
            warn!(%slug, code = %error.code(), "the guest's token is not renewed: {}", chain(&error));
        }
    }

    fn file(&self, path: &'static str, contents: Option<String>) -> GuestFile {
        GuestFile {
            path,
            contents: contents.map(String::into_bytes),
            group: self.config.group,
        }
    }

    /// Returns the secrets that the version requires, from the file for its repository. A missing one has an empty
    /// value, by the contract.
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
            self.journal.note(slug, text);
            return Ok(Vec::new());
        }
        let repo = &record.repo;
        let Some(file) = secrets_file(&self.config, &self.store, repo).await? else {
            let text = format!(
                "The secrets of {repo} are those of another repository that had the name before, and are left out."
            );
            self.journal.note(slug, text);
            return Ok(Vec::new());
        };
        // The path stays in the daemon's log: the failure is shown on the pull request.
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
        let mut secrets = Vec::new();
        for name in &meta.host_secrets {
            let value = allowed
                .get(name.as_str())
                .map_err(|error| refuse(format!("the secret {name} of {repo}"), &error))?;
            if value.is_none() {
                let text = format!("This host has no secret {name} for {repo}: it is empty.");
                self.journal.note(slug, text);
            }
            let value = value.map_or("", |value| value.expose());
            secrets.push((name.clone(), Secret::new(value)));
        }
        Ok(secrets)
    }

    /// Returns a token that reads the repository, if the host may share one.
    async fn issue_token(
        &self,
        record: &PreviewRecord,
        head: &RepoName,
    ) -> Result<GuestToken, PreviewError> {
        let none = |expires_at| GuestToken {
            secret: None,
            expires_at,
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
                self.journal.note(&record.slug, text);
                return Ok(none(Some(Timestamp::now() + REFUSED_FOR)));
            }
        };
        self.masks.learn(&record.slug, [&token.secret]).await;
        let may_be_shared = token.narrowed || self.config.share_token;
        Ok(GuestToken {
            secret: may_be_shared.then(|| token.secret.expose().to_owned()),
            expires_at: token.expires_at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_is_renewed_in_time_when_the_clock_jumps() {
        let now = Timestamp::from_second(1_800_000_000).expect("a time");
        let instant = Instant::now();
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        let renewal = Renewal::before(now + minutes(60), now, instant);
        let is_due = |wall: Timestamp, passed| renewal.is_due(wall, instant + minutes(passed));
        assert!(!is_due(now + minutes(44), 44));
        assert!(is_due(now + minutes(46), 46));
        let days = minutes(2 * 24 * 60);
        // The clock went back, or was behind when the token was issued.
        assert!(is_due(now - days, 46));
        let behind = Renewal::before(now + minutes(60), now - days, instant);
        assert!(behind.is_due(now - days, instant + minutes(46)));
        // The host was suspended, or the clock is ahead.
        assert!(is_due(now + days, 1));
    }
}
