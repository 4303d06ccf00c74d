//! Writes environment files that bash and systemd read alike.
//!
//! Two programs read a guest's `/etc/preview.env`: the setup script's bash (`set -a; source …`) and systemd
//! (`EnvironmentFile=`). Their grammars differ: systemd does not support `'a'\''b'`, bash expands `$` in double quotes,
//! and unquoted values end at different characters. [`quote`] uses only forms that both read as the same bytes. It
//! rejects characters that neither form can represent:
//!
//! | character | reason |
//! | --- | --- |
//! | NUL | no process can have it in its environment |
//! | noncharacters (U+FDD0 to U+FDEF, U+xxFFFE, U+xxFFFF) | systemd rejects the whole file, and the service does not start |
//!
//! systemd's side follows `src/basic/env-file.c`, `env-util.c` and `utf8.c` of systemd 252 and 257.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::checked::checked_text;
use super::{BranchName, CommitSha, InvalidText};
use crate::Secret;

/// The kernel's limit for `NAME=value` with its NUL, in bytes (`MAX_ARG_STRLEN` of execve(2): 32 pages of 4 KiB).
const MAX_ASSIGNMENT: usize = 128 * 1024;

/// Limit for all assignments together, in bytes. The kernel allows a quarter of the stack's limit for environment and
/// arguments, usually 2 MiB; half of that is left for other variables.
const MAX_TOTAL: usize = 1024 * 1024;

/// The name of an environment variable: letters, digits and `_`, no digit first (POSIX, "Environment Variable
/// Definition"). Names that bash reserves are invalid, because it would override their values.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EnvName(String);

impl EnvName {
    /// Maximum length in characters.
    pub const MAX_LENGTH: usize = 128;

    /// Names that bash sets itself, that are read-only, or that change how bash reads the rest of the file
    /// (bash(1), "Shell Variables"). The same holds for every name that begins with `BASH`.
    const RESERVED_BY_BASH: &[&str] = &[
        "_",
        "COMP_WORDBREAKS",
        "DIRSTACK",
        "EPOCHREALTIME",
        "EPOCHSECONDS",
        "EUID",
        "FUNCNAME",
        "GROUPS",
        "HISTCMD",
        "IFS",
        "LINENO",
        "OPTIND",
        "PIPESTATUS",
        "POSIXLY_CORRECT",
        "PPID",
        "RANDOM",
        "SECONDS",
        "SHELLOPTS",
        "SHLVL",
        "SRANDOM",
        "UID",
    ];

    /// Parses a name.
    ///
    /// # Errors
    /// [`InvalidText`] names the broken rule.
    pub fn parse(text: &str) -> Result<Self, InvalidText> {
        let refuse = |reason| {
            Err(InvalidText {
                what: "name of an environment variable",
                text: text.to_owned(),
                reason,
            })
        };
        if !(1..=Self::MAX_LENGTH).contains(&text.len()) {
            return refuse("it is empty or has more than 128 characters");
        }
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            || text.as_bytes()[0].is_ascii_digit()
        {
            return refuse("only letters, digits and '_' are allowed, and no digit first");
        }
        if text.starts_with("BASH") || Self::RESERVED_BY_BASH.contains(&text) {
            return refuse("bash reserves it");
        }
        Ok(Self(text.to_owned()))
    }

    /// A name that the contract with the guests defines.
    fn of_contract(name: &str) -> Self {
        debug_assert!(Self::parse(name).is_ok(), "{name}");
        Self(name.to_owned())
    }
}

checked_text!(EnvName);

/// The value cannot be in an environment file. Messages do not contain the value: it may be a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvProblem {
    /// It contains a character that cannot be represented.
    #[error("the value of {name} contains {character:?}, which cannot be in an environment file")]
    Character {
        /// The variable.
        name: EnvName,
        /// The first such character.
        character: char,
    },
    /// It exceeds the kernel's limit for one variable.
    #[error(
        "the value of {name} is too long: {bytes} bytes with its name; the limit is {MAX_ASSIGNMENT}"
    )]
    TooLong {
        /// The variable.
        name: EnvName,
        /// The bytes of `NAME=value` and a NUL.
        bytes: usize,
    },
    /// All values together exceed the limit.
    #[error("the environment is too large: {bytes} bytes; the limit is {MAX_TOTAL}")]
    TooMuch {
        /// The bytes of all `NAME=value`, each with a NUL.
        bytes: usize,
    },
}

