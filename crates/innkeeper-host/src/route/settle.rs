//! Settles hosts: those that did not change for a while are in Caddy's configuration, which makes their requests faster.
//!
//! That takes a load of the configuration. Caddy 2.7 and newer keep WebSockets open meanwhile, so only these have settled hosts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::render::{self, SettledPart, can_settle, listing_digest};
use super::table::Table;
use super::{CaddyRoutes, RouteError, admin, main_file};

/// Time without a change after which a host is settled.
pub(super) const UNCHANGED: Duration = Duration::from_secs(30);

/// Minimum time between two loads for settled hosts.
pub(super) const PAUSE: Duration = Duration::from_mins(1);

/// An option of Caddy's main file that ends requests in progress at a load.
const GRACE_PERIOD: &str = "grace_period";

/// Follows how long hosts have been unchanged. Pure: the caller passes the time.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    /// The digest of each host, and since when it has been the same.
    seen: BTreeMap<String, (String, Instant)>,
    last: Option<Instant>,
}

impl Tracker {
    /// Returns the hosts that are to be in the configuration, or `None` if its settled hosts need no load.
    ///
    /// `current` has the digests of all hosts that can settle. `valid` has those of the settled hosts that have not changed
    /// since: these need not wait again after a restart of the daemon. `has_gone` tells whether the configuration has hosts that
    /// no preview has.
    pub(super) fn due(
        &mut self,
        now: Instant,
        current: &BTreeMap<String, String>,
        valid: &BTreeMap<String, String>,
        has_gone: bool,
    ) -> Option<BTreeSet<String>> {
        self.seen
            .retain(|label, (digest, _)| current.get(label) == Some(digest));
        for (label, digest) in current {
            let seen = || (digest.clone(), now);
            self.seen.entry(label.clone()).or_insert_with(seen);
        }
        let is_settled = |label: &String| {
            let is_valid = valid.get(label) == current.get(label);
            let since = self.seen.get(label).map(|(_, since)| *since);
            is_valid || since.is_some_and(|since| now.duration_since(since) >= UNCHANGED)
        };
        let settled: BTreeSet<_> = current
            .keys()
            .filter(|label| is_settled(label))
            .cloned()
            .collect();
        let has_new = settled.iter().any(|label| !valid.contains_key(label));
        let may_load = self
            .last
            .is_none_or(|last| now.duration_since(last) >= PAUSE);
        ((has_new || has_gone) && may_load).then_some(settled)
    }

    /// Records the start of a load.
    pub(super) fn loads(&mut self, now: Instant) {
        self.last = Some(now);
    }
}

impl CaddyRoutes {
    /// Brings the settled hosts up to date. A change of the configuration is in force when this returns.
    pub(super) async fn settle_at(&self, now: Instant) -> Result<(), RouteError> {
        let (part, listings, valid, has_lost_marks) = self.write(read_settled).await?;
        if listings.is_empty() && part.is_empty() && !has_lost_marks {
            return Ok(());
        }
        if has_lost_marks {
            self.load_shared().await?;
        }
        let Some(reads_table) = self.reads_table(listings.keys()).await else {
            // Caddy does not run, or waits for its first route.
            return Ok(());
        };
        let features = self.features().await?;
        let main = main_file(&self.inner.config.caddyfile).await?;
        let is_supported = features.has_close_delay && !main.contains(GRACE_PERIOD) && reads_table;
        let settled = if is_supported {
            let can_settle = listings.iter().filter(|(_, listing)| can_settle(listing));
            let current = can_settle
                .map(|(label, listing)| (label.clone(), listing_digest(listing)))
                .collect();
            let has_gone = part
                .hosts()
                .keys()
                .any(|label| !listings.contains_key(label));
            let mut tracker = self.inner.tracker.lock();
            let Some(settled) = tracker.due(now, &current, &valid, has_gone) else {
                return Ok(());
            };
            tracker.loads(now);
            settled
        } else if part.is_empty() {
            return Ok(());
        } else {
            BTreeSet::new()
        };
        let routes = self.clone();
        // A load goes on if its caller is canceled.
        let load = tokio::spawn(async move { routes.load_settled(settled, listings).await });
        load.await.unwrap_or_else(|join| Err(self.join_error(join)))
    }

    /// Reports whether Caddy can read the table, or `None` if it does not respond. Where it cannot, marks would have no effect.
    async fn reads_table(&self, mut labels: impl Iterator<Item = &String>) -> Option<bool> {
        let config = &self.inner.config;
        let domain = config.domain.to_ascii_lowercase();
        // A preview may be removed meanwhile.
        for _ in 0..3 {
            let Some(label) = labels.next() else {
                break;
            };
            let host = format!("{label}.{domain}");
            if admin::finds_host(config.lookup, &host).await? {
                return Some(true);
            }
        }
        Some(false)
    }

