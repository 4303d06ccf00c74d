//! The wakes that visitors have begun and that are in progress.

use std::collections::HashSet;
use std::sync::Arc;

use innkeeper_model::GuestName;
use parking_lot::Mutex;

/// The previews that visitors wake at the moment. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct VisitorWakes {
    slugs: Arc<Mutex<HashSet<GuestName>>>,
}

/// A wake in progress, until it is dropped.
pub(crate) struct VisitorWake {
    wakes: VisitorWakes,
    slug: GuestName,
}

impl VisitorWakes {
    /// Reports whether a visitor wakes a preview.
    pub(crate) fn includes(&self, slug: &GuestName) -> bool {
        self.slugs.lock().contains(slug)
    }

    /// Begins a wake. `None` if it has begun already.
    pub(crate) fn begin(&self, slug: &GuestName) -> Option<VisitorWake> {
        self.slugs.lock().insert(slug.clone()).then(|| VisitorWake {
            wakes: self.clone(),
            slug: slug.clone(),
        })
    }
}

impl Drop for VisitorWake {
    fn drop(&mut self) {
        self.wakes.slugs.lock().remove(&self.slug);
    }
}
