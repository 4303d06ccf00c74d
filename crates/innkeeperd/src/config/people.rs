//! The section `[people]`: who may log in with a GitHub account, and with which role.

use std::collections::BTreeMap;

use innkeeper_model::access::{Groups, Login, Person, PersonId, Role};
use innkeeper_service::ConfigError;
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

/// Logins of people. Nobody may log in by default.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PeopleSettings {
    /// An environment file with `GITHUB_CLIENT_ID` and `GITHUB_CLIENT_SECRET` of an OAuth app of GitHub; empty means that
    /// nobody can log in. It is read again for each login.
    pub oauth_file: String,
    /// GitHub's web address.
    pub github_url: String,
    /// The address that GitHub's page returns to, as the OAuth app has it; empty means
    /// `https://<host of the gateway>/login/callback`.
    pub callback_url: String,
    /// Organizations whose members may log in, with the role `member_role`.
    pub organizations: Vec<String>,
    /// The role of members of `organizations`.
    pub member_role: Role,
    /// Teams whose members may log in, as `organization/slug`, with their roles.
    pub teams: BTreeMap<String, Role>,
    /// People who may log in, with their roles, by login or as `github:<number of the account>`.
    pub users: BTreeMap<String, Role>,
    /// The lifetime of a session in a browser, in hours.
    pub browser_hours: u32,
    /// The lifetime of a session of `innkeeper login`, in days.
    pub device_days: u32,
}

impl Default for PeopleSettings {
    fn default() -> Self {
        Self {
            oauth_file: String::new(),
            github_url: "https://github.com".to_owned(),
            callback_url: String::new(),
            organizations: Vec::new(),
            member_role: Role::Viewer,
            teams: BTreeMap::new(),
            users: BTreeMap::new(),
            browser_hours: 12,
            device_days: 7,
        }
    }
}

impl PeopleSettings {
    /// Returns the role of a person: the highest of those that the person, a team or an organization has. `None` for a
    /// person who may not log in.
    pub(crate) fn role(&self, person: &Person, groups: &Groups) -> Option<Role> {
        let of_user = self.users.iter().filter(|(key, _)| {
            let is_number = key.parse() == Ok(person.id);
            is_number || key.eq_ignore_ascii_case(person.login.as_str())
        });
        let has = |list: &[String], key: &str| list.iter().any(|one| one.eq_ignore_ascii_case(key));
        let of_teams = self.teams.iter().filter(|(key, _)| has(&groups.teams, key));
        let is_member = (self.organizations.iter()).any(|key| has(&groups.organizations, key));
        let roles = of_user.chain(of_teams).map(|(_, role)| *role);
        roles.chain(is_member.then_some(self.member_role)).max()
    }