    /// Makes Caddy load a configuration with these settled hosts, as far as they still have these listings.
    async fn load_settled(
        &self,
        settled: BTreeSet<String>,
        known: BTreeMap<String, String>,
    ) -> Result<(), RouteError> {
        let features = self.features().await?;
        let _loading = self.inner.loading.lock().await;
        let inner = Arc::clone(&self.inner);
        // Changes after this are marked in the new generation. Routes that are put meanwhile do not wait for the load: both
        // configurations serve them.
        let (before, shared) = self
            .write(move |table| {
                let mut listings = table.listings()?;
                listings.retain(|label, listing| {
                    settled.contains(label) && known.get(label) == Some(listing)
                });
                let former = render::shared(&inner.config, features, &table.settled()?);
                let generation = table
                    .marks
                    .begin_generation(&listings.keys().cloned().collect())?;
                let part = SettledPart::render(&inner.config, generation, &listings);
                let shared = render::shared(&inner.config, features, &part);
                *inner.also_valid.lock() = Some(former.version);
                Ok((table.write_shared(&shared)?, shared))
            })
            .await?;
        let outcome = self.load_written(&shared, before).await;
        *self.inner.also_valid.lock() = None;
        outcome?;
        self.write(|table| Ok(table.marks.end_generations(&table.settled()?)?))
            .await
    }
}

/// The part of the configuration on disk, the listings of all hosts, the digests of settled hosts that have not changed since,
/// and whether marks are lost.
type Read = (
    SettledPart,
    BTreeMap<String, String>,
    BTreeMap<String, String>,
    bool,
);

/// Reads the state of settled hosts, and marks those that differ from the table.
fn read_settled(table: &Table) -> Result<Read, RouteError> {
    let (part, listings) = (table.settled()?, table.listings()?);
    table.marks.mark_differences(&part, &listings)?;
    let mut valid = part.hosts();
    if let Some(generation) = part.generation() {
        let marked = table.marks.marked(generation)?;
        valid.retain(|label, _| !marked.contains(label));
    }
    Ok((part, listings, valid, table.has_lost_marks()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digests(hosts: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = |(label, digest): &(&str, &str)| ((*label).to_owned(), (*digest).to_owned());
        hosts.iter().map(owned).collect()
    }

    fn labels(labels: &[&str]) -> Option<BTreeSet<String>> {
        Some(labels.iter().map(|label| (*label).to_owned()).collect())
    }

    /// Returns what is due while all hosts of the configuration have a preview.
    fn due(
        tracker: &mut Tracker,
        now: Instant,
        current: &BTreeMap<String, String>,
        valid: &BTreeMap<String, String>,
    ) -> Option<BTreeSet<String>> {
        tracker.due(now, current, valid, false)
    }

    #[test]
    fn hosts_of_removed_previews_are_dropped() {
        let mut tracker = Tracker::default();
        let now = Instant::now();
        let current = digests(&[("web", "1"), ("new", "1")]);
        let valid = digests(&[("web", "1")]);
        assert_eq!(tracker.due(now, &current, &valid, true), labels(&["web"]));
        tracker.loads(now);
        assert_eq!(tracker.due(now, &current, &valid, true), None);
        assert_eq!(
            tracker.due(now + PAUSE, &BTreeMap::new(), &BTreeMap::new(), true),
            labels(&[])
        );
    }

    #[test]
    fn unchanged_hosts_settle_and_changed_ones_start_again() {
        let mut tracker = Tracker::default();
        let (start, none) = (Instant::now(), BTreeMap::new());
        let at = |seconds| start + Duration::from_secs(seconds);
        let first = digests(&[("web", "1"), ("shop", "1")]);
        assert_eq!(due(&mut tracker, at(0), &first, &none), None);
        let changed = digests(&[("web", "2"), ("shop", "1")]);
        assert_eq!(due(&mut tracker, at(20), &changed, &none), None);
        assert_eq!(
            due(&mut tracker, at(30), &changed, &none),
            labels(&["shop"])
        );
        tracker.loads(at(30));
        let valid = digests(&[("shop", "1")]);
        assert_eq!(
            due(&mut tracker, at(50), &changed, &valid),
            None,
            "the pause"
        );
        assert_eq!(
            due(&mut tracker, at(90), &changed, &valid),
            labels(&["shop", "web"])
        );
        tracker.loads(at(90));
        assert_eq!(due(&mut tracker, at(200), &changed, &changed), None);
        // A change, a removal, and the former state once more.
        assert_eq!(
            due(&mut tracker, at(210), &first, &digests(&[("shop", "1")])),
            None
        );
        assert_eq!(
            due(&mut tracker, at(220), &digests(&[("shop", "1")]), &changed),
            None
        );
        assert_eq!(
            due(&mut tracker, at(230), &changed, &digests(&[("shop", "1")])),
            None
        );
        assert_eq!(
            due(&mut tracker, at(260), &changed, &digests(&[("shop", "1")])),
            labels(&["shop", "web"])
        );
    }

    #[test]
    fn settled_hosts_stay_settled_after_a_restart() {
        let mut tracker = Tracker::default();
        let now = Instant::now();
        let current = digests(&[("web", "1"), ("new", "1")]);
        let valid = digests(&[("web", "1")]);
        assert_eq!(due(&mut tracker, now, &current, &valid), None);
        assert_eq!(
            due(&mut tracker, now + UNCHANGED, &current, &valid),
            labels(&["new", "web"])
        );
    }
}
