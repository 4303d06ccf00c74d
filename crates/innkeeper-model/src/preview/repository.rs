//! Names of repositories, commits, branches and pull requests on GitHub.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};

use super::InvalidText;
use super::checked::checked_text;

/// A repository on GitHub as `owner/name`.
///
/// The owner has 1 to 39 characters of `a-z`, `A-Z`, `0-9`, `-` and `_` and starts with a letter or digit (names of
/// managed users contain an underscore). The name has 1 to 100 of the same and `.`; it is not `.` or `..` and does not end
/// with `.git`. Like GitHub, this type keeps the case and compares case-insensitively: `Octo/Web` equals `octo/web`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RepoName(String);

impl RepoName {
    /// Parses `owner/name`.
    ///
    /// # Errors
    /// [`InvalidText`] names the broken rule.
    pub fn parse(text: &str) -> Result<Self, InvalidText> {
        let refuse = |reason| {
            Err(InvalidText {
                what: "repository",
                text: text.to_owned(),
                reason,
            })
        };
        let Some((owner, name)) = text.split_once('/') else {
            return refuse("write it as owner/name");
        };
        let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        if !(1..=39).contains(&owner.len())
            || !owner.bytes().all(word)
            || !owner.as_bytes()[0].is_ascii_alphanumeric()
        {
            return refuse(
                "the owner has 1 to 39 letters, digits, '-' or '_', a letter or digit first",
            );
        }
        if !(1..=100).contains(&name.len()) || !name.bytes().all(|b| word(b) || b == b'.') {
            return refuse("the name has 1 to 100 letters, digits, '-', '_' or '.'");
        }
        if matches!(name, "." | "..") {
            return refuse("the name consists of dots");
        }
        if name.to_ascii_lowercase().ends_with(".git") {
            return refuse("omit '.git'");
        }
        Ok(Self(text.to_owned()))
    }

    /// Returns the user or organization.
    #[must_use]
    pub fn owner(&self) -> &str {
        self.parts().0
    }

    /// Returns the name without the owner.
    #[must_use]
    pub fn name(&self) -> &str {
        self.parts().1
    }

    /// Returns the name in lower case, for use as a key.
    #[must_use]
    pub fn key(&self) -> String {
        self.0.to_ascii_lowercase()
    }

    fn parts(&self) -> (&str, &str) {
        self.0.split_once('/').unwrap_or((&self.0, ""))
    }

    fn lower(&self) -> impl Iterator<Item = u8> {
        self.0.bytes().map(|b| b.to_ascii_lowercase())
    }
}

checked_text!(RepoName);

impl PartialEq for RepoName {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for RepoName {}

impl Hash for RepoName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl PartialOrd for RepoName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for RepoName {
    fn cmp(&self, other: &Self) -> Ordering {
        self.lower().cmp(other.lower())
    }
}

/// The full hash of a commit: 40 hexadecimal digits in lower case (SHA-1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CommitSha(String);

impl CommitSha {
    /// Parses a full commit hash. Abbreviations are rejected: they can become ambiguous.
    ///
    /// # Errors
    /// [`InvalidText`] when it is not 40 hexadecimal digits in lower case.
    pub fn parse(text: &str) -> Result<Self, InvalidText> {
        if text.len() == 40 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Ok(Self(text.to_owned()));
        }
        Err(InvalidText {
            what: "commit",
            text: text.to_owned(),
            reason: "a commit is 40 hexadecimal digits in lower case",
        })
    }

    /// Returns the first seven digits, for display only.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.0[..7]
    }
}

checked_text!(CommitSha);

/// The name of a branch without `refs/heads/`, of at most [`BranchName::MAX_LENGTH`] bytes, by the rules of
/// `git check-ref-format --branch`.
///
/// Git allows quotes, `$`, backticks, `;` and most of Unicode in it. Never use it in a path or a shell command; quote it
/// with [`super::quote`] in environment files.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BranchName(String);

impl BranchName {
    /// Maximum length in bytes: GitHub's limit for a whole reference.
    pub const MAX_LENGTH: usize = 255;

    /// Parses a branch's name.
    ///
    /// # Errors
    /// [`InvalidText`] names the broken rule.
    pub fn parse(text: &str) -> Result<Self, InvalidText> {
        match Self::broken_rule(text) {
            None => Ok(Self(text.to_owned())),
            Some(reason) => Err(InvalidText {
                what: "branch name",
                text: text.to_owned(),
                reason,
            }),
        }
    }

    /// Returns the first broken rule of git-check-ref-format(1), including the two for branches only.
    fn broken_rule(text: &str) -> Option<&'static str> {
        let special = |c: char| c.is_ascii_control() || " ~^:?*[\\".contains(c);
        if text.is_empty() {
            Some("it is empty")
        } else if text.len() > Self::MAX_LENGTH {
            Some("it has more than 255 bytes")
        } else if text.contains(special) {
            Some("it contains white space, a control character or one of ~ ^ : ? * [ \\")
        } else if text.contains("..") || text.contains("@{") {
            Some("it contains '..' or '@{'")
        } else if text.split('/').any(str::is_empty) {
            Some("it starts or ends with '/' or contains '//'")
        } else if text.split('/').any(|part| part.starts_with('.')) {
            Some("a component starts with '.'")
        } else if text.split('/').any(|part| part.ends_with(".lock")) || text.ends_with('.') {
            Some("it ends with '.', or a component ends with '.lock'")
        } else if text.starts_with('-') || matches!(text, "@" | "HEAD") {
            Some("it starts with '-' or has a special meaning in git")
        } else {
            None
        }
    }
}

checked_text!(BranchName);

