//! The system that a guest's own Nix profile names.

use std::io;
use std::path::{Component, Path, PathBuf};

use innkeeper_model::StorePath;
use rustix::io::Errno;

use crate::FileError;
use crate::tree::Tree;

/// The profile of a NixOS system, as `nixos-rebuild` and `nix-env --profile` set it.
const PROFILE: &str = "/nix/var/nix/profiles/system";

/// Maximum number of links from the profile to the store: `system`, and the link of the generation.
const MAX_LINKS: usize = 8;

/// Returns the system that the profile in a file tree names; `None` without a profile, or if it is not links that end at a
/// store path.
///
/// # Errors
/// If the tree cannot be read.
pub(super) fn read(root: &Path) -> Result<Option<StorePath>, FileError> {
    let tree = match Tree::open(root) {
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => return Ok(None),
        tree => tree?,
    };
    let mut path = PathBuf::from(PROFILE);
    for _ in 0..MAX_LINKS {
        let target = match tree.read_link(&path) {
            Err(error) if is_of_the_path(&error.source) => None,
            target => target?,
        };
        let Some(target) = target else {
            return Ok(None);
        };
        if let Some(system) = target.to_str().and_then(|text| StorePath::parse(text).ok()) {
            return Ok(Some(system));
        }
        let is_plain = |part| !matches!(part, Component::ParentDir);
        if !target.components().all(is_plain) {
            return Ok(None);
        }
        // An absolute target replaces the directory.
        path = path.parent().unwrap_or(Path::new("/")).join(target);
    }
    Ok(None)
}

/// Reports whether an error is one of the path, which the guest determines: it is empty, too long, or leads nowhere.
fn is_of_the_path(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    error.kind() == io::ErrorKind::InvalidInput
        || errno.is_some_and(|errno| {
            matches!(
                errno,
                Errno::NAMETOOLONG | Errno::LOOP | Errno::NOTDIR | Errno::XDEV
            )
        })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    const SYSTEM: &str = "/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-nixos-system";

    fn system(links: &[(&str, &str)]) -> Option<String> {
        let directory = tempfile::tempdir().expect("a directory");
        let profiles = directory.path().join("nix/var/nix/profiles");
        fs::create_dir_all(&profiles).expect("made");
        for (name, target) in links {
            symlink(target, profiles.join(name)).expect("linked");
        }
        let found = read(directory.path()).expect("reads");
        found.map(|system| system.to_string())
    }

    #[test]
    fn profile_leads_to_a_system() {
        let found = system(&[("system", "system-2-link"), ("system-2-link", SYSTEM)]);
        assert_eq!(found.as_deref(), Some(SYSTEM));
        let absolute = [
            ("system", "/nix/var/nix/profiles/system-2-link"),
            ("system-2-link", SYSTEM),
        ];
        assert_eq!(system(&absolute).as_deref(), Some(SYSTEM));
    }

    #[test]
    fn other_profiles_name_no_system() {
        let cases: [&[(&str, &str)]; 6] = [
            &[],
            &[("system", "system")],
            &[("system", "/etc/passwd")],
            &[("system", "../../../../../etc/passwd")],
            &[(
                "system",
                "/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-x/bin",
            )],
            &[("system", "/nix/store/../../etc")],
        ];
        for links in cases {
            assert_eq!(system(links), None, "{links:?}");
        }
        let long = "x/".repeat(2047);
        let name = "x".repeat(256);
        for target in ["/", ".", "/x/", "system/x", &long, &name] {
            assert_eq!(system(&[("system", target)]), None, "{target}");
        }
    }

    #[test]
    fn links_of_directories_are_resolved_inside() {
        let directory = tempfile::tempdir().expect("a directory");
        let outside = directory.path().join("outside/nix/profiles");
        fs::create_dir_all(&outside).expect("made");
        symlink(SYSTEM, outside.join("system")).expect("linked");
        let root = directory.path().join("root");
        fs::create_dir_all(root.join("nix")).expect("made");
        symlink(directory.path().join("outside"), root.join("nix/var")).expect("linked");
        assert_eq!(read(&root).expect("reads"), None);
    }

    #[test]
    fn missing_tree_and_files_name_no_system() {
        let directory = tempfile::tempdir().expect("a directory");
        assert_eq!(read(&directory.path().join("none")).expect("reads"), None);
        let profiles = directory.path().join("nix/var/nix/profiles");
        fs::create_dir_all(profiles.join("system")).expect("made");
        assert_eq!(read(directory.path()).expect("reads"), None);
    }
}
