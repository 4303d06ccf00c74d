//! Routes of previews: Caddy in front of the guests.
//!
//! # Changes without reloads
//!
//! A reload of Caddy, or a change through its admin API, rebuilds the whole configuration. The cost grows with the number
//! of previews (Caddy 2.6.2 on two busy cores, one more site: 26 ms with 10 sites and 1.7 s with 1,000 by `caddy reload`;
//! 2.4 ms and 25 ms by the admin API). It also closes all WebSockets of all previews; only Caddy 2.7 and newer can delay
//! that. A separate router beside Caddy would be a single point of failure for all previews.
//!
//! Therefore Caddy's configuration does not change with previews. Its one site `*.<domain>` looks up each request in a
//! table: directories in which the names of files are the data ([`render`] describes them). Caddy lists one directory, as
//! the `file` matcher can. A change is a rename: it takes effect at once, has a constant cost, closes no connection, and
//! needs neither Caddy nor innkeeperd to run.
//!
//! ```text
//!  browser ──► *.<domain> ──► <table>/hosts/<host>/live/<address of the app>
//!                   │                            ├ paths/   the app by the path's first segment
//!                   ▼                            ├ held/    the app is being restarted
//!          the app, a page, or 404               ├ rules/   all rules
//!                                                └ page/    no app
//! ```
//!
//! Caddy prepares all routes of a block at each request that reaches the block, and each match costs an access to the file
//! system. So the site looks up the usual cases first, in an outer block. `make bench` compares it with a plain
//! `reverse_proxy`.
//!
//! # Settled hosts
//!
//! The listing costs a fifth of a request's time. So the usual host, with one app for all paths, is settled once its preview
//! has not changed for a minute ([`CaddyRoutes::settle_after`]): its directory has a link as well, at which Caddy looks first.
//! Caddy then takes the app's address from its cache of SRV records, which `innkeeper-dns` answers from the table. The link
//! ends with the directory, at each change, and Caddy has forgotten its answer when the next one is created
//! (`render::settled`).
//!
//! # Visitors that are checked
//!
//! A preview that is not public has its route in another directory of the table, which only a request finds that
//! `innkeeper-gateway` admits (`render::access`). So a change of a preview's visibility is a rename, too.
//!
//! # One file per preview
//!
//! By contract, `<directory>/<slug>.caddy` contains the route as Caddy directives, for administrators. Before it is put in
//! place, Caddy checks it alone (`/adapt` of its admin API). Hosts are claimed in the table, so files of two previews
//! cannot conflict. Checking all files together would cost more with each preview; [`Resource::check`] does that.
//!
//! # The only reload
//!
//! The shared configuration changes with the first route and with a new version of innkeeperd. Then Caddy loads its main
//! file, once for all waiting routes. If that fails, the shared configuration is rolled back. A slow Caddy takes its time:
//! the load goes on if the routes that wait for it are canceled. The configuration is small for the same reason: a load
//! takes time for each matcher, proxy and expression in it, and the site for guests has all of them once more.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use innkeeper_facilities::{FacilityError, Found, Resource, RouteSpec, Routes};
use innkeeper_model::api::{Check, Verdict};
use innkeeper_model::{Explain, GuestName, chain};
use jiff::Timestamp;
use tokio::sync::{Mutex, OnceCell};

use crate::FileErrorExt;
use crate::tree::blocking;
use render::{Features, RenderedRoute, SharedConfig};
use table::{Difference, Table};

mod admin;
mod config;
mod error;
mod files;
mod render;
mod table;
mod visits;

pub use config::{Admin, CaddyConfig, Robots, RouteResolver, Tls};
pub use error::RouteError;

/// The time without a change after which a preview's hosts are settled ([`render::settled`]).
pub const UNCHANGED: Duration = Duration::from_secs(60);

const SUBJECT: &str = "routes";

/// Manages routes as files that Caddy reads. Clones share their locks.
#[derive(Clone, Debug)]
pub struct CaddyRoutes {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: CaddyConfig,
    table: Table,
    /// Held while files change. Such changes are short and never wait for Caddy.
    writing: parking_lot::Mutex<()>,
    /// Held while Caddy loads its configuration. Coalesces concurrent loads.
    loading: Mutex<()>,
    /// The start of the load in flight.
    loading_since: parking_lot::Mutex<Option<Instant>>,
    /// Found out at the first use.
    features: OnceCell<Features>,
}

impl CaddyRoutes {
    /// Creates the driver without touching the host.
    #[must_use]
    pub fn new(config: CaddyConfig) -> Self {
        Self {
            inner: Arc::new(Inner {
                table: Table::new(&config),
                config,
                writing: parking_lot::Mutex::default(),
                loading: Mutex::new(()),
                loading_since: parking_lot::Mutex::default(),
                features: OnceCell::new(),
            }),
        }
    }

