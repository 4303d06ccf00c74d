//! What a preview's guest is told: `/etc/preview.env` and `/etc/preview-token`.

use innkeeper_github::EnvironmentFiles;
use innkeeper_host::files::GuestFile;
use innkeeper_model::preview::{
    CommitSha, EnvName, Meta, PreviewEnv, PreviewRecord, RepoName, Secret,
};
use innkeeper_model::{Code, Failure, Guest};

use crate::PreviewError;
use crate::previews::Inner;

const ENVIRONMENT: &str = "/etc/preview.env";
const TOKEN: &str = "/etc/preview-token";

impl Inner {
    /// Writes what the guest is told about a commit. `database_url` is there when it has a database on the
    /// host. A fork gets no secret and no token.
    pub(crate) async fn furnish(
        &self,
        guest: &Guest,
        record: &PreviewRecord,
        sha: &CommitSha,
        meta: &Meta,
        database_url: Option<Secret>,
    ) -> Result<(), PreviewError> {
        let head = record.head_repo.as_ref().unwrap_or(&record.repo);
        let environment = PreviewEnv {
            repo_url: format!("{}/{head}.git", self.config.clone_url),
            branch: record.branch.clone(),
            host: self.config.host(&record.slug),
            url: self.config.url(&record.slug),
            commit: Some(sha.clone()),
            database_url,
            host_secrets: self.host_secrets(record, meta).await?,
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
        let token = self.token(record, head).await?;
        let file = |path, contents: Option<String>| GuestFile {
            path,
            contents: contents.map(String::into_bytes),
            group: self.config.group,
        };
        let files = vec![
            file(ENVIRONMENT, Some(text.expose().to_owned())),
            file(TOKEN, token),
        ];
        Ok(self.files.write(guest, files).await?)
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
            self.note(slug, text).await;
            return Ok(Vec::new());
        }
        let file = self.secrets_file(&record.repo);
        let allowed = EnvironmentFiles::read([&file]).map_err(|error| Failure::from(&error))?;
        let mut given = Vec::new();
        for name in &meta.host_secrets {
            let value = allowed.get(name.as_str());
            if value.is_none() {
                let text = format!("{name} is not in {} and is empty.", file.display());
                self.note(slug, text).await;
            }
            let value = value.map_or("", |value| value.expose());
            given.push((name.clone(), Secret::new(value)));
        }
        Ok(given)
    }

    fn secrets_file(&self, repo: &RepoName) -> std::path::PathBuf {
        let name = format!("{}.env", repo.to_string().to_ascii_lowercase());
        self.config.secrets.join(name)
    }

    /// A token that reads the repository, if there is one that may be given away.
    async fn token(
        &self,
        record: &PreviewRecord,
        head: &RepoName,
    ) -> Result<Option<String>, PreviewError> {
        let Some(github) = self.github.as_ref().filter(|_| !record.is_from_fork()) else {
            return Ok(None);
        };
        let token = match github.guest_token(head).await {
            Ok(token) => token,
            Err(error) if error.is_passing() => return Err(error.into()),
            Err(error) => {
                let text = format!(
                    "The guest gets no token for {head}: {}.",
                    Failure::from(&error)
                );
                self.note(&record.slug, text).await;
                return Ok(None);
            }
        };
        Ok((token.narrowed || self.config.share_token).then(|| token.secret.expose().to_owned()))
    }
}
