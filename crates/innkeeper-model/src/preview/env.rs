//! Environment files that bash and systemd read alike.
//!
//! A guest's `/etc/preview.env` is read in two ways: by the setup script's bash (`set -a; source …`) and by
//! systemd (`EnvironmentFile=`). Their grammars differ wherever something looks simple: systemd knows no
//! `'a'\''b'`, bash expands `$` in double quotes, a bare value ends in other places. [`quote`] keeps to what
//! both read as the same bytes, and what neither form can carry is refused:
//!
//! | character | why it is refused |
//! | --- | --- |
//! | NUL | no process can have it in its environment |
//! | noncharacters (U+FDD0 to U+FDEF, U+xxFFFE, U+xxFFFF) | systemd refuses the whole file, and the service does not start |
//!
//! systemd's side follows `src/basic/env-file.c`, `env-util.c` and `utf8.c` of systemd 252 and 257.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::checked::checked_text;
use super::{BranchName, CommitSha, InvalidText};
use crate::{Code, Explain, Secret};

/// The most bytes of `NAME=value` that the kernel takes, with the NUL at its end (`MAX_ARG_STRLEN` of
/// execve(2): 32 pages of 4 KiB).
const MAX_ASSIGNMENT: usize = 128 * 1024;

/// The most bytes of all assignments together. The kernel takes a quarter of the stack's limit for the
/// environment and the arguments, usually 2 MiB; half of that is left for others.
const MAX_TOTAL: usize = 1024 * 1024;

/// The name of an environment variable: letters, digits and `_`, no digit first (POSIX, "Environment Variable
/// Definition"), and none that bash keeps for itself, since a value of such a name does not arrive.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EnvName(String);

impl EnvName {
    /// The most characters it may have.
    pub const MAX_LENGTH: usize = 128;

    /// Names that bash sets itself, that cannot be set, or that change how bash reads the rest of the file
    /// (bash(1), "Shell Variables"). So does every name that begins with `BASH`.
    const BASHS_OWN: &[&str] = &[
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
    /// [`InvalidText`] says which rule the text breaks.
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
        if text.starts_with("BASH") || Self::BASHS_OWN.contains(&text) {
            return refuse("bash keeps it for itself");
        }
        Ok(Self(text.to_owned()))
    }

    /// A name of the contract.
    fn ours(name: &str) -> Self {
        debug_assert!(Self::parse(name).is_ok(), "{name}");
        Self(name.to_owned())
    }
}

checked_text!(EnvName);

/// Why a value cannot be in an environment file. It does not say the value: that may be a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvProblem {
    /// It contains a character that cannot arrive.
    #[error("the value of {name} contains {character:?}, which cannot be in an environment file")]
    Character {
        /// The variable.
        name: EnvName,
        /// The first such character.
        character: char,
    },
    /// It is longer than a process can be given.
    #[error(
        "the value of {name} is too long: with its name it has {bytes} bytes, and {MAX_ASSIGNMENT} are the most"
    )]
    TooLong {
        /// The variable.
        name: EnvName,
        /// The bytes of `NAME=value` and a NUL.
        bytes: usize,
    },
    /// All together are more than a process can be given.
    #[error("the environment has {bytes} bytes, and {MAX_TOTAL} are the most")]
    TooMuch {
        /// The bytes of all `NAME=value`, each with a NUL.
        bytes: usize,
    },
}

impl Explain for EnvProblem {
    fn code(&self) -> Code {
        Code::InvalidConfig
    }

    fn remedy(&self) -> Option<String> {
        Some(
            match self {
                Self::Character { .. } => {
                    "encode the value, for example with base64, and decode it in the setup service"
                }
                Self::TooLong { .. } | Self::TooMuch { .. } => {
                    "give the app less in its environment and let it fetch the rest"
                }
            }
            .to_owned(),
        )
    }
}

