//! Evaluations, routes, databases and files of previews in memory.

use std::path::Path;

use async_trait::async_trait;
use innkeeper_model::access::AccessFile;
use innkeeper_model::api::Check;
use innkeeper_model::preview::Meta;
use innkeeper_model::preview::page::PageStatus;
use innkeeper_model::preview::sources::SourceTree;
use innkeeper_model::{Guest, GuestName, Secret, StorePath};
use jiff::Timestamp;

use super::part::{FakeHost, Part};
use crate::access_list::AccessList;
use crate::closures::{Effort, ProgressSink};
use crate::databases::{DatabaseAccess, DatabaseSpec, Databases};
use crate::error::FacilityError;
use crate::evaluator::{Evaluated, EvaluationKey, Evaluator, Inspected};
use crate::guest_files::{GuestFile, GuestFiles};
use crate::pages::Pages;
use crate::routes::{RouteSpec, Routes};

/// The metadata of a `preview-config.nix` without any of its own.
const META: &str = r#"{
    "setupService": "setup-app.service",
    "appServices": ["app.service"],
    "database": "container",
    "routes": [{"path": "/", "port": 3000}],
    "hostSecrets": [],
    "extraHosts": []
}"#;

/// The size of each database.
pub const DATABASE_BYTES: u64 = 8 << 20;

/// Counts an evaluation as canceled if it is dropped before its end.
struct InFlight {
    host: FakeHost,
    ended: bool,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if !self.ended {
            self.host.world().canceled_evaluations += 1;
        }
    }
}

fn key_of(sources: &SourceTree) -> EvaluationKey {
    EvaluationKey::new(sources.digest())
}

fn closure_of(key: &EvaluationKey) -> StorePath {
    // Nix's digits have no e.
    let hash = key.as_str()[..32].replace('e', "g");
    StorePath::parse(&format!("/nix/store/{hash}-preview")).expect("valid")
}

#[async_trait]
impl Evaluator for Part {
    async fn key(&self, sources: &SourceTree) -> Result<EvaluationKey, FacilityError> {
        self.query("evaluator.key")?;
        Ok(key_of(sources))
    }

    async fn evaluate(
        &self,
        sources: &SourceTree,
        known: Option<&Evaluated>,
        _effort: Effort,
        _progress: ProgressSink,
    ) -> Result<Evaluated, FacilityError> {
        let key = key_of(sources);
        if let Some(known) = known.filter(|known| known.key == key) {
            return Ok(known.clone());
        }
        let mut in_flight = InFlight {
            host: self.host.clone(),
            ended: false,
        };
        // The sender lives as long as the host.
        let mut held = self.host.evaluations_held.subscribe();
        held.wait_for(|held| !held).await.ok();
        in_flight.ended = true;
        self.call("evaluator.evaluate", None)?;
        let mut world = self.host.world();
        world.evaluations.insert(key.clone());
        let text = sources.text(sources.main()).unwrap_or_default();
        let meta = match world.metas.get(text) {
            Some(meta) => meta.clone(),
            None => Meta::parse(META).expect("valid"),
        };
        Ok(Evaluated {
            closure: closure_of(&key),
            key,
            meta,
        })
    }

    async fn requisites(&self, closure: &StorePath) -> Result<Vec<StorePath>, FacilityError> {
        self.query("evaluator.requisites")?;
        let world = self.host.world();
        let mut paths = world.requisites.get(closure).cloned().unwrap_or_default();
        paths.push(closure.clone());
        Ok(paths)
    }

    async fn inspect(&self, sources: &SourceTree) -> Result<Inspected, FacilityError> {
        self.query("evaluator.inspect")?;
        let text = sources.text(sources.main()).unwrap_or_default();
        let meta = self.host.world().metas.get(text).cloned();
        Ok(Inspected {
            problems: Vec::new(),
            meta,
        })
    }

    async fn forget(&self, key: &EvaluationKey) -> Result<(), FacilityError> {
        self.call("evaluator.forget", None)?;
        self.host.world().evaluations.remove(key);
        Ok(())
    }

    async fn kept(&self) -> Result<Vec<EvaluationKey>, FacilityError> {
        self.query("evaluator.kept")?;
        Ok(self.host.world().evaluations.iter().cloned().collect())
    }

    async fn check(&self) -> Vec<Check> {
        Vec::new()
    }
}

#[async_trait]
impl GuestFiles for Part {
    async fn write(&self, guest: &Guest, files: Vec<GuestFile>) -> Result<(), FacilityError> {
        self.call("files.write", Some(&guest.name))?;
        let mut world = self.host.world();
        for file in files {
            let key = (guest.name.clone(), file.path);
            match file.contents {
                Some(contents) => world.guest_files.insert(key, contents),
                None => world.guest_files.remove(&key),
            };
        }
        Ok(())
    }
}

#[async_trait]
impl Routes for Part {
    async fn ensure(&self, spec: &RouteSpec) -> Result<(), FacilityError> {
        self.call("route.ensure", Some(&spec.slug))?;
        let mut world = self.host.world();
        world.routes.insert(spec.slug.clone(), spec.clone());
        Ok(())
    }

