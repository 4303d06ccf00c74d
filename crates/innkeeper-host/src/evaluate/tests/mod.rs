//! Evaluations and builds with this machine's real Nix and a stand-in for nixpkgs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use innkeeper_facilities::{Builders, FacilityError};
use innkeeper_model::{Code, Failure, MemorySize};

use super::*;
use crate::closure::NixConfig;
use crate::command;
use crate::firewall::FirewallError;

mod attacks;
mod builders;
mod compromised;
mod evaluation_limits;
mod guide;
mod repositories;
mod results;
mod settings;

/// A test directory with a stand-in for nixpkgs and a secret, and a driver.
pub(crate) struct Workshop {
    dir: tempfile::TempDir,
    config: EvaluatorConfig,
    evaluator: NixEvaluator,
}

/// Valid metadata.
const META: &str = "system.build.previewMeta = { setupService = \"setup\"; appServices = [ \"app\" ]; \
                    database = \"host\"; routes = [ { path = \"/\"; port = 3000; } ]; };";

/// Contents that must never leak. The file is world-readable, so only the sandbox protects it.
const SECRET: &str = "correct horse battery staple";

/// Creates a workshop, or reports the test as not run on a machine that lacks something.
pub(crate) fn workshop(test: &str) -> Option<Workshop> {
    workshop_with(test, |_| {})
}

fn workshop_with(test: &str, change: impl FnOnce(&mut EvaluatorConfig)) -> Option<Workshop> {
    let not_run = |reason: &str| eprintln!("INNKEEPER-NOT-RUN: {test}: {reason}");
    if !rustix::process::geteuid().is_root() {
        not_run("it needs root");
        return None;
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    let Some((busybox, nix)) = busybox.zip(program("nix")) else {
        not_run("it needs nix and busybox-static");
        return None;
    };
    let dir = tempfile::tempdir().expect("a directory for the test");
    let at = |name: &str| dir.path().join(name);
    let fixture =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/nixpkgs-standin");
    copy(&fixture, &at("nixpkgs"));
    fs::create_dir(at("nixpkgs/bin")).expect("folder");
    fs::copy(busybox, at("nixpkgs/bin/busybox")).expect("busybox");
    fs::write(at("secret"), SECRET).expect("write");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let mut config = EvaluatorConfig {
        nix: NixConfig {
            program: nix,
            gcroots: at("gcroots"),
            state: at("state"),
            links: at("links"),
            options: [("substituters", "")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            user: "64999".to_owned(),
            daemon_socket: at("socket"),
        },
        nixpkgs: at("nixpkgs"),
        nixpkgs_hash: None,
        base_module: at("nixpkgs/base/base.nix"),
        system: format!("{}-linux", std::env::consts::ARCH),
        // An unused UID, so that the machine's users stay unchanged.
        user: "64999".to_owned(),
        scratch: at("evaluations"),
        roots: at("roots"),
        limits: EvaluationLimits::default(),
        builds: BuildLimits {
            // Unique to this test process. Accepts a machine with little free space.
            cgroup: format!("innkeeper-{}", std::process::id()),
            min_free: MemorySize::from_bytes(1 << 20),
            ..BuildLimits::default()
        },
        concurrent: 2,
    };
    change(&mut config);
    Some(Workshop {
        evaluator: NixEvaluator::new(config.clone(), Arc::new(Unfiltered(Ok(())))),
        config,
        dir,
    })
}

/// Returns a derivation that claims the output path of another closure, and that path. The derivation's own path matches
/// its text, so its hash alone does not reveal the forgery.
fn usurper(shop: &Workshop) -> (String, String) {
    let victim = object::text_path("victim", shop.dir.path().as_os_str().as_encoded_bytes());
    let text = format!(
        r#"Derive([("out","{victim}","","")],[],[],"{}","/bin/sh",["-c","echo mine > $out"],[("out","{victim}")])"#,
        shop.config.system
    );
    (victim, text)
}

/// Returns the preview-config.nix of the fixture repository.
pub(crate) fn app() -> String {
    let file = "../../tests/fixtures/preview-app/preview-config.nix";
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect("the fixture")
}

fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|program| program.exists())
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("folder");
    for entry in fs::read_dir(from).expect("list") {
        let entry = entry.expect("entry");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("copy");
        }
    }
}

/// A build network without firewall rules: tests leave the machine's network unchanged.
struct Unfiltered(Result<(), ()>);

#[async_trait]
impl BuildNetwork for Unfiltered {
    async fn ensure(&self, _: &Builders) -> Result<(), FacilityError> {
        self.0.map_err(|()| FirewallError::Unreadable.into())
    }
}

fn no_progress() -> ProgressSink {
    Arc::new(|_| {})
}

impl Workshop {
    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Returns a module that is unique to this run: its derivations contain the directory's name.
    fn module(&self, body: &str) -> String {
        format!(
            "{{ config, pkgs, lib, ... }}: {{\n  environment.etc.tag.text = \"{}\";\n  {body}\n}}\n",
            self.dir.path().display()
        )
    }

    /// Returns the number of evaluations, without those that were coalesced or cached.
    fn evaluations(&self) -> u64 {
        self.evaluator.shared.evaluations.load(Ordering::Relaxed)
    }

    pub(crate) async fn evaluate(&self, config: &str) -> Result<Evaluated, FacilityError> {
        self.evaluate_tree(&SourceTree::single(config)).await
    }

    async fn evaluate_tree(&self, sources: &SourceTree) -> Result<Evaluated, FacilityError> {
        self.evaluator
            .evaluate(sources, None, Effort::Normal, no_progress())
            .await
    }

    /// Evaluates a config that must fail, and returns the failure. Fails if it leaks a secret or a store path.
    async fn refused(&self, config: &str) -> Failure {
        self.refused_tree(&SourceTree::single(config)).await
    }

    async fn refused_tree(&self, sources: &SourceTree) -> Failure {
        match self.evaluate_tree(sources).await {
            Err(error) => {
                let failure = Failure::from(&error);
                let text = format!("{failure:?}");
                assert!(!text.contains(SECRET), "{text}");
                assert!(!text.contains("/nix/store/"), "{text}");
                self.is_tidy();
                failure
            }
            Ok(evaluated) => panic!("succeeded: {evaluated:?}\n{sources:?}"),
        }
    }

    /// Fails if an evaluation left scratch files or mounts.
    fn is_tidy(&self) {
        let left: Vec<_> = fs::read_dir(self.at("evaluations"))
            .into_iter()
            .flatten()
            .map(|entry| entry.expect("entry").file_name())
            .filter(|name| name != ".home")
            .collect();
        assert!(left.is_empty(), "{left:?}");
        let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
        let here = self.dir.path().to_str().expect("text");
        assert!(!mounts.contains(here), "{mounts}");
    }
}
