//! The host's own Nix, for what only the host may do: adding objects to its store, and building.
//!
//! It runs without the daemon's environment. A derivation with a fixed output may ask for environment variables of
//! the Nix that builds it (`impureEnvVars`), and the daemon's may hold what is nobody else's business; the
//! configuration and the passwords for downloads in root's home directory are not for strangers either. Builds have a
//! fixed list of settings: [`settings`].

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use innkeeper_model::{BuildProgress, StorePath};
use tokio::process::Command;
use tokio::sync::Notify;

use super::base::SOURCE;
use super::limits::BuildCgroups;
use super::place::locate;
use super::settings::{self, Settings};
use super::{BuildLimits, EvaluateError, text, users};
use crate::CommandError;
use crate::closure::NixConfig;
use crate::closure::cause::Cause;
use crate::closure::nix::{Cgroups, DURABLE, NixError, sibling, supervised_in};
use crate::closure::store;
use crate::command::{COPY, QUICK, command, run_command};
use crate::facilities::Builders;

/// The variables that Nix gets from the daemon: how a certain installation of Nix wants its store to be reached.
const PASSED_ON: [&str; 3] = ["NIX_REMOTE", "NIX_SSL_CERT_FILE", "SSL_CERT_FILE"];

/// Where programs are, on NixOS and elsewhere. Nix itself is found in the daemon's own `PATH`.
const PATH: &str =
    "/run/current-system/sw/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// As many paths are given to one call; the kernel takes 2 MiB of arguments.
const PATHS_AT_ONCE: usize = 2000;

/// The host's Nix.
pub(super) struct Nix<'a> {
    config: &'a NixConfig,
    home: PathBuf,
}

impl<'a> Nix<'a> {
    pub(super) fn new(config: &'a NixConfig, scratch: &Path) -> Self {
        Self {
            config,
            home: scratch.join(".home"),
        }
    }

    /// Copies a folder into the store, as a source.
    pub(super) async fn add(&self, folder: &Path) -> Result<StorePath, EvaluateError> {
        let mut command = self.command(&self.config.program);
        command
            .args(["--extra-experimental-features", "nix-command"])
            .args(["store", "add-path", "--name", SOURCE])
            .arg(folder)
            .args(self.options());
        let answer = run_command(command, b"", COPY).await?;
        let answer = String::from_utf8_lossy(&answer);
        StorePath::parse(answer.trim()).map_err(|error| EvaluateError::Base {
            what: folder.display().to_string(),
            reason: error.to_string(),
        })
    }

    /// What the store knows of some paths. Fails when one is not valid.
    pub(super) async fn dump_db(&self, paths: &[&StorePath]) -> Result<String, CommandError> {
        let mut command = self.nix_store("--dump-db");
        command.args(paths.iter().map(|path| path.as_str()));
        lines_of(command).await
    }

    /// Paths and all that they need.
    pub(super) async fn requisites(&self, paths: &[PathBuf]) -> Result<String, CommandError> {
        let mut command = self.nix_store("--query");
        command.arg("--requisites").args(paths);
        lines_of(command).await
    }

    /// Those of the paths that the store does not have.
    pub(super) async fn missing(
        &self,
        paths: &[&StorePath],
    ) -> Result<Vec<StorePath>, CommandError> {
        let mut missing = Vec::new();
        for some in paths.chunks(PATHS_AT_ONCE) {
            let mut command = self.nix_store("--check-validity");
            command
                .arg("--print-invalid")
                .args(some.iter().map(|path| path.as_str()));
            let answer = lines_of(command).await?;
            missing.extend(
                answer
                    .lines()
                    .filter_map(|line| StorePath::parse(line).ok()),
            );
        }
        Ok(missing)
    }

    /// Takes objects from a stream (`nix-store --export`'s format). Whoever calls has checked them: as root, Nix
    /// itself does not.
    pub(super) async fn import(&self, stream: &[u8]) -> Result<(), CommandError> {
        let mut command = self.nix_store("--import");
        command.args(self.options());
        run_command(command, stream, COPY).await.map(drop)
    }

