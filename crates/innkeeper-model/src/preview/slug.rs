//! Names of previews.
//!
//! A slug is made once for each pull request and then looked up in the store, so these rules may change
//! without a running preview changing its name. Two previews that these functions would give the same name
//! are told apart by [`slug_candidates`].

use std::iter;

use sha2::{Digest, Sha256};

use super::{BranchName, RepoName};
use crate::{Code, Explain, GuestName, InvalidName};

/// The most characters of a slug. An extra host is called `<prefix>-<slug>` and must be a DNS label too: this
/// leaves 22 characters for the prefix. The database `preview_<slug>` stays below PostgreSQL's 63 bytes.
pub const MAX_SLUG: usize = 40;

/// Names that mean something else under the same domain, and in the folder of Caddy's files:
/// `webhook.<domain>` receives GitHub's deliveries.
pub const RESERVED_SLUGS: [&str; 1] = ["webhook"];

/// How many other names are tried for a preview whose name is taken.
const TRIES: u32 = 10;

/// Hexadecimal digits of a hash that tell two slugs apart.
const HASH_DIGITS: usize = 8;

/// Why a text cannot be a slug.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSlug {
    /// It is not a DNS label.
    #[error("the slug cannot be used")]
    Name(#[source] InvalidName),
    /// It leaves no room for the prefix of an extra host.
    #[error("slug '{slug}' has {length} characters; at most {MAX_SLUG} are allowed")]
    TooLong {
        /// The text, as given.
        slug: String,
        /// Its length in characters.
        length: usize,
    },
    /// It means something else.
    #[error("slug '{slug}' is reserved")]
    Reserved {
        /// The text, as given.
        slug: GuestName,
    },
}

impl Explain for InvalidSlug {
    fn code(&self) -> Code {
        match self {
            Self::Name(InvalidName::TooLong { .. }) | Self::TooLong { .. } => Code::SlugTooLong,
            Self::Name(_) | Self::Reserved { .. } => Code::InvalidSlug,
        }
    }

    fn remedy(&self) -> Option<String> {
        let given = match self {
            Self::Name(
                InvalidName::TooLong { name, .. }
                | InvalidName::Character { name, .. }
                | InvalidName::Hyphen { name },
            )
            | Self::TooLong { slug: name, .. } => name.as_str(),
            Self::Name(InvalidName::Empty) | Self::Reserved { .. } => "",
        };
        let near = cut(&sanitised(given), MAX_SLUG);
        Some(if near.is_empty() || is_reserved(&near) {
            "leave out --slug, and one is made from the repository and the branch".to_owned()
        } else {
            format!("for example --slug {near}")
        })
    }
}

/// Reads a slug that a person chose. Nothing is changed in it: it is refused instead.
///
/// # Errors
/// [`InvalidSlug`] says which rule the text breaks.
pub fn parse_slug(text: &str) -> Result<GuestName, InvalidSlug> {
    let slug = GuestName::parse(text).map_err(InvalidSlug::Name)?;
    if text.len() > MAX_SLUG {
        return Err(InvalidSlug::TooLong {
            slug: text.to_owned(),
            length: text.len(),
        });
    }
    if is_reserved(text) {
        return Err(InvalidSlug::Reserved { slug });
    }
    Ok(slug)
}

/// The slug of a branch when none is asked for: `<repository>-<branch>`, in the alphabet of DNS labels and cut
/// to [`MAX_SLUG`].
#[must_use]
pub fn default_slug(repo: &RepoName, branch: &BranchName) -> GuestName {
    let identity = format!("{}@{branch}", repo.key());
    let mut branch = sanitised(branch.as_str());
    if branch.is_empty() {
        // A name in another script. The repository alone would not tell its branches apart.
        branch = hash(&identity);
    }
    let slug = cut(&sanitised(&format!("{}-{branch}", repo.name())), MAX_SLUG);
    usable(slug, &identity)
}

/// The slug of a pull request: `<repository>-<number>`. The repository is cut so that the number is whole.
#[must_use]
pub fn webhook_slug(repo: &RepoName, number: u64) -> GuestName {
    let number = number.to_string();
    // A u64 has at most 20 digits.
    let room = MAX_SLUG - number.len() - 1;
    let name = cut(&sanitised(repo.name()), room);
    let identity = format!("{}#{number}", repo.key());
    usable(join(&name, &number), &identity)
}

/// The names to try for a new preview, in this order: the one that is wanted, then that one with a hash of
/// `identity` and the number of the try. `identity` says whose name it is, such as `owner/name#12`; the same
/// preview is always offered the same names.
pub fn slug_candidates(wanted: &GuestName, identity: &str) -> impl Iterator<Item = GuestName> {
    let stem = cut(wanted.as_str(), MAX_SLUG - HASH_DIGITS - 1);
    let others = (1..=TRIES)
        .map(move |n| GuestName::known_good(join(&stem, &hash(&format!("{identity} {n}")))));
    let others: Vec<_> = others.collect();
    iter::once(wanted.clone()).chain(others)
}

/// The name of a preview's database and of its role on the host's PostgreSQL: `preview_<slug>` with `_` in the
/// place of `-`. Different slugs have different databases, since a slug contains no `_`.
#[must_use]
pub fn database_name(slug: &GuestName) -> String {
    format!("preview_{}", slug.as_str().replace('-', "_"))
}

/// The text in the alphabet of DNS labels: in lower case, with one `-` for everything else in a row, and none
/// at the ends.
fn sanitised(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let words = lower.split(|c: char| !c.is_ascii_alphanumeric());
    words
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join("-")
}

