//! The users that builds run as.
//!
//! Nix's sandbox shows a builder the store's own files. A builder that runs as their owner can make them writable and
//! change them, so builds of previews need users that own nothing: the members of `build-users-group`, or those that
//! Nix allocates (`auto-allocate-uids`).

use nix::unistd::{Group, User};

use super::EvaluateError;
use super::settings::{Settings, words};

/// The setting with the group's name.
pub(super) const GROUP: &str = "build-users-group";

/// The setting, and the experimental feature, with which Nix takes users from a range instead.
pub(super) const ALLOCATE: &str = "auto-allocate-uids";

/// Checks that Nix, with these settings, builds as users without rights.
pub(super) fn require(settings: &Settings) -> Result<(), EvaluateError> {
    require_with(settings, members, is_unprivileged).map_err(EvaluateError::NoBuildUsers)
}

fn require_with(
    settings: &Settings,
    members: impl Fn(&str) -> Option<Vec<String>>,
    is_unprivileged: impl Fn(&str) -> bool,
) -> Result<(), String> {
    let value = |name: &str| settings.get(name).map(|setting| &setting.value);
    let allocates = value(ALLOCATE).and_then(serde_json::Value::as_bool) == Some(true);
    let has_feature = value("experimental-features")
        .is_some_and(|features| words(features).iter().any(|word| word == ALLOCATE));
    if allocates && has_feature {
        return Ok(());
    }
    let group = value(GROUP)
        .and_then(serde_json::Value::as_str)
        .unwrap_or("");
    if group.is_empty() {
        return Err("Nix's setting 'build-users-group' is empty".to_owned());
    }
    let Some(members) = members(group) else {
        return Err(format!("the group '{group}' does not exist"));
    };
    if members.is_empty() {
        return Err(format!("the group '{group}' has no members"));
    }
    match members.iter().find(|member| !is_unprivileged(member)) {
        None => Ok(()),
        Some(member) => Err(format!(
            "'{member}' in the group '{group}' is root or does not exist"
        )),
    }
}

/// The members that the group's own entry lists, which are those that Nix takes.
fn members(group: &str) -> Option<Vec<String>> {
    Some(Group::from_name(group).ok()??.mem)
}

fn is_unprivileged(user: &str) -> bool {
    let found = User::from_name(user).ok().flatten();
    found.is_some_and(|user| !user.uid.is_root())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(group: &str, allocate: bool, features: &[&str]) -> Result<(), String> {
        let settings = json!({
            GROUP: {"value": group},
            ALLOCATE: {"value": allocate},
            "experimental-features": {"value": features},
        });
        let settings = serde_json::from_value(settings).expect("settings");
        let members = |group: &str| {
            let members: &[&str] = match group {
                "nixbld" => &["nixbld1", "nixbld2"],
                "empty" => &[],
                "rooted" => &["nixbld1", "root"],
                "dangling" => &["gone"],
                _ => return None,
            };
            Some(members.iter().map(|name| (*name).to_owned()).collect())
        };
        require_with(&settings, members, |user| user.starts_with("nixbld"))
    }

    #[test]
    fn builders_have_users_that_own_nothing() {
        check("nixbld", false, &[]).expect("members");
        check("", true, &["auto-allocate-uids"]).expect("allocated");
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
        require_with(&Settings::new(), members, is_unprivileged).expect_err("unknown");
    }
}
