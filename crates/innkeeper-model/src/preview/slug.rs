//! Names of previews.
//!
//! A slug is derived once for each pull request and then looked up in the store, so these rules may change without
//! renaming existing previews. [`slug_candidates`] resolves collisions.

use std::iter;

use sha2::{Digest, Sha256};

use super::sources::SourcePath;
use super::{BranchName, RepoName};
use crate::reserved::{Reservation, reservation};
use crate::{Code, Explain, GuestName, InvalidName};

/// Maximum length of a slug. An extra host is named `<prefix>-<slug>` and must be a DNS label too: this leaves 22
/// characters for the prefix. The database `preview_<slug>` stays below PostgreSQL's limit of 63 bytes.
pub const MAX_SLUG: usize = 40;

/// Names that no preview has ever had, because they have another purpose in the directory of Caddy's files:
/// `webhook.<domain>` receives GitHub's deliveries. New previews do not get any name of
/// [`reserved`](crate::reserved) either.
pub const RESERVED_SLUGS: [&str; 1] = ["webhook"];

/// Number of alternatives for a name that is taken.
const TRIES: u32 = 10;

/// Number of hexadecimal digits of the hash in an alternative.
const HASH_DIGITS: usize = 8;

/// The beginning of a slug whose own beginning is reserved.
const UNRESERVED: &str = "p-";

/// The text cannot be a slug.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSlug {
    /// It is not a DNS label.
    #[error("invalid slug")]
    Name(#[source] InvalidName),
    /// It is too long to leave room for the prefix of an extra host.
    #[error("slug '{slug}' has {length} characters; at most {MAX_SLUG} are allowed")]
    TooLong {
        /// The text, as given.
        slug: String,
        /// Its length in characters.
        length: usize,
    },
    /// It is reserved.
    #[error("slug '{slug}' is reserved: {reason}")]
    Reserved {
        /// The text, as given.
        slug: GuestName,
        /// The reason.
        reason: Reservation,
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
        let near = cut(&sanitized(given), MAX_SLUG);
        Some(if near.is_empty() || reservation(&near).is_some() {
            "Omit --slug to derive it from the repository and the branch.".to_owned()
        } else {
            format!("Use for example --slug {near}.")
        })
    }
}

/// Parses a slug that a user chose. An invalid one is rejected rather than corrected.
///
/// # Errors
/// [`InvalidSlug`] names the broken rule.
pub fn parse_slug(text: &str) -> Result<GuestName, InvalidSlug> {
    let slug = parse_existing_slug(text)?;
    if let Some(reason) = reservation(text) {
        return Err(InvalidSlug::Reserved { slug, reason });
    }
    Ok(slug)
}

/// Parses the slug of a preview that may exist. Previews from before the reservation of names keep theirs.
///
/// # Errors
/// [`InvalidSlug`] names the broken rule.
pub fn parse_existing_slug(text: &str) -> Result<GuestName, InvalidSlug> {
    let slug = GuestName::parse(text).map_err(InvalidSlug::Name)?;
    if text.len() > MAX_SLUG {
        return Err(InvalidSlug::TooLong {
            slug: text.to_owned(),
            length: text.len(),
        });
    }
    Ok(slug)
}

/// Derives the slug of a branch: `<repository>-<branch>`, in the alphabet of DNS labels and cut to [`MAX_SLUG`].
#[must_use]
pub fn default_slug(repo: &RepoName, branch: &BranchName) -> GuestName {
    let identity = format!("{}@{branch}", repo.key());
    let mut branch = sanitized(branch.as_str());
    if branch.is_empty() {
        // A name in another script: the repository's name alone would be ambiguous.
        branch = hash(&identity);
    }
    let slug = cut(&sanitized(&format!("{}-{branch}", repo.name())), MAX_SLUG);
    usable(slug, &identity)
}

/// Derives the slug of a pull request: `<repository>-<number>`. Cuts the repository's name rather than the number.
#[must_use]
pub fn webhook_slug(repo: &RepoName, number: u64) -> GuestName {
    let number = number.to_string();
    // A u64 has at most 20 digits.
    let room = MAX_SLUG - number.len() - 1;
    let name = cut(&sanitized(repo.name()), room);
    let identity = format!("{}#{number}", repo.key());
    usable(join(&name, &number), &identity)
}

