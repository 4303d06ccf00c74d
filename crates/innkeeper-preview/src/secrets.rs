//! Secrets of repositories: commands of users, and the previews that need a restart because of them.

use std::collections::BTreeSet;
use std::path::PathBuf;

use innkeeper_github::{EnvironmentFiles, SecretFileError, set_variable};
use innkeeper_model::preview::secrets::{
    MAX_SECRET, RepoSecrets, SecretChange, SecretChanged, SecretState, SecretView,
};
use innkeeper_model::preview::{EnvName, Meta, RepoName};
use innkeeper_model::{Code, DesiredState, Explain as _, Failure, GuestName, Secret, chain};
use innkeeper_store::{Presence, Preview};
use tracing::info;

use crate::secret_files::{secrets_file, secrets_file_to_change};
use crate::{PreviewError, Previews};

impl Previews {
    /// Sets a secret of a repository. Previews that use it receive the value when they are updated or started again.
    ///
    /// # Errors
    /// The host allows no previews of the repository, the value is empty or too long, or the file cannot be written.
    pub async fn set_secret(
        &self,
        repo: &RepoName,
        name: &EnvName,
        value: Secret,
        actor: &str,
    ) -> Result<SecretChanged, PreviewError> {
        if !self.components.config.allows(repo) {
            return Err(PreviewError::NotAllowed(repo.clone()));
        }
        let length = value.expose().len();
        if length == 0 || length > MAX_SECRET {
            return Err(PreviewError::new(
                Code::InvalidRequest,
                format!("the value of {name} has {length} bytes"),
                format!(
                    "A value has 1 to {MAX_SECRET} bytes; `innkeeper secret rm {repo} {name}` removes the secret."
                ),
            ));
        }
        self.change_secret(repo, name, Some(value), actor).await
    }

    /// Removes a secret of a repository. Previews that use it keep their value until they are updated or started again.
    ///
    /// # Errors
    /// The repository has no such secret, or the file cannot be written.
    pub async fn remove_secret(
        &self,
        repo: &RepoName,
        name: &EnvName,
        actor: &str,
    ) -> Result<SecretChanged, PreviewError> {
        self.change_secret(repo, name, None, actor).await
    }

    /// Returns the secrets of a repository, without their values.
    ///
    /// # Errors
    /// The file or the store cannot be read.
    pub async fn secrets(&self, repo: &RepoName) -> Result<RepoSecrets, PreviewError> {
        let components = &self.components;
        let file = secrets_file(&components.config, &components.store, repo).await?;
        let files = EnvironmentFiles::read(file).map_err(|error| failed(&error))?;
        let previews = self.previews_of(repo).await?;
        let mut names: BTreeSet<EnvName> = files
            .names()
            .filter_map(|name| EnvName::parse(name).ok())
            .collect();
        names.extend(previews.iter().flat_map(requested).cloned());
        let stale = components.store.stale_secrets().await?;
        let view = |name: EnvName| {
            let state = match files.get(name.as_str()) {
                Ok(Some(_)) => SecretState::Set,
                Ok(None) => SecretState::Missing,
                Err(_) => SecretState::Invalid,
            };
            let used_by: Vec<_> = (previews.iter())
                .filter(|preview| requested(preview).any(|one| *one == name))
                .map(|preview| preview.record.slug.clone())
                .collect();
            let needs_restart = (stale.iter())
                .filter(|stale| stale.name == name && used_by.contains(&stale.slug))
                .map(|stale| stale.slug.clone())
                .collect();
            SecretView {
                name,
                state,
                used_by,
                needs_restart,
            }
        };
        Ok(RepoSecrets {
            repo: repo.clone(),
            secrets: names.into_iter().map(view).collect(),
        })
    }

