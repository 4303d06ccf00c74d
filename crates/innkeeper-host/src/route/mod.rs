//! Routes of previews: Caddy in front of the guests.
//!
//! # Why no reload
//!
//! Every change of Caddy's configuration, through a reload or through its admin API, makes the whole
//! configuration anew. So it costs more the more previews there are (Caddy 2.6.2 on two busy cores, one
//! more site: 26 ms with 10 sites and 1.7 s with 1,000 by `caddy reload`; 2.4 ms and 25 ms by the admin
//! API), and it closes all WebSockets of all previews; Caddy 2.7 can be told to wait with that, 2.6
//! cannot. And a router of ours beside Caddy would take all previews down when it is down.
//!
//! So Caddy's configuration does not change when a preview comes, changes or goes. It has one site
//! `*.<domain>` that asks a second, internal site of the same Caddy where a request goes (as
//! `forward_auth` does), and that one answers from files which Caddy reads at each request: a template
//! for each host. A change is a rename. It is in force when the rename returns, costs the same with ten and
//! with a thousand previews, cuts nothing, and neither needs Caddy nor innkeeperd to run.
//!
//! ```text
//!  browser ──► *.<domain> ── where to? ──► <lookup address> ──► <table>/hosts/<host>
//!                   │  ◄── X-Innkeeper-Upstream, -Strip, -Redirect, -Page ──┘
//!                   ▼
//!              the app, the placeholder, or 404
//! ```
//!
//! # The file of each preview
//!
//! `<directory>/<slug>.caddy` is written too, by contract: the route in Caddy's own words. Whoever reloads or
//! restarts Caddy makes it load these files, and from then on it takes the route from there, without
//! asking itself. Such a file outlives its truth in Caddy's memory: the preview may change or go, and its
//! address may become another guest's. So each file's route holds only while the table has the mark of
//! just this version (one look at the disk), and otherwise Caddy asks the table again.
//!
//! A file is checked by Caddy (`/adapt` of its admin API) before it is put in place, alone: hosts are
//! claimed in the table, so no two previews' files can contradict each other, and checking all files
//! together would cost more the more there are. [`Resource::check`] does that.
//!
//! # The one reload
//!
//! When innkeeperd first makes a route, or comes in another version, the shared part changes and Caddy loads
//! its main file, once for all routes that wait for it. If that fails, the shared part is taken back.

use std::path::Path;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};

use async_trait::async_trait;
use innkeeper_facilities::{FacilityError, Found, Resource, RouteSpec, Routes};
use innkeeper_model::api::{Check, Verdict};
use innkeeper_model::{Explain, GuestName, chain};
use jiff::Timestamp;
use tokio::sync::{Mutex, OnceCell};

use crate::FileErrorExt;
use crate::tree::blocking;
use render::{Front, Rendered};
use table::{Difference, Table};

mod admin;
mod config;
mod error;
mod page;
mod render;
mod table;
mod visits;

pub use config::{Admin, CaddyConfig, Tls};
pub use error::RouteError;

const SUBJECT: &str = "routes";

/// The driver of [`Routes`]: files that Caddy reads. Clones share the work.
#[derive(Clone, Debug)]
pub struct CaddyRoutes {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: CaddyConfig,
    table: Table,
    /// Held while files change. The table's changes are short and never wait for Caddy.
    writing: StdMutex<()>,
    /// Held while Caddy loads its configuration: who comes meanwhile finds it done.
    loading: Mutex<()>,
    /// Whether Caddy knows `stream_close_delay`.
    has_close_delay: OnceCell<bool>,
}

impl CaddyRoutes {
    /// The driver. Nothing is touched before [`Routes::ensure`].
    #[must_use]
    pub fn new(config: CaddyConfig) -> Self {
        Self {
            inner: Arc::new(Inner {
                table: Table::new(&config),
                config,
                writing: StdMutex::new(()),
                loading: Mutex::new(()),
                has_close_delay: OnceCell::new(),
            }),
        }
    }

    async fn put(&self, spec: &RouteSpec) -> Result<(), RouteError> {
        let has_close_delay = self.has_close_delay().await?;
        let config = &self.inner.config;
        let rendered = render::preview(config, spec, has_close_delay)?;
        self.load_front(&render::front(config, has_close_delay))
            .await?;
        if self.compare(&rendered).await? == Difference::Caddyfile {
            let what = format!("the route of preview '{}'", spec.slug);
            let text = render::alone(config, &rendered.caddyfile);
            admin::adapt(&config.admin, &what, text).await?;
        }
        self.write(move |table| table.put(&rendered)).await
    }