/// Derives the slug of an additional preview of a pull request: `<repository>-<number>-<label>`. The label comes from the path
/// of its configuration: `api` for `apps/api/preview.nix`, `api` for `deploy/api.nix`. Cuts the repository's name.
#[must_use]
pub fn config_slug(repo: &RepoName, number: u64, config: &SourcePath) -> GuestName {
    const MAX_LABEL: usize = 12;
    /// Names of files that say nothing about the app.
    const GENERIC: [&str; 3] = ["preview-config", "preview", "default"];
    let file = config.file_name();
    let stem = sanitized(file.strip_suffix(".nix").unwrap_or(file));
    let folder = sanitized(config.parent().file_name());
    let identity = format!("{}#{number}:{config}", repo.key());
    let label = match (GENERIC.contains(&stem.as_str()), folder.is_empty()) {
        (true, false) => folder,
        _ => stem,
    };
    let label = match cut(&label, MAX_LABEL) {
        label if label.is_empty() => hash(&identity),
        label => label,
    };
    let suffix = format!("{number}-{label}");
    let name = cut(&sanitized(repo.name()), MAX_SLUG - suffix.len() - 1);
    usable(join(&name, &suffix), &identity)
}

/// Returns the candidate names for a new preview, in order: the desired one, then alternatives with a hash of `identity`
/// and the number of the alternative. `identity` identifies the preview, such as `owner/name#12`; the same preview always
/// gets the same candidates.
pub fn slug_candidates(desired: &GuestName, identity: &str) -> impl Iterator<Item = GuestName> {
    let stem = cut(desired.as_str(), MAX_SLUG - HASH_DIGITS - 1);
    let others = (1..=TRIES).map(move |n| {
        let hash = hash(&format!("{identity} {n}"));
        // The stem of `dev` alone is free, and this one is not.
        GuestName::from_valid(unreserved(join(&stem, &hash), &hash))
    });
    let others: Vec<_> = others.collect();
    iter::once(desired.clone()).chain(others)
}

/// Returns the name of a preview's database and role on the host's PostgreSQL: `preview_<slug>` with `_` for `-`. It is
/// unique, since a slug contains no `_`.
#[must_use]
pub fn database_name(slug: &GuestName) -> String {
    format!("preview_{}", slug.as_str().replace('-', "_"))
}

/// Converts a text to the alphabet of DNS labels: lower case, each run of other characters replaced by one `-`, no `-` at
/// the ends.
fn sanitized(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let words = lower.split(|c: char| !c.is_ascii_alphanumeric());
    words
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join("-")
}

/// Cuts an ASCII text to a length, without a `-` at its end.
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

/// Converts a sanitized text to a slug that is not reserved.
fn usable(text: String, identity: &str) -> GuestName {
    GuestName::from_valid(unreserved(text, &hash(identity)))
}