    async fn change_secret(
        &self,
        repo: &RepoName,
        name: &EnvName,
        value: Option<Secret>,
        actor: &str,
    ) -> Result<SecretChanged, PreviewError> {
        let components = &self.components;
        let _one_at_a_time = components.secret_changes.lock().await;
        let file = secrets_file_to_change(&components.config, &components.store, repo).await?;
        let present = EnvironmentFiles::read([&file]).map_err(|error| failed(&error))?;
        // An invalid line is replaced.
        let present = present.get(name.as_str()).map(Option::<&Secret>::cloned);
        let change = match (&value, &present) {
            (Some(_), Ok(None)) => SecretChange::Created,
            (Some(new), Ok(Some(old))) if new.expose() == old.expose() => SecretChange::Unchanged,
            (Some(_), _) => SecretChange::Replaced,
            (None, Ok(None)) => return Err(not_found(repo, name)),
            (None, _) => SecretChange::Removed,
        };
        if change != SecretChange::Unchanged {
            let slugs = self.running_with(repo, name).await?;
            // Before and after: a guest may read the former value until the file is written, and a crash must not lose the
            // record.
            let store = &components.store;
            store.add_stale_secret(slugs.clone(), name).await?;
            write(file, name.clone(), value).await?;
            store.add_stale_secret(slugs.clone(), name).await?;
            let done = match change {
                SecretChange::Removed => "was removed",
                _ => "has a new value",
            };
            for slug in slugs {
                components.journal.note(
                    &slug,
                    format!(
                        "The secret {name} of {repo} {done}. The app still has the former one: `preview update {slug}` restarts it."
                    ),
                );
            }
            info!(%repo, %name, actor, "the secret {done}");
        }
        let stale = components.store.stale_secrets().await?;
        let of_repo: BTreeSet<_> = (self.previews_of(repo).await?.into_iter())
            .map(|preview| preview.record.slug)
            .collect();
        Ok(SecretChanged {
            repo: repo.clone(),
            name: name.clone(),
            change,
            needs_restart: (stale.into_iter())
                .filter(|stale| stale.name == *name && of_repo.contains(&stale.slug))
                .map(|stale| stale.slug)
                .collect(),
        })
    }

    /// Returns the previews of a repository that may receive its secrets.
    async fn previews_of(&self, repo: &RepoName) -> Result<Vec<Preview>, PreviewError> {
        let mut previews = self.components.store.previews().await?;
        previews.retain(|preview| preview.record.repo == *repo && !preview.record.is_from_fork());
        Ok(previews)
    }

    /// Returns the previews whose guests run, or rest, with a secret of their repository.
    async fn running_with(
        &self,
        repo: &RepoName,
        name: &EnvName,
    ) -> Result<Vec<GuestName>, PreviewError> {
        let guests = self.components.store.guests().await?;
        let running: BTreeSet<_> = (guests.into_iter())
            .filter(|guest| guest.desired == DesiredState::Running)
            .map(|guest| guest.name)
            .collect();
        let mut previews = self.previews_of(repo).await?;
        previews.retain(|preview| {
            preview.desired == Presence::Present
                && !preview.record.state.keeps_only_data()
                && running.contains(&preview.record.slug)
                && requested(preview).any(|one| one == name)
        });
        let slugs = previews.into_iter().map(|preview| preview.record.slug);
        Ok(slugs.collect())
    }
}

/// Returns the secrets that a preview requests: in its live version, or in the one that is to be.
fn requested(preview: &Preview) -> impl Iterator<Item = &EnvName> {
    let metas = [preview.live_meta.as_ref(), preview.meta.as_ref()];
    metas
        .into_iter()
        .flatten()
        .flat_map(|meta: &Meta| &meta.host_secrets)
}

/// Writes a file without blocking other tasks.
async fn write(file: PathBuf, name: EnvName, value: Option<Secret>) -> Result<(), PreviewError> {
    let written =
        tokio::task::spawn_blocking(move || set_variable(&file, &name, value.as_ref())).await;
    let written = written
        .map_err(|error| PreviewError::from(Failure::new(Code::Internal, error.to_string())))?;
    written.map_err(|error| failed(&error))
}

fn failed(error: &SecretFileError) -> PreviewError {
    let failure = Failure::new(error.code(), chain(error));
    match error.remedy() {
        Some(remedy) => failure.with_remedy(remedy).into(),
        None => failure.into(),
    }
}

fn not_found(repo: &RepoName, name: &EnvName) -> PreviewError {
    PreviewError::new(
        Code::SecretNotFound,
        format!("{repo} has no secret {name} on this host"),
        format!("`innkeeper secret list {repo}` shows its secrets."),
    )
}
