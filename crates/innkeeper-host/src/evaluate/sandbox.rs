//! The sandbox in which a preview-config.nix is evaluated. `sandbox.sh` sets it up.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use innkeeper_facilities::Effort;
use innkeeper_model::preview::ConfigProblem;
use innkeeper_model::preview::sources::SourceTree;
use innkeeper_model::{BuildProgress, STORE_DIR, StorePath};
use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStdout};

use super::key::{Base, COMPOSE, Locked};
use super::locate::locate;
use super::nix::Nix;
use super::object::SOURCE;
use super::registry::{Registry, registration};
use super::repository::Repository;
use super::{EvaluateError, EvaluatorConfig, diagnosis, text};
use crate::closure::log::Log;
use crate::closure::member::Unprivileged;
use crate::closure::nix::{sibling, while_lines};
use crate::command::{command, start_error};
use crate::{FileErrorExt, tree};

/// PID 1 of the sandbox.
const SCRIPT: &str = include_str!("sandbox.sh");

/// Nix's settings in the sandbox.
///
/// `pure-eval` hides the environment and the time, and reads paths only by their hash. `restrict-eval` blocks the
/// remaining downloads and the search path. Builds and substitution are off.
const SETTINGS: &str = "\
pure-eval = true
restrict-eval = true
allow-import-from-derivation = false
allowed-uris =
allow-unsafe-native-code-during-evaluation = false
experimental-features =
substitute = false
substituters =
builders =
max-jobs = 0
plugin-files =
build-users-group =
sandbox = false
fsync-metadata = false
";

/// The last line of both outputs. Nix's own lines are JSON or precede it.
const END: &str = "end";

/// Result of `compose.nix`.
#[derive(Debug, Deserialize)]
pub(super) struct EvaluationOutput {
    /// The system closure that guests boot from.
    pub(super) toplevel: Toplevel,
    /// The preview's metadata.
    pub(super) meta: MetaOutput,
}

#[derive(Debug, Deserialize)]
pub(super) struct Toplevel {
    pub(super) derivation: StorePath,
    pub(super) out: StorePath,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum MetaOutput {
    /// The JSON itself.
    Inline { json: String },
    /// A file with the JSON, and the derivations or sources that it depends on.
    File {
        path: PathBuf,
        needs: Vec<StorePath>,
    },
}

/// A sandbox whose evaluation has finished. Its store stays readable until this is dropped, which also ends its
/// processes and removes its files.
pub(super) struct Sandbox {
    child: Child,
    /// Dropped after the child.
    _folder: ScratchFolder,
    pub(super) output: EvaluationOutput,
    pub(super) registry: Registry,
    pub(super) repository: Repository,
}

/// The evaluation's folder, removed on drop.
struct ScratchFolder(PathBuf);

impl Drop for ScratchFolder {
    fn drop(&mut self) {
        if let Err(error) = tree::remove(&self.0) {
            tracing::warn!(%error, "cannot remove the scratch folder of an evaluation");
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // PID 1 of the sandbox ends with the child, and the kernel ends all other processes with it.
        self.child.start_kill().ok();
    }
}

impl Sandbox {
    /// Evaluates a configuration. `folder` must be unique among running evaluations.
    pub(super) async fn evaluate(
        config: &EvaluatorConfig,
        base: &Base,
        folder: PathBuf,
        sources: &SourceTree,
        effort: Effort,
        report: impl Fn(BuildProgress),
    ) -> Result<Self, EvaluateError> {
        let folder = ScratchFolder(folder);
        let (mut child, repository) = start(config, base, sources, effort, &folder.0).await?;
        let started = Instant::now();
        let raw = tokio::time::timeout(
            config.limits.time,
            read_output(&mut child, config.limits.output, sources, report),
        )
        .await;
        let Ok(raw) = raw else {
            child.kill().await.ok();
            return Err(EvaluateError::TooSlow(config.limits.time));
        };
        let outcome = match raw {
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                Err(EvaluateError::TooMuchOutput(config.limits.output))
            }
            Ok(raw) => raw.parse(config, &repository, sources, started.elapsed()),
            Err(source) => Err(start_error("unshare".as_ref(), source).into()),
        };
        match outcome {
            Ok((output, registry)) => Ok(Self {
                child,
                _folder: folder,
                output,
                registry,
                repository,
            }),
            Err(error) => {
                child.kill().await.ok();
                Err(error)
            }
        }
    }

