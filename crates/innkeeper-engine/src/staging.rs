//! Turns of starts after a start of the daemon, so that the guests of a host that was rebooted do not all boot at once.
//!
//! Only staged guests wait for a turn, in their order. A guest that somebody needs does not wait, whatever is staged.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use innkeeper_model::GuestName;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// The turns of a kind of work. Clones share them.
#[derive(Clone, Debug)]
pub struct Staging {
    limit: usize,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// The guests that have not had their turn, with their places.
    staged: HashMap<GuestName, usize>,
    /// Number of turns in progress.
    running: usize,
    /// Those that wait, by place.
    waiting: BTreeMap<usize, oneshot::Sender<Turn>>,
}

/// A guest's turn, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    /// `None` for a guest that was not staged.
    of: Option<Staging>,
    /// Ends the turn's task when it is dropped.
    _end: Option<oneshot::Sender<()>>,
}

impl Staging {
    /// Allows `limit` turns at a time, and at least one.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            state: Arc::default(),
        }
    }

    /// Has guests wait for their turns, in this order. Replaces what was staged before.
    pub fn stage(&self, guests: impl IntoIterator<Item = GuestName>) {
        let guests = guests.into_iter().enumerate();
        self.state.lock().staged = guests.map(|(place, guest)| (guest, place)).collect();
    }

    /// Lets a guest go on at once.
    pub fn hasten(&self, guest: &GuestName) {
        let waiting = {
            let mut state = self.state.lock();
            let place = state.staged.remove(guest);
            place.and_then(|place| state.waiting.remove(&place))
        };
        if let Some(waiting) = waiting {
            // An error means that its work was canceled.
            drop(waiting.send(Turn::none()));
        }
    }

    /// Waits for the turn of a guest. Others have theirs at once, and so has a guest the second time.
    pub async fn turn(&self, guest: &GuestName) -> Turn {
        let turn = {
            let mut state = self.state.lock();
            let Some(place) = state.staged.get(guest).copied() else {
                return Turn::none();
            };
            if state.running < self.limit {
                state.staged.remove(guest);
                state.running += 1;
                let of = Some(self.clone());
                return Turn { of, _end: None };
            }
            let (granted, turn) = oneshot::channel();
            state.waiting.insert(place, granted);
            turn
        };
        let turn = turn.await.unwrap_or(Turn::none());
        self.state.lock().staged.remove(guest);
        turn
    }

    /// Ends a turn and grants the next one.
    fn end_turn(&self) {
        let next = {
            let mut state = self.state.lock();
            match state.waiting.pop_first() {
                Some((_, next)) => next,
                None => {
                    state.running -= 1;
                    return;
                }
            }
        };
        let of = Some(self.clone());
        // If the work was canceled, the turn comes back and ends here.
        drop(next.send(Turn { of, _end: None }));
    }
}

impl Turn {
    fn none() -> Self {
        Self {
            of: None,
            _end: None,
        }
    }

    /// Ends the turn after a time, if it lasts that long.
    #[must_use]
    pub fn limited(mut self, time: Duration) -> Self {
        let Some(of) = self.of.take() else {
            return self;
        };
        let (end, ended) = oneshot::channel::<()>();
        tokio::spawn(async move {
            let _turn = Self {
                of: Some(of),
                _end: None,
            };
            drop(tokio::time::timeout(time, ended).await);
        });
        Self {
            of: None,
            _end: Some(end),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(staging) = self.of.take() {
            staging.end_turn();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<GuestName> {
        let name = |number| GuestName::parse(&format!("g-{number}")).expect("a name");
        (0..count).map(name).collect()
    }

    /// Has each guest wait for its turn in a task, in reverse order, and returns the order of the turns.
    async fn order(staging: &Staging, guests: &[GuestName], hastened: &[usize]) -> Vec<GuestName> {
        let had = Arc::new(Mutex::new(Vec::new()));
        let first = staging.turn(&guests[0]).await;
        let mut tasks = Vec::new();
        for guest in guests.iter().skip(1).rev() {
            let (staging, guest, had) = (staging.clone(), guest.clone(), Arc::clone(&had));
            tasks.push(tokio::spawn(async move {
                let _turn = staging.turn(&guest).await;
                had.lock().push(guest);
            }));
        }
        while staging.state.lock().waiting.len() < tasks.len() {
            tokio::task::yield_now().await;
        }
        for number in hastened {
            staging.hasten(&guests[*number]);
            while had.lock().last() != Some(&guests[*number]) {
                tokio::task::yield_now().await;
            }
        }
        drop(first);
        for task in tasks {
            task.await.expect("ends");
        }
        let had = had.lock();
        had.clone()
    }

    #[tokio::test]
    async fn turns_follow_the_order_and_a_needed_guest_does_not_wait() {
        let staging = Staging::new(1);
        let guests = names(6);
        staging.stage(guests.clone());
        let had = order(&staging, &guests, &[4]).await;
        let expected = [4, 1, 2, 3, 5].map(|number| guests[number].clone());
        assert_eq!(had, expected);
        let state = staging.state.lock();
        assert_eq!(
            (state.running, state.waiting.len(), state.staged.len()),
            (0, 0, 0)
        );
    }

    #[tokio::test]
    async fn guests_that_are_not_staged_do_not_wait() {
        let staging = Staging::new(1);
        let guests = names(3);
        staging.stage(guests[..1].to_vec());
        let _first = staging.turn(&guests[0]).await;
        for guest in &guests {
            drop(staging.turn(guest).await);
        }
    }

    #[tokio::test]
    async fn canceled_work_gives_its_turn_away() {
        let staging = Staging::new(1);
        let guests = names(3);
        staging.stage(guests.clone());
        let first = staging.turn(&guests[0]).await;
        let canceled = tokio::time::timeout(Duration::ZERO, staging.turn(&guests[1]));
        canceled.await.expect_err("waits");
        drop(first);
        drop(staging.turn(&guests[2]).await);
        // A canceled guest has its turn when it tries again.
        drop(staging.turn(&guests[1]).await);
        assert_eq!(staging.state.lock().running, 0);
    }

    #[tokio::test]
    async fn limited_turn_ends_by_itself_or_when_it_is_dropped() {
        let staging = Staging::new(1);
        let guests = names(3);
        staging.stage(guests.clone());
        let hanging = staging.turn(&guests[0]).await.limited(Duration::ZERO);
        let second = staging.turn(&guests[1]).await.limited(Duration::MAX);
        drop(second);
        drop(staging.turn(&guests[2]).await);
        drop(hanging);
    }
}
