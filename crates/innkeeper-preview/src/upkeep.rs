//! Parts of `innkeeper doctor` and `innkeeper gc`: checks the host for previews, and removes orphans.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use innkeeper_engine::removes;
use innkeeper_facilities::{Databases, EvaluationKey, Evaluator, Found, Pages, Resource, Routes};
use innkeeper_github::client::Github;
use innkeeper_model::api::{Check, GcReport, GcRequest, Orphan, Verdict};
use innkeeper_model::{Explain, Failure, GuestName, Ownership, chain};
use innkeeper_store::{Presence, Store};

use crate::reporter::Reporter;
use crate::repositories::Repositories;
use crate::{
    PreviewError, PreviewsConfig, command_access, names, removal, report_access, webhooks,
};

/// Maximum number of failed reports that are listed: most have the same cause.
const MAX_REPORTS: usize = 20;

/// Running time without use after which an evaluation is evicted.
const UNUSED: Duration = Duration::from_secs(30 * 24 * 3_600);

/// Checks and garbage collection.
#[derive(Clone)]
pub(crate) struct Upkeep {
    pub(crate) config: Arc<PreviewsConfig>,
    pub(crate) store: Store,
    pub(crate) github: Option<Github>,
    pub(crate) evaluator: Arc<dyn Evaluator>,
    pub(crate) routes: Arc<dyn Routes>,
    pub(crate) databases: Option<Arc<dyn Databases>>,
    pub(crate) pages: Arc<dyn Pages>,
    pub(crate) repositories: Repositories,
    pub(crate) reporter: Reporter,
}

impl Upkeep {
    /// Checks the requirements of previews on the host and on GitHub, without changing anything.
    pub(crate) async fn checks(&self) -> Vec<Check> {
        let mut checks = self.evaluator.check().await;
        checks.extend(self.routes.check().await);
        checks.extend(self.pages.check().await);
        if let Some(databases) = &self.databases {
            checks.extend(databases.check().await);
        }
        checks.push(self.check_github().await);
        if let Some(github) = &self.github {
            checks.push(report_access::check(github, &self.config.style).await);
            checks.push(command_access::check(github).await);
        }
        checks.extend(self.repositories.checks().await);
        checks.extend(self.check_webhooks().await);
        checks.extend(self.check_removals().await);
        checks.extend(self.check_reports());
        let removed = removal::checks(&self.store, self.config.dropped_grace).await;
        // A failure of the store is a finding of the other checks.
        checks.extend(removed.unwrap_or_default());
        checks.extend(self.check_names().await);
        checks
    }

    /// Reports whether the web server serves the routes.
    pub(crate) async fn web_server_works(&self) -> bool {
        let checks = self.routes.check().await;
        checks.iter().all(|check| check.verdict != Verdict::Broken)
    }

    /// Marks the objects that a former release made for the recorded previews.
    ///
    /// # Errors
    /// The host or the store cannot be queried, or the host refuses a mark.
    pub(crate) async fn adopt(&self) -> Result<(), PreviewError> {
        for preview in self.store.previews().await? {
            let slug = &preview.record.slug;
            self.routes.adopt(slug).await?;
            if let Some(databases) = &self.databases {
                databases.adopt(slug).await?;
            }
        }
        Ok(())
    }

    /// Finds objects with previews' naming that belong to no preview, and removes them as requested. Other daemons'
    /// objects stay.
    pub(crate) async fn gc(&self, request: GcRequest) -> GcReport {
        let mut kinds = vec![
            self.sweep(&*self.routes, request).await,
            self.sweep(&*self.pages, request).await,
        ];
        if let Some(databases) = &self.databases {
            kinds.push(self.sweep(&**databases, request).await);
        }
        kinds.push(self.sweep_evaluations(request.dry_run).await);
        let mut report = GcReport {
            dry_run: request.dry_run,
            orphans: Vec::new(),
            failures: Vec::new(),
        };
        for kind in kinds {
            match kind {
                Ok(orphans) => report.orphans.extend(orphans),
                Err(error) => report.failures.push(Failure::from(&error)),
            }
        }
        report
    }

    /// Evicts evaluations that were not used for a month of running time.
    ///
    /// # Errors
    /// The store cannot be written, or a GC root cannot be removed; those of the others are.
    pub(crate) async fn evict_evaluations(&self) -> Result<(), PreviewError> {
        let mut result = Ok(());
        for evaluation in self.store.evict_unused_evaluations(UNUSED).await? {
            if let Ok(key) = EvaluationKey::parse(&evaluation.key)
                && let Err(error) = self.evaluator.forget(&key).await
            {
                result = Err(error.into());
            }
        }
        result
    }

