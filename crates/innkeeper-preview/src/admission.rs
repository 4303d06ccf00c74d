//! Decides which pull requests get a preview: all, those that are no drafts, or those for which one is requested.

use innkeeper_model::{Code, Failure};
use innkeeper_store::PreviewRequest;

/// Previews of drafts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Drafts {
    /// Drafts get previews as others do.
    #[default]
    On,
    /// Drafts have no previews: a pull request that becomes a draft loses its preview.
    Off,
    /// Drafts get no previews, but the preview of a pull request that becomes a draft stays.
    UntilReady,
}

/// The rules by which pull requests get a preview. A command in a comment requests one in any case.
#[derive(Clone, Debug, Default)]
pub struct Admission {
    /// Previews of drafts.
    pub drafts: Drafts,
    /// The label that requests a preview; `None` if every open pull request gets one.
    pub request_label: Option<String>,
}

impl Admission {
    /// Reports whether a label is the one that requests a preview.
    pub(crate) fn is_request(&self, label: &str) -> bool {
        self.request_label.as_deref() == Some(label)
    }

    /// Reports whether the labels of a pull request request a preview, or none is required.
    pub(crate) fn is_requested(&self, labels: &[String]) -> bool {
        let label = self.request_label.as_ref();
        label.is_none_or(|label| labels.contains(label))
    }

    /// Returns the reason that a pull request without a preview gets none yet, if that is so.
    pub(crate) fn refusal(&self, draft: bool, labels: &[String]) -> Option<Failure> {
        if let Some(refusal) = self.refusal_of_draft(draft) {
            return Some(refusal);
        }
        let label = self.request_label.as_deref().unwrap_or_default();
        let failure = Failure::new(
            Code::PreviewNotRequested,
            "nobody requested a preview of the pull request",
        )
        .with_remedy(format!(
            "Add the label '{label}', or comment `/preview start`."
        ));
        (!self.is_requested(labels)).then_some(failure)
    }

    /// Returns the reason that a draft without a preview gets none yet, if that is so.
    pub(crate) fn refusal_of_draft(&self, draft: bool) -> Option<Failure> {
        let failure = Failure::new(
            Code::PreviewNotRequested,
            "the pull request is a draft, which gets no preview",
        )
        .with_remedy("Mark the pull request as ready for review, or comment `/preview start`.");
        (draft && self.drafts != Drafts::On).then_some(failure)
    }

    /// Reports whether an existing preview stays.
    pub(crate) fn keeps(&self, draft: bool, request: Option<PreviewRequest>) -> bool {
        !draft || self.drafts != Drafts::Off || request == Some(PreviewRequest::Command)
    }

    /// Returns the request that an admitted pull request is recorded with.
    pub(crate) fn request(&self) -> Option<PreviewRequest> {
        self.request_label.as_ref().map(|_| PreviewRequest::Label)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drafts_and_missing_requests_are_refused() {
        let labels = ["bug".to_owned(), "preview".to_owned()];
        let (none, requested) = (&labels[..1], &labels[..]);
        for (drafts, by_label, draft, labels, admitted) in [
            (Drafts::On, false, true, none, true),
            (Drafts::Off, false, true, requested, false),
            (Drafts::Off, false, false, none, true),
            (Drafts::UntilReady, false, true, none, false),
            (Drafts::UntilReady, false, false, none, true),
            (Drafts::On, true, true, none, false),
            (Drafts::On, true, true, requested, true),
            (Drafts::Off, true, true, requested, false),
            (Drafts::UntilReady, true, false, requested, true),
            (Drafts::UntilReady, true, false, none, false),
        ] {
            let admission = Admission {
                drafts,
                request_label: by_label.then(|| "preview".to_owned()),
            };
            let refusal = admission.refusal(draft, labels);
            assert_eq!(
                refusal.is_none(),
                admitted,
                "{admission:?} {draft} {refusal:?}"
            );
        }
    }

    #[test]
    fn only_off_removes_the_preview_of_a_draft() {
        let keeps = |drafts, draft, request| {
            let admission = Admission {
                drafts,
                request_label: None,
            };
            admission.keeps(draft, request)
        };
        assert!(keeps(Drafts::On, true, None));
        assert!(keeps(Drafts::UntilReady, true, None));
        assert!(keeps(Drafts::Off, false, None));
        assert!(!keeps(Drafts::Off, true, None));
        assert!(!keeps(Drafts::Off, true, Some(PreviewRequest::Label)));
        assert!(keeps(Drafts::Off, true, Some(PreviewRequest::Command)));
    }
}
