//! Tracks jobs that use an evaluation's GC roots, and removes the roots of failed ones.

use std::collections::HashMap;
use std::path::Path;

use parking_lot::Mutex;

use innkeeper_facilities::EvaluationKey;

use crate::tree;

/// Number of jobs per evaluation. A canceled job may still be dropping when the next one starts.
#[derive(Debug, Default)]
pub(super) struct Claims(Mutex<HashMap<EvaluationKey, usize>>);

/// One job's claim on the roots in a folder. A drop without [`Self::keep`] (failure or cancellation) removes the roots
/// unless another job claims them.
pub(super) struct Claim<'a> {
    claims: &'a Claims,
    key: &'a EvaluationKey,
    folder: &'a Path,
    is_kept: bool,
}

impl Claims {
    pub(super) fn begin<'a>(&'a self, key: &'a EvaluationKey, folder: &'a Path) -> Claim<'a> {
        let mut counts = self.0.lock();
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
    /// Ends the job and keeps the roots.
    pub(super) fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        // Locked until the roots are removed: a job that starts now must set them after that.
        let mut counts = self.claims.0.lock();
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
            tracing::warn!(%error, key = %self.key, "cannot remove the GC roots of an evaluation; `innkeeper gc` will");
        }
    }
}