/// Writes a value so that bash and systemd both read exactly its bytes: in single quotes, or in double quotes
/// with `\` before `"`, `\`, `$` and `` ` `` when the value contains a single quote. Everything else, newlines
/// too, stays as it is in both.
///
/// # Errors
/// The first character that cannot be in an environment file; see the module's table.
pub fn quote(value: &str) -> Result<String, char> {
    if let Some(character) = value.chars().find(|c| cannot_arrive(*c)) {
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

/// Whether no process gets this character in its environment from systemd; see the module's table.
pub(super) fn cannot_arrive(character: char) -> bool {
    let code = u32::from(character);
    let noncharacter = matches!(code, 0xFDD0..=0xFDEF) || code & 0xFFFE == 0xFFFE;
    character == '\0' || noncharacter
}

/// What a preview is told in its environment: `/etc/preview.env`.
#[derive(Clone, Debug)]
pub struct PreviewEnv {
    /// Where the commits are fetched from (`PREVIEW_REPO_URL`): the head repository's URL, without a token.
    pub repo_url: String,
    /// The branch there (`PREVIEW_BRANCH`).
    pub branch: BranchName,
    /// The host name of the preview (`PREVIEW_HOST`).
    pub host: String,
    /// The URL of the preview (`PREVIEW_URL`).
    pub url: String,
    /// The commit to check out (`PREVIEW_COMMIT`). The branch may be elsewhere by then.
    pub commit: Option<CommitSha>,
    /// The database on the host (`DATABASE_URL`), when the preview has one there.
    pub database_url: Option<Secret>,
    /// What the repository asked for and the host allowed. A secret that the host does not have is given
    /// with an empty value.
    pub host_secrets: Vec<(EnvName, Secret)>,
    /// What was set for the repository in the dashboard. These come last and win over all before.
    pub dashboard_secrets: Vec<(EnvName, Secret)>,
}

impl PreviewEnv {
    /// The file's text: one assignment for each name, in the contract's order; of two with the same name the
    /// later one stands, in its place.
    ///
    /// # Errors
    /// Every value that cannot be in the file.
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

    /// Every name with the value that stands.
    fn assignments(&self) -> Vec<(EnvName, &str)> {
        let mut all = vec![
            (EnvName::ours("PREVIEW_REPO_URL"), self.repo_url.as_str()),
            (EnvName::ours("PREVIEW_BRANCH"), self.branch.as_str()),
            (EnvName::ours("PREVIEW_HOST"), self.host.as_str()),
            (EnvName::ours("PREVIEW_URL"), self.url.as_str()),
        ];
        if let Some(commit) = &self.commit {
            all.push((EnvName::ours("PREVIEW_COMMIT"), commit.as_str()));
        }
        if let Some(url) = &self.database_url {
            all.push((EnvName::ours("DATABASE_URL"), url.expose()));
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
            host_secrets: vec![
                (name("STRIPE_KEY"), Secret::new("sk \"1\"")),
                (name("MISSING"), Secret::default()),
            ],
            dashboard_secrets: vec![(name("MULTI"), Secret::new("a\nb"))],
        }
    }

    #[test]
    fn the_file_is_in_the_contracts_order() {
        insta::assert_snapshot!(env().render().expect("renders").expose(), @r#"
        PREVIEW_REPO_URL='https://github.com/octo/web.git'
        PREVIEW_BRANCH="it's\$(reboot)"
        PREVIEW_HOST='web-7.preview.example.com'
        PREVIEW_URL='https://web-7.preview.example.com'
        PREVIEW_COMMIT='a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1'
        DATABASE_URL='postgresql://preview_web_7:pw@10.100.0.2:5432/preview_web_7'
        STRIPE_KEY='sk "1"'
        MISSING=''
        MULTI='a
        b'
        "#);
    }

    #[test]
    fn without_a_database_on_the_host_there_is_no_url_of_one() {
        let env = PreviewEnv {
            database_url: None,
            ..env()
        };
        assert!(
            !env.render()
                .expect("renders")
                .expose()
                .contains("DATABASE_URL")
        );
    }

    #[test]
    fn the_dashboard_has_the_last_word_and_the_other_value_is_nowhere() {
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
    fn all_that_cannot_arrive_is_said_and_no_value_is() {
        let mut env = env();
        env.dashboard_secrets = vec![
            (name("NUL"), Secret::new("hunter2\0")),
            (name("NONCHARACTER"), Secret::new("hunter2\u{fdd0}")),
            (name("LONG"), Secret::new("hunter2".repeat(20_000))),
        ];
        let problems = env.render().expect_err("refused");
        let said: Vec<_> = problems.iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(said.join("\n"), @r"
        the value of NUL contains '\0', which cannot be in an environment file
        the value of NONCHARACTER contains '\u{fdd0}', which cannot be in an environment file
        the value of LONG is too long: with its name it has 140006 bytes, and 131072 are the most
        ");
        assert!(!format!("{problems:?}{env:?}").contains("hunter2"));
    }

    #[test]
    fn more_than_a_process_can_be_given_is_refused() {
        let mut env = env();
        env.host_secrets = (0..11)
            .map(|n| (name(&format!("N{n}")), Secret::new("x".repeat(100_000))))
            .collect();
        let problems = env.render().expect_err("refused");
        insta::assert_snapshot!(problems[0], @"the environment has 1100347 bytes, and 1048576 are the most");
        insta::assert_snapshot!(problems[0].remedy().expect("a remedy"), @"give the app less in its environment and let it fetch the rest");
    }

    #[test]
    fn names_are_those_of_variables_and_not_bashs_own() {
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