    async fn compare(&self, rendered: &Rendered) -> Result<Difference, RouteError> {
        let rendered = rendered.clone();
        self.write(move |table| table.compare(&rendered)).await
    }

    async fn is_right(&self, spec: &RouteSpec) -> Result<bool, RouteError> {
        let has_close_delay = self.has_close_delay().await?;
        let config = &self.inner.config;
        let rendered = render::preview(config, spec, has_close_delay)?;
        Ok(self.compare(&rendered).await? == Difference::None
            && self
                .has_front(&render::front(config, has_close_delay))
                .await?)
    }

    /// Whether our part of the configuration is in force, and also on the disk, where Caddy finds it after a
    /// restart.
    async fn has_front(&self, front: &Front) -> Result<bool, RouteError> {
        let expected = front.clone();
        Ok(self
            .write(move |table| Ok(table.has_front(&expected)?))
            .await?
            && self.is_in_force(front).await)
    }

    /// Sees to it that Caddy runs with our part of the configuration.
    async fn load_front(&self, front: &Front) -> Result<(), RouteError> {
        if self.has_front(front).await? {
            return Ok(());
        }
        let _loading = self.inner.loading.lock().await;
        if self.has_front(front).await? {
            return Ok(());
        }
        let config = &self.inner.config;
        // Nothing is left half done when our caller is dropped while Caddy loads: what it has loaded it finds
        // in place, and the next call looks again.
        let before = {
            let front = front.clone();
            self.write(move |table| Ok(table.put_front(&front)?))
                .await?
        };
        if self.is_in_force(front).await {
            // Only files were missing.
            return Ok(());
        }
        if let Err(error) = self.load_main_file().await {
            // Caddy's next start must not fail for our sake.
            if matches!(error, RouteError::Refused { .. }) {
                self.write(move |table| Ok(table.put_back(before)?)).await?;
            }
            return Err(error);
        }
        if self.is_in_force(front).await {
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
        let what = config.caddyfile.display().to_string();
        tracing::info!(file = what, "Caddy loads its configuration");
        admin::load(&config.admin, &what, text).await
    }

    async fn is_in_force(&self, front: &Front) -> bool {
        let lookup = self.inner.config.lookup;
        admin::version_in_force(lookup).await.as_ref() == Some(&front.version)
    }

    async fn has_close_delay(&self) -> Result<bool, RouteError> {
        let ask = async || {
            let config = &self.inner.config;
            match admin::adapt(&config.admin, "a probe", render::close_delay_probe()).await {
                Ok(()) => Ok(true),
                Err(RouteError::Refused { .. }) => Ok(false),
                Err(error) => Err(error),
            }
        };
        self.inner
            .has_close_delay
            .get_or_try_init(ask)
            .await
            .copied()
    }

    /// Works on the files, alone and off the runtime's threads.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Table) -> Result<T, RouteError> + Send + 'static,
    ) -> Result<T, RouteError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            let _writing = inner.writing.lock().unwrap_or_else(PoisonError::into_inner);
            work(&inner.table)
        })
        .await
    }

    /// What `check` finds; the first error ends it, because what follows depends on it.
    async fn findings(&self) -> Result<Vec<Check>, RouteError> {
        let config = &self.inner.config;
        let has_close_delay = self.has_close_delay().await?;
        let text = main_file(&config.caddyfile).await?;
        let what = config.caddyfile.display().to_string();
        admin::adapt(&config.admin, &what, text).await?;
        let mut checks = vec![if self
            .is_in_force(&render::front(config, has_close_delay))
            .await
        {
            check(
                Verdict::Ok,
                format!(
                    "Caddy serves *.{} from {}",
                    config.domain,
                    config.table.display()
                ),
                None,
            )
        } else {
            check(
                Verdict::Warning,
                "Caddy runs without this version of Innkeeper's part of its configuration".to_owned(),
                Some("It is loaded with the next route; `systemctl reload caddy` loads what is there now.".to_owned()),
            )
        }];
        if !has_close_delay {
            checks.push(check(
                Verdict::Warning,
                "this Caddy closes all WebSockets when somebody reloads it (Innkeeper does not)"
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
        for path in [&config.directory, &config.table] {
            if !render::is_plain_path(path) {
                return vec![check(
                    Verdict::Broken,
                    format!("'{}' cannot stand in a Caddyfile", path.display()),
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
        Ok(self.is_right(spec).await?)
    }

    async fn visits(&self) -> Result<Vec<(GuestName, Timestamp)>, FacilityError> {
        Ok(self.write(|table| Ok(visits::collect(table)?)).await?)
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
