//! Limits of the kernel that all guests share with the host.
//!
//! docs/security.md ("Limits that guests share") lists them with the reasons for their values.

use std::path::Path;

use innkeeper_model::api::{Check, Verdict};

use super::read;

/// The recommended minimum of each limit, which `make install` and the NixOS module set: sysctl(8) name, value.
const RECOMMENDED: [(&str, u64); 20] = [
    ("fs.inotify.max_user_instances", MOST),
    ("fs.inotify.max_user_watches", MOST),
    ("fs.fanotify.max_user_groups", MOST),
    ("fs.fanotify.max_user_marks", MOST),
    ("user.max_user_namespaces", MOST),
    ("user.max_pid_namespaces", MOST),
    ("user.max_net_namespaces", MOST),
    ("user.max_mnt_namespaces", MOST),
    ("user.max_uts_namespaces", MOST),
    ("user.max_ipc_namespaces", MOST),
    ("user.max_cgroup_namespaces", MOST),
    ("user.max_time_namespaces", MOST),
    ("fs.aio-max-nr", 1 << 20),
    ("kernel.keys.maxbytes", 40_000),
    ("kernel.keys.maxkeys", 400),
    ("kernel.pty.max", 1 << 14),
    ("net.ipv4.neigh.default.gc_thresh1", 1 << 12),
    ("net.ipv4.neigh.default.gc_thresh2", 1 << 13),
    ("net.ipv4.neigh.default.gc_thresh3", 1 << 14),
    ("net.netfilter.nf_conntrack_max", 1 << 19),
];

/// The highest value of limits that the kernel counts per user.
const MOST: u64 = i32::MAX as u64;

/// The use of a limit, in percent, from which on it is a warning.
const NEARLY_FULL: u64 = 80;

/// Compares the limits with the recommended ones, and their use with the limits.
pub(super) fn check(root: &Path) -> Vec<Check> {
    let mut checks: Vec<_> = usages(root).iter().filter_map(Usage::warning).collect();
    let low: Vec<_> = RECOMMENDED
        .iter()
        .filter_map(|(name, least)| {
            let now = number(root, &file_of(name))?;
            (now < *least).then_some((*name, now, *least))
        })
        .collect();
    if !low.is_empty() {
        let (found, wanted): (Vec<_>, Vec<_>) = low
            .iter()
            .map(|(name, now, least)| (format!("{name} is {now}"), format!("{name}={least}")))
            .unzip();
        checks.push(Check {
            remedy: Some(format!(
                "Run `sysctl --write {}`, and add the same settings to a file in /etc/sysctl.d.",
                wanted.join(" ")
            )),
            ..finding(
                Verdict::Warning,
                format!(
                    "one guest can exhaust limits that the host and other guests share: {}",
                    found.join(", ")
                ),
            )
        });
    }
    if checks.is_empty() {
        let used: Vec<_> = usages(root).iter().map(Usage::text).collect();
        checks.push(finding(
            Verdict::Ok,
            format!("as recommended; in use: {}", used.join(", ")),
        ));
    }
    checks
}

/// The use of a limit that is not counted per user, or only for root.
struct Usage {
    objects: &'static str,
    limit: &'static str,
    used: u64,
    most: u64,
}

impl Usage {
    fn text(&self) -> String {
        format!("{} of {} {}", self.used, self.most, self.objects)
    }

    fn warning(&self) -> Option<Check> {
        let is_nearly_full = self.used.saturating_mul(100) >= self.most.saturating_mul(NEARLY_FULL);
        is_nearly_full.then(|| Check {
            remedy: Some(format!(
                "Find the guest that uses most of them and stop it, or raise {} in /etc/sysctl.d.",
                self.limit
            )),
            ..finding(Verdict::Warning, format!("{} are in use", self.text()))
        })
    }
}

