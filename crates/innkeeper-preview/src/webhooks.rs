//! The part of `innkeeper doctor` about webhooks: their last pings and deliveries.

use std::collections::BTreeMap;

use innkeeper_model::api::{Check, Verdict};
use innkeeper_store::{Delivery, Ping, Store, StoreError};
use jiff::Timestamp;

/// The end of the remedy for wrong settings. GitHub reports changes of settings in pings only.
const PING_AGAIN: &str = "Then create the webhook again, or request a ping with GitHub's API.";

/// Returns a check for each repository and organization that sent a ping or a delivery.
///
/// # Errors
/// The store cannot be read.
pub(crate) async fn checks(store: &Store) -> Result<Vec<Check>, StoreError> {
    let (pings, deliveries) = (store.pings().await?, store.last_deliveries().await?);
    Ok(checks_of(pings, deliveries))
}

fn checks_of(pings: Vec<Ping>, deliveries: Vec<Delivery>) -> Vec<Check> {
    // GitHub's names are independent of case.
    let mut senders: BTreeMap<String, (Option<Ping>, Option<Delivery>)> = BTreeMap::new();
    for ping in pings {
        let key = ping.owner.to_ascii_lowercase();
        senders.entry(key).or_default().0 = Some(ping);
    }
    for delivery in deliveries {
        let key = delivery.event.pull_request().repo.key();
        senders.entry(key).or_default().1 = Some(delivery);
    }
    let senders = senders.into_iter();
    senders
        .map(|(name, (ping, delivery))| check(&name, ping.as_ref(), delivery.as_ref()))
        .collect()
}

fn check(name: &str, ping: Option<&Ping>, delivery: Option<&Delivery>) -> Check {
    let mut finding = match ping {
        Some(ping) => format!("last ping {}", shown(ping.received_at)),
        None => "no ping on record".to_owned(),
    };
    finding.push_str(&match delivery {
        Some(one) => format!(
            ", last delivery {} ({}, {})",
            shown(one.received_at),
            one.event.action(),
            one.state
        ),
        None => ", no delivery on record".to_owned(),
    });
    let problems = ping.map_or(&[][..], |ping| &ping.problems);
    for problem in problems {
        finding.push_str(&format!("; at the ping, {problem}"));
    }
    // A later delivery proves that the webhook works by now. The settings may have been changed after the ping.
    let works =
        ping.is_some_and(|ping| delivery.is_some_and(|one| one.received_at > ping.received_at));
    let is_wrong = !problems.is_empty() && !works;
    let remedies = problems.iter().map(|problem| problem.remedy.as_str());
    let remedies: Vec<_> = remedies.chain([PING_AGAIN]).collect();
    Check {
        subject: format!("webhook {name}"),
        verdict: if is_wrong {
            Verdict::Warning
        } else {
            Verdict::Ok
        },
        finding,
        remedy: is_wrong.then(|| remedies.join(" ")),
    }
}

fn shown(time: Timestamp) -> String {
    time.strftime("%F %R UTC").to_string()
}

#[cfg(test)]
mod tests {
    use innkeeper_model::preview::api::DeliveryState;
    use innkeeper_model::preview::{
        BranchName, CommitSha, HookProblem, HookSetting, PrAction, PullDetails, PullRequest,
        PullRequestEvent, RepoName,
    };

    use super::*;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + 60 * minute).expect("a time")
    }

    fn ping(owner: &str, minute: i64, problem: Option<&str>) -> Ping {
        let problems = problem.map(|text| HookProblem {
            setting: HookSetting::Events,
            problem: text.to_owned(),
            remedy: "Select it.".to_owned(),
        });
        Ping {
            owner: owner.to_owned(),
            received_at: at(minute),
            problems: problems.into_iter().collect(),
        }
    }

    fn delivery(repo: &str, minute: i64) -> Delivery {
        let repo = RepoName::parse(repo).expect("a name");
        let branch = BranchName::parse("main").expect("a branch");
        let event = PullRequestEvent {
            delivery: "d".to_owned(),
            action: PrAction::Opened,
            pull_request: PullRequest {
                repo: repo.clone(),
                number: 7,
            },
            repo_id: None,
            head_repo: Some(repo),
            head_sha: CommitSha::parse(&"a".repeat(40)).expect("a commit"),
            head_branch: branch.clone(),
            base_branch: branch,
            is_fork: false,
            merged: false,
            draft: false,
            author: "alice".to_owned(),
            sender: "alice".to_owned(),
            title_changed: false,
            body_changed: false,
            base_changed: false,
            updated_at: None,
            details: PullDetails::default(),
        };
        Delivery {
            seq: 1,
            event: event.into(),
            received_at: at(minute),
            state: DeliveryState::Done,
            attempts: 1,
            not_before: None,
            failure: None,
            finished_at: None,
        }
    }

    #[test]
    fn doctor_shows_the_last_ping_and_delivery_of_each_repository() {
        let wrong = Some("the event 'repository' is not selected");
        let pings = vec![
            ping("octo", 0, None),
            ping("Octo/Web", 1, wrong),
            ping("octo/api", 2, wrong),
            ping("octo/new", 3, wrong),
        ];
        let deliveries = vec![
            delivery("octo/api", 1),
            delivery("octo/old", 2),
            delivery("octo/web", 3),
        ];
        let checks = checks_of(pings, deliveries);
        let lines = checks.iter().map(|check| {
            let remedy = check.remedy.as_deref().unwrap_or_default();
            format!(
                "{:?} {}: {} {remedy}",
                check.verdict, check.subject, check.finding
            )
        });
        let problem = "; at the ping, the event 'repository' is not selected";
        let expected = [
            "Ok webhook octo: last ping 2027-01-15 08:00 UTC, no delivery on record ".to_owned(),
            format!(
                "Warning webhook octo/api: last ping 2027-01-15 08:02 UTC, last delivery 2027-01-15 08:01 UTC (opened, done){problem} Select it. {PING_AGAIN}"
            ),
            format!(
                "Warning webhook octo/new: last ping 2027-01-15 08:03 UTC, no delivery on record{problem} Select it. {PING_AGAIN}"
            ),
            "Ok webhook octo/old: no ping on record, last delivery 2027-01-15 08:02 UTC (opened, done) ".to_owned(),
            format!(
                "Ok webhook octo/web: last ping 2027-01-15 08:01 UTC, last delivery 2027-01-15 08:03 UTC (opened, done){problem} "
            ),
        ];
        assert_eq!(lines.collect::<Vec<_>>(), expected);
    }
}