    /// Returns the host's path of the evaluator's store. The child is reaped only after the drop, so its PID cannot be
    /// reused before.
    pub(super) fn store(&self) -> PathBuf {
        let pid = self.child.id().unwrap_or_default();
        PathBuf::from(format!("/proc/{pid}/root{STORE_DIR}"))
    }
}

/// Writes the evaluator's input files and starts it. Closing the child's standard input ends it.
pub(super) async fn start(
    config: &EvaluatorConfig,
    base: &Base,
    sources: &SourceTree,
    effort: Effort,
    folder: &Path,
) -> Result<(Child, Repository), EvaluateError> {
    let nix = Nix::new(&config.nix, &config.scratch);
    let programs = Programs::find(config)?;
    let shared = [&base.nixpkgs.path, &base.module.path];
    let registrations = nix.dump_db(&shared).await?;
    let visible = programs.visible(&nix).await?;

    tree::remove(folder)?;
    let (root, input) = (folder.join("root"), folder.join("in"));
    for folder in [&root, &input] {
        // The evaluator's user reads `in` through a bind mount.
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o755);
        builder.create(folder).on("create", folder)?;
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).on("change", folder)?;
    let repository = Repository::write(sources, folder)?;
    for (path, contents) in [
        (&input.join("nix.conf"), SETTINGS),
        (&input.join("expression"), &expression(base, &repository)),
        (
            &input.join("registration"),
            &(registrations + &registration(&repository.locked.path, &repository.object)),
        ),
    ] {
        fs::write(path, contents).on("write", path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o444)).on("change", path)?;
    }

    let limits = &config.limits;
    let user = user_id(&config.user)?;
    let cpu = limits.cpu.as_secs() + u64::from(limits.cpu.subsec_nanos() > 0);
    let mut args: Vec<OsString> = vec![root.into()];
    args.extend(
        [
            user.to_string(),
            limits.disk.bytes().to_string(),
            limits.processes.to_string(),
            cpu.max(1).to_string(),
            limits.memory.bytes().to_string(),
        ]
        .map(OsString::from),
    );
    args.push(input.into());
    args.extend([programs.umount, programs.prlimit, programs.setpriv].map(Into::into));
    args.push(programs.nix.into());
    for path in visible {
        args.extend([path.clone().into_os_string(), path.into_os_string()]);
    }
    for source in shared {
        args.extend([source.as_str().into(), source.as_str().into()]);
    }
    args.extend([
        repository.folder.clone().into(),
        repository.locked.path.as_str().into(),
    ]);

    let mut command = match effort {
        Effort::Normal => command("unshare"),
        Effort::Background => {
            let mut nice = command("nice");
            nice.args(["-n", "19", "unshare"]);
            nice
        }
    };
    command
        .args([
            "--mount",
            "--net",
            "--pid",
            "--ipc",
            "--uts",
            "--fork",
            "--kill-child",
        ])
        .args(["--", "/bin/sh", "-c", SCRIPT, "innkeeper-evaluate"])
        .args(args)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = command
        .spawn()
        .map_err(|source| start_error("unshare".as_ref(), source))?;
    Ok((child, repository))
}

/// Returns `compose.nix` applied to its arguments. Innkeeper makes all of them except for the main file's path, which is
/// quoted.
fn expression(base: &Base, repository: &Repository) -> String {
    let source = |name: &str, locked: &Locked| {
        format!(
            "{{ name = \"{name}\"; path = {}; hash = \"{}\"; }}",
            locked.path, locked.nar_hash
        )
    };
    format!(
        "({COMPOSE}) {{ nixpkgs = {}; base = {}; preview = {}; main = {}; entry = \"{}\"; system = \"{}\"; }}",
        source(SOURCE, &base.nixpkgs),
        source(SOURCE, &base.module),
        source(Repository::NAME, &repository.locked),
        repository.main,
        base.entry,
        base.system,
    )
}

/// Checks that the programs and the user exist.
pub(super) fn check(config: &EvaluatorConfig) -> Result<(), EvaluateError> {
    Programs::find(config)?;
    locate("unshare".as_ref())?;
    user_id(&config.user)?;
    Ok(())
}

/// Returns the UID of an unprivileged user.
fn user_id(user: &str) -> Result<u32, EvaluateError> {
    let found = Unprivileged::find(user).map_err(|reason| EvaluateError::User {
        user: user.to_owned(),
        reason,
    })?;
    Ok(found.uid)
}

/// Real paths of the programs that run after the host's file tree is unmounted.
struct Programs {
    umount: PathBuf,
    prlimit: PathBuf,
    setpriv: PathBuf,
    /// The folder of Nix's programs.
    nix: PathBuf,
}

impl Programs {
    fn find(config: &EvaluatorConfig) -> Result<Self, EvaluateError> {
        let nix = locate(&sibling(&config.nix.program, "nix-instantiate"))?;
        Ok(Self {
            umount: locate("umount".as_ref())?,
            prlimit: locate("prlimit".as_ref())?,
            setpriv: locate("setpriv".as_ref())?,
            nix: nix.parent().unwrap_or(Path::new("/")).to_owned(),
        })
    }

    /// Returns the host's paths that the programs need: their closures if they are in the store, else the system's
    /// programs and libraries.
    async fn visible(&self, nix: &Nix<'_>) -> Result<Vec<PathBuf>, EvaluateError> {
        let all = [&self.umount, &self.prlimit, &self.setpriv, &self.nix];
        let objects: Vec<PathBuf> = all.iter().filter_map(|path| object_of(path)).collect();
        let mut visible = Vec::new();
        if objects.len() < all.len() {
            let system = ["/usr", "/bin", "/sbin", "/lib", "/lib64"].map(PathBuf::from);
            visible.extend(system.into_iter().filter(|path| path.exists()));
        }
        if !objects.is_empty() {
            let closure = nix.requisites(&objects).await?;
            visible.extend(closure.lines().map(PathBuf::from));
        }
        Ok(visible)
    }
}

