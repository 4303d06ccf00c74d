//! What the host has for previews: whether it is in order, and what is left of previews that are gone.

use std::collections::BTreeSet;
use std::time::Duration;

use innkeeper_engine::removes;
use innkeeper_facilities::{EvaluationKey, Found, Resource};
use innkeeper_model::api::{Check, GcReport, GcRequest, Orphan, Verdict};
use innkeeper_model::{Explain, Failure, GuestName, Ownership, chain};
use innkeeper_store::Presence;

use crate::PreviewError;
use crate::previews::{Inner, Previews};

/// After how long without use an evaluation is forgotten, in running time.
const UNUSED: Duration = Duration::from_secs(30 * 24 * 3_600);

impl Previews {
    /// Looks at what previews need of the host and of GitHub, without changing anything.
    pub async fn checks(&self) -> Vec<Check> {
        let inner = &self.inner;
        let mut checks = inner.evaluator.check().await;
        checks.extend(inner.routes.check().await);
        if let Some(databases) = &inner.databases {
            checks.extend(databases.check().await);
        }
        checks.push(inner.check_github().await);
        checks.extend(inner.check_repositories().await);
        checks.extend(inner.check_removals().await);
        checks
    }

    /// Marks what a former release made for the recorded previews, as [`Engine::adopt`] does for guests.
    ///
    /// [`Engine::adopt`]: innkeeper_engine::Engine::adopt
    ///
    /// # Errors
    /// When the host or the store cannot be asked, or the host refuses a mark.
    pub async fn adopt(&self) -> Result<(), PreviewError> {
        let inner = &self.inner;
        for preview in inner.store.previews().await? {
            let slug = &preview.record.slug;
            inner.routes.adopt(slug).await?;
            if let Some(databases) = &inner.databases {
                databases.adopt(slug).await?;
            }
        }
        Ok(())
    }

    /// Finds what has previews' naming and belongs to none, and removes it as the request says. What other daemons made
    /// is never touched.
    ///
    /// A failure to remove one orphan stands with it. A kind of objects that cannot be listed is one of the report's
    /// failures; the others are looked at all the same.
    pub async fn gc(&self, request: GcRequest) -> GcReport {
        let inner = &self.inner;
        let mut kinds = vec![inner.sweep(&*inner.routes, request).await];
        if let Some(databases) = &inner.databases {
            kinds.push(inner.sweep(&**databases, request).await);
        }
        kinds.push(inner.sweep_evaluations(request.dry_run).await);
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
}

impl Inner {
    /// Forgets evaluations that nobody has used for a month in which the daemon ran.
    ///
    /// # Errors
    /// When the store cannot be written, or a GC root cannot be removed; those of the others are.
    pub(crate) async fn forget_old_evaluations(&self) -> Result<(), PreviewError> {
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
        // The host is asked before the store: a record is there before anything of its preview is.
        let found = resource.observe().await?;
        let previews = self.store.previews().await?;
        let known: BTreeSet<&GuestName> = previews.iter().map(|one| &one.record.slug).collect();
        let mut orphans = Vec::new();
        for found in found {
            // What belongs to nobody by its name may be half made; its driver replaces it.
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

    /// Removes an orphan, unless it belongs to a preview by now. Says whether it is gone.
    async fn sweep_one(
        &self,
        resource: &(impl Resource + ?Sized),
        found: &Found,
    ) -> Result<bool, PreviewError> {
        if let Some(slug) = &found.guest
            && self.store.preview(slug).await?.is_some()
        {
            return Ok(false);
        }
        resource.sweep(found).await?;
        Ok(true)
    }

    /// Removes the GC roots of evaluations that no table knows: somebody gave them up half way.
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

    /// Removals that failed, and previews that the host cannot serve, each with its cause. Both are retried.
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

    async fn check_github(&self) -> Check {
        let asked = match self.github() {
            Ok(github) => github.login().await.map_err(PreviewError::from),
            Err(error) => Err(error),
        };
        let (verdict, finding, remedy) = match asked {
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