    async fn sweep(
        &self,
        resource: &(impl Resource + ?Sized),
        request: GcRequest,
    ) -> Result<Vec<Orphan>, PreviewError> {
        // The host is observed before the store is read: a preview's record exists before its objects.
        let found = resource.observe().await?;
        // A restore writes databases before the records, and holds the names until then.
        let held = self.store.held_names().await?;
        let previews = self.store.previews().await?;
        let slugs = previews.iter().map(|one| &one.record.slug);
        let known: BTreeSet<&GuestName> = slugs.chain(&held).collect();
        let mut orphans = Vec::new();
        for found in found {
            // An object whose name has no slug may be half made; its driver replaces it.
            let is_orphan = matches!(&found.guest, Some(slug) if !known.contains(slug));
            if is_orphan || found.ownership == Ownership::Other {
                let removed = match removes(request, found.ownership) {
                    true => self.sweep_one(resource, &found).await,
                    false => Ok(false),
                };
                orphans.push(orphan(resource.kind(), found, removed));
            }
        }
        Ok(orphans)
    }

    /// Removes an orphan, unless it belongs to a preview by now. Returns whether it is gone.
    async fn sweep_one(
        &self,
        resource: &(impl Resource + ?Sized),
        found: &Found,
    ) -> Result<bool, PreviewError> {
        if let Some(slug) = &found.guest {
            // The names first: a restore releases them after it wrote the record.
            let is_held = self.store.held_names().await?.contains(slug);
            if is_held || self.store.preview(slug).await?.is_some() {
                return Ok(false);
            }
        }
        resource.sweep(found).await?;
        Ok(true)
    }

    /// Removes the GC roots of evaluations without a record: they were interrupted.
    async fn sweep_evaluations(&self, dry_run: bool) -> Result<Vec<Orphan>, PreviewError> {
        let kept = self.evaluator.kept().await?;
        let known = self.store.evaluations().await?;
        let known: BTreeSet<&str> = known.iter().map(|one| one.key.as_str()).collect();
        let mut orphans = Vec::new();
        for key in kept.iter().filter(|key| !known.contains(key.as_str())) {
            let removed = match dry_run {
                true => Ok(false),
                false => self.evaluator.forget(key).await.map(|()| true),
            };
            let removed = removed.map_err(PreviewError::from);
            let found = Found::ours(None, key.to_string());
            orphans.push(orphan("evaluation", found, removed));
        }
        Ok(orphans)
    }

    /// Returns the removals that failed, and the previews that the host cannot serve, each with its cause. Both are
    /// retried.
    async fn check_removals(&self) -> Vec<Check> {
        let broken = |subject: String, finding: String, remedy: Option<String>| Check {
            subject,
            verdict: Verdict::Broken,
            finding,
            remedy,
        };
        let previews = match self.store.previews().await {
            Ok(previews) => previews,
            Err(error) => {
                return vec![broken("previews".to_owned(), chain(&error), error.remedy())];
            }
        };
        let failed = previews.into_iter().filter_map(|preview| {
            Some((preview.record.slug, preview.desired, preview.record.fault?))
        });
        let check = |(slug, desired, fault): (GuestName, Presence, Failure)| {
            let finding = match desired {
                Presence::Absent => format!("not removed yet, retrying: {fault}"),
                Presence::Present if fault.code.is_host_fault() => {
                    format!("a problem of this host, retrying: {fault}")
                }
                Presence::Present => return None,
            };
            Some(broken(format!("preview {slug}"), finding, fault.remedy))
        };
        failed.filter_map(check).collect()
    }

    /// Returns the previews whose state GitHub does not show, each with the cause.
    fn check_reports(&self) -> Vec<Check> {
        let troubles = self.reporter.troubles().into_iter();
        let check = |(slug, trouble): (GuestName, Failure)| Check {
            subject: format!("report on preview {slug}"),
            verdict: Verdict::Warning,
            finding: trouble.message,
            remedy: trouble.remedy,
        };
        troubles.take(MAX_REPORTS).map(check).collect()
    }

    /// Failures of the store are findings of the other checks.
    async fn check_names(&self) -> Vec<Check> {
        let previews = self.store.previews().await.unwrap_or_default();
        let guests = self.store.guests().await.unwrap_or_default();
        names::checks(&previews, &guests)
    }

    async fn check_webhooks(&self) -> Vec<Check> {
        match webhooks::checks(&self.store).await {
            Ok(checks) => checks,
            Err(error) => vec![Check {
                subject: "webhooks".to_owned(),
                verdict: Verdict::Broken,
                finding: chain(&error),
                remedy: error.remedy(),
            }],
        }
    }

    async fn check_github(&self) -> Check {
        let login = match &self.github {
            Some(github) => github.login().await.map_err(PreviewError::from),
            None => Err(PreviewError::NoCredentials),
        };
        let (verdict, finding, remedy) = match login {
            Ok(login) => (Verdict::Ok, format!("it answers {login}"), None),
            Err(error) => (Verdict::Broken, chain(&error), error.remedy()),
        };
        Check {
            subject: "github".to_owned(),
            verdict,
            finding,
            remedy,
        }
    }
}

fn orphan(resource: &str, found: Found, removed: Result<bool, PreviewError>) -> Orphan {
    Orphan {
        resource: resource.to_owned(),
        object: found.object,
        ownership: found.ownership,
        removed: matches!(removed, Ok(true)),
        failure: removed.err().as_ref().map(Failure::from),
    }
}
