//! A deterministic workload of deliveries, and its expected results.
//!
//! Pull requests are opened, get commits and labels, are closed, and some are reopened. Their deliveries are duplicated,
//! reordered, and mixed with forged, malformed and oversized ones.

use std::collections::{BTreeMap, BTreeSet};

use innkeeper_model::preview::{CommitSha, PrAction, PullRequest, PullRequestEvent};

use crate::github::payload::{RawDelivery, sign};

/// The prefix of the ids of valid deliveries.
const GOOD: &str = "good-";

/// The maximum distance of two deliveries that are swapped.
const MAX_SWAP: u32 = 40;

/// A deterministic random number generator (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from((z ^ (z >> 31)) % u64::from(limit)).expect("fits")
    }
}

/// The history of a pull request on GitHub.
#[derive(Clone, Debug, Default)]
struct PullRequestHistory {
    is_open: bool,
    /// Its actions in order, with the numbers of the commit and the delivery.
    actions: Vec<(&'static str, u64, u64)>,
}

impl PullRequestHistory {
    /// Returns the next action, or `None` at the end of the history.
    fn next(&self, random: &mut Random) -> Option<&'static str> {
        let roll = random.below(100);
        Some(match (self.actions.is_empty(), self.is_open, roll) {
            (true, ..) => "opened",
            (false, true, 0..12) => "closed",
            (false, true, 12..24) => "labeled",
            (false, true, _) => "synchronize",
            (false, false, 0..10) => "reopened",
            (false, false, _) => return None,
        })
    }

    fn record(&mut self, action: &'static str, delivery: u64) {
        self.is_open = action != "closed";
        // Actions other than pushes keep the current commit.
        let commit = match (action, self.actions.last()) {
            ("synchronize", _) | (_, None) => delivery,
            (_, Some((_, commit, _))) => *commit,
        };
        self.actions.push((action, commit, delivery));
    }
}

/// A workload.
pub(crate) struct Workload {
    /// The deliveries, in approximate order of sending.
    pub(crate) sent: Vec<RawDelivery>,
    histories: BTreeMap<u64, PullRequestHistory>,
}

/// The expected results that do not depend on the order of arrival.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Expected {
    /// Pull requests with a preview: they were never closed.
    pub(crate) present: BTreeSet<u64>,
    /// Pull requests without a preview: they were closed and not reopened.
    pub(crate) absent: BTreeSet<u64>,
}

impl Workload {
    /// Creates at least `deliveries` valid deliveries for pull requests of `octo/web`, mixed with invalid ones.
    pub(crate) fn new(seed: u64, deliveries: u32, pull_requests: u32) -> Self {
        let mut random = Random(seed);
        let mut histories: BTreeMap<u64, PullRequestHistory> = BTreeMap::new();
        let mut sent = Vec::new();
        let mut n = 0;
        while n < u64::from(deliveries) {
            let number = u64::from(1 + random.below(pull_requests));
            let history = histories.entry(number).or_default();
            let Some(action) = history.next(&mut random) else {
                continue;
            };
            history.record(action, n);
            let (_, commit, _) = history.actions[history.actions.len() - 1];
            let good = RawDelivery::pull_request(&format!("{GOOD}{n}"), action, number, commit);
            sent.extend(with_noise(good, n, &mut random));
            n += 1;
        }
        for at in 0..sent.len() {
            let other = (at + random.below(MAX_SWAP) as usize).min(sent.len() - 1);
            sent.swap(at, other);
        }
        Self { sent, histories }
    }

    /// Returns the expected results if the deliveries with these ids were accepted.
    pub(crate) fn expected(&self, accepted: &BTreeSet<&str>) -> Expected {
        let mut expected = Expected::default();
        for (number, history) in &self.histories {
            let arrived: Vec<_> = history
                .actions
                .iter()
                .filter(|(.., delivery)| accepted.contains(format!("{GOOD}{delivery}").as_str()))
                .map(|(action, ..)| *action)
                .collect();
            let has = |action| arrived.contains(&action);
            if has("reopened") {
                continue;
            }
            if has("closed") {
                expected.absent.insert(*number);
            } else if has("opened") || has("synchronize") {
                expected.present.insert(*number);
            }
        }
        expected
    }
}

/// Returns a valid delivery, sometimes preceded by an invalid one or by a duplicate.
fn with_noise(good: RawDelivery, n: u64, random: &mut Random) -> Vec<RawDelivery> {
    let other = match random.below(100) {
        0..10 => good.clone(),
        10..15 => RawDelivery {
            id: format!("forged-{n}"),
            signature: Some(sign("guessed", &good.body)),
            ..good.clone()
        },
        15..17 => RawDelivery {
            id: format!("changed-{n}"),
            body: [&good.body[..], b" "].concat().into(),
            ..good.clone()
        },
        17..19 => RawDelivery {
            id: format!("unsigned-{n}"),
            signature: None,
            ..good.clone()
        },
        19..21 => RawDelivery::signed(&format!("broken-{n}"), "pull_request", "{"),
        21 => {
            let mut body = good.body.to_vec();
            body.resize((1 << 20) + 1 + random.below(1 << 18) as usize, b' ');
            RawDelivery::signed(&format!("oversized-{n}"), "pull_request", body)
        }
        _ => return vec![good],
    };
    vec![other, good]
}

/// Reports whether the id is that of a valid delivery.
pub(crate) fn is_good(id: &str) -> bool {
    id.starts_with(GOOD)
}

/// Returns the allowed response statuses for a delivery.
pub(crate) fn allowed(id: &str) -> &'static [u16] {
    match id.split('-').next() {
        Some("good") => &[202, 503],
        Some("broken") => &[400],
        Some("oversized") => &[413],
        _ => &[401],
    }
}

/// Returns the previews that events in this order imply, with their commits. The last event counts; after `closed`, only
/// `reopened` does.
pub(crate) fn implied<'a>(
    events: impl IntoIterator<Item = &'a PullRequestEvent>,
) -> BTreeMap<PullRequest, CommitSha> {
    let mut previews = BTreeMap::new();
    let mut closed = BTreeSet::new();
    for event in events {
        let pull_request = &event.pull_request;
        match event.action {
            PrAction::Closed => {
                previews.remove(pull_request);
                closed.insert(pull_request.clone());
                continue;
            }
            PrAction::Reopened => {
                closed.remove(pull_request);
            }
            PrAction::Opened | PrAction::Synchronize if !closed.contains(pull_request) => {}
            _ => continue,
        }
        previews.insert(pull_request.clone(), event.head_sha.clone());
    }
    previews
}