/// The beginning of an ASCII text, without a `-` at its end.
fn cut(text: &str, length: usize) -> String {
    text[..text.len().min(length)]
        .trim_end_matches('-')
        .to_owned()
}

fn join(name: &str, suffix: &str) -> String {
    if name.is_empty() {
        suffix.to_owned()
    } else {
        format!("{name}-{suffix}")
    }
}

/// A sanitised text as a slug; a made-up one in the place of a text that is reserved.
fn usable(text: String, identity: &str) -> GuestName {
    if is_reserved(&text) {
        GuestName::known_good(join(&text, &hash(identity)))
    } else {
        GuestName::known_good(text)
    }
}

fn is_reserved(text: &str) -> bool {
    RESERVED_SLUGS.contains(&text)
}

fn hash(text: &str) -> String {
    let digest = Sha256::digest(text);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    hex[..HASH_DIGITS].to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn repo(text: &str) -> RepoName {
        RepoName::parse(text).expect("valid")
    }

    fn default(name: &str, branch: &str) -> String {
        default_slug(&repo(name), &BranchName::parse(branch).expect("valid")).into()
    }

    #[test]
    fn a_branch_is_called_after_repository_and_branch() {
        assert_eq!(default("octo/Web", "main"), "web-main");
        assert_eq!(
            default("octo/web", "feature/Login_2"),
            "web-feature-login-2"
        );
        assert_eq!(default("octo/.github", "x"), "github-x");
        assert_eq!(default("octo/___", "main"), "main");
        assert_eq!(
            default("octo/web", &"x-".repeat(60)),
            format!("web-{}x", "x-".repeat(17))
        );
    }

    #[test]
    fn a_branch_in_another_script_is_told_apart() {
        let (one, two) = (default("octo/web", "日本"), default("octo/web", "中国"));
        assert!(one.starts_with("web-") && one.len() == 12, "{one}");
        assert_ne!(one, two);
    }

    #[test]
    fn a_pull_request_keeps_its_whole_number() {
        let slug = |name: &str, number| String::from(webhook_slug(&repo(name), number));
        assert_eq!(slug("octo/web", 7), "web-7");
        assert_eq!(slug("octo/Next.js", 12_345), "next-js-12345");
        let long = format!("octo/{}", "a-".repeat(40));
        assert_eq!(slug(&long, 123), format!("{}a-123", "a-".repeat(17)));
        assert_eq!(
            slug(&long, u64::MAX),
            format!("{}a-{}", "a-".repeat(9), u64::MAX)
        );
        assert_eq!(slug("octo/_", 7), "7");
    }

    #[test]
    fn the_webhooks_own_host_is_never_a_preview() {
        assert_ne!(default("octo/_", "webhook"), "webhook");
        assert_eq!(
            parse_slug("webhook").expect_err("reserved").code(),
            Code::InvalidSlug
        );
    }

    #[test]
    fn refusals_say_what_would_do() {
        let said = |text: &str| {
            let error = parse_slug(text).expect_err(text);
            let remedy = error.remedy().expect("a remedy");
            format!("{}: {} ({remedy})", error.code(), crate::chain(&error))
        };
        insta::assert_snapshot!(said("Web App"), @"invalid_slug: the slug cannot be used: guest name 'Web App' contains 'W'; only a-z, 0-9 and '-' are allowed (for example --slug web-app)");
        insta::assert_snapshot!(said("-"), @"invalid_slug: the slug cannot be used: guest name '-' starts or ends with '-' (leave out --slug, and one is made from the repository and the branch)");
        insta::assert_snapshot!(said(""), @"invalid_slug: the slug cannot be used: a guest name cannot be empty (leave out --slug, and one is made from the repository and the branch)");
        insta::assert_snapshot!(said(&"x".repeat(41)), @"slug_too_long: slug 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' has 41 characters; at most 40 are allowed (for example --slug xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx)");
        insta::assert_snapshot!(said("webhook"), @"invalid_slug: slug 'webhook' is reserved (leave out --slug, and one is made from the repository and the branch)");
    }

    #[test]
    fn databases_have_the_slugs_name() {
        let slug = GuestName::parse("web-7").expect("valid");
        assert_eq!(database_name(&slug), "preview_web_7");
    }

    proptest! {
        #[test]
        fn made_up_slugs_can_be_chosen_too(
            name in "[A-Za-z0-9._-]{1,100}", branch in "[^ ~^:?*\\[\\\\\\x00-\\x1f]{1,60}", number: u64,
        ) {
            let Ok(repo) = RepoName::parse(&format!("o/{name}")) else { return Ok(()) };
            let by_number = webhook_slug(&repo, number);
            prop_assert!(parse_slug(by_number.as_str()).is_ok(), "{}", by_number);
            prop_assert!(by_number.as_str().ends_with(&number.to_string()));
            if let Ok(branch) = BranchName::parse(&branch) {
                let by_branch = default_slug(&repo, &branch);
                prop_assert!(parse_slug(by_branch.as_str()).is_ok(), "{}", by_branch);
            }
        }

        #[test]
        fn candidates_are_eleven_different_slugs(wanted in "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", identity in ".{0,20}") {
            let wanted = GuestName::parse(&wanted).expect("valid");
            let candidates: Vec<_> = slug_candidates(&wanted, &identity).collect();
            prop_assert_eq!(&candidates[0], &wanted);
            prop_assert_eq!(candidates.iter().collect::<BTreeSet<_>>().len(), 11);
            for candidate in &candidates[1..] {
                prop_assert!(parse_slug(candidate.as_str()).is_ok(), "{}", candidate);
            }
            prop_assert_eq!(slug_candidates(&wanted, &identity).collect::<Vec<_>>(), candidates);
        }
    }
}
