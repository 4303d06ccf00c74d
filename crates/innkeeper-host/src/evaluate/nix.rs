//! The host's own Nix, which adds objects to the store and builds.
//!
//! It runs without the daemon's environment. A fixed-output derivation can read environment variables of its Nix
//! (`impureEnvVars`), and the daemon's may contain secrets. For the same reason Nix does not see root's home directory with
//! its configuration and download passwords. Builds use a fixed list of settings: [`settings`].

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use innkeeper_facilities::{Builders, Effort};
use innkeeper_model::{BuildProgress, StorePath};
use tokio::process::Command;
use tokio::sync::Notify;

use super::limits::BuildCgroups;
use super::locate::locate;
use super::object::SOURCE;
use super::settings::{self, Settings};
use super::{BuildLimits, EvaluateError, text, users};
use crate::CommandError;
use crate::closure::NixConfig;
use crate::closure::cause::Cause;
use crate::closure::nix::{Cgroups, DURABLE, NixError, sibling, supervised_in};
use crate::closure::store;
use crate::command::{COPY, QUICK, command, run_command};

/// Variables that Nix inherits from the daemon: they describe how to reach the store of this installation.
const INHERITED: [&str; 3] = ["NIX_REMOTE", "NIX_SSL_CERT_FILE", "SSL_CERT_FILE"];

/// `PATH` of Nix, for NixOS and other systems. Nix itself is found in the daemon's own `PATH`.
const PATH: &str =
    "/run/current-system/sw/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Maximum number of paths in one call: the kernel allows 2 MiB of arguments.
const MAX_PATHS_PER_CALL: usize = 2000;

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
        let output = run_command(command, b"", COPY).await?;
        let output = String::from_utf8_lossy(&output);
        StorePath::parse(output.trim()).map_err(|error| EvaluateError::Base {
            path: folder.display().to_string(),
            reason: error.to_string(),
        })
    }

    /// Returns the registrations of some paths. Fails if one is not valid.
    pub(super) async fn dump_db(&self, paths: &[&StorePath]) -> Result<String, CommandError> {
        let mut command = self.nix_store("--dump-db");
        command.args(paths.iter().map(|path| path.as_str()));
        lines_of(command).await
    }

    /// Returns the closures of some paths, one path per line.
    pub(super) async fn requisites(&self, paths: &[PathBuf]) -> Result<String, CommandError> {
        let mut command = self.nix_store("--query");
        command.arg("--requisites").args(paths);
        lines_of(command).await
    }

    /// Returns the paths that the store does not have.
    pub(super) async fn missing(
        &self,
        paths: &[&StorePath],
    ) -> Result<Vec<StorePath>, CommandError> {
        let mut missing = Vec::new();
        for chunk in paths.chunks(MAX_PATHS_PER_CALL) {
            let mut command = self.nix_store("--check-validity");
            command
                .arg("--print-invalid")
                .args(chunk.iter().map(|path| path.as_str()));
            missing.extend(store_paths(&lines_of(command).await?));
        }
        Ok(missing)
    }

    /// Imports objects from a stream in the format of `nix-store --export`. The caller must have verified them: Nix does
    /// not when it runs as root.
    pub(super) async fn import(&self, stream: &[u8]) -> Result<(), CommandError> {
        let mut command = self.nix_store("--import");
        command.args(self.options());
        run_command(command, stream, COPY).await.map(drop)
    }

    /// Builds derivations and returns their outputs. `limit` bounds the build as a whole: Nix's own `timeout` applies to
    /// each derivation.
    pub(super) async fn realise(
        &self,
        derivations: &[&StorePath],
        limit: Duration,
        limits: &BuildLimits,
        cgroups: &BuildCgroups,
        effort: Effort,
        report: impl Fn(BuildProgress),
    ) -> Result<Vec<StorePath>, EvaluateError> {
        let program = sibling(&self.config.program, "nix-store");
        let program = locate(&program).unwrap_or(program);
        let host = self.host_settings().await?;
        let (cgroups, slot) = if settings::builds_by_itself(&host) {
            let (cgroups, slot) = cgroups.enter().await?;
            (cgroups, Some(slot))
        } else {
            (Cgroups::default(), None)
        };
        let mut command = self.with_environment(supervised_in(&cgroups, effort, program));
        command
            .arg("--realise")
            .args(derivations.iter().map(|path| path.as_str()));
        let config = NixConfig {
            options: self.build_options(&host, limit, limits)?,
            ..self.config.clone()
        };
        let config = config.at(effort);
        let (max_to_build, too_many) = (AtomicU64::new(0), Notify::new());
        let build = config.run_supervised(command, |progress| {
            max_to_build.fetch_max(progress.to_build, Ordering::Relaxed);
            if progress.to_build > limits.derivations {
                too_many.notify_one();
            }
            report(progress);
        });
        let output = tokio::select! {
            // Limits first: a builder that floods its output must not delay them.
            biased;
            () = tokio::time::sleep(limit) => Err(EvaluateError::BuildTooSlow(limit)),
            () = too_many.notified() => Err(EvaluateError::TooManyDerivations(limits.derivations)),
            full = limits.until_full() => Err(full),
            output = build => Ok(output),
        };
        if let Some(slot) = slot {
            slot.release().await;
        }
        // The build may have ended before the notification.
        if max_to_build.into_inner() > limits.derivations {
            return Err(EvaluateError::TooManyDerivations(limits.derivations));
        }
        let output = output?.map_err(|error| match error {
            NixError::Run(source) => EvaluateError::Command(source),
            NixError::Failed {
                summary,
                cause: Cause::Host(fault),
                ..
            } => {
                // Only for the daemon's log: it may contain the host's paths and addresses.
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
        store::sync().await?;
        Ok(store_paths(&String::from_utf8_lossy(&output)))
    }

    /// Returns the unprivileged users that the host's Nix builds as.
    pub(super) async fn builders(&self) -> Result<Builders, EvaluateError> {
        users::require(&self.host_settings().await?)
    }

    /// Returns the settings of an untrusted build.
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

    /// Reads the settings of the host's Nix, with the configured options applied.
    pub(super) async fn host_settings(&self) -> Result<Settings, EvaluateError> {
        let mut command = self.command(&self.config.program);
        command
            .args(["--extra-experimental-features", "nix-command"])
            // Newer versions accept this old name too.
            .args(["show-config", "--json"])
            .args(self.options());
        let output = run_command(command, b"", QUICK).await?;
        serde_json::from_slice(&output).map_err(EvaluateError::Settings)
    }

    fn nix_store(&self, operation: &str) -> Command {
        let mut command = self.command(&sibling(&self.config.program, "nix-store"));
        command.arg(operation);
        command
    }

    fn command(&self, program: &Path) -> Command {
        // Looked up here: the command has another PATH.
        let found = locate(program);
        self.with_environment(command(found.as_deref().unwrap_or(program)))
    }

    /// Replaces the environment of a command.
    fn with_environment(&self, mut command: Command) -> Command {
        command
            .env_clear()
            .env("HOME", &self.home)
            .env("PATH", PATH);
        for name in INHERITED {
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
    let output = run_command(command, b"", QUICK).await?;
    Ok(String::from_utf8_lossy(&output).into_owned())
}

/// Parses the store paths in a program's output, one per line.
pub(super) fn store_paths(output: &str) -> Vec<StorePath> {
    output
        .lines()
        .filter_map(|line| StorePath::parse(line).ok())
        .collect()
}