/// Returns the store object that contains a path.
fn object_of(path: &Path) -> Option<PathBuf> {
    let below = path.strip_prefix(STORE_DIR).ok()?;
    Some(Path::new(STORE_DIR).join(below.components().next()?))
}

/// The sandbox's output up to the evaluator's end.
struct RawOutput {
    stdout: Vec<u8>,
    log: Log,
}

/// Reads the output until the evaluator ends.
async fn read_output(
    child: &mut Child,
    limit: u64,
    sources: &SourceTree,
    report: impl Fn(BuildProgress),
) -> io::Result<RawOutput> {
    let no_pipe = || io::Error::other("its output is not a pipe");
    let stdout = child.stdout.take().ok_or_else(no_pipe)?;
    let stderr = child.stderr.take().ok_or_else(no_pipe)?;
    report(BuildProgress {
        activity: format!("evaluating {}", sources.main()),
        ..BuildProgress::default()
    });
    let (mut log, mut output) = (Log::of_evaluation(), Vec::new());
    let lines = while_lines(stderr, |line| {
        let more = line != END;
        if more {
            log.take(line);
        }
        more
    });
    tokio::try_join!(read_stdout(stdout, limit, &mut output), lines)?;
    Ok(RawOutput {
        stdout: output,
        log,
    })
}

/// Reads up to the [`END`] line, or to end of file when the sandbox failed before it.
async fn read_stdout(mut stdout: ChildStdout, limit: u64, output: &mut Vec<u8>) -> io::Result<()> {
    let end = format!("\n{END}\n");
    while stdout.read_buf(output).await? > 0 {
        if output.len() as u64 > limit {
            // The caller must kill the sandbox, which would block on the unread pipe.
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        if output.ends_with(end.as_bytes()) {
            output.truncate(output.len() - END.len() - 1);
            break;
        }
    }
    Ok(())
}

impl RawOutput {
    /// Returns the result and the store's registry, or the cause of the failure.
    fn parse(
        self,
        config: &EvaluatorConfig,
        repository: &Repository,
        sources: &SourceTree,
        elapsed: std::time::Duration,
    ) -> Result<(EvaluationOutput, Registry), EvaluateError> {
        let limits = &config.limits;
        let stdout = String::from_utf8_lossy(&self.stdout);
        // The result is JSON without a line feed.
        let (result, rest) = stdout.split_once('\n').unwrap_or_default();
        let rest = rest.trim_start_matches('\n');
        let (status, registry) = rest.split_once('\n').unwrap_or_default();
        match status {
            "0" => {}
            "" => {
                let (summary, _) = self.log.into_failure();
                return Err(EvaluateError::Sandbox(summary));
            }
            // SIGXCPU. In most builds of Nix, Boehm's collector uses it for something else.
            "152" => return Err(EvaluateError::TooMuchCpu(limits.cpu)),
            // SIGKILL: the CPU limit, if it can have been reached. The memory limit fails allocations and does not kill.
            "137" if elapsed >= limits.cpu => return Err(EvaluateError::TooMuchCpu(limits.cpu)),
            "137" | "143" => return Err(EvaluateError::Killed),
            _ => {
                let (summary, log, problems) = self.failure(repository, sources);
                // Affects only the message: the code is the same.
                return Err(match summary.as_str() {
                    "out of memory" | "std::bad_alloc" => {
                        EvaluateError::TooMuchMemory(limits.memory)
                    }
                    _ => EvaluateError::Config {
                        summary,
                        log,
                        problems,
                    },
                });
            }
        }
        let output = serde_json::from_str(result)
            .map_err(|error| EvaluateError::Refused(format!("invalid JSON: {error}")))?;
        let registry = Registry::parse(registry)
            .ok_or_else(|| EvaluateError::Refused("invalid list of store objects".to_owned()))?;
        Ok((output, registry))
    }

    /// Returns Nix's error in one line, the log, and the problems.
    fn failure(
        self,
        repository: &Repository,
        sources: &SourceTree,
    ) -> (String, Vec<String>, Vec<ConfigProblem>) {
        let diagnosis = self
            .log
            .nix_error()
            .map(|error| diagnosis::diagnose(error, &repository.locked.path, sources));
        let (problems, lines) = diagnosis.unwrap_or_default();
        let (summary, printed) = text::failure(self.log.into_failure());
        let summary = match problems.as_slice() {
            [] => summary,
            [only] => only.to_string(),
            [first, ..] => format!("{} problems; the first: {first}", problems.len()),
        };
        // First, so that they are the decisive lines, whatever the configuration prints.
        let mut log: Vec<String> = problems.iter().map(ConfigProblem::log_line).collect();
        log.extend(lines);
        log.extend(printed);
        let notes = text::omissions(sources, &summary, &log);
        log.extend(notes);
        (summary, log, problems)
    }
}
