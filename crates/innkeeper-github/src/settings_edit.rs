//! Changes of the host's files with secrets.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use innkeeper_model::Secret;
use innkeeper_model::preview::{EnvEditError, EnvName, edit_env_file};

use crate::settings_file::{MAX_LENGTH, SecretFileError, read_if_there};

/// Sets a variable of an environment file, or removes it without `value`. Creates the file and its folder if they are
/// missing. Afterwards only root may read the file. The rest of it stays byte by byte. The change is atomic and durable.
///
/// Blocks. Two calls for the same file must not overlap.
///
/// # Errors
/// [`SecretFileError`], which never contains a value. The file is as before then.
pub fn set_variable(
    path: &Path,
    name: &EnvName,
    value: Option<&Secret>,
) -> Result<(), SecretFileError> {
    let write = |source| SecretFileError::Write {
        path: path.to_owned(),
        source,
    };
    refuse_link(path)?;
    let contents = read_if_there(path)?.unwrap_or_default();
    let edited = edit_env_file(&contents, name, value).map_err(|error| match error {
        EnvEditError::Value(problem) => SecretFileError::Value(problem),
        EnvEditError::InvalidLine(Some(bad)) => SecretFileError::Line {
            path: path.to_owned(),
            bad,
        },
        EnvEditError::InvalidLine(None) => SecretFileError::Content {
            path: path.to_owned(),
            reason: "ends within a value",
        },
    })?;
    if u64::try_from(edited.len()).is_ok_and(|length| length > MAX_LENGTH) {
        return Err(SecretFileError::Full {
            path: path.to_owned(),
        });
    }
    replace(path, &edited).map_err(write)
}

/// Refuses a link: a file in its place would hide the changes of the program that manages the target.
fn refuse_link(path: &Path) -> Result<(), SecretFileError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_symlink() => Err(SecretFileError::Managed {
            path: path.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Replaces a file, which only its owner may read from then on.
fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(parent)?;
    let temporary = path.with_extension("env.new");
    let written = write_new(&temporary, contents).and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        // It contains secrets.
        fs::remove_file(&temporary).ok();
        return Err(error);
    }
    File::open(parent)?.sync_all()
}

fn write_new(path: &Path, contents: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(contents)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;
    use crate::EnvironmentFiles;

    fn name(text: &str) -> EnvName {
        EnvName::parse(text).expect("a name")
    }

    fn mode(path: &Path) -> u32 {
        let metadata = fs::metadata(path).expect("exists");
        metadata.permissions().mode() & 0o7777
    }

    #[test]
    fn variables_are_set_and_removed_in_a_file_for_root() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("octo/web.env");
        let set = |variable: &str, value: Option<&str>| {
            let value = value.map(Secret::new);
            set_variable(&path, &name(variable), value.as_ref()).expect("writes");
        };
        set("A", Some("it's\na \"key\""));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("set");
        set("B", Some("2"));
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().expect("a parent")), 0o700);
        let files = EnvironmentFiles::read([&path]).expect("reads");
        let value = |name| files.get(name).expect("valid").map(Secret::expose);
        assert_eq!(value("A"), Some("it's\na \"key\""));
        set("A", None);
        assert_eq!(fs::read_to_string(&path).expect("reads"), "B='2'\n");
        let left = fs::read_dir(path.parent().expect("a parent")).expect("reads");
        assert_eq!(left.count(), 1, "a temporary file is left");
    }

    #[test]
    fn file_stays_when_the_change_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("web.env");
        let value = Secret::new("hunter2".repeat(10_000));
        let refused = set_variable(&path, &name("A"), Some(&value)).expect_err("too long");
        assert!(matches!(refused, SecretFileError::Full { .. }), "{refused}");
        assert!(!path.exists());
        fs::write(&path, "A='open").expect("writes");
        let value = Secret::new("1");
        let refused = set_variable(&path, &name("B"), Some(&value)).expect_err("invalid");
        assert!(matches!(refused, SecretFileError::Line { .. }), "{refused}");
        assert_eq!(fs::read_to_string(&path).expect("reads"), "A='open");
        let link = directory.path().join("link.env");
        symlink(&path, &link).expect("links");
        let refused = set_variable(&link, &name("B"), Some(&value)).expect_err("a link");
        assert!(
            matches!(refused, SecretFileError::Managed { .. }),
            "{refused}"
        );
    }
}
