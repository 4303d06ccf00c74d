//! Masks secrets in lines that are shown: on the page, on GitHub, in `preview explain` and in logs.
//!
//! Apps print their environment. The daemon knows what it gave them: the secrets of the repository's file, the password
//! of the database, tokens of GitHub. Each line that comes from a guest passes [`Mask::line`] where it is collected, before
//! it is stored or shown.
//!
//! A mask protects against accidents. An app that encodes a secret on purpose can show it on its own pages anyway.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use aho_corasick::{AhoCorasick, MatchKind};
use innkeeper_facilities::Databases;
use innkeeper_github::EnvironmentFiles;
use innkeeper_model::preview::page::{is_visible, visible_text};
use innkeeper_model::{Failure, GuestName, Secret};
use innkeeper_store::Store;
use parking_lot::Mutex;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::PreviewsConfig;
use crate::secret_files::secrets_file;

/// Replacement of a secret.
const MASKED: &str = "***";

/// Minimum length of a masked value, in characters: shorter ones are in every other word.
const MIN_LENGTH: usize = 4;

/// Prefixes of GitHub's tokens ("GitHub's token formats").
const TOKEN_PREFIXES: [&str; 6] = ["ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"];

/// Minimum number of characters after the prefix of a token.
const MIN_TOKEN: usize = 16;

/// Characters that URLs encode, by RFC 3986.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// Characters that JavaScript's `encodeURIComponent` encodes.
const COMPONENT: &AsciiSet = &UNRESERVED
    .remove(b'!')
    .remove(b'*')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')');

/// The secrets of one preview, for masking.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mask {
    values: BTreeSet<String>,
    finder: Option<AhoCorasick>,
}

impl Mask {
    /// Adds the values, and the forms in which they appear in URLs and JSON. Each line of a longer text counts as a value.
    fn learn<'a>(&mut self, secrets: impl IntoIterator<Item = &'a str>) {
        let before = self.values.len();
        for value in secrets.into_iter().flat_map(str::lines).map(str::trim) {
            // Renewed tokens would add up: those that have the known form are masked by it.
            let is_token = without_tokens(value).as_deref() == Some(MASKED);
            if value.chars().count() >= MIN_LENGTH && !is_token {
                self.values.extend(forms(value));
            }
        }
        if self.values.len() != before {
            // The longest match wins, so that no end of a secret remains. Fails only for gigabytes of values.
            self.finder = AhoCorasick::builder()
                .match_kind(MatchKind::LeftmostLongest)
                .build(&self.values)
                .ok();
        }
    }

    /// Returns a line without secrets. A line in which a color or another invisible sequence interrupts a secret loses
    /// these sequences: they are removed later, when the line is shown.
    pub(crate) fn line<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let masked = self.visible(text);
        if masked.chars().all(is_visible) {
            return masked;
        }
        let plain = visible_text(&masked);
        match self.visible(&plain) {
            without if without == plain => masked,
            without => Cow::Owned(without.into_owned()),
        }
    }

    fn visible<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let masked = match &self.finder {
            Some(finder) if finder.is_match(text) => {
                let replacements = vec![MASKED; self.values.len()];
                Cow::Owned(finder.replace_all(text, &replacements))
            }
            _ => Cow::Borrowed(text),
        };
        match without_tokens(&masked) {
            Some(without) => Cow::Owned(without),
            None => masked,
        }
    }

    /// Returns a failure without secrets.
    pub(crate) fn failure(&self, mut failure: Failure) -> Failure {
        failure.message = self.text(&failure.message);
        failure.remedy = failure.remedy.map(|remedy| self.text(&remedy));
        for line in &mut failure.log {
            *line = self.text(line);
        }
        failure
    }

    /// Returns a text of several lines without secrets.
    pub(crate) fn text(&self, text: &str) -> String {
        let lines: Vec<_> = text.split('\n').map(|line| self.line(line)).collect();
        lines.join("\n")
    }
}