    async fn put(&self, spec: &RouteSpec) -> Result<(), RouteError> {
        let features = self.features().await?;
        let config = &self.inner.config;
        let rendered = render::preview(config, spec)?;
        self.load_shared(&render::shared(config, features)).await?;
        if self.compare(&rendered).await? == Difference::Caddyfile {
            let subject = format!("the route of preview '{}'", spec.slug);
            let text = render::standalone(&rendered);
            admin::adapt(&config.admin, &subject, text).await?;
        }
        self.write(move |table| table.put(&rendered)).await
    }

    /// Settles the hosts of the previews that have not changed for a while, as [`Routes::settle`] does. With a shorter time than
    /// [`UNCHANGED`], Caddy can use a former address.
    ///
    /// # Errors
    /// When the files of the routes cannot be read or written. All routes stay in force.
    pub async fn settle_after(&self, time: Duration) -> Result<(), RouteError> {
        if self.inner.config.resolver.is_none() {
            return Ok(());
        }
        self.write(move |table| table.settle(time)).await
    }

    async fn compare(&self, rendered: &RenderedRoute) -> Result<Difference, RouteError> {
        let rendered = rendered.clone();
        self.write(move |table| table.compare(&rendered)).await
    }

    async fn matches(&self, spec: &RouteSpec) -> Result<bool, RouteError> {
        let features = self.features().await?;
        let config = &self.inner.config;
        let rendered = render::preview(config, spec)?;
        Ok(self.compare(&rendered).await? == Difference::None
            && self.has_shared(&render::shared(config, features)).await?)
    }

    /// Reports whether the shared configuration is in force, and on disk for Caddy's next restart.
    async fn has_shared(&self, shared: &SharedConfig) -> Result<bool, RouteError> {
        let expected = shared.clone();
        Ok(self
            .write(move |table| Ok(table.has_shared(&expected)?))
            .await?
            && self.is_in_force(shared).await)
    }

    /// Makes Caddy load the shared configuration unless it is in force.
    async fn load_shared(&self, shared: &SharedConfig) -> Result<(), RouteError> {
        if self.has_shared(shared).await? {
            return Ok(());
        }
        let (routes, shared) = (self.clone(), shared.clone());
        // A load goes on if its caller is canceled, as by the time limit of a setup: with a slow Caddy, each try would start
        // another load otherwise.
        let load = tokio::spawn(async move { routes.load_once(&shared).await });
        load.await.unwrap_or_else(|join| {
            Err(RouteError::Unreachable {
                address: self.inner.config.admin.to_string(),
                source: io::Error::other(join),
            })
        })
    }

    /// Makes Caddy load the shared configuration after the load in flight, unless that has done so.
    async fn load_once(&self, shared: &SharedConfig) -> Result<(), RouteError> {
        let _loading = self.inner.loading.lock().await;
        if self.has_shared(shared).await? {
            return Ok(());
        }
        let config = &self.inner.config;
        // Cancel-safe: the files match what Caddy loads, and the next call checks again.
        let before = {
            let shared = shared.clone();
            self.write(move |table| Ok(table.write_shared(&shared)?))
                .await?
        };
        if self.is_in_force(shared).await {
            // Only files were missing.
            return Ok(());
        }
        if let Err(error) = self.load_main_file().await {
            // Rolls back: a rejected configuration must not break Caddy's next start.
            if matches!(error, RouteError::Refused { .. }) {
                self.write(move |table| Ok(table.restore_shared(before)?))
                    .await?;
            }
            return Err(error);
        }
        if self.is_in_force(shared).await {
            return Ok(());
        }
        Err(RouteError::NotImported {
            caddyfile: config.caddyfile.clone(),
            directory: config.directory.clone(),
        })
    }

    async fn load_main_file(&self) -> Result<(), RouteError> {
        let config = &self.inner.config;
        let text = main_file(&config.caddyfile).await?;
        let file = config.caddyfile.display().to_string();
        tracing::info!(file, "loading Caddy's configuration");
        let started = Instant::now();
        *self.inner.loading_since.lock() = Some(started);
        let outcome = admin::load(&config.admin, &file, text).await;
        *self.inner.loading_since.lock() = None;
        let seconds = started.elapsed().as_secs_f64();
        tracing::info!(
            file,
            seconds,
            "Caddy has loaded its configuration or failed"
        );
        outcome
    }

    async fn is_in_force(&self, shared: &SharedConfig) -> bool {
        let lookup = self.inner.config.lookup;
        admin::version_in_force(lookup).await.as_ref() == Some(&shared.version)
    }

    async fn features(&self) -> Result<Features, RouteError> {
        let probe = async || {
            Ok(Features {
                has_close_delay: self.accepts(render::close_delay_probe()).await?,
                has_catch_all: self.has_catch_all().await?,
            })
        };
        self.inner.features.get_or_try_init(probe).await.copied()
    }

    /// Reports whether the shared sites can include one for all other hosts: Caddy's main file must not have such a site.
    async fn has_catch_all(&self) -> Result<bool, RouteError> {
        let config = &self.inner.config;
        let site = render::others(config);
        let written = site.clone();
        if self
            .write(move |table| Ok(table.shared_contains(&written)?))
            .await?
        {
            return Ok(true);
        }
        let main = main_file(&config.caddyfile).await?;
        self.accepts(format!("{main}\n{site}")).await
    }

