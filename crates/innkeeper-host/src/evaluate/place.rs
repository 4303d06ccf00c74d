//! The closed place in which a preview-config.nix is evaluated; `sandbox.sh` makes it.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use innkeeper_model::{BuildProgress, STORE_DIR, StorePath};
use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStdout};

use super::key::{Base, COMPOSE, Locked};
use super::nix::Nix;
use super::object::{Object, source_path};
use super::registry::{Registry, registration};
use super::{EvaluateError, EvaluatorConfig, text};
use crate::closure::log::Log;
use crate::closure::member::Unprivileged;
use crate::closure::nix::{sibling, while_lines};
use crate::command::{command, start_error};
use crate::{FileErrorExt, tree};

/// What runs as the place's first process.
const SCRIPT: &str = include_str!("sandbox.sh");

/// Nix's settings in the place.
///
/// `pure-eval` knows neither the environment nor the time, and reads no path but by its hash; `restrict-eval` takes
/// away what is left of downloads and of the search path. Nothing is built and nothing is asked elsewhere.
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

/// The last line of both outputs. Nix's own are JSON or come before.
const END: &str = "end";

/// The name of the file in messages.
const CONFIG: &str = "preview-config.nix";

/// What the composition gives.
#[derive(Debug, Deserialize)]
pub(super) struct Answer {
    /// What a guest boots from.
    pub(super) toplevel: Toplevel,
    /// What the preview says about itself.
    pub(super) meta: MetaText,
}

#[derive(Debug, Deserialize)]
pub(super) struct Toplevel {
    pub(super) derivation: StorePath,
    pub(super) out: StorePath,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum MetaText {
    /// The JSON itself.
    Here { json: String },
    /// A file with the JSON, and the derivations or sources that it comes from.
    File {
        path: PathBuf,
        needs: Vec<StorePath>,
    },
}

/// A place with an evaluator that is done. Its store can be read as long as this exists; all of it is gone
/// afterwards, processes too.
pub(super) struct Place {
    child: Child,
    /// Goes after the child.
    _folder: Folder,
    pub(super) answer: Answer,
    pub(super) registry: Registry,
}

/// What makes a place closed before anything is known of its evaluation.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = tree::remove(&self.0) {
            tracing::warn!(%error, "what an evaluation needed is left");
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The kernel ends all processes of the place with the first one, which ends with the child.
        self.child.start_kill().ok();
    }
}

impl Place {
    /// Evaluates a preview-config.nix. No other evaluation has the same `folder`.
    pub(super) async fn evaluate(
        config: &EvaluatorConfig,
        base: &Base,
        folder: PathBuf,
        preview: &str,
        report: impl Fn(BuildProgress),
    ) -> Result<Self, EvaluateError> {
        let folder = Folder(folder);
        let mut child = start(config, base, preview, &folder.0).await?;
        let begun = Instant::now();
        let outcome = tokio::time::timeout(
            config.limits.time,
            attend(&mut child, config.limits.output, report),
        )
        .await;
        let Ok(said) = outcome else {
            child.kill().await.ok();
            return Err(EvaluateError::TooSlow(config.limits.time));
        };
        let judged = match said {
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                Err(EvaluateError::TooMuchOutput(config.limits.output))
            }
            Ok(said) => said.judge(config, begun.elapsed()),
            Err(source) => Err(start_error("unshare".as_ref(), source).into()),
        };
        match judged {
            Ok((answer, registry)) => Ok(Self {
                child,
                _folder: folder,
                answer,
                registry,
            }),
            Err(error) => {
                child.kill().await.ok();
                Err(error)
            }
        }
    }

    /// The folder of the evaluator's store objects, as the host sees it. The child is not waited for before this is
    /// dropped, so its number is its own.
    pub(super) fn store(&self) -> PathBuf {
        let pid = self.child.id().unwrap_or_default();
        PathBuf::from(format!("/proc/{pid}/root{STORE_DIR}"))
    }
}