/// Quotes a value so that bash and systemd both read exactly its bytes: in single quotes, or in double quotes with `\`
/// before `"`, `\`, `$` and `` ` `` when the value contains a single quote. All other characters, including newlines, are
/// literal in both forms.
///
/// # Errors
/// The first character that cannot be represented; see the module's table.
pub fn quote(value: &str) -> Result<String, char> {
    if let Some(character) = value.chars().find(|c| is_unrepresentable(*c)) {
        return Err(character);
    }
    if !value.contains('\'') {
        return Ok(format!("'{value}'"));
    }
    let mut quoted = String::with_capacity(value.len() + 8);
    quoted.push('"');
    for character in value.chars() {
        if matches!(character, '"' | '\\' | '$' | '`') {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted.push('"');
    Ok(quoted)
}

/// Reports whether a character cannot be in an environment file; see the module's table.
pub(super) fn is_unrepresentable(character: char) -> bool {
    let code = u32::from(character);
    let noncharacter = matches!(code, 0xFDD0..=0xFDEF) || code & 0xFFFE == 0xFFFE;
    character == '\0' || noncharacter
}

/// The environment of a preview: `/etc/preview.env`.
#[derive(Clone, Debug)]
pub struct PreviewEnv {
    /// URL of the head repository, without a token (`PREVIEW_REPO_URL`).
    pub repo_url: String,
    /// Branch in that repository (`PREVIEW_BRANCH`).
    pub branch: BranchName,
    /// Host name of the preview (`PREVIEW_HOST`).
    pub host: String,
    /// URL of the preview (`PREVIEW_URL`).
    pub url: String,
    /// Commit to check out (`PREVIEW_COMMIT`). The branch may have moved on since.
    pub commit: Option<CommitSha>,
    /// Database on the host (`DATABASE_URL`), if the preview has one.
    pub database_url: Option<Secret>,
    /// Identifies the contents of that database (`PREVIEW_DATABASE_ID`): it changes when the database is created again.
    pub database_id: Option<String>,
    /// Secrets that the repository requests and the host allows. A secret that the host does not have is empty.
    pub host_secrets: Vec<(EnvName, Secret)>,
    /// Secrets of the repository from the dashboard. They override all others.
    pub dashboard_secrets: Vec<(EnvName, Secret)>,
}

impl PreviewEnv {
    /// Renders the file: one assignment for each name, in the contract's order. A later value replaces an earlier one with
    /// the same name, and keeps its own position.
    ///
    /// # Errors
    /// All values that cannot be in the file.
    pub fn render(&self) -> Result<Secret, Vec<EnvProblem>> {
        let assignments = self.assignments();
        let mut text = String::new();
        let mut problems = Vec::new();
        let mut total = 0;
        for (name, value) in assignments {
            let bytes = name.as_str().len() + value.len() + 2;
            total += bytes;
            if bytes > MAX_ASSIGNMENT {
                problems.push(EnvProblem::TooLong {
                    name: name.clone(),
                    bytes,
                });
            }
            match quote(value) {
                Ok(quoted) => text.push_str(&format!("{name}={quoted}\n")),
                Err(character) => problems.push(EnvProblem::Character { name, character }),
            }
        }
        if total > MAX_TOTAL {
            problems.push(EnvProblem::TooMuch { bytes: total });
        }
        if problems.is_empty() {
            Ok(Secret::new(text))
        } else {
            Err(problems)
        }
    }

    /// Returns each name with its effective value.
    fn assignments(&self) -> Vec<(EnvName, &str)> {
        let mut all = vec![
            (
                EnvName::of_contract("PREVIEW_REPO_URL"),
                self.repo_url.as_str(),
            ),
            (EnvName::of_contract("PREVIEW_BRANCH"), self.branch.as_str()),
            (EnvName::of_contract("PREVIEW_HOST"), self.host.as_str()),
            (EnvName::of_contract("PREVIEW_URL"), self.url.as_str()),
        ];
        if let Some(commit) = &self.commit {
            all.push((EnvName::of_contract("PREVIEW_COMMIT"), commit.as_str()));
        }
        if let Some(url) = &self.database_url {
            all.push((EnvName::of_contract("DATABASE_URL"), url.expose()));
        }
        if let Some(id) = &self.database_id {
            all.push((EnvName::of_contract("PREVIEW_DATABASE_ID"), id.as_str()));
        }
        for (name, value) in self.host_secrets.iter().chain(&self.dashboard_secrets) {
            all.push((name.clone(), value.expose()));
        }
        let last: BTreeMap<_, _> = all
            .iter()
            .enumerate()
            .map(|(index, (name, _))| (name.clone(), index))
            .collect();
        let mut index = 0..;
        all.retain(|(name, _)| last.get(name).copied() == index.next());
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> EnvName {
        EnvName::parse(text).expect("valid")
    }

    fn env() -> PreviewEnv {
        PreviewEnv {
            repo_url: "https://github.com/octo/web.git".into(),
            branch: BranchName::parse("it's$(reboot)").expect("valid"),
            host: "web-7.preview.example.com".into(),
            url: "https://web-7.preview.example.com".into(),
            commit: Some(CommitSha::parse(&"a1".repeat(20)).expect("valid")),
            database_url: Some(Secret::new(
                "postgresql://preview_web_7:pw@10.100.0.2:5432/preview_web_7",
            )),
            database_id: Some("16384".into()),
            host_secrets: vec![
                (name("STRIPE_KEY"), Secret::new("sk \"1\"")),
                (name("MISSING"), Secret::default()),
            ],
            dashboard_secrets: vec![(name("MULTI"), Secret::new("a\nb"))],
        }
    }

    #[test]
    fn preview_env_is_in_the_contracts_order() {
        insta::assert_snapshot!(env().render().expect("renders").expose(), @r#"
        PREVIEW_REPO_URL='https://github.com/octo/web.git'
        PREVIEW_BRANCH="it's\$(reboot)"
        PREVIEW_HOST='web-7.preview.example.com'
        PREVIEW_URL='https://web-7.preview.example.com'
        PREVIEW_COMMIT='a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1'
        DATABASE_URL='postgresql://preview_web_7:pw@10.100.0.2:5432/preview_web_7'
        PREVIEW_DATABASE_ID='16384'
        STRIPE_KEY='sk "1"'
        MISSING=''
        MULTI='a
        b'
        "#);
    }

    #[test]
    fn preview_env_omits_url_without_database() {
        let env = PreviewEnv {
            database_url: None,
            database_id: None,
            ..env()
        };
        let text = env.render().expect("renders");
        assert!(!text.expose().contains("DATABASE"), "{}", text.expose());
    }

    #[test]
    fn preview_env_lets_the_dashboard_override() {
        let mut env = env();
        env.dashboard_secrets
            .push((name("STRIPE_KEY"), Secret::new("new")));
        env.dashboard_secrets
            .push((name("PREVIEW_URL"), Secret::new("http://x")));
        let text = env.render().expect("renders");
        assert_eq!(text.expose().matches("STRIPE_KEY=").count(), 1);
        assert!(
            text.expose()
                .ends_with("STRIPE_KEY='new'\nPREVIEW_URL='http://x'\n")
        );
        assert!(!text.expose().contains("sk "));
    }

    #[test]
    fn preview_env_reports_all_problems_without_values() {
        let mut env = env();
        env.dashboard_secrets = vec![
            (name("NUL"), Secret::new("hunter2\0")),
            (name("NONCHARACTER"), Secret::new("hunter2\u{fdd0}")),
            (name("LONG"), Secret::new("hunter2".repeat(20_000))),
        ];
        let problems = env.render().expect_err("refused");
        let messages: Vec<_> = problems.iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(messages.join("\n"), @r"
        the value of NUL contains '\0', which cannot be in an environment file
        the value of NONCHARACTER contains '\u{fdd0}', which cannot be in an environment file
        the value of LONG is too long: 140006 bytes with its name; the limit is 131072
        ");
        assert!(!format!("{problems:?}{env:?}").contains("hunter2"));
    }

    #[test]
    fn preview_env_rejects_too_large_environments() {
        let mut env = env();
        env.host_secrets = (0..11)
            .map(|n| (name(&format!("N{n}")), Secret::new("x".repeat(100_000))))
            .collect();
        let problems = env.render().expect_err("refused");
        insta::assert_snapshot!(problems[0], @"the environment is too large: 1100373 bytes; the limit is 1048576");
    }

    #[test]
    fn env_name_is_a_variable_that_bash_does_not_reserve() {
        for good in ["A", "_A", "a1_", "STRIPE_SECRET_KEY"] {
            assert_eq!(name(good).as_str(), good);
        }
        for bad in [
            "",
            "1A",
            "A-B",
            "A B",
            "A=B",
            "Ä",
            "A\n",
            "UID",
            "BASH_ENV",
            "_",
            "IFS",
            &"A".repeat(129),
        ] {
            assert!(EnvName::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
