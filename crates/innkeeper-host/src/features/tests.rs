use std::fs;

use super::*;

/// A host made of files.
struct FakeHost {
    root: tempfile::TempDir,
}

impl FakeHost {
    fn new() -> Self {
        let fake = Self {
            root: tempfile::tempdir().expect("tempdir"),
        };
        for kind in ["net", "pid", "mnt", "user"] {
            fake.write(&format!("proc/self/ns/{kind}"), "");
        }
        fake.write("proc/sys/user/max_user_namespaces", "96365\n");
        fake.write("proc/self/uid_map", "         0          0 4294967295\n");
        fake.write("proc/self/gid_map", "         0          0 4294967295\n");
        fake.write("proc/sys/kernel/osrelease", "6.12.9-amd64\n");
        fake.write(
            "proc/self/mountinfo",
            "1 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
             2 1 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n\
             3 1 0:27 / /overlay rw - overlay overlay rw,lowerdir=/a\n",
        );
        fake.write(
            "sys/fs/cgroup/cgroup.controllers",
            "cpuset cpu io memory pids\n",
        );
        fake
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.root.path().join(file);
        fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
        fs::write(path, text).expect("write");
    }

    fn without(self, file: &str) -> Self {
        fs::remove_file(self.root.path().join(file)).expect("remove");
        self
    }

    fn with(self, file: &str, text: &str) -> Self {
        self.write(file, text);
        self
    }

    fn detect(&self, state_dir: &str, choice: UserIdsChoice) -> Result<Features, FeatureError> {
        Features::detect_in(self.root.path(), Path::new(state_dir), choice)
    }

    fn auto(&self) -> Features {
        self.detect("/var/lib/innkeeper", UserIdsChoice::Auto)
            .expect("detect")
    }
}

#[test]
fn user_ids_follow_the_host_and_the_configuration() {
    let fake = FakeHost::new();
    let found = fake.auto();
    assert_eq!(found.user_ids, UserIds::Mapped);
    assert!(found.user_namespaces && found.idmapped_mounts && !found.systemd);
    assert!(found.cgroup.missing().is_empty());
    let on = |state_dir| {
        fake.detect(state_dir, UserIdsChoice::On)
            .expect("on")
            .user_ids
    };
    assert_eq!(on("/var"), UserIds::Mapped);
    assert_eq!(on("/overlay/innkeeper"), UserIds::Shifted);
    let off = fake.detect("/var", UserIdsChoice::Off).expect("off");
    assert_eq!(off.user_ids, UserIds::Host);
    assert!(off.user_namespaces);
    assert_eq!(off.check_user_ids().verdict, Verdict::Warning);

    let old = FakeHost::new()
        .with("proc/sys/kernel/osrelease", "5.10.0-28-amd64\n")
        .auto();
    assert_eq!(old.user_ids, UserIds::Shifted);
}

#[test]
fn missing_user_namespaces_fail_only_if_required() {
    let rootless = "0 100000 65536\n";
    for (fake, lack) in [
        (FakeHost::new().without("proc/self/ns/user"), Lack::Kernel),
        (
            FakeHost::new().with("proc/sys/user/max_user_namespaces", "0\n"),
            Lack::Forbidden,
        ),
        (
            FakeHost::new().with("proc/self/uid_map", rootless),
            Lack::Ids,
        ),
        (
            FakeHost::new().with("proc/self/gid_map", rootless),
            Lack::Ids,
        ),
    ] {
        let found = fake.auto();
        assert_eq!(
            (found.user_ids, found.user_namespaces),
            (UserIds::Host, false),
            "{lack}"
        );
        let check = found.check_user_ids();
        assert_eq!(check.verdict, Verdict::Warning);
        assert!(check.finding.contains(&lack.to_string()), "{check:?}");
        let error = fake
            .detect("/var", UserIdsChoice::On)
            .expect_err("demanded");
        assert!(matches!(error, FeatureError::NoUserNamespaces(found) if found == lack));
        assert_eq!(error.code(), Code::KernelFeatureMissing);
        assert!(error.remedy().is_some());
    }
}