/// A pull request, by its base repository and number. Written `owner/name#12`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PullRequest {
    /// The base repository. The commits of a pull request from a fork are in another one.
    pub repo: RepoName,
    /// Its number in the base repository.
    pub number: u64,
}

impl PullRequest {
    /// Parses `owner/name#12`.
    ///
    /// # Errors
    /// [`InvalidText`] names the broken rule.
    pub fn parse(text: &str) -> Result<Self, InvalidText> {
        let refuse = |reason| InvalidText {
            what: "pull request",
            text: text.to_owned(),
            reason,
        };
        let (repo, number) = text
            .split_once('#')
            .ok_or_else(|| refuse("write it as owner/name#number"))?;
        let digits = number.bytes().all(|b| b.is_ascii_digit());
        let number = number.parse().ok().filter(|number| digits && *number > 0);
        Ok(Self {
            repo: RepoName::parse(repo)?,
            number: number.ok_or_else(|| refuse("its number is a positive integer"))?,
        })
    }
}

impl std::str::FromStr for PullRequest {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for PullRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.repo, self.number)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn repo_name_is_owner_and_name() {
        let repo = RepoName::parse("Octo-Org/web.app_2").expect("valid");
        assert_eq!((repo.owner(), repo.name()), ("Octo-Org", "web.app_2"));
        let longest = format!("{}/{}", "o".repeat(39), "n".repeat(100));
        for good in ["a/b", "octo_corp/x", "a/-", "a/.github", &longest] {
            assert_eq!(RepoName::parse(good).expect(good).as_str(), good);
        }
        for bad in [
            "",
            "a",
            "/",
            "a/",
            "/b",
            "-a/b",
            "a/b/c",
            "a b/c",
            "a/..",
            "a/.",
            "a/b.git",
            "a/b.GIT",
            "a.b/c",
            "ä/b",
            "a/b\n",
            "a/b'",
            &format!("{}/x", "o".repeat(40)),
            &format!("x/{}", "n".repeat(101)),
        ] {
            assert!(RepoName::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn repo_name_compares_case_insensitively() {
        let (upper, lower) = ("Octo/Web", "octo/web");
        let [upper, lower] = [upper, lower].map(|text| RepoName::parse(text).expect("valid"));
        assert_eq!(upper, lower);
        assert_eq!(upper.cmp(&lower), Ordering::Equal);
        assert_eq!(HashSet::from([upper.clone(), lower]).len(), 1);
        assert_eq!(upper.as_str(), "Octo/Web", "the case is kept");
    }

    #[test]
    fn commit_sha_is_a_full_hash() {
        let text = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(CommitSha::parse(text).expect("valid").short(), "0123456");
        for bad in [
            "",
            "main",
            "0123456",
            &text.to_uppercase(),
            &format!("{text}0"),
            &"é".repeat(20),
        ] {
            assert!(CommitSha::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn pull_request_parses_repository_and_number() {
        let parsed = PullRequest::parse("octo/web#7").expect("valid");
        assert_eq!((parsed.repo.as_str(), parsed.number), ("octo/web", 7));
        assert_eq!(parsed.to_string(), "octo/web#7");
        for bad in [
            "",
            "octo/web",
            "octo/web#",
            "octo/web#0",
            "web#7",
            "octo/web#+7",
            "#7",
        ] {
            assert!(PullRequest::parse(bad).is_err(), "{bad:?} was accepted");
        }
        assert!(PullRequest::parse("octo/web#18446744073709551616").is_err());
    }

    #[test]
    fn repository_errors_name_text_and_rule() {
        insta::assert_snapshot!(RepoName::parse("web").unwrap_err(), @"'web' is not a valid repository: write it as owner/name");
        insta::assert_snapshot!(CommitSha::parse("main").unwrap_err(), @"'main' is not a valid commit: a commit is 40 hexadecimal digits in lower case");
        insta::assert_snapshot!(BranchName::parse("a\nb").unwrap_err(), @r"'a\nb' is not a valid branch name: it contains white space, a control character or one of ~ ^ : ? * [ \");
    }

    /// Reports whether git accepts a branch name, with the two rules that it does not apply to `refs/heads/…`.
    #[expect(clippy::disallowed_methods, reason = "tests run programs")]
    fn git_accepts(branch: &str) -> bool {
        let status = std::process::Command::new("git")
            .args(["check-ref-format", &format!("refs/heads/{branch}")])
            .status()
            .expect("git runs");
        status.success() && !branch.starts_with('-') && branch != "@" && branch != "HEAD"
    }

    #[test]
    fn branch_name_follows_git() {
        for branch in [
            "main",
            "feature/x",
            "a'b",
            "$(touch x)",
            "a;b",
            "a`b`",
            "ä",
            "日本",
            "\u{a0}",
            "a\u{85}b",
            "x.locked",
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            ".a",
            "a/.b",
            "a.lock",
            "a.lock/b",
            "a..b",
            "a.",
            "a./b",
            "@",
            "a@",
            "@a",
            "a@{b",
            "-a",
            "a/-b",
            "HEAD",
            "a/HEAD",
            "a b",
            "a\tb",
            "a\nb",
            "a\u{7f}b",
            "a~b",
            "a^b",
            "a:b",
            "a?b",
            "a*b",
            "a[b",
            "a]b",
            "a\\b",
            "\"",
            "{",
            "}",
            "#",
        ] {
            assert_eq!(
                BranchName::parse(branch).is_ok(),
                git_accepts(branch),
                "{branch:?}"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn branch_name_follows_git_for_any_text(branch in r"([a@.{}/\-]|\.lock|[^\x00]){1,8}") {
            prop_assert_eq!(BranchName::parse(&branch).is_ok(), git_accepts(&branch));
        }
    }
}
