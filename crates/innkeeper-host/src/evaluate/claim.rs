//! Work in progress on an evaluation's GC roots.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::key::EvaluationKey;
use crate::tree;

/// How many pieces of work there are on each evaluation. One that was cancelled may still be being dropped when the next one
/// on the same evaluation begins.
#[derive(Debug, Default)]
pub(super) struct Claims(Mutex<HashMap<EvaluationKey, usize>>);

/// One piece of work on the roots in a folder. Dropped without [`Self::keep`], because it failed or was cancelled, it
/// removes them, unless other work on them goes on.
pub(super) struct Claim<'a> {
    claims: &'a Claims,
    key: &'a EvaluationKey,
    folder: &'a Path,
    is_kept: bool,
}

impl Claims {
    pub(super) fn begin<'a>(&'a self, key: &'a EvaluationKey, folder: &'a Path) -> Claim<'a> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(key.clone()).or_default() += 1;
        Claim {
            claims: self,
            key,
            folder,
            is_kept: false,
        }
    }
}

impl Claim<'_> {
    /// Ends the work; the roots stay.
    pub(super) fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        // Held until the roots are gone: work that begins now makes them after that.
        let mut counts = self.claims.0.lock().unwrap_or_else(PoisonError::into_inner);
        let others = counts
            .get(self.key)
            .map_or(0, |count| count.saturating_sub(1));
        if others > 0 {
            counts.insert(self.key.clone(), others);
            return;
        }
        counts.remove(self.key);
        if !self.is_kept
            && let Err(error) = tree::remove(self.folder)
        {
            tracing::warn!(%error, key = %self.key, "GC roots of an evaluation are left; `innkeeper gc` removes them");
        }
    }
}