/// Returns a value and its usual encodings: percent-encoding as by RFC 3986, by JavaScript's `encodeURIComponent`, by HTML
/// forms and of all special characters, and JSON strings as by most programs, by PHP and by Go.
fn forms(value: &str) -> BTreeSet<String> {
    let percent = [UNRESERVED, COMPONENT, NON_ALPHANUMERIC].map(|set| {
        let encoded = utf8_percent_encode(value, set).to_string();
        [encoded.replace("%20", "+"), encoded]
    });
    let json = serde_json::to_string(value).unwrap_or_default();
    // Without the quotes around it.
    let json = json
        .get(1..json.len().saturating_sub(1))
        .unwrap_or_default();
    let go = ["&", "<", ">"].iter().fold(json.to_owned(), |text, c| {
        text.replace(c, &format!("\\u{:04x}", u32::from(c.as_bytes()[0])))
    });
    let mut forms = BTreeSet::from([
        value.to_owned(),
        json.to_owned(),
        json.replace('/', "\\/"),
        go,
    ]);
    for encoded in percent.into_iter().flatten() {
        forms.insert(lower_hex(&encoded));
        forms.insert(encoded);
    }
    forms
}

/// Returns a percent-encoded text with hexadecimal digits in lower case.
fn lower_hex(encoded: &str) -> String {
    let mut parts = encoded.split('%');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        // Encoded text is ASCII, with two digits after each '%'.
        let (digits, rest) = part.split_at(part.len().min(2));
        text.extend(["%", &digits.to_ascii_lowercase(), rest]);
    }
    text
}

/// Masks what has the form of GitHub's tokens: a guest may print one that it received before the daemon started. `None`
/// if the text contains none.
fn without_tokens(text: &str) -> Option<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut masked = String::new();
    let mut rest = text;
    while let Some(start) = TOKEN_PREFIXES
        .iter()
        .filter_map(|prefix| rest.find(prefix))
        .min()
    {
        let (before, token) = rest.split_at(start);
        let length = token.find(|c| !is_part(c)).unwrap_or(token.len());
        masked.push_str(before);
        if length >= "ghp_".len() + MIN_TOKEN {
            masked.push_str(MASKED);
        } else {
            masked.push_str(&token[..length]);
        }
        rest = &token[length..];
    }
    if masked.is_empty() && rest.len() == text.len() {
        return None;
    }
    masked.push_str(rest);
    Some(masked)
}

/// The masks of all previews. Clones share them.
#[derive(Clone)]
pub(crate) struct Masks {
    config: Arc<PreviewsConfig>,
    store: Store,
    databases: Option<Arc<dyn Databases>>,
    known: Arc<Mutex<HashMap<GuestName, Arc<Mask>>>>,
}

impl Masks {
    pub(crate) fn new(
        config: Arc<PreviewsConfig>,
        store: Store,
        databases: Option<Arc<dyn Databases>>,
    ) -> Self {
        Self {
            config,
            store,
            databases,
            known: Arc::default(),
        }
    }

