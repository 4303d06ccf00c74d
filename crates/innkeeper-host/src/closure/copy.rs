//! Copies of closures in a directory, as a binary cache of Nix.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use innkeeper_facilities::Effort;
use innkeeper_model::StorePath;

use super::nix::NixError;
use super::{ClosureError, NixConfig};

pub(super) async fn export(
    config: &NixConfig,
    closures: &[StorePath],
    to: &Path,
) -> Result<(), ClosureError> {
    if closures.is_empty() {
        return Ok(());
    }
    let paths: Vec<&str> = closures.iter().map(StorePath::as_str).collect();
    // Compressed contents would defeat the deduplication of backups.
    copy(config, "--to", &url(to, "?compression=none"), &paths).await
}

pub(super) async fn import(
    config: &NixConfig,
    closure: &StorePath,
    from: &Path,
) -> Result<(), ClosureError> {
    copy(config, "--from", &url(from, ""), &[closure.as_str()]).await
}

fn url(directory: &Path, settings: &str) -> OsString {
    let mut url = OsString::from("file://");
    url.push(directory);
    url.push(settings);
    url
}

async fn copy(
    config: &NixConfig,
    direction: &str,
    cache: &OsString,
    paths: &[&str],
) -> Result<(), ClosureError> {
    let mut arguments: Vec<OsString> = ["copy", "-v", "--no-check-sigs", direction]
        .map(Into::into)
        .into();
    arguments.push(cache.clone());
    arguments.extend(paths.iter().map(Into::into));
    let copied = config.run(Effort::Normal, &arguments, |_| ()).await;
    copied.map(drop).map_err(|error| {
        let cache = PathBuf::from(cache);
        match error {
            NixError::Run(source) => ClosureError::CopyProgram { cache, source },
            NixError::Failed { summary, log, .. } => ClosureError::Copy {
                cache,
                summary,
                log,
            },
        }
    })
}
