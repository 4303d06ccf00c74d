//! Explanations of deliveries for people.

use innkeeper_model::GuestName;
use innkeeper_model::preview::api::{DeliveryState, DeliveryView};
use innkeeper_model::preview::certainly_before;
use innkeeper_store::Delivery;

/// Returns the view of a delivery. `slug` is the name of its pull request's preview, and `other` the delivery that
/// supersedes it
/// ([`Store::superseding_delivery`](innkeeper_store::Store::superseding_delivery)).
pub(crate) fn view(
    delivery: &Delivery,
    slug: Option<&GuestName>,
    other: Option<&Delivery>,
) -> DeliveryView {
    let event = &delivery.event;
    DeliveryView {
        id: event.id().to_owned(),
        received_at: delivery.received_at,
        event: event.name().to_owned(),
        action: Some(event.action()),
        pull_request: Some(event.pull_request().clone()),
        head_sha: event.as_pull_request().map(|event| event.head_sha.clone()),
        slug: slug.cloned(),
        state: delivery.state,
        attempts: delivery.attempts,
        retry_at: delivery.not_before,
        finished_at: delivery.finished_at,
        explanation: Some(explanation(delivery, other)),
        yields_to: other.map(|other| other.event.id().to_owned()),
        failure: delivery.failure.clone(),
    }
}

/// Explains the delivery's state.
fn explanation(delivery: &Delivery, other: Option<&Delivery>) -> String {
    let named = |other: &Delivery| format!("'{}' ({})", other.event.id(), other.event.action());
    match (delivery.state, other) {
        (DeliveryState::Pending, Some(newer)) => format!(
            "superseded by the newer delivery {} for the same pull request",
            named(newer)
        ),
        (DeliveryState::Pending, None) if delivery.not_before.is_some() => {
            "it failed with a temporary error, and will be retried".to_owned()
        }
        (DeliveryState::Pending, None) => "it is queued".to_owned(),
        (DeliveryState::Running, _) => "it is being processed".to_owned(),
        (DeliveryState::Done, _) => "it was processed".to_owned(),
        (DeliveryState::Superseded, Some(newer)) => format!(
            "superseded by the newer delivery {} for the same pull request before it was processed",
            named(newer)
        ),
        (DeliveryState::Superseded, None) => {
            "superseded by a newer delivery for the same pull request, or by a command on this host, before it was processed"
                .to_owned()
        }
        (DeliveryState::Ignored, Some(newer))
            if certainly_before(delivery.event.updated_at(), newer.event.updated_at()) =>
        {
            format!(
                "ignored: the newer delivery {} had already arrived",
                named(newer)
            )
        }
        (DeliveryState::Ignored, Some(closed)) => format!(
            "ignored: delivery {} had already closed the pull request; only 'reopened' counts after that",
            named(closed)
        ),
        // Without an attempt it was superseded on arrival, by a delivery that is no longer kept.
        (DeliveryState::Ignored, None) if delivery.attempts == 0 => {
            "ignored: a newer delivery had already arrived; after 'closed', only 'reopened' counts"
                .to_owned()
        }
        (DeliveryState::Ignored, None) => match &delivery.failure {
            Some(reason) => format!("ignored: {reason}"),
            None => "ignored: it needs no action".to_owned(),
        },
        (DeliveryState::Failed, _) => "it failed, and a retry would fail again".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use innkeeper_model::preview::DeliveryEvent;
    use innkeeper_model::{Code, Failure};

    use super::*;

    fn delivery(id: &str, action: &str, state: DeliveryState) -> Delivery {
        let event = serde_json::json!({
            "delivery": id,
            "action": action,
            "pull_request": { "repo": "octo/web", "number": 7 },
            "head_repo": "octo/web",
            "head_sha": "0123456789abcdef0123456789abcdef01234567",
            "head_branch": "topic",
            "base_branch": "main",
            "is_fork": false,
            "author": "alice",
            "sender": "alice",
        });
        Delivery {
            seq: 1,
            event: serde_json::from_value(event).expect("event"),
            received_at: jiff::Timestamp::UNIX_EPOCH,
            state,
            attempts: 0,
            not_before: None,
            failure: None,
            finished_at: None,
        }
    }

    #[test]
    fn a_superseded_delivery_names_the_newer_one() {
        let older = delivery("a", "opened", DeliveryState::Superseded);
        let newer = delivery("b", "closed", DeliveryState::Done);
        let shown = view(&older, None, Some(&newer));
        assert_eq!(shown.yields_to.as_deref(), Some("b"));
        insta::assert_snapshot!(
            shown.explanation.expect("one"),
            @"superseded by the newer delivery 'b' (closed) for the same pull request before it was processed"
        );
        let late = delivery("c", "synchronize", DeliveryState::Ignored);
        insta::assert_snapshot!(
            explanation(&late, Some(&newer)),
            @"ignored: delivery 'b' (closed) had already closed the pull request; only 'reopened' counts after that"
        );
    }

    #[test]
    fn a_late_delivery_names_the_newer_one() {
        let set_time = |delivery: &mut Delivery, text: &str| {
            if let DeliveryEvent::PullRequest(event) = &mut delivery.event {
                event.updated_at = Some(text.parse().expect("a time"));
            }
        };
        let mut newer = delivery("b", "reopened", DeliveryState::Done);
        set_time(&mut newer, "2026-11-20T10:00:20Z");
        let mut late = delivery("a", "closed", DeliveryState::Ignored);
        set_time(&mut late, "2026-11-20T10:00:00Z");
        insta::assert_snapshot!(
            explanation(&late, Some(&newer)),
            @"ignored: the newer delivery 'b' (reopened) had already arrived"
        );
    }

    #[test]
    fn ignored_on_arrival_differs_from_ignored_when_processed() {
        let mut ignored = delivery("a", "opened", DeliveryState::Ignored);
        let on_arrival = explanation(&ignored, None);
        ignored.attempts = 1;
        assert_ne!(explanation(&ignored, None), on_arrival);
        let reason = "no preview-config.nix at 0123456789abcdef0123456789abcdef01234567";
        ignored.failure = Some(Failure::new(Code::ConfigMissing, reason));
        assert_eq!(explanation(&ignored, None), format!("ignored: {reason}"));
    }

    #[test]
    fn a_delivery_that_is_retried_mentions_the_retry() {
        let mut pending = delivery("a", "opened", DeliveryState::Pending);
        assert_eq!(explanation(&pending, None), "it is queued");
        pending.not_before = Some(jiff::Timestamp::UNIX_EPOCH);
        assert!(explanation(&pending, None).contains("retried"));
    }
}
