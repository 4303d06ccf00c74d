//! Build users: the users that builds run as.
//!
//! Nix's sandbox mounts the store's own files. A builder that runs as their owner could make them writable and change them.
//! So builds of previews need users that own no files: the members of `build-users-group`, or the UIDs that Nix allocates
//! (`auto-allocate-uids`).

use innkeeper_facilities::Builders;
use nix::unistd::{Group, User};

use super::EvaluateError;
use super::settings::{ALLOCATE, GROUP, Settings, words};

/// Nix's defaults for the range of allocated UIDs.
const FIRST: u32 = 872_415_232;
const COUNT: u32 = 8_388_608;

/// Returns the unprivileged users that Nix builds as with these settings.
///
/// # Errors
/// If builders would run as the owner of the store.
pub(super) fn require(settings: &Settings) -> Result<Builders, EvaluateError> {
    require_with(settings, entry, is_unprivileged).map_err(EvaluateError::NoBuildUsers)
}

fn require_with(
    settings: &Settings,
    entry: impl Fn(&str) -> Option<(u32, Vec<String>)>,
    is_unprivileged: impl Fn(&str) -> bool,
) -> Result<Builders, String> {
    let value = |name: &str| settings.get(name).map(|setting| &setting.value);
    let allocates = value(ALLOCATE).and_then(serde_json::Value::as_bool) == Some(true);
    let has_feature = value("experimental-features")
        .is_some_and(|features| words(features).iter().any(|word| word == ALLOCATE));
    if allocates && has_feature {
        let number = |name, default| {
            let number = value(name).and_then(serde_json::Value::as_u64);
            number
                .and_then(|number| u32::try_from(number).ok())
                .unwrap_or(default)
        };
        let (first, count) = (number("start-id", FIRST), number("id-count", COUNT));
        let last = first.saturating_add(count.saturating_sub(1));
        return Ok(Builders::Allocated(first..=last));
    }
    let group = value(GROUP)
        .and_then(serde_json::Value::as_str)
        .unwrap_or("");
    if group.is_empty() {
        return Err("Nix's setting 'build-users-group' is empty".to_owned());
    }
    let Some((number, members)) = entry(group) else {
        return Err(format!("the group '{group}' does not exist"));
    };
    if members.is_empty() {
        return Err(format!("the group '{group}' has no members"));
    }
    match members.iter().find(|member| !is_unprivileged(member)) {
        None => Ok(Builders::Group(number)),
        Some(member) => Err(format!(
            "'{member}' in the group '{group}' is root or does not exist"
        )),
    }
}

/// Returns a group's GID and the members that its entry lists. Nix uses the same list.
fn entry(group: &str) -> Option<(u32, Vec<String>)> {
    let group = Group::from_name(group).ok()??;
    Some((group.gid.as_raw(), group.mem))
}

fn is_unprivileged(user: &str) -> bool {
    let found = User::from_name(user).ok().flatten();
    found.is_some_and(|user| !user.uid.is_root())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(group: &str, allocate: bool, features: &[&str]) -> Result<Builders, String> {
        let settings = json!({
            GROUP: {"value": group},
            ALLOCATE: {"value": allocate},
            "experimental-features": {"value": features},
        });
        let settings = serde_json::from_value(settings).expect("settings");
        let entry = |group: &str| {
            let members: &[&str] = match group {
                "nixbld" => &["nixbld1", "nixbld2"],
                "empty" => &[],
                "rooted" => &["nixbld1", "root"],
                "dangling" => &["gone"],
                _ => return None,
            };
            let members = members.iter().map(|name| (*name).to_owned());
            Some((30_000, members.collect()))
        };
        require_with(&settings, entry, |user| user.starts_with("nixbld"))
    }

    #[test]
    fn require_accepts_only_unprivileged_build_users() {
        assert_eq!(check("nixbld", false, &[]), Ok(Builders::Group(30_000)));
        let allocated = check("", true, &["auto-allocate-uids"]);
        let range = 872_415_232..=880_803_839;
        assert_eq!(allocated, Ok(Builders::Allocated(range)));
        for (group, reason) in [
            ("", "is empty"),
            ("other", "'other' does not exist"),
            ("empty", "has no members"),
            ("rooted", "'root' in the group"),
            ("dangling", "'gone' in the group"),
        ] {
            let error = check(group, false, &["flakes"]).expect_err(group);
            assert!(error.contains(reason), "{error}");
        }
        // Nix ignores the setting without the feature.
        check("", true, &["flakes"]).expect_err("ignored");
        require_with(&Settings::new(), entry, is_unprivileged).expect_err("unknown");
    }
}
