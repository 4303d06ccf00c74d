//! What a person is told of a delivery.

use innkeeper_model::GuestName;
use innkeeper_model::preview::api::{DeliveryState, DeliveryView};
use innkeeper_model::preview::certainly_before;
use innkeeper_store::Delivery;

/// The one kind of event that is recorded.
const EVENT: &str = "pull_request";

/// A delivery for people: `slug` is the name of its pull request's preview if it has one, and `other` the
/// delivery because of which it comes to nothing
/// ([`Store::superseding_delivery`](innkeeper_store::Store::superseding_delivery)).
pub(crate) fn view(
    delivery: &Delivery,
    slug: Option<&GuestName>,
    other: Option<&Delivery>,
) -> DeliveryView {
    let event = &delivery.event;
    DeliveryView {
        id: event.delivery.clone(),
        received_at: delivery.received_at,
        event: EVENT.to_owned(),
        action: Some(event.action.to_string()),
        pull_request: Some(event.pull_request.clone()),
        head_sha: Some(event.head_sha.clone()),
        slug: slug.cloned(),
        state: delivery.state,
        attempts: delivery.attempts,
        retry_at: delivery.not_before,
        finished_at: delivery.finished_at,
        explanation: Some(explanation(delivery, other)),
        yields_to: other.map(|other| other.event.delivery.clone()),
        failure: delivery.failure.clone(),
    }
}

/// Why it is in its state.
fn explanation(delivery: &Delivery, other: Option<&Delivery>) -> String {
    let named = |other: &Delivery| format!("'{}' ({})", other.event.delivery, other.event.action);
    match (delivery.state, other) {
        (DeliveryState::Pending, Some(newer)) => format!(
            "the newer delivery {} for the same pull request takes its place",
            named(newer)
        ),
        (DeliveryState::Pending, None) if delivery.not_before.is_some() => {
            "it failed for a cause that may pass, and is tried again".to_owned()
        }
        (DeliveryState::Pending, None) => "it waits for its turn".to_owned(),
        (DeliveryState::Running, _) => "what it asks for is being done".to_owned(),
        (DeliveryState::Done, _) => "what it asks for was done".to_owned(),
        (DeliveryState::Superseded, Some(newer)) => format!(
            "the newer delivery {} for the same pull request took its place before it was done",
            named(newer)
        ),
        (DeliveryState::Superseded, None) => {
            "a newer delivery for the same pull request, or somebody on this host, took its place before it was done"
                .to_owned()
        }
        (DeliveryState::Ignored, Some(newer))
            if certainly_before(delivery.event.updated_at, newer.event.updated_at) =>
        {
            format!(
                "it was late: delivery {}, of which GitHub had told later, was here when it arrived",
                named(newer)
            )
        }
        (DeliveryState::Ignored, Some(closed)) => format!(
            "the pull request had been closed by delivery {} when it arrived; only 'reopened' counts after that",
            named(closed)
        ),
        // What was never tried was overtaken, by a delivery that is not kept any more.
        (DeliveryState::Ignored, None) if delivery.attempts == 0 => {
            "something newer had happened to the pull request when it arrived; only 'reopened' counts after 'closed'"
                .to_owned()
        }
        (DeliveryState::Ignored, None) => "it asks for nothing that previews do".to_owned(),
        (DeliveryState::Failed, _) => "it failed, and the same would happen again".to_owned(),
    }
}

#[cfg(test)]
mod tests {
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
    fn a_delivery_that_came_to_nothing_names_the_one_because_of_which() {
        let older = delivery("a", "opened", DeliveryState::Superseded);
        let newer = delivery("b", "closed", DeliveryState::Done);
        let shown = view(&older, None, Some(&newer));
        assert_eq!(shown.yields_to.as_deref(), Some("b"));
        insta::assert_snapshot!(
            shown.explanation.expect("one"),
            @"the newer delivery 'b' (closed) for the same pull request took its place before it was done"
        );
        let late = delivery("c", "synchronize", DeliveryState::Ignored);
        insta::assert_snapshot!(
            explanation(&late, Some(&newer)),
            @"the pull request had been closed by delivery 'b' (closed) when it arrived; only 'reopened' counts after that"
        );
    }

    #[test]
    fn one_that_was_late_names_what_was_there_first() {
        let at = |text: &str| Some(text.parse().expect("a time"));
        let mut newer = delivery("b", "reopened", DeliveryState::Done);
        newer.event.updated_at = at("2026-11-20T10:00:20Z");
        let mut late = delivery("a", "closed", DeliveryState::Ignored);
        late.event.updated_at = at("2026-11-20T10:00:00Z");
        insta::assert_snapshot!(
            explanation(&late, Some(&newer)),
            @"it was late: delivery 'b' (reopened), of which GitHub had told later, was here when it arrived"
        );
    }

    #[test]
    fn ignored_on_arrival_and_ignored_after_a_look_are_two_things() {
        let mut ignored = delivery("a", "opened", DeliveryState::Ignored);
        let on_arrival = explanation(&ignored, None);
        ignored.attempts = 1;
        assert_ne!(explanation(&ignored, None), on_arrival);
    }

    #[test]
    fn one_that_is_tried_again_says_so() {
        let mut pending = delivery("a", "opened", DeliveryState::Pending);
        assert_eq!(explanation(&pending, None), "it waits for its turn");
        pending.not_before = Some(jiff::Timestamp::UNIX_EPOCH);
        assert!(explanation(&pending, None).contains("tried again"));
    }
}
