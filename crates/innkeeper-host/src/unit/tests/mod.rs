//! Tests with guests of real systemd-nspawn, booted from a real store path.

mod commands;
mod confinement;
mod filters;
mod lifecycle;
mod pause;
mod preview;
mod seats;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use innkeeper_facilities::{ExecSession, Found, UnitSeen, Units};
use innkeeper_model::api::ExecRequest;
use innkeeper_model::{
    ClosureSource, Code, Cpus, DesiredState, Explain, Guest, GuestKind, GuestName, Limits,
    MemorySize, Ownership, Slot, StorePath, UnitPhase, UserIdCount,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::broadcast;

use super::cgroup::{self, Cgroups};
use super::direct::Direct;
use super::process::find_program;
use super::supervised::SupervisedUnits;
use super::supervisor::{Groups, Supervisor as _};
use super::systemd::Systemd;
use super::{SupervisorKind, UnitConfig};
use crate::command;
use crate::features::UserIds;
use crate::identity::Identity;

/// A closure from a static busybox. Its init runs the guest's `/script`, then waits for the shutdown signal.
const CLOSURE: &str = r#"
{ source }:
derivation {
  name = "unit-test";
  system = builtins.currentSystem;
  builder = "${builtins.path { path = source; name = "busybox"; }}/busybox";
  args = [ "sh" "-c" ''
    busybox=${builtins.path { path = source; name = "busybox"; }}/busybox
    $busybox mkdir -p $out/bin
    $busybox cp $busybox $out/bin/busybox
    for applet in $($busybox --list); do $busybox ln -s busybox $out/bin/$applet; done
    $busybox cat > $out/init <<END
    #!$out/bin/sh
    export PATH=$out/bin
    trap 'echo "shutting down"; exit 0' 37
    [ -e /script ] && . /script
    while :; do sleep 1000 & wait \$!; done
    END
    $busybox sed -i 's/^ *//' $out/init
    $busybox chmod +x $out/init
  '' ];
}
"#;

/// The options of nix to build offline and as root.
const NIX_CONFIG: &str =
    "experimental-features = nix-command flakes\nsubstituters =\nsandbox = false";

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A temporary host for guests.
struct Host {
    _dir: tempfile::TempDir,
    config: UnitConfig,
    closure: StorePath,
    only_version_one: bool,
}

impl Host {
    /// Returns `None` and reports the test as not run when this machine cannot run guests.
    async fn new(test: &str) -> Option<Self> {
        match Self::prepare().await {
            Ok(host) => Some(host),
            Err(reason) => {
                eprintln!("INNKEEPER-NOT-RUN: {test}: {reason}");
                None
            }
        }
    }

    async fn prepare() -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("not root".to_owned());
        }
        for program in ["systemd-nspawn", "busybox", "nix", "nsenter", "setsid"] {
            find_program(program.as_ref()).map_err(|error| error.to_string())?;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let closure = build(dir.path()).await?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let unique = format!("ut{}-{number}-", std::process::id());
        let config = UnitConfig {
            cgroup: format!("innkeeper-{unique}test"),
            unit_prefix: format!("innkeeper-guest-{unique}"),
            machine_prefix: unique,
            stop_timeout: Duration::from_secs(20),
            log_limit: 16 * 1024,
            ..UnitConfig::new(
                dir.path().join("guests"),
                dir.path().join("run"),
                Identity::of('a'),
            )
        };
        Ok(Self {
            _dir: dir,
            config,
            closure,
            only_version_one: false,
        })
    }

    fn cgroups(&self) -> Cgroups {
        let cgroups = Cgroups::detect(&self.config.cgroup).expect("cgroups");
        if self.only_version_one {
            cgroups.without_version_two()
        } else {
            cgroups
        }
    }

    fn direct(&self, config: &UnitConfig) -> Direct {
        Direct::with_cgroups(config, self.cgroups()).expect("a supervisor")
    }

    /// Opens the units as a daemon does at its start, with the supervisor that suits this machine.
    async fn units(&self) -> Arc<dyn Units> {
        self.units_with(self.config.clone()).await
    }

    async fn units_with(&self, config: UnitConfig) -> Arc<dyn Units> {
        if has_systemd() {
            return super::open(config, SupervisorKind::Auto)
                .await
                .expect("units");
        }
        let direct = self.direct(&config);
        Arc::new(SupervisedUnits::open(config, direct).await.expect("units"))
    }

    /// Returns the cgroups of a guest.
    async fn groups(&self, guest: &Guest) -> Groups {
        if has_systemd() {
            let systemd = Systemd::connect(&self.config).await.expect("systemd");
            return systemd.groups(&guest.name);
        }
        self.direct(&self.config).groups(&guest.name)
    }

    /// Creates a guest's record and file tree.
    fn guest(&self, name: &str, script: &str) -> Guest {
        let name = GuestName::parse(name).expect("a name");
        let root = self.config.root(&name);
        for dir in ["etc", "usr", "root", "nix/store", "tmp", "var"] {
            fs::create_dir_all(root.join(dir)).expect("made");
        }
        fs::write(root.join("script"), script).expect("written");
        Guest {
            name,
            kind: GuestKind::Agent,
            slot: Slot::new(30_000 + COUNT.fetch_add(1, Ordering::Relaxed)),
            desired: DesiredState::Running,
            level: innkeeper_model::Level::Awake,
            source: ClosureSource::Path(self.closure.clone()),
            closure: Some(self.closure.clone()),
            limits: Limits {
                memory: MemorySize::from_bytes(256 << 20),
                cpus: Cpus::from_percent(150),
                tasks: 60,
                user_ids: UserIdCount::default(),
                nesting: false,
            },
            ssh_host_key: None,
            fault: None,
            wake_failure: None,
            file_work: None,
            retain: None,
            change: None,
            last_change: None,
            own_system: None,
            declared: false,
            idle_policy: None,
            owner: None,
            created_at: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    /// Returns the parent of the cgroups of this host's guests.
    fn cgroup_dirs(&self) -> Vec<PathBuf> {
        if has_systemd() {
            let mount = self.cgroups().systemd().expect("systemd's cgroups");
            return vec![mount.join(&self.config.slice)];
        }
        let guests = self.cgroups().machine("x").guests();
        let parent = |dir: &PathBuf| dir.parent().and_then(Path::parent).map(Path::to_owned);
        guests.iter().filter_map(parent).collect()
    }

    /// Returns all objects on the machine that a guest of this host can leave.
    fn traces(&self) -> BTreeSet<String> {
        let mut traces = BTreeSet::new();
        let mut add = |dir: &Path, matches: &dyn Fn(&str) -> bool| {
            for entry in fs::read_dir(dir)
                .into_iter()
                .flatten()
                .filter_map(Result::ok)
            {
                let name = entry.file_name().to_string_lossy().into_owned();
                if matches(&name) {
                    traces.insert(format!("{}/{name}", dir.display()));
                }
            }
        };
        let ours = |name: &str| name.contains(&self.config.machine_prefix);
        for dir in ["propagate", "unix-export"] {
            add(&Path::new("/run/systemd/nspawn").join(dir), &ours);
        }
        // Other tests run at the same time, so only the locks of this host's trees count.
        let locks: Vec<_> = fs::read_dir(&self.config.guests_dir)
            .into_iter()
            .flatten()
            .filter_map(Result::ok)
            .filter_map(|entry| fs::metadata(entry.path().join("rootfs")).ok())
            .map(|root| {
                use std::os::unix::fs::MetadataExt;
                format!("inode-{}:{}", root.dev(), root.ino())
            })
            .collect();
        add(Path::new("/run/systemd/nspawn/locks"), &|name| {
            locks.iter().any(|lock| lock == name)
        });
        add(&self.config.run_dirs(), &|_| true);
        for dir in self.cgroup_dirs() {
            add(&dir, &|name| ours(name));
        }
        for guest in fs::read_dir(&self.config.guests_dir)
            .into_iter()
            .flatten()
            .filter_map(Result::ok)
        {
            add(&guest.path(), &|name| name.starts_with(".#"));
        }
        for entry in fs::read_dir("/proc")
            .expect("processes")
            .filter_map(Result::ok)
        {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains(&self.config.machine_prefix) {
                traces.insert(line);
            }
        }
        traces
    }
}

/// Reports whether guests are units of systemd here.
fn has_systemd() -> bool {
    Path::new(super::config::BOOTED).is_dir()
}

impl Drop for Host {
    /// Removes the guests of a failed test. A runtime cannot be entered twice, so this needs a thread.
    fn drop(&mut self) {
        let host = &*self;
        let removal = || {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(async {
                let units = host.units().await;
                for seen in units.phases().await.expect("a look") {
                    units.remove(&seen.guest).await.expect("removed");
                }
            });
            for parent in host.cgroup_dirs() {
                if !has_systemd() && parent.exists() {
                    fs::remove_dir(parent).expect("empty");
                }
            }
        };
        let removed = std::thread::scope(|scope| scope.spawn(removal).join());
        assert!(
            removed.is_ok() || std::thread::panicking(),
            "something is left"
        );
    }
}

async fn build(dir: &Path) -> Result<StorePath, String> {
    let source = dir.join("source");
    fs::create_dir(&source).expect("made");
    let busybox = find_program("busybox".as_ref()).map_err(|error| error.to_string())?;
    fs::copy(busybox, source.join("busybox")).expect("copied");
    let expression = dir.join("closure.nix");
    fs::write(&expression, CLOSURE).expect("written");
    let output = command::command("nix-build")
        .args(["--no-out-link", "--argstr", "source"])
        .arg(&source)
        .arg(&expression)
        .env("NIX_CONFIG", NIX_CONFIG)
        .output()
        .await
        .map_err(|error| format!("nix-build: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "nix-build: {}",
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    let path = String::from_utf8(output.stdout).expect("a path");
    Ok(StorePath::parse(path.trim()).expect("a store path"))
}

async fn boot(units: &Arc<dyn Units>, guest: &Guest) -> UnitSeen {
    let prepared = units.prepare(guest).await.expect("prepared");
    let seen = units.ensure(guest, prepared).await.expect("at the door");
    assert_eq!(seen.phase, UnitPhase::AtDoor);
    units.release(&guest.name, None).await.expect("released");
    seen
}

async fn phase(units: &Arc<dyn Units>, guest: &Guest) -> Option<UnitPhase> {
    units
        .phase(&guest.name)
        .await
        .expect("a look")
        .map(|seen| seen.phase)
}

async fn ended(endings: &mut broadcast::Receiver<GuestName>, guest: &Guest) {
    while endings.recv().await.expect("an ending") != guest.name {}
}

fn request(command: &[&str]) -> ExecRequest {
    ExecRequest {
        command: command.iter().map(|&word| word.to_owned()).collect(),
        tty: false,
        size: None,
        environment: Vec::new(),
        user: None,
        detached: false,
    }
}

/// Runs a command without input and returns its status, output and error output.
async fn run(
    units: &Arc<dyn Units>,
    guest: &Guest,
    request: &ExecRequest,
) -> (i32, String, String) {
    let mut session = units.exec(&guest.name, request).await.expect("started");
    drop(session.stdin.take());
    let (mut out, mut stderr) = (String::new(), String::new());
    session
        .stdout
        .read_to_string(&mut out)
        .await
        .expect("output");
    if let Some(pipe) = &mut session.stderr {
        pipe.read_to_string(&mut stderr).await.expect("errors");
    }
    (session.command.wait().await.expect("a status"), out, stderr)
}

/// Reports whether the test inherited a descriptor, which it passes on.
fn is_inherited(descriptor: &str) -> bool {
    const CLOSE_ON_EXEC: u32 = 0o2_000_000;
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{descriptor}")).unwrap_or_default();
    let flags = info
        .lines()
        .find_map(|line| u32::from_str_radix(line.strip_prefix("flags:")?.trim(), 8).ok());
    flags.is_some_and(|flags| flags & CLOSE_ON_EXEC == 0)
}

async fn shell(units: &Arc<dyn Units>, guest: &Guest, script: &str) -> String {
    let (status, out, stderr) = run(units, guest, &request(&["sh", "-c", script])).await;
    assert_eq!(status, 0, "{script}: {stderr}");
    out.trim().to_owned()
}

async fn console(units: &Arc<dyn Units>, guest: &Guest) -> String {
    let mut pieces = units.console(guest, 1000, false).await.expect("a log");
    let mut text = Vec::new();
    while let Some(piece) = pieces.next().await {
        text.extend(piece.expect("a piece"));
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Waits for a line of the console, without a timeout.
async fn await_line(units: &Arc<dyn Units>, guest: &Guest, line: &str) {
    let mut pieces = units.console(guest, 1000, true).await.expect("a log");
    let mut text = String::new();
    while !text.contains(line) {
        let piece = pieces.next().await.expect("more").expect("a piece");
        text.push_str(&String::from_utf8_lossy(&piece));
    }
}

fn proc_status(pid: u32, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.expect("a field").trim().to_owned()
}