    /// Adds secrets that a preview's guest receives.
    pub(crate) async fn learn<'a>(
        &self,
        slug: &GuestName,
        secrets: impl IntoIterator<Item = &'a Secret>,
    ) {
        // Reads those of the time before.
        self.of(slug).await;
        let mut known = self.known.lock();
        let mask = Arc::make_mut(known.entry(slug.clone()).or_default());
        mask.learn(secrets.into_iter().map(Secret::expose));
    }

    /// Forgets a preview that is gone.
    pub(crate) fn forget(&self, slug: &GuestName) {
        self.known.lock().remove(slug);
    }

    /// Returns the mask of a preview. The first call after a start of the daemon reads the secrets of its repository and
    /// the password of its database; a file that cannot be read is not masked, and no guest receives it.
    pub(crate) async fn of(&self, slug: &GuestName) -> Arc<Mask> {
        if let Some(mask) = self.known.lock().get(slug) {
            return Arc::clone(mask);
        }
        let mut mask = Mask::default();
        if let Ok(Some(preview)) = self.store.preview(slug).await
            && let Ok(Some(file)) =
                secrets_file(&self.config, &self.store, &preview.record.repo).await
            && let Ok(secrets) = EnvironmentFiles::read([file])
        {
            mask.learn(secrets.values().map(Secret::expose));
        }
        if let Some(databases) = &self.databases
            && let Ok(Some(password)) = databases.password(slug).await
        {
            mask.learn([password.expose()]);
        }
        let mask = Arc::new(mask);
        let mut known = self.known.lock();
        Arc::clone(known.entry(slug.clone()).or_insert(mask))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mask(secrets: &[&str]) -> Mask {
        let mut mask = Mask::default();
        mask.learn(secrets.iter().copied());
        mask
    }

    #[test]
    fn secrets_are_masked_in_every_usual_form() {
        let mask = mask(&["pa$$ \"word", "long-secret", "long-secret-and-more", "abc"]);
        let shown = |text: &str| mask.line(text).into_owned();
        assert_eq!(shown("x=pa$$ \"word."), "x=***.");
        assert_eq!(shown("{\"x\":\"pa$$ \\\"word\"}"), "{\"x\":\"***\"}");
        assert_eq!(shown("?x=pa%24%24%20%22word&y"), "?x=***&y");
        assert_eq!(shown("long-secret-and-more long-secret"), "*** ***");
        assert_eq!(shown("abc"), "abc", "too short to be masked");
    }

    #[test]
    fn secrets_are_masked_as_programs_encode_them() {
        let mask = mask(&["p@ss-w/rd (1) & more"]);
        for encoded in [
            // `encodeURIComponent`, RFC 3986, HTML forms, hexadecimal digits in lower case.
            "p%40ss-w%2Frd%20(1)%20%26%20more",
            "p%40ss-w%2Frd%20%281%29%20%26%20more",
            "p%40ss-w%2Frd+%281%29+%26+more",
            "p%40ss-w%2frd%20%281%29%20%26%20more",
            // PHP and Go.
            r"p@ss-w\/rd (1) & more",
            r"p@ss-w/rd (1) \u0026 more",
        ] {
            assert_eq!(mask.line(&format!("<{encoded}>")), "<***>", "{encoded}");
        }
    }

    #[test]
    fn colors_inside_a_secret_do_not_show_it() {
        let mask = mask(&["correct horse"]);
        let shown = mask.line("key: correct \u{1b}[01;31mhorse\u{1b}[m\u{200b}!");
        assert_eq!(shown, "key: ***!");
        let colored = "\u{1b}[31mno secret\u{1b}[m";
        assert_eq!(mask.line(colored), colored);
        assert_eq!(mask.text("a\tb\r\ncorrect horse\n"), "a\tb\r\n***\n");
    }

    #[test]
    fn known_tokens_do_not_add_up() {
        let token = format!("ghs_{}", "a1B2".repeat(9));
        assert!(mask(&[&token]).values.is_empty());
        let unknown = format!("{token}.x-y");
        assert_eq!(mask(&[&unknown]).line(&unknown), MASKED);
    }

    #[test]
    fn lines_of_a_key_are_masked_one_by_one() {
        let mask = mask(&["-----BEGIN KEY-----\nMIIEpAIBAAKC\nAQEA\n-----END KEY-----\n"]);
        assert_eq!(mask.text("a MIIEpAIBAAKC\nAQEA b\n"), "a ***\n*** b\n");
    }

    #[test]
    fn tokens_of_github_are_masked_by_their_form() {
        let mask = Mask::default();
        let token = format!("ghs_{}", "a1B2".repeat(9));
        let shown = mask
            .line(&format!("https://x:{token}@github.com ghs_no {token}"))
            .into_owned();
        assert_eq!(shown, "https://x:***@github.com ghs_no ***");
        let fine_grained = format!("github_pat_{}_{}", "a".repeat(22), "b".repeat(59));
        assert_eq!(mask.line(&fine_grained), "***");
        assert!(matches!(mask.line("no token"), Cow::Borrowed("no token")));
    }

    proptest! {
        #[test]
        fn no_secret_remains(secret in "[a-zA-Z0-9+/]{4,40}", before in "\\PC{0,40}", after in "\\PC{0,40}") {
            let mask = mask(&[&secret]);
            let shown = mask.line(&format!("{before}{secret}{after}")).into_owned();
            prop_assert!(!shown.contains(&secret));
        }
    }
}