    /// Builds derivations and returns the outputs of all of them. After `limit`, everything that the build started is
    /// ended: Nix's own `timeout` counts anew for each derivation.
    pub(super) async fn realise(
        &self,
        derivations: &[&StorePath],
        limit: Duration,
        limits: &BuildLimits,
        cgroups: &BuildCgroups,
        report: impl Fn(BuildProgress),
    ) -> Result<Vec<StorePath>, EvaluateError> {
        let program = sibling(&self.config.program, "nix-store");
        let program = locate(&program).unwrap_or(program);
        let host = self.host_settings().await?;
        let (cgroups, room) = if settings::builds_by_itself(&host) {
            let (cgroups, room) = cgroups.enter().await?;
            (cgroups, Some(room))
        } else {
            (Cgroups::default(), None)
        };
        let mut command = self.outfit(supervised_in(&cgroups, program));
        command
            .arg("--realise")
            .args(derivations.iter().map(|path| path.as_str()));
        let config = NixConfig {
            options: self.build_options(&host, limit, limits)?,
            ..self.config.clone()
        };
        let (most, too_many) = (AtomicU64::new(0), Notify::new());
        let build = config.attend(command, |progress| {
            most.fetch_max(progress.to_build, Ordering::Relaxed);
            if progress.to_build > limits.derivations {
                too_many.notify_one();
            }
            report(progress);
        });
        let answer = tokio::select! {
            // A builder decides how much output there is: that must not delay the limits.
            biased;
            () = tokio::time::sleep(limit) => Err(EvaluateError::BuildTooSlow(limit)),
            () = too_many.notified() => Err(EvaluateError::TooManyDerivations(limits.derivations)),
            full = limits.until_full() => Err(full),
            answer = build => Ok(answer),
        };
        if let Some(room) = room {
            room.leave().await;
        }
        // It may have been too fast to be stopped.
        if most.into_inner() > limits.derivations {
            return Err(EvaluateError::TooManyDerivations(limits.derivations));
        }
        let answer = answer?.map_err(|error| match error {
            NixError::Run(source) => EvaluateError::Command(source),
            NixError::Failed {
                summary,
                cause: Cause::Host(fault),
                ..
            } => {
                // It may name the host's paths and addresses: for the daemon's log only.
                tracing::warn!(%summary, "{fault}");
                EvaluateError::Host(fault)
            }
            NixError::Failed {
                summary,
                log,
                cause,
            } => {
                let (summary, log) = text::failure((summary, log));
                match cause {
                    Cause::Unclear => EvaluateError::Interrupted { summary, log },
                    _ => EvaluateError::Build { summary, log },
                }
            }
        })?;
        store::settle().await?;
        let answer = String::from_utf8_lossy(&answer);
        Ok(answer
            .lines()
            .filter_map(|line| StorePath::parse(line).ok())
            .collect())
    }

    /// The users without rights that the host's Nix builds as.
    pub(super) async fn builders(&self) -> Result<Builders, EvaluateError> {
        users::require(&self.host_settings().await?)
    }

    /// The settings of a build by strangers.
    fn build_options(
        &self,
        host: &Settings,
        limit: Duration,
        limits: &BuildLimits,
    ) -> Result<BTreeMap<String, String>, EvaluateError> {
        users::require(host)?;
        let mut options = settings::for_previews(host, &self.config.options, limits);
        options.insert("timeout".to_owned(), limit.as_secs().max(1).to_string());
        Ok(options)
    }

    /// The settings of the host's Nix, with the configured options.
    pub(super) async fn host_settings(&self) -> Result<Settings, EvaluateError> {
        let mut command = self.command(&self.config.program);
        command
            .args(["--extra-experimental-features", "nix-command"])
            // Newer versions know it by this name too.
            .args(["show-config", "--json"])
            .args(self.options());
        let answer = run_command(command, b"", QUICK).await?;
        serde_json::from_slice(&answer).map_err(EvaluateError::Settings)
    }

    fn nix_store(&self, operation: &str) -> Command {
        let mut command = self.command(&sibling(&self.config.program, "nix-store"));
        command.arg(operation);
        command
    }

    fn command(&self, program: &Path) -> Command {
        // Looked up here, because the command has another PATH.
        let found = locate(program);
        self.outfit(command(found.as_deref().unwrap_or(program)))
    }

    /// Replaces the environment of a command.
    fn outfit(&self, mut command: Command) -> Command {
        command
            .env_clear()
            .env("HOME", &self.home)
            .env("PATH", PATH);
        for name in PASSED_ON {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
    }

    fn options(&self) -> Vec<OsString> {
        let options = self.config.options.iter();
        let options = options.flat_map(|(name, value)| ["--option", name, value]);
        DURABLE
            .into_iter()
            .chain(options)
            .map(OsString::from)
            .collect()
    }
}

async fn lines_of(command: Command) -> Result<String, CommandError> {
    let answer = run_command(command, b"", QUICK).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