/// Returns the uses that this kernel reports.
fn usages(root: &Path) -> Vec<Usage> {
    let usage = |objects, used: &str, limit| {
        Some(Usage {
            objects,
            limit,
            used: number(root, used)?,
            most: number(root, &file_of(limit))?,
        })
    };
    let keys = || {
        let (used, most) = keys_of_root(&read(root, "proc/key-users").ok()?)?;
        let objects = "keys of root";
        let limit = "kernel.keys.root_maxkeys";
        Some(Usage {
            objects,
            limit,
            used,
            most,
        })
    };
    let processes = || {
        let (objects, limit) = ("processes and threads", "kernel.pid_max");
        Some(Usage {
            objects,
            limit,
            used: tasks(&read(root, "proc/loadavg").ok()?)?,
            most: number(root, &file_of(limit))?,
        })
    };
    [
        usage(
            "connections",
            "proc/sys/net/netfilter/nf_conntrack_count",
            "net.netfilter.nf_conntrack_max",
        ),
        usage(
            "pseudo-terminals",
            "proc/sys/kernel/pty/nr",
            "kernel.pty.max",
        ),
        usage(
            "asynchronous requests",
            "proc/sys/fs/aio-nr",
            "fs.aio-max-nr",
        ),
        keys(),
        processes(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Returns the keys in use and the quota of user 0, from lines such as `0: 9 8/8 3/1000000 40/25000000` (proc_key-users(5)).
fn keys_of_root(users: &str) -> Option<(u64, u64)> {
    let line = users
        .lines()
        .find_map(|line| line.trim_start().strip_prefix("0:"))?;
    let (used, most) = line.split_ascii_whitespace().nth(2)?.split_once('/')?;
    Some((used.parse().ok()?, most.parse().ok()?))
}

/// Returns the number of tasks, from a line such as `0.20 0.18 0.12 1/80 11206` (proc_loadavg(5)).
fn tasks(load: &str) -> Option<u64> {
    let (_, all) = load.split_ascii_whitespace().nth(3)?.split_once('/')?;
    all.parse().ok()
}

/// Returns the kernel's file of a setting. The names here have no dot within a component.
fn file_of(name: &str) -> String {
    format!("proc/sys/{}", name.replace('.', "/"))
}

/// Reads a number from a file of the kernel. Returns `None` if the file is missing: the kernel lacks the feature.
fn number(root: &Path, file: &str) -> Option<u64> {
    read(root, file).ok()?.trim().parse().ok()
}

fn finding(verdict: Verdict, finding: String) -> Check {
    Check {
        subject: "kernel limits".to_owned(),
        verdict,
        finding,
        remedy: None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::*;

    fn host(limits: impl Fn(&str, u64) -> u64) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a directory");
        let write = |file: &str, text: String| {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, text).expect("written");
        };
        for (name, least) in RECOMMENDED {
            write(&file_of(name), format!("{}\n", limits(name, least)));
        }
        write("proc/sys/kernel/pid_max", "4194304\n".to_owned());
        write("proc/sys/kernel/pty/nr", "12\n".to_owned());
        write(
            "proc/sys/net/netfilter/nf_conntrack_count",
            "419430\n".to_owned(),
        );
        write("proc/loadavg", "0.20 0.18 0.12 1/80 11206\n".to_owned());
        write(
            "proc/key-users",
            "    0:     9 8/8 3/1000000 40/25000000\n 1000: 1 1/1 200/200 9/20000\n".to_owned(),
        );
        root
    }

    #[test]
    fn low_limits_are_reported_with_a_remedy() {
        let healthy = host(|_, least| least);
        let checks = check(healthy.path());
        assert_eq!(checks.len(), 1);
        assert_eq!(
            (checks[0].verdict, &*checks[0].finding),
            (
                Verdict::Ok,
                "as recommended; in use: 419430 of 524288 connections, 12 of 16384 pseudo-terminals, \
                 3 of 1000000 keys of root, 80 of 4194304 processes and threads"
            )
        );
        let low = |name: &str, least| match name {
            "fs.inotify.max_user_instances" => 128,
            _ => least,
        };
        let checks = check(host(low).path());
        assert_eq!(checks.len(), 1);
        assert_eq!(checks[0].verdict, Verdict::Warning);
        assert!(
            checks[0]
                .finding
                .contains("fs.inotify.max_user_instances is 128"),
            "{checks:?}"
        );
        assert_eq!(
            checks[0].remedy.as_deref(),
            Some(
                "Run `sysctl --write fs.inotify.max_user_instances=2147483647`, and add the same settings to a file in /etc/sysctl.d."
            )
        );
    }

    #[test]
    fn nearly_exhausted_limit_is_a_warning() {
        // One connection more than in the healthy host.
        let nearly = host(|name, least| match name {
            "net.netfilter.nf_conntrack_max" => 524_288,
            _ => least,
        });
        fs::write(
            nearly
                .path()
                .join("proc/sys/net/netfilter/nf_conntrack_count"),
            "419431\n",
        )
        .expect("written");
        let checks = check(nearly.path());
        assert_eq!(checks.len(), 1);
        assert_eq!(checks[0].verdict, Verdict::Warning);
        assert_eq!(checks[0].finding, "419431 of 524288 connections are in use");
    }

    /// `tests/nix/debian-units` compares that file with the NixOS module.
    #[test]
    fn installed_settings_are_the_recommended_ones() {
        let file =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../initial-install/debian/sysctl.conf");
        let text = fs::read_to_string(file).expect("settings");
        let installed: BTreeSet<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix('-'))
            .map(str::to_owned)
            .collect();
        let recommended = RECOMMENDED.map(|(name, least)| format!("{name} = {least}"));
        assert_eq!(installed, BTreeSet::from(recommended));
    }
}
