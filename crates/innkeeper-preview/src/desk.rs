//! One worker for each preview, and how it is woken.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use innkeeper_model::GuestName;
use tokio::sync::watch;

/// What a worker hears.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Call {
    /// How often it was woken.
    woken: u64,
    /// How often it was asked to look after a preview that is as wanted.
    pub(crate) looks: u64,
    /// How often somebody on the host asked for something.
    pub(crate) orders: u64,
}

/// Why a worker is woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// There may be something to do.
    News,
    /// From time to time: a preview that is as wanted is looked after.
    Look,
    /// Somebody on the host wants something. What is being done is dropped, and no pause holds it up.
    Order,
}

/// The workers there are.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    workers: Mutex<HashMap<GuestName, watch::Sender<Call>>>,
}

impl Desk {
    /// Wakes a preview's worker. There is none yet when something is returned: then the caller starts one, that
    /// listens to it.
    pub(crate) fn wake(&self, slug: &GuestName, why: Why) -> Option<watch::Receiver<Call>> {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let call = |call: &mut Call| {
            call.woken += 1;
            call.looks += u64::from(why == Why::Look);
            call.orders += u64::from(why == Why::Order);
        };
        // One whose worker is gone without leaving, as in a panic, gets another: else nobody could remove it.
        if let Some(worker) = workers.get(slug).filter(|worker| !worker.is_closed()) {
            worker.send_modify(call);
            return None;
        }
        let (worker, mut calls) = watch::channel(Call::default());
        worker.send_modify(call);
        calls.mark_changed();
        workers.insert(slug.clone(), worker);
        Some(calls)
    }

    /// Lets a worker go that has nothing left to do, unless it was woken since it looked.
    pub(crate) fn leave(&self, slug: &GuestName, calls: &watch::Receiver<Call>) -> bool {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = !calls.has_changed().unwrap_or(false);
        if idle {
            workers.remove(slug);
        }
        idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preview_without_its_worker_gets_another() {
        let slug = GuestName::parse("web-7").expect("a name");
        let desk = Desk::default();
        let calls = desk.wake(&slug, Why::News).expect("the first");
        assert!(desk.wake(&slug, Why::News).is_none());
        drop(calls);
        assert!(desk.wake(&slug, Why::News).is_some());
    }
}