#[test]
fn other_missing_namespaces_always_fail() {
    for kind in ["net", "pid", "mnt"] {
        let fake = FakeHost::new().without(&format!("proc/self/ns/{kind}"));
        let error = fake.detect("/var", UserIdsChoice::Off).expect_err(kind);
        assert_eq!(error.code(), Code::KernelFeatureMissing);
    }
}

#[test]
fn missing_controllers_are_named() {
    let none = FakeHost::new()
        .with("sys/fs/cgroup/cgroup.controllers", "")
        .auto();
    assert_eq!(
        none.cgroup,
        CgroupVersion::V2 {
            controllers: Vec::new()
        }
    );
    assert_eq!(none.cgroup.missing(), ["memory", "cpu", "pids"]);
    assert_eq!(none.check_cgroup().verdict, Verdict::Warning);

    // As on many hosts: version 2 is mounted without controllers.
    let mixed = FakeHost::new()
        .with(
            "proc/self/mountinfo",
            "1 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
             2 1 0:2 / /cg/memory rw - cgroup cgroup rw,memory\n\
             3 1 0:3 / /cg/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
             4 1 0:4 / /cg/gone rw - cgroup cgroup rw,pids\n\
             5 1 0:5 / /cg/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
             6 1 0:6 / /cg/unified rw - cgroup2 cgroup2 rw\n",
        )
        .with("cg/memory/tasks", "")
        .with("cg/cpu/tasks", "")
        .with("cg/systemd/tasks", "")
        .with("cg/unified/cgroup.controllers", "")
        .auto();
    assert!(
        matches!(&mixed.cgroup, CgroupVersion::V1 { .. }),
        "{:?}",
        mixed.cgroup
    );
    assert_eq!(mixed.cgroup.missing(), ["pids"]);
}

#[test]
fn systemd_is_detected_by_its_directory() {
    let fake = FakeHost::new();
    fs::create_dir_all(fake.root.path().join("run/systemd/system")).expect("mkdir");
    assert!(fake.auto().systemd);
}

#[test]
fn missing_state_directory_resolves_to_its_ancestor() {
    let directory = tempfile::tempdir().expect("tempdir");
    let real = directory.path().join("real");
    fs::create_dir(&real).expect("mkdir");
    std::os::unix::fs::symlink(&real, directory.path().join("link")).expect("symlink");
    let found = existing(&directory.path().join("link/innkeeper/guests")).expect("existing");
    assert_eq!(found, real.canonicalize().expect("real"));
    Features::detect(&real.join("not/yet"), UserIdsChoice::Auto).expect("this very host");
}

#[tokio::test]
async fn probes_of_this_kernel_succeed_and_leave_nothing() {
    let test = "probes_of_this_kernel_succeed_and_leave_nothing";
    if !crate::network::testing::enter_own_namespace(test) {
        return;
    }
    let before = crate::network::testing::ip(&["link"]).await;
    let checks = FakeHost::new().auto().check().await;
    let verdicts: Vec<_> = checks
        .iter()
        // Those depend on the machine.
        .filter(|check| check.subject != "kernel limits")
        .map(|check| (&*check.subject, check.verdict))
        .collect();
    assert_eq!(
        verdicts,
        [
            ("user namespaces", Verdict::Ok),
            ("cgroup", Verdict::Ok),
            ("veth", Verdict::Ok),
            ("nf_tables", Verdict::Ok),
        ],
        "{checks:?}"
    );
    assert_eq!(crate::network::testing::ip(&["link"]).await, before);
    let rules = crate::command::run("nft", ["list", "ruleset"], b"")
        .await
        .expect("nft");
    assert_eq!(rules, b"");
}