/// Changes a text that is reserved: appends the hash to a name, and begins one of a reserved form with `p-`. That keeps
/// the end of the text, which distinguishes it.
fn unreserved(text: String, hash: &str) -> String {
    match reservation(&text) {
        None => text,
        Some(Reservation::Name) => join(&text, hash),
        Some(Reservation::Form(_)) => {
            let room = MAX_SLUG - UNRESERVED.len();
            let end = &text[text.len().saturating_sub(room)..];
            format!("{UNRESERVED}{}", end.trim_start_matches('-'))
        }
    }
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
    fn config_slug_has_the_label_of_the_configuration() {
        let slug = |name: &str, number, config: &str| {
            let config = SourcePath::parse(config).expect("valid");
            let slug = config_slug(&repo(name), number, &config);
            parse_slug(slug.as_str()).expect("valid").to_string()
        };
        assert_eq!(slug("octo/web", 7, "apps/api/preview.nix"), "web-7-api");
        assert_eq!(slug("octo/web", 7, "apps/api/default.nix"), "web-7-api");
        assert_eq!(slug("octo/web", 7, "deploy/Admin_UI.nix"), "web-7-admin-ui");
        assert_eq!(slug("octo/web", 7, "preview.nix"), "web-7-preview");
        let long = slug(
            &format!("octo/{}", "a".repeat(60)),
            u64::MAX,
            "x/a-very-long-name.nix",
        );
        assert_eq!(long, format!("{}-{}-a-very-long", "a".repeat(7), u64::MAX));
        assert!(slug("octo/web", 7, "日本/preview.nix").starts_with("web-7-"));
    }

    #[test]
    fn default_slug_is_repository_and_branch() {
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
    fn default_slug_distinguishes_other_scripts() {
        let (one, two) = (default("octo/web", "日本"), default("octo/web", "中国"));
        assert!(one.starts_with("web-") && one.len() == 12, "{one}");
        assert_ne!(one, two);
    }

    #[test]
    fn webhook_slug_keeps_the_whole_number() {
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
    fn slug_is_never_the_webhooks_host() {
        assert_ne!(default("octo/_", "webhook"), "webhook");
        assert_eq!(
            parse_slug("webhook").expect_err("reserved").code(),
            Code::InvalidSlug
        );
    }

    #[test]
    fn derived_slug_is_never_reserved() {
        assert_eq!(
            String::from(webhook_slug(&repo("octo/2048"), 7)),
            "p-2048-7"
        );
        assert_eq!(default("octo/dev", "main"), "p-dev-main");
        assert_eq!(default("octo/s", "3000"), "p-s-3000");
        let api = default("octo/_", "api");
        assert!(api.starts_with("api-") && api.len() == 12, "{api}");
        let desired = GuestName::parse("dev").expect("valid");
        let other = slug_candidates(&desired, "octo/_:dev")
            .nth(1)
            .expect("eleven");
        assert!(other.as_str().starts_with("p-dev-"), "{other}");
        let long = webhook_slug(&repo(&format!("octo/1-{}", "a".repeat(60))), 123);
        assert!(
            long.as_str().ends_with("a-123") && long.as_str().len() == MAX_SLUG,
            "{long}"
        );
    }

    #[test]
    fn slug_errors_suggest_a_valid_slug() {
        let message = |text: &str| {
            let error = parse_slug(text).expect_err(text);
            let remedy = error.remedy().expect("a remedy");
            format!("{}: {} ({remedy})", error.code(), crate::chain(&error))
        };
        insta::assert_snapshot!(message("Web App"), @"invalid_slug: invalid slug: guest name 'Web App' contains 'W'; only a-z, 0-9 and '-' are allowed (Use for example --slug web-app.)");
        insta::assert_snapshot!(message("-"), @"invalid_slug: invalid slug: guest name '-' starts or ends with '-' (Omit --slug to derive it from the repository and the branch.)");
        insta::assert_snapshot!(message(""), @"invalid_slug: invalid slug: a guest name cannot be empty (Omit --slug to derive it from the repository and the branch.)");
        insta::assert_snapshot!(message(&"x".repeat(41)), @"slug_too_long: slug 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' has 41 characters; at most 40 are allowed (Use for example --slug xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx.)");
        insta::assert_snapshot!(message("webhook"), @"invalid_slug: slug 'webhook' is reserved: it is reserved for a host of Innkeeper (Omit --slug to derive it from the repository and the branch.)");
        insta::assert_snapshot!(message("dev-web"), @"invalid_slug: slug 'dev-web' is reserved: names of the form 'dev-…' are reserved for hosts of Innkeeper (Omit --slug to derive it from the repository and the branch.)");
    }

    #[test]
    fn database_name_is_derived_from_the_slug() {
        let slug = GuestName::parse("web-7").expect("valid");
        assert_eq!(database_name(&slug), "preview_web_7");
    }

    proptest! {
        #[test]
        fn derived_slugs_are_valid(
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
        fn slug_candidates_are_eleven_distinct_slugs(desired in "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", identity in ".{0,20}") {
            let desired = GuestName::parse(&desired).expect("valid");
            let candidates: Vec<_> = slug_candidates(&desired, &identity).collect();
            prop_assert_eq!(&candidates[0], &desired);
            prop_assert_eq!(candidates.iter().collect::<BTreeSet<_>>().len(), 11);
            for candidate in &candidates[1..] {
                prop_assert!(parse_slug(candidate.as_str()).is_ok(), "{}", candidate);
            }
            prop_assert_eq!(slug_candidates(&desired, &identity).collect::<Vec<_>>(), candidates);
        }
    }
}