/// Prepares what the evaluator reads and starts it. The evaluator ends when the child's standard input does.
pub(super) async fn start(
    config: &EvaluatorConfig,
    base: &Base,
    preview: &str,
    folder: &Path,
) -> Result<Child, EvaluateError> {
    let nix = Nix::new(&config.nix, &config.scratch);
    let programs = Programs::find(config)?;
    let sources = [&base.nixpkgs.path, &base.module.path];
    let known = nix.dump_db(&sources).await?;
    let preview = Preview::new(preview)?;
    let visible = programs.visible(&nix).await?;

    tree::remove(folder)?;
    let (root, input) = (folder.join("root"), folder.join("in"));
    for folder in [&root, &input] {
        // The evaluator's user reads in `in`, which it sees from elsewhere.
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o755);
        builder.create(folder).on("create", folder)?;
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).on("change", folder)?;
    let file = folder.join(CONFIG);
    for (path, contents) in [
        (&file, preview.text),
        (&input.join("nix.conf"), SETTINGS),
        (&input.join("expression"), &expression(base, &preview)),
        (
            &input.join("registration"),
            &(known + &registration(&preview.locked.path, &preview.object)),
        ),
    ] {
        fs::write(path, contents).on("write", path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o444)).on("change", path)?;
    }

    let limits = &config.limits;
    let user = user_id(&config.user)?;
    let cpu = limits.cpu.as_secs() + u64::from(limits.cpu.subsec_nanos() > 0);
    let mut words: Vec<OsString> = vec![root.into()];
    let mut word = |text: String| words.push(text.into());
    word(user.to_string());
    word(limits.disk.bytes().to_string());
    word(limits.processes.to_string());
    word(cpu.max(1).to_string());
    word(limits.memory.bytes().to_string());
    words.push(input.into());
    words.extend([programs.umount, programs.prlimit, programs.setpriv].map(Into::into));
    words.push(programs.nix.into());
    for path in visible {
        words.extend([path.clone().into_os_string(), path.into_os_string()]);
    }
    for source in sources {
        words.extend([source.as_str().into(), source.as_str().into()]);
    }
    words.extend([file.into(), preview.locked.path.as_str().into()]);

    let mut command = command("unshare");
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
        .args(words)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Ok(command
        .spawn()
        .map_err(|source| start_error("unshare".as_ref(), source))?)
}

/// A preview-config.nix as an object of a store.
struct Preview<'a> {
    text: &'a str,
    object: Object,
    locked: Locked,
}

impl<'a> Preview<'a> {
    fn new(text: &'a str) -> Result<Self, EvaluateError> {
        let object = Object::of_file(text.as_bytes());
        let hash = object.nar_hash();
        let path = StorePath::parse(&source_path(CONFIG, &hash, &[]))
            .map_err(|error| EvaluateError::Refused(error.to_string()))?;
        Ok(Self {
            text,
            object,
            locked: Locked {
                path,
                nar_hash: super::hash::base16(&hash),
            },
        })
    }
}

/// The composition with its arguments. All of them are ours, and none needs quoting.
fn expression(base: &Base, preview: &Preview<'_>) -> String {
    let source = |name: &str, locked: &Locked| {
        format!(
            "{{ name = \"{name}\"; path = {}; hash = \"{}\"; }}",
            locked.path, locked.nar_hash
        )
    };
    format!(
        "({COMPOSE}) {{ nixpkgs = {}; base = {}; preview = {}; entry = \"{}\"; system = \"{}\"; }}",
        source(super::base::SOURCE, &base.nixpkgs),
        source(super::base::SOURCE, &base.module),
        source(CONFIG, &preview.locked),
        base.entry,
        base.system,
    )
}

/// Whether the programs and the user are there.
pub(super) fn check(config: &EvaluatorConfig) -> Result<(), EvaluateError> {
    Programs::find(config)?;
    locate("unshare".as_ref())?;
    user_id(&config.user)?;
    Ok(())
}

/// The number of a user without rights.
fn user_id(user: &str) -> Result<u32, EvaluateError> {
    let found = Unprivileged::find(user).map_err(|reason| EvaluateError::User {
        user: user.to_owned(),
        reason,
    })?;
    Ok(found.uid)
}

/// The programs that run after the host's file tree is out of sight, where they really are.
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

    /// What of the host they need: their closures if they are in the store, else the system's programs and
    /// libraries.
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

/// The store object that a path leads into.
fn object_of(path: &Path) -> Option<PathBuf> {
    let below = path.strip_prefix(STORE_DIR).ok()?;
    Some(Path::new(STORE_DIR).join(below.components().next()?))
}

