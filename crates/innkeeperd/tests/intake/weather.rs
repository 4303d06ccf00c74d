//! What GitHub sends in a storm, and what it means. The same in each run.
//!
//! Pull requests live their lives: opened, given commits and labels, closed, some opened again. On their way
//! deliveries are doubled, change places with others, and meet forged, broken and oversized ones.

use std::collections::{BTreeMap, BTreeSet};

use innkeeper_model::preview::{CommitSha, PrAction, PullRequest, PullRequestEvent};

use crate::github::payload::{Sent, sign};

/// The first word of the id of each delivery that GitHub did send.
const GOOD: &str = "good-";

/// How far two deliveries that change places are from each other at most.
const REACH: u32 = 40;

/// A generator of numbers that is the same in each run (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from((z ^ (z >> 31)) % u64::from(limit)).expect("fits")
    }
}

/// How a pull request's life went on GitHub.
#[derive(Clone, Debug, Default)]
struct Life {
    is_open: bool,
    /// Its actions in their order, with the number of the commit and of the delivery.
    actions: Vec<(&'static str, u64, u64)>,
}

impl Life {
    /// What happens next; nothing when it is over.
    fn next(&self, dice: &mut Dice) -> Option<&'static str> {
        let roll = dice.below(100);
        Some(match (self.actions.is_empty(), self.is_open, roll) {
            (true, ..) => "opened",
            (false, true, 0..12) => "closed",
            (false, true, 12..24) => "labeled",
            (false, true, _) => "synchronize",
            (false, false, 0..10) => "reopened",
            (false, false, _) => return None,
        })
    }

    fn live(&mut self, action: &'static str, delivery: u64) {
        self.is_open = action != "closed";
        // What is not about commits is about the one that is there.
        let commit = match (action, self.actions.last()) {
            ("synchronize", _) | (_, None) => delivery,
            (_, Some((_, commit, _))) => *commit,
        };
        self.actions.push((action, commit, delivery));
    }
}

/// A storm.
pub(crate) struct Weather {
    /// What is sent, in about this order.
    pub(crate) sent: Vec<Sent>,
    lives: BTreeMap<u64, Life>,
}

/// What must be there and what must not, whatever order deliveries arrived in.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Certain {
    /// Numbers of pull requests that have a preview: they were never closed.
    pub(crate) present: BTreeSet<u64>,
    /// Numbers of pull requests that have none: they were closed, and not opened again.
    pub(crate) absent: BTreeSet<u64>,
}

impl Weather {
    /// At least `deliveries` good deliveries for so many pull requests of `octo/web`, and bad ones in between.
    pub(crate) fn new(seed: u64, deliveries: u32, pull_requests: u32) -> Self {
        let mut dice = Dice(seed);
        let mut lives: BTreeMap<u64, Life> = BTreeMap::new();
        let mut sent = Vec::new();
        let mut n = 0;
        while n < u64::from(deliveries) {
            let number = u64::from(1 + dice.below(pull_requests));
            let life = lives.entry(number).or_default();
            let Some(action) = life.next(&mut dice) else {
                continue;
            };
            life.live(action, n);
            let (_, commit, _) = life.actions[life.actions.len() - 1];
            let good = Sent::pull_request(&format!("{GOOD}{n}"), action, number, commit);
            sent.extend(accompanied(good, n, &mut dice));
            n += 1;
        }
        for at in 0..sent.len() {
            let other = (at + dice.below(REACH) as usize).min(sent.len() - 1);
            sent.swap(at, other);
        }
        Self { sent, lives }
    }

    /// What is certain when these deliveries were accepted, by their ids.
    pub(crate) fn certain(&self, accepted: &BTreeSet<&str>) -> Certain {
        let mut certain = Certain::default();
        for (number, life) in &self.lives {
            let arrived: Vec<_> = life
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
                certain.absent.insert(*number);
            } else if has("opened") || has("synchronize") {
                certain.present.insert(*number);
            }
        }
        certain
    }
}

/// A good delivery with the bad one that goes before it, if one does, or with itself.
fn accompanied(good: Sent, n: u64, dice: &mut Dice) -> Vec<Sent> {
    let other = match dice.below(100) {
        0..10 => good.clone(),
        10..15 => Sent {
            id: format!("forged-{n}"),
            signature: Some(sign("guessed", &good.body)),
            ..good.clone()
        },
        15..17 => Sent {
            id: format!("changed-{n}"),
            body: [&good.body[..], b" "].concat().into(),
            ..good.clone()
        },
        17..19 => Sent {
            id: format!("unsigned-{n}"),
            signature: None,
            ..good.clone()
        },
        19..21 => Sent::signed(&format!("broken-{n}"), "pull_request", "{"),
        21 => {
            let mut body = good.body.to_vec();
            body.resize((1 << 20) + 1 + dice.below(1 << 18) as usize, b' ');
            Sent::signed(&format!("oversized-{n}"), "pull_request", body)
        }
        _ => return vec![good],
    };
    vec![other, good]
}

/// Whether a delivery of this id is one that GitHub did send.
pub(crate) fn is_good(id: &str) -> bool {
    id.starts_with(GOOD)
}

/// The statuses that a delivery may be answered with.
pub(crate) fn allowed(id: &str) -> &'static [u16] {
    match id.split('-').next() {
        Some("good") => &[202, 503],
        Some("broken") => &[400],
        Some("oversized") => &[413],
        _ => &[401],
    }
}

/// The previews that events in this order imply, with the commit of each: of what says how a preview should
/// be, the last counts; after `closed`, only `reopened` does.
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
