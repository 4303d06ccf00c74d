//! Health of the apps that are served, in memory: which ones are watched, which are down and why, and how often they ended.
//!
//! A restart of the daemon forgets it; the first check of each preview determines it again.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use innkeeper_model::preview::AppTrouble;
use innkeeper_model::{Backoff, GuestName};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

/// Number of ends within [`WINDOW`] that count as a crash loop.
const LOOP: usize = 5;

/// Time for which the end of an app is remembered.
const WINDOW: Duration = Duration::from_secs(300);

/// Delays before an app is started again, from its second end within [`WINDOW`].
const DELAYS: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));

/// Health of all apps. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Health {
    apps: Arc<Mutex<HashMap<GuestName, App>>>,
    /// Changes when an app is down.
    ends: watch::Sender<()>,
}

/// Health of one app.
#[derive(Debug, Default)]
struct App {
    /// Its ports, while its route leads to it.
    watched: Vec<SocketAddr>,
    /// Its present trouble.
    trouble: Option<AppTrouble>,
    /// The first process of the guest in which it was set up.
    set_up_in: Option<u32>,
    /// Times of its ends within the window, oldest first.
    ends: VecDeque<Instant>,
}

impl App {
    fn recent(&mut self, now: Instant) -> usize {
        while self.ends.front().is_some_and(|end| now - *end >= WINDOW) {
            self.ends.pop_front();
        }
        self.ends.len()
    }
}

impl Default for Health {
    fn default() -> Self {
        Self {
            apps: Arc::default(),
            ends: watch::Sender::new(()),
        }
    }
}

impl Health {
    /// Records that an app is served at these ports, and watches it from now on.
    pub(crate) fn serve(&self, slug: &GuestName, ports: Vec<SocketAddr>) {
        let mut apps = self.apps.lock();
        let app = apps.entry(slug.clone()).or_default();
        app.watched = ports;
        app.trouble = None;
    }

    /// Records that an app is set up in the guest with this first process.
    pub(crate) fn set_up(&self, slug: &GuestName, leader: Option<u32>) {
        self.apps.lock().entry(slug.clone()).or_default().set_up_in = leader;
    }

    /// Reports whether an app is set up in the guest with this first process: the guest was not started since.
    pub(crate) fn is_set_up(&self, slug: &GuestName, leader: Option<u32>) -> bool {
        let apps = self.apps.lock();
        leader.is_some() && apps.get(slug).is_some_and(|app| app.set_up_in == leader)
    }

    /// Ends the watch of an app whose route does not lead to it any more. Its trouble and its ends are kept.
    pub(crate) fn suspend(&self, slug: &GuestName) {
        if let Some(app) = self.apps.lock().get_mut(slug) {
            app.watched.clear();
        }
    }

    /// Forgets the trouble of an app that is meant to be down.
    pub(crate) fn excuse(&self, slug: &GuestName) {
        if let Some(app) = self.apps.lock().get_mut(slug) {
            app.trouble = None;
        }
    }

    /// Forgets an app.
    pub(crate) fn forget(&self, slug: &GuestName) {
        self.apps.lock().remove(slug);
    }

    /// Returns the watched apps with their ports.
    pub(crate) fn watched(&self) -> Vec<(GuestName, Vec<SocketAddr>)> {
        let apps = self.apps.lock();
        let watched = apps.iter().filter(|(_, app)| !app.watched.is_empty());
        watched
            .map(|(slug, app)| (slug.clone(), app.watched.clone()))
            .collect()
    }

    /// Records that an app has ended. Has no effect on one that is down already, except for its reason.
    pub(crate) fn ended(&self, slug: &GuestName, reason: String, now: Instant) {
        let mut apps = self.apps.lock();
        let app = apps.entry(slug.clone()).or_default();
        match &mut app.trouble {
            Some(trouble) => trouble.reason = reason,
            None => {
                app.trouble = Some(trouble(reason));
                app.recent(now);
                app.ends.push_back(now);
            }
        }
        drop(apps);
        self.ends.send_replace(());
    }

    /// Records that an app is down because its guest was started, unless it is down already. Such an end does not count.
    pub(crate) fn guest_started(&self, slug: &GuestName) {
        let mut apps = self.apps.lock();
        let app = apps.entry(slug.clone()).or_default();
        app.trouble
            .get_or_insert_with(|| trouble("the guest was started".to_owned()));
        drop(apps);
        self.ends.send_replace(());
    }

    /// Returns the trouble of an app that is down.
    pub(crate) fn trouble(&self, slug: &GuestName) -> Option<AppTrouble> {
        self.apps.lock().get(slug)?.trouble.clone()
    }