    async fn adopt(&self, preview: &GuestName) -> Result<(), FacilityError> {
        self.call("route.adopt", Some(preview))
    }

    async fn is_complete(&self, spec: &RouteSpec) -> Result<bool, FacilityError> {
        self.query("route.is_complete")?;
        Ok(self.host.world().routes.get(&spec.slug) == Some(spec))
    }

    async fn visits(&self) -> Result<Vec<(GuestName, Timestamp)>, FacilityError> {
        self.query("route.visits")?;
        Ok(std::mem::take(&mut self.host.world().visits))
    }

    async fn set_checked(&self, preview: &GuestName, checked: bool) -> Result<(), FacilityError> {
        self.call("route.set_checked", Some(preview))?;
        if let Some(route) = self.host.world().routes.get_mut(preview) {
            route.checked = checked;
        }
        Ok(())
    }

    async fn settle(&self) -> Result<(), FacilityError> {
        self.query("route.settle")
    }
}

#[async_trait]
impl AccessList for Part {
    async fn publish(&self, list: &AccessFile) -> Result<(), FacilityError> {
        self.call("access.publish", None)?;
        self.host.world().access = list.clone();
        Ok(())
    }
}

#[async_trait]
impl Pages for Part {
    async fn write(&self, status: PageStatus, _durable: bool) -> Result<(), FacilityError> {
        self.query("page.write")?;
        let mut world = self.host.world();
        world.pages.insert(status.slug.clone(), status);
        Ok(())
    }

    async fn read(&self, preview: &GuestName) -> Result<Option<PageStatus>, FacilityError> {
        self.query("page.read")?;
        Ok(self.host.world().pages.get(preview).cloned())
    }
}

impl Part {
    fn create_database(&self, spec: &DatabaseSpec) -> DatabaseAccess {
        let mut world = self.host.world();
        world.databases.insert(spec.slug.clone(), spec.clone());
        let name = format!("preview_{}", spec.slug.as_str().replace('-', "_"));
        DatabaseAccess {
            password: Secret::new(format!("password of {name}")),
            role: name.clone(),
            name,
            id: "1".to_owned(),
        }
    }
}

#[async_trait]
impl Databases for Part {
    async fn ensure(&self, spec: &DatabaseSpec) -> Result<DatabaseAccess, FacilityError> {
        self.call("database.ensure", Some(&spec.slug))?;
        Ok(self.create_database(spec))
    }

    async fn adopt(&self, preview: &GuestName) -> Result<(), FacilityError> {
        self.call("database.adopt", Some(preview))
    }

    async fn password(&self, preview: &GuestName) -> Result<Option<Secret>, FacilityError> {
        self.query("database.password")?;
        let spec = self.host.world().databases.get(preview).cloned();
        Ok(spec.map(|spec| self.create_database(&spec).password))
    }

    async fn size(&self, preview: &GuestName) -> Result<Option<u64>, FacilityError> {
        self.query("database.size")?;
        let exists = self.host.world().databases.contains_key(preview);
        Ok(exists.then_some(DATABASE_BYTES))
    }

    async fn reset(&self, spec: &DatabaseSpec) -> Result<DatabaseAccess, FacilityError> {
        self.call("database.reset", Some(&spec.slug))?;
        Ok(self.create_database(spec))
    }

    async fn dump(&self, preview: &GuestName, _to: &Path) -> Result<(), FacilityError> {
        self.call("database.dump", Some(preview))
    }

    async fn load(
        &self,
        preview: &GuestName,
        _password: &Secret,
        _from: &Path,
    ) -> Result<(), FacilityError> {
        self.call("database.load", Some(preview))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use innkeeper_model::{Code, Explain as _};

    use super::*;

    #[tokio::test]
    async fn fake_evaluator_holds_cancels_and_fails() {
        let host = FakeHost::new();
        let evaluator = host.evaluator();
        let progress: ProgressSink = Arc::new(|_| {});
        let sources = SourceTree::single("{ }");
        let evaluate = || evaluator.evaluate(&sources, None, Effort::Normal, Arc::clone(&progress));

        host.hold_evaluations(true);
        let short = std::time::Duration::from_millis(10);
        let waiting = tokio::time::timeout(short, evaluate()).await;
        assert!(waiting.is_err() && host.world().canceled_evaluations == 1);

        host.hold_evaluations(false);
        host.fail_inconclusively("evaluator.evaluate", 1);
        let error = evaluate().await.expect_err("injected");
        assert!(error.is_inconclusive() && error.code() == Code::BuildFailed);

        let evaluated = evaluate().await.expect("evaluated");
        let key = evaluator.key(&sources).await.expect("a key");
        assert_eq!(key, evaluated.key);
        let kept = evaluator.kept().await.expect("kept");
        assert_eq!(kept, std::slice::from_ref(&evaluated.key));
        assert_eq!(host.world().canceled_evaluations, 1);
    }
}
