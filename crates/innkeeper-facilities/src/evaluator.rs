//! Closures of previews, from repositories' `preview-config.nix`.

use std::fmt;

use async_trait::async_trait;
use innkeeper_model::StorePath;
use innkeeper_model::api::Check;
use innkeeper_model::preview::sources::SourceTree;
use innkeeper_model::preview::{ConfigProblem, Meta};
use serde::{Deserialize, Serialize};

use crate::closures::{Effort, ProgressSink};
use crate::error::FacilityError;

/// A hash over all inputs of a preview's closure: 64 hexadecimal digits. Equal keys give equal closures.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EvaluationKey(String);

/// A text that is not an [`EvaluationKey`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not an evaluation key: 64 hexadecimal digits")]
pub struct InvalidKey(String);

impl EvaluationKey {
    /// The key with these bytes.
    #[must_use]
    pub fn new(digest: [u8; 32]) -> Self {
        Self(digest.map(|byte| format!("{byte:02x}")).concat())
    }

    /// Parses a key as [`Self::as_str`] returns it.
    ///
    /// # Errors
    /// When the text has another form.
    pub fn parse(text: &str) -> Result<Self, InvalidKey> {
        let digit = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        if text.len() == 64 && text.chars().all(digit) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidKey(text.to_owned()))
        }
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EvaluationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl TryFrom<String> for EvaluationKey {
    type Error = InvalidKey;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<EvaluationKey> for String {
    fn from(key: EvaluationKey) -> Self {
        key.0
    }
}

/// A preview's closure and metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evaluated {
    /// The key of its inputs.
    pub key: EvaluationKey,
    /// The closure.
    pub closure: StorePath,
    /// `system.build.previewMeta`, validated.
    pub meta: Meta,
}

/// The result of an evaluation without a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// All problems that the evaluation reports.
    pub problems: Vec<ConfigProblem>,
    /// The metadata, validated. `None` if the configuration is invalid, or if a build makes the metadata.
    pub meta: Option<Meta>,
}

/// Evaluates configurations, each a `preview-config.nix` with the files that it refers to. They are untrusted code.
#[async_trait]
pub trait Evaluator: Send + Sync {
    /// Returns the key of a configuration. Evaluates nothing.
    ///
    /// # Errors
    /// When the host's nixpkgs or base module cannot be read.
    async fn key(&self, sources: &SourceTree) -> Result<EvaluationKey, FacilityError>;

    /// Evaluates a configuration as untrusted code and builds it, unless `known` has the same key and still
    /// exists. The closure is kept from Nix's garbage collection until [`Self::forget`]. Coalesces concurrent
    /// evaluations of the same key and effort. Dropping all of their futures cancels the evaluation and ends its processes.
    ///
    /// # Errors
    /// When it is wrong, exceeds its limits or does not build, or the host lacks something. An
    /// [inconclusive](FacilityError::is_inconclusive) error may be the host's or the repository's.
    async fn evaluate(
        &self,
        sources: &SourceTree,
        known: Option<&Evaluated>,
        effort: Effort,
        progress: ProgressSink,
    ) -> Result<Evaluated, FacilityError>;

    /// Returns all store paths of a closure, itself included.
    ///
    /// # Errors
    /// When the store does not have it, or Nix cannot be run.
    async fn requisites(&self, closure: &StorePath) -> Result<Vec<StorePath>, FacilityError>;

    /// Evaluates a configuration as untrusted code. Builds nothing, and keeps nothing. Dropping the future ends its
    /// processes.
    ///
    /// # Errors
    /// When the host lacks something. Problems of the configuration are part of the result.
    async fn inspect(&self, sources: &SourceTree) -> Result<Inspected, FacilityError>;

    /// Releases an evaluation's closure to Nix's garbage collection. Guests that run from it keep it by their own
    /// roots.
    ///
    /// # Errors
    /// When its GC root cannot be removed.
    async fn forget(&self, key: &EvaluationKey) -> Result<(), FacilityError>;

    /// Lists the evaluations whose closures are kept, without those in flight. A canceled evaluation is among them and
    /// in no table: garbage collection first calls this, then reads the table, and forgets the rest.
    ///
    /// # Errors
    /// When the GC roots cannot be listed.
    async fn kept(&self) -> Result<Vec<EvaluationKey>, FacilityError>;

    /// Checks the host's requirements of evaluations, without changing anything.
    async fn check(&self) -> Vec<Check>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evaluation_key_has_64_hexadecimal_digits() {
        let key = EvaluationKey::new([0xa5; 32]);
        assert_eq!(key.as_str(), "a5".repeat(32));
        assert_eq!(EvaluationKey::parse(key.as_str()), Ok(key.clone()));
        // Keys are names of files: no other text is one.
        for bad in [
            "",
            "..",
            "../../etc",
            &"g".repeat(64),
            &"A".repeat(64),
            &"a".repeat(63),
        ] {
            EvaluationKey::parse(bad).expect_err(bad);
        }
    }
}