    /// Waits until an app is down.
    pub(crate) async fn down(&self, slug: &GuestName) {
        let mut ends = self.ends.subscribe();
        while self.trouble(slug).is_none() {
            if ends.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Returns the number of ends of an app that ends again and again, and the time within which they happened.
    pub(crate) fn crash_loop(&self, slug: &GuestName, now: Instant) -> Option<(usize, Duration)> {
        let mut apps = self.apps.lock();
        let app = apps.get_mut(slug)?;
        let ends = app.recent(now);
        let first = app.ends.front()?;
        (ends >= LOOP).then(|| (ends, now - *first))
    }

    /// Reports whether an app has not ended within the window.
    pub(crate) fn is_stable(&self, slug: &GuestName, now: Instant) -> bool {
        let mut apps = self.apps.lock();
        apps.get_mut(slug).is_none_or(|app| app.recent(now) == 0)
    }

    /// Returns the watched apps whose last end has left the window since the last call.
    pub(crate) fn stabilized(&self, now: Instant) -> Vec<GuestName> {
        let mut apps = self.apps.lock();
        let watched = apps.iter_mut().filter(|(_, app)| !app.watched.is_empty());
        watched
            .filter(|(_, app)| !app.ends.is_empty())
            .filter_map(|(slug, app)| (app.recent(now) == 0).then(|| slug.clone()))
            .collect()
    }

    /// Returns the delay before an app is started again.
    pub(crate) fn delay(&self, slug: &GuestName, now: Instant) -> Duration {
        let mut apps = self.apps.lock();
        let ends = apps.get_mut(slug).map_or(0, |app| app.recent(now));
        match ends {
            0 | 1 => Duration::ZERO,
            more => DELAYS.delay(u32::try_from(more - 1).unwrap_or(u32::MAX)),
        }
    }
}

/// Returns trouble that begins now.
fn trouble(reason: String) -> AppTrouble {
    let since = Timestamp::now();
    AppTrouble { since, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slug() -> GuestName {
        GuestName::parse("web-7").expect("a name")
    }

    fn ports() -> Vec<SocketAddr> {
        vec![SocketAddr::from(([10, 100, 0, 3], 3000))]
    }

    /// Has an app end and return so many times, a second apart, and returns the time of the last end.
    fn end(health: &Health, times: u64, from: Instant) -> Instant {
        let mut now = from;
        for _ in 0..times {
            now += Duration::from_secs(1);
            health.ended(&slug(), "it ended".to_owned(), now);
            health.serve(&slug(), ports());
        }
        now
    }

    #[test]
    fn only_a_served_app_is_watched() {
        let (health, now) = (Health::default(), Instant::now());
        assert_eq!(health.watched(), []);
        health.serve(&slug(), ports());
        assert_eq!(health.watched(), [(slug(), ports())]);
        health.ended(&slug(), "it ended".to_owned(), now);
        health.suspend(&slug());
        assert_eq!(health.watched(), []);
        assert_eq!(health.trouble(&slug()).expect("down").reason, "it ended");
        health.serve(&slug(), ports());
        assert_eq!(health.trouble(&slug()), None);
        health.forget(&slug());
        assert_eq!(health.watched(), []);
    }

    #[test]
    fn an_app_that_is_down_ends_once() {
        let (health, now) = (Health::default(), Instant::now());
        for _ in 0..2 * LOOP {
            health.ended(&slug(), "still down".to_owned(), now);
        }
        assert_eq!(health.crash_loop(&slug(), now), None);
        assert_eq!(health.delay(&slug(), now), Duration::ZERO);
    }

    #[test]
    fn five_ends_within_five_minutes_are_a_crash_loop() {
        let (health, start) = (Health::default(), Instant::now());
        let four = end(&health, 4, start);
        assert_eq!(health.crash_loop(&slug(), four), None);
        let five = end(&health, 1, four);
        let seconds = Duration::from_secs(4);
        assert_eq!(health.crash_loop(&slug(), five), Some((5, seconds)));
        assert!(!health.is_stable(&slug(), five));
        assert_eq!(health.stabilized(five), []);
        assert_eq!(health.crash_loop(&slug(), five + WINDOW), None);
        assert!(health.is_stable(&slug(), five + WINDOW));
    }

    #[test]
    fn an_app_becomes_stable_once() {
        let (health, start) = (Health::default(), Instant::now());
        let last = end(&health, 2, start);
        assert_eq!(health.stabilized(last + WINDOW), [slug()]);
        assert_eq!(health.stabilized(last + WINDOW), []);
    }

    #[test]
    fn delays_grow_with_the_number_of_ends() {
        let (health, mut now) = (Health::default(), Instant::now());
        let mut delays = Vec::new();
        for _ in 0..9 {
            now = end(&health, 1, now);
            delays.push(health.delay(&slug(), now).as_secs());
        }
        assert_eq!(delays, [0, 1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[tokio::test]
    async fn an_end_is_awaited() {
        let health = Health::default();
        let (waiting, ending) = (health.clone(), health.clone());
        let waiter = tokio::spawn(async move { waiting.down(&slug()).await });
        ending.ended(&slug(), "it ended".to_owned(), Instant::now());
        waiter.await.expect("notified");
    }
}