/// Where a program really is. Links to other folders are followed, since only the last of them will be there; a link
/// beside its target is kept, since many programs are one that looks at its name.
pub(super) fn locate(program: &Path) -> Result<PathBuf, EvaluateError> {
    let missing = || {
        let error = io::Error::from(io::ErrorKind::NotFound);
        start_error(program.as_os_str(), error)
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut candidates: Vec<PathBuf> = std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .collect();
    candidates.retain(|candidate| candidate.is_absolute() && candidate.is_file());
    let mut found = candidates.into_iter().next().ok_or_else(missing)?;
    for _ in 0..40 {
        let (Some(folder), Some(name)) = (found.parent(), found.file_name()) else {
            break;
        };
        found = fs::canonicalize(folder).map_err(|_| missing())?.join(name);
        match fs::read_link(&found) {
            Ok(target) if target.parent().is_some_and(|p| !p.as_os_str().is_empty()) => {
                found = found.with_file_name("").join(target);
            }
            _ => break,
        }
    }
    Ok(found)
}

/// All that came out of a place before it was left alone.
struct Said {
    stdout: Vec<u8>,
    log: Log,
}

/// Hears the evaluator to its end.
async fn attend(child: &mut Child, limit: u64, report: impl Fn(BuildProgress)) -> io::Result<Said> {
    let gone = || io::Error::other("its output is not there");
    let stdout = child.stdout.take().ok_or_else(gone)?;
    let stderr = child.stderr.take().ok_or_else(gone)?;
    report(BuildProgress {
        activity: format!("evaluating {CONFIG}"),
        ..BuildProgress::default()
    });
    let (mut log, mut answer) = (Log::default(), Vec::new());
    let lines = while_lines(stderr, |line| {
        let more = line != END;
        if more {
            log.take(line);
        }
        more
    });
    tokio::try_join!(read_answer(stdout, limit, &mut answer), lines)?;
    Ok(Said {
        stdout: answer,
        log,
    })
}

/// Reads up to the line that ends it, or to the end of a place that failed before.
async fn read_answer(mut stdout: ChildStdout, limit: u64, answer: &mut Vec<u8>) -> io::Result<()> {
    let end = format!("\n{END}\n");
    while stdout.read_buf(answer).await? > 0 {
        if answer.len() as u64 > limit {
            // Nobody reads on, and the place would wait for that.
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        if answer.ends_with(end.as_bytes()) {
            answer.truncate(answer.len() - END.len() - 1);
            break;
        }
    }
    Ok(())
}

impl Said {
    /// What it comes to: an answer and a store, or why there is none.
    fn judge(
        self,
        config: &EvaluatorConfig,
        elapsed: std::time::Duration,
    ) -> Result<(Answer, Registry), EvaluateError> {
        let limits = &config.limits;
        let stdout = String::from_utf8_lossy(&self.stdout);
        // The answer is JSON and has no line feed.
        let (answer, rest) = stdout.split_once('\n').unwrap_or_default();
        let rest = rest.trim_start_matches('\n');
        let (status, registry) = rest.split_once('\n').unwrap_or_default();
        match status {
            "0" => {}
            "" => {
                let (summary, _) = self.log.into_failure();
                return Err(EvaluateError::Place(summary));
            }
            // SIGXCPU, which Boehm's collector has another use for in most builds of Nix.
            "152" => return Err(EvaluateError::TooMuchCpu(limits.cpu)),
            // Killed: by the limit of its processor time, unless there was no time for that yet. Memory that it may not
            // have is refused, and does not kill it.
            "137" if elapsed >= limits.cpu => return Err(EvaluateError::TooMuchCpu(limits.cpu)),
            "137" | "143" => return Err(EvaluateError::Killed),
            _ => {
                let (summary, log) = text::failure(self.log.into_failure());
                // For people only: the code is the same.
                return Err(match summary.as_str() {
                    "out of memory" | "std::bad_alloc" => {
                        EvaluateError::TooMuchMemory(limits.memory)
                    }
                    _ => EvaluateError::Config { summary, log },
                });
            }
        }
        let answer = serde_json::from_str(answer)
            .map_err(|error| EvaluateError::Refused(format!("its answer: {error}")))?;
        let registry = Registry::parse(registry)
            .ok_or_else(|| EvaluateError::Refused("the list of its store".to_owned()))?;
        Ok((answer, registry))
    }
}
