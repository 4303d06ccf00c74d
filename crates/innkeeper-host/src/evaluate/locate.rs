//! Finds programs in `PATH`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::EvaluateError;
use crate::command::start_error;

/// Returns the real path of a program. Follows links to other folders, since only the last folder is mounted. Keeps a
/// link beside its target, since multi-call binaries dispatch on their name.
pub(super) fn locate(program: &Path) -> Result<PathBuf, EvaluateError> {
    let missing = || {
        let error = io::Error::from(io::ErrorKind::NotFound);
        start_error(program.as_os_str(), error)
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut candidates: Vec<PathBuf> = std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .collect();
    candidates.retain(|candidate| candidate.is_absolute() && candidate.is_file());
    let mut found = candidates.into_iter().next().ok_or_else(missing)?;
    for _ in 0..40 {
        let (Some(folder), Some(name)) = (found.parent(), found.file_name()) else {
            break;
        };
        found = fs::canonicalize(folder).map_err(|_| missing())?.join(name);
        match fs::read_link(&found) {
            Ok(target) if target.parent().is_some_and(|p| !p.as_os_str().is_empty()) => {
                found = found.with_file_name("").join(target);
            }
            _ => break,
        }
    }
    Ok(found)
}