    /// Returns those of a person's organizations and teams that the configuration names.
    pub(crate) fn relevant<'a>(
        &self,
        organizations: impl IntoIterator<Item = &'a String>,
        teams: impl IntoIterator<Item = &'a String>,
    ) -> Groups {
        let named = |key: &str| {
            self.organizations
                .iter()
                .any(|one| one.eq_ignore_ascii_case(key))
        };
        let has_role = |key: &str| self.teams.keys().any(|one| one.eq_ignore_ascii_case(key));
        let lower = |text: &String| text.to_ascii_lowercase();
        Groups {
            organizations: organizations
                .into_iter()
                .filter(|one| named(one))
                .map(lower)
                .collect(),
            teams: teams
                .into_iter()
                .filter(|one| has_role(one))
                .map(lower)
                .collect(),
        }
    }

    /// Returns the lifetime of a session in a browser.
    pub(crate) fn browser_lifetime(&self) -> SignedDuration {
        SignedDuration::from_hours(self.browser_hours.into())
    }

    /// Returns the lifetime of a session on a machine.
    pub(crate) fn device_lifetime(&self) -> SignedDuration {
        SignedDuration::from_hours(24 * i64::from(self.device_days))
    }

    /// Checks the values beyond their types.
    ///
    /// # Errors
    /// [`ConfigError::Value`] for the first invalid setting.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let invalid = |setting, problem: &str| Err(ConfigError::value(setting, problem));
        if !self.oauth_file.is_empty() && !self.oauth_file.starts_with('/') {
            return invalid("people.oauth_file", "the path must start with '/'");
        }
        let is_https =
            |url: &str| url.starts_with("https://") || url.starts_with("http://127.0.0.1:");
        if !is_https(&self.github_url) {
            return invalid("people.github_url", "the URL must start with https://");
        }
        let is_callback = |url: &str| is_https(url) && url.ends_with("/login/callback");
        if !(self.callback_url.is_empty() || is_callback(&self.callback_url)) {
            return invalid(
                "people.callback_url",
                "the URL must start with https:// and end with /login/callback",
            );
        }
        let is_login = |text: &str| Login::parse(text).is_ok();
        if !self.organizations.iter().all(|one| is_login(one)) {
            return invalid("people.organizations", "write logins of organizations");
        }
        let is_team = |text: &str| {
            let parts = text.split_once('/');
            parts.is_some_and(|(organization, slug)| is_login(organization) && is_login(slug))
        };
        if !self.teams.keys().all(|team| is_team(team)) {
            return invalid(
                "people.teams",
                "write each team as <organization>/<slug>, as in its URL",
            );
        }
        let is_person = |text: &str| is_login(text) || text.parse::<PersonId>().is_ok();
        if !self.users.keys().all(|user| is_person(user)) {
            return invalid(
                "people.users",
                "write each user as a login, or as github:<number>",
            );
        }
        if !(1..=24 * 31).contains(&self.browser_hours) || !(1..=90).contains(&self.device_days) {
            return invalid(
                "people.browser_hours and people.device_days",
                "must be 1 to 744 hours, and 1 to 90 days",
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(id: u64, login: &str) -> Person {
        Person {
            id: PersonId(id),
            login: Login::parse(login).expect("a login"),
        }
    }

    fn settings() -> PeopleSettings {
        PeopleSettings {
            organizations: vec!["Octo".to_owned()],
            teams: [("octo/platform".to_owned(), Role::Operator)].into(),
            users: [
                ("mona".to_owned(), Role::Developer),
                ("github:7".to_owned(), Role::Admin),
            ]
            .into(),
            ..PeopleSettings::default()
        }
    }

    fn groups(organizations: &[&str], teams: &[&str]) -> Groups {
        let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        settings().relevant(&owned(organizations), &owned(teams))
    }

    #[test]
    fn role_is_the_highest_of_a_persons() {
        let role = |person, groups| settings().role(&person, &groups);
        let nobody = groups(&["other"], &["other/platform", "octo/web"]);
        assert_eq!(nobody, Groups::default());
        assert_eq!(role(person(1, "hubot"), nobody.clone()), None);
        assert_eq!(
            role(person(1, "Mona"), nobody.clone()),
            Some(Role::Developer)
        );
        assert_eq!(role(person(7, "renamed"), nobody), Some(Role::Admin));
        let member = groups(&["OCTO"], &[]);
        assert_eq!(role(person(1, "hubot"), member.clone()), Some(Role::Viewer));
        assert_eq!(role(person(1, "mona"), member), Some(Role::Developer));
        let team = groups(&["octo"], &["Octo/Platform"]);
        assert_eq!(role(person(1, "mona"), team), Some(Role::Operator));
        let all = PeopleSettings::default();
        assert_eq!(all.role(&person(7, "mona"), &Groups::default()), None);
    }

    #[test]
    fn invalid_values_name_their_setting() {
        settings().validate().expect("valid");
        let valid = PeopleSettings::default;
        let text = str::to_owned;
        let map = |key: &str| BTreeMap::from([(key.to_owned(), Role::Viewer)]);
        #[rustfmt::skip]
        let invalid = [
            ("people.oauth_file", PeopleSettings { oauth_file: text("x"), ..valid() }),
            ("people.github_url", PeopleSettings { github_url: text("http://github.com"), ..valid() }),
            ("people.callback_url", PeopleSettings { callback_url: text("https://x.example/"), ..valid() }),
            ("people.organizations", PeopleSettings { organizations: vec![text("a b")], ..valid() }),
            ("people.teams", PeopleSettings { teams: map("platform"), ..valid() }),
            ("people.users", PeopleSettings { users: map("github:x"), ..valid() }),
            ("people.browser_hours", PeopleSettings { browser_hours: 0, ..valid() }),
            ("people.device_days", PeopleSettings { device_days: 91, ..valid() }),
        ];
        for (setting, people) in invalid {
            let error = people.validate().expect_err(setting);
            assert!(error.to_string().contains(setting), "{error}");
        }
    }
}