    async fn accepts(&self, probe: String) -> Result<bool, RouteError> {
        match admin::adapt(&self.inner.config.admin, "a probe", probe).await {
            Ok(()) => Ok(true),
            Err(RouteError::Refused { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Accesses the files exclusively, on a blocking thread.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Table) -> Result<T, RouteError> + Send + 'static,
    ) -> Result<T, RouteError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            let _writing = inner.writing.lock();
            work(&inner.table)
        })
        .await
    }

    /// Returns the finding about the shared configuration.
    async fn shared_finding(&self, features: Features) -> Check {
        let config = &self.inner.config;
        let since = *self.inner.loading_since.lock();
        if self.is_in_force(&render::shared(config, features)).await {
            let (domain, table) = (&config.domain, config.table.display());
            return check(
                Verdict::Ok,
                format!("Caddy serves *.{domain} from {table}"),
                None,
            );
        }
        if let Some(since) = since {
            let seconds = since.elapsed().as_secs();
            return check(
                Verdict::Warning,
                format!("Caddy has been loading its configuration for {seconds} s"),
                Some(
                    "Wait: new routes are in force after it. Caddy serves all others meanwhile."
                        .to_owned(),
                ),
            );
        }
        check(
            Verdict::Warning,
            "Caddy runs without this version of Innkeeper's shared configuration".to_owned(),
            Some(
                "The next route loads it; `systemctl reload caddy` loads the current files."
                    .to_owned(),
            ),
        )
    }

    /// Returns the findings of `check`. Stops at the first error: the next checks depend on it.
    async fn findings(&self) -> Result<Vec<Check>, RouteError> {
        let config = &self.inner.config;
        let features = self.features().await?;
        let text = main_file(&config.caddyfile).await?;
        let file = config.caddyfile.display().to_string();
        admin::adapt(&config.admin, &file, text).await?;
        let mut checks = vec![self.shared_finding(features).await];
        if !features.has_close_delay {
            checks.push(check(
                Verdict::Warning,
                "this Caddy closes all WebSockets when it is reloaded (Innkeeper does not reload it)"
                    .to_owned(),
                Some("Install Caddy 2.7 or newer.".to_owned()),
            ));
        }
        Ok(checks)
    }
}

async fn main_file(path: &Path) -> Result<String, RouteError> {
    Ok(tokio::fs::read_to_string(path).await.on("read", path)?)
}

#[async_trait]
impl Resource for CaddyRoutes {
    fn kind(&self) -> &'static str {
        "route"
    }

    async fn observe(&self) -> Result<Vec<Found>, FacilityError> {
        Ok(self.write(Table::observe).await?)
    }

    async fn remove(&self, guest: &GuestName) -> Result<(), FacilityError> {
        let slug = guest.clone();
        Ok(self.write(move |table| table.remove(&slug)).await?)
    }

    async fn sweep(&self, found: &Found) -> Result<(), FacilityError> {
        let found = found.clone();
        Ok(self.write(move |table| table.sweep(&found)).await?)
    }

    async fn check(&self) -> Vec<Check> {
        let config = &self.inner.config;
        let paths = [&config.directory, &config.table];
        for path in paths.into_iter().chain(&config.access) {
            if !render::is_plain_path(path) {
                return vec![check(
                    Verdict::Broken,
                    format!("'{}' cannot be used in a Caddyfile", path.display()),
                    Some("Configure an absolute path of letters, digits and -._/+@.".to_owned()),
                )];
            }
        }
        match self.findings().await {
            Ok(checks) => checks,
            Err(error) => vec![check(Verdict::Broken, chain(&error), error.remedy())],
        }
    }
}

#[async_trait]
impl Routes for CaddyRoutes {
    async fn ensure(&self, spec: &RouteSpec) -> Result<(), FacilityError> {
        Ok(self.put(spec).await?)
    }

    async fn adopt(&self, preview: &GuestName) -> Result<(), FacilityError> {
        let slug = preview.clone();
        Ok(self.write(move |table| table.adopt(&slug)).await?)
    }

    async fn is_complete(&self, spec: &RouteSpec) -> Result<bool, FacilityError> {
        Ok(self.matches(spec).await?)
    }

    async fn visits(&self) -> Result<Vec<(GuestName, Timestamp)>, FacilityError> {
        Ok(self
            .write(|table| Ok(visits::collect(&table.previews)?))
            .await?)
    }

    async fn set_checked(&self, preview: &GuestName, checked: bool) -> Result<(), FacilityError> {
        let slug = preview.clone();
        Ok(self
            .write(move |table| table.set_checked(&slug, checked))
            .await?)
    }

    async fn settle(&self) -> Result<(), FacilityError> {
        Ok(self.settle_after(UNCHANGED).await?)
    }
}

fn check(verdict: Verdict, finding: String, remedy: Option<String>) -> Check {
    Check {
        subject: SUBJECT.to_owned(),
        verdict,
        finding,
        remedy,
    }
}

#[cfg(test)]
mod tests;
