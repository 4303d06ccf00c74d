//! Objects on the machine that a test could leak, as the kernel reports them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::sandbox::Sandbox;

/// One line for each object, for a readable difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Traces(pub(crate) BTreeSet<String>);

impl Traces {
    pub(crate) fn of(sandbox: &Sandbox) -> Self {
        let mut all = BTreeSet::new();
        interfaces(&mut all);
        mounts(&mut all);
        processes(sandbox, &mut all);
        cgroups(Path::new("/sys/fs/cgroup"), &sandbox.id, 4, &mut all);
        for place in ["state/guests", "state/closures", "gcroots", "run/guests"] {
            files(&sandbox.path().join(place), &mut all);
        }
        nspawn_files(Path::new("/run/systemd/nspawn"), &sandbox.id, &mut all);
        rules(sandbox, &mut all);
        Self(all)
    }

    /// Fails the test if an object was leaked or lost.
    pub(crate) fn assert_same(&self, now: &Self, when: &str) {
        let leaked: Vec<_> = now.0.difference(&self.0).collect();
        let lost: Vec<_> = self.0.difference(&now.0).collect();
        assert!(
            leaked.is_empty() && lost.is_empty(),
            "{when}: leaked {leaked:#?}, lost {lost:#?}"
        );
    }

    pub(crate) fn kill_everything(&self) {
        for line in &self.0 {
            let pid = line
                .strip_prefix("process ")
                .and_then(|rest| rest.split(' ').next()?.parse().ok());
            if let Some(pid) = pid {
                kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
            }
        }
    }
}

fn interfaces(all: &mut BTreeSet<String>) {
    let table = fs::read_to_string("/proc/thread-self/net/dev").expect("readable");
    let names = table.lines().filter_map(|line| line.split_once(':'));
    all.extend(names.map(|(name, _)| format!("interface {}", name.trim())));
    let routes = fs::read_to_string("/proc/thread-self/net/route").expect("readable");
    all.extend(routes.lines().skip(1).map(|line| format!("route {line}")));
}

fn mounts(all: &mut BTreeSet<String>) {
    let table = fs::read_to_string("/proc/thread-self/mountinfo").expect("readable");
    all.extend(
        table
            .lines()
            .filter_map(|line| Some(format!("mount {}", line.split(' ').nth(4)?))),
    );
}

/// Processes of the sandbox's guests, by their arguments or their cgroup. The daemon itself is excluded.
fn processes(sandbox: &Sandbox, all: &mut BTreeSet<String>) {
    let root = sandbox.path().display().to_string();
    for entry in fs::read_dir("/proc").expect("readable").flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if arguments.is_empty() {
            // A zombie that its parent has not reaped yet.
            continue;
        }
        let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
        let cgroup = fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        let is_own = arguments.contains(&root) || cgroup.contains(&sandbox.id);
        if is_own && !arguments.contains("innkeeperd --config") {
            all.insert(format!("process {pid} {arguments}"));
        }
    }
}

fn cgroups(directory: &Path, id: &str, depth: u32, all: &mut BTreeSet<String>) {
    if depth == 0 {
        return;
    }
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if below(&entry.path(), id) {
            all.insert(format!("cgroup {}", entry.path().display()));
        }
        cgroups(&entry.path(), id, depth - 1, all);
    }
}

/// Removes the sandbox's own empty cgroups from every hierarchy below `directory`. A killed daemon leaves those of its
/// guests and builds.
pub(crate) fn remove_cgroups(directory: &Path, id: &str, depth: u32) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name == id || name.to_string_lossy() == format!("{id}-builds") {
            remove_recursively(&entry.path());
        } else if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroups(&entry.path(), id, depth - 1);
        }
    }
}

fn remove_recursively(cgroup: &Path) {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_recursively(&entry.path());
        }
    }
    drop(fs::remove_dir(cgroup));
}

/// Reports whether a path is strictly below the sandbox's own cgroup, which may stay.
fn below(path: &Path, id: &str) -> bool {
    path.parent()
        .is_some_and(|parent| parent.components().any(|part| part.as_os_str() == id))
}

fn files(path: &Path, all: &mut BTreeSet<String>) {
    let mut todo: Vec<PathBuf> = vec![path.to_owned()];
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            all.insert(format!("file {}", entry.path().display()));
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                todo.push(entry.path());
            }
        }
    }
}

fn nspawn_files(directory: &Path, id: &str, all: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().contains(id) {
            all.insert(format!("file {}", entry.path().display()));
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            nspawn_files(&entry.path(), id, all);
        }
    }
}

fn rules(sandbox: &Sandbox, all: &mut BTreeSet<String>) {
    // -s omits counters; without -a, handles are omitted.
    let listing = sandbox.run("nft", &["-s", "list", "ruleset"]);
    all.extend(listing.lines().map(|line| format!("rule {line}")));
}
