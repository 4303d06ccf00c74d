//! Trees as plain directories.

use std::os::unix::fs::{MetadataExt, symlink};

use innkeeper_model::api::Verdict;
use innkeeper_model::{Code, Failure};

use super::super::test_guest as guest;
use super::fixture::TempRootfs;
use super::*;

#[tokio::test]
async fn new_tree_has_the_files_for_nspawn_and_systemd() {
    for (user_ids, owner) in [
        (UserIds::Host, 0),
        (UserIds::Mapped, 0),
        (UserIds::Shifted, 0x8_0000 + 3 * 0x1_0000),
    ] {
        let temp = TempRootfs::new(user_ids);
        temp.rootfs.ensure(&guest("web")).await.expect("makes");
        let mode = |path: &str| fs::metadata(temp.at(path)).expect(path).mode() & 0o7777;
        assert_eq!(mode(""), 0o700);
        assert_eq!(mode("web/rootfs"), 0o755);
        assert_eq!(mode("web/rootfs/tmp"), 0o1777);
        assert_eq!(mode("web/rootfs/root"), 0o700);
        assert_eq!(mode("web/rootfs/usr"), 0o755);
        assert_eq!(
            fs::read(temp.at("web/rootfs/etc/machine-id")).expect("reads"),
            b""
        );
        for path in [
            "",
            "usr",
            "nix",
            "nix/store",
            "etc/os-release",
            "etc/machine-id",
        ] {
            let stat = fs::metadata(temp.at("web/rootfs").join(path)).expect(path);
            assert_eq!((stat.uid(), stat.gid()), (owner, owner), "{path}");
        }
    }
}

#[tokio::test]
async fn renamed_tree_has_the_new_name_only() {
    let temp = TempRootfs::new(UserIds::Mapped);
    let (seat, web) = (guest("0-door-3"), guest("web"));
    temp.rootfs.ensure(&seat).await.expect("makes");
    fs::write(temp.at("0-door-3/rootfs/mark"), "seat").expect("written");
    // A directory without a tree is in the way.
    fs::create_dir(temp.at("web")).expect("made");
    for _ in 0..2 {
        let renamed = temp.rootfs.rename(&seat.name, &web.name).await;
        assert!(renamed.expect("renamed"));
        assert_eq!(
            fs::read(temp.at("web/rootfs/mark")).expect("there"),
            b"seat"
        );
        assert!(!temp.at("0-door-3").exists());
    }
    // A guest that has a tree keeps it, and nspawn may wait in the other one.
    temp.rootfs.ensure(&seat).await.expect("makes");
    let renamed = temp.rootfs.rename(&seat.name, &web.name).await;
    assert!(!renamed.expect("both are kept"));
    assert_eq!(
        fs::read(temp.at("web/rootfs/mark")).expect("there"),
        b"seat"
    );
    assert!(temp.at("0-door-3/rootfs").is_dir());
}

#[tokio::test]
async fn nspawn_boots_a_new_tree() {
    const TEST: &str = "nspawn_boots_a_new_tree";
    let busybox = Path::new("/bin/busybox");
    if !busybox.exists() || !Path::new("/usr/bin/systemd-nspawn").exists() {
        eprintln!("INNKEEPER-NOT-RUN: {TEST}: it needs systemd-nspawn and busybox-static");
        return;
    }
    let first_id = Slot::new(3).first_user_id();
    for (user_ids, ownership) in [(UserIds::Mapped, "map"), (UserIds::Shifted, "off")] {
        let temp = TempRootfs::new(user_ids);
        temp.rootfs.ensure(&guest("web")).await.expect("makes");
        let mut arguments = vec![
            "--quiet".to_owned(),
            "--register=no".to_owned(),
            "--keep-unit".to_owned(),
            "--private-network".to_owned(),
            format!("--private-users={first_id}:65536"),
            format!("--private-users-ownership={ownership}"),
            format!("--directory={}", temp.at("web/rootfs").display()),
            "--bind-ro=/bin/busybox:/busybox".to_owned(),
        ];
        let script = "/busybox touch /root/x /tmp/y && /busybox stat -c '%u %a' / /root /root/x /tmp /etc/machine-id";
        arguments.extend(["/busybox", "sh", "-c", script].map(str::to_owned));
        let output = crate::command::run("systemd-nspawn", arguments, b"").await;
        let output = String::from_utf8(output.expect("nspawn")).expect("text");
        let lines: Vec<_> = output.lines().map(str::trim).collect();
        assert_eq!(
            lines,
            ["0 755", "0 700", "0 644", "0 1777", "0 444"],
            "{user_ids:?}"
        );
        temp.rootfs
            .remove(&guest("web").name)
            .await
            .expect("removes");
    }
}

#[tokio::test]
async fn ensure_keeps_an_existing_tree() {
    let temp = TempRootfs::new(UserIds::Mapped);
    temp.rootfs.ensure(&guest("web")).await.expect("makes");
    fs::write(temp.at("web/rootfs/home/work"), "x").expect("write");
    temp.rootfs.ensure(&guest("web")).await.expect("is there");
    assert!(temp.at("web/rootfs/home/work").exists());
    assert_eq!(
        temp.objects().await,
        [(Some("web".to_owned()), "web".to_owned())]
    );
}

#[tokio::test]
async fn ensure_replaces_remains_of_a_crash() {
    let temp = TempRootfs::new(UserIds::Mapped);
    for leftover in [
        ".web.new/rootfs",
        ".web.gone/rootfs",
        ".other.gone/rootfs",
        "web/half",
    ] {
        fs::create_dir_all(temp.at(leftover)).expect("leftover");
    }
    for foreign in ["lost+found", ".hidden", ".Web.new", "Web"] {
        fs::create_dir_all(temp.at(foreign)).expect("foreign");
    }
    temp.rootfs.ensure(&guest("web")).await.expect("makes");
    assert!(temp.at("web/rootfs/usr").is_dir());
    assert!(!temp.at("web/half").exists());
    let left = [
        (None, ".other.gone".to_owned()),
        (Some("web".to_owned()), "web".to_owned()),
    ];
    assert_eq!(temp.objects().await, left);
}

#[tokio::test]
async fn remove_is_complete_and_idempotent() {
    let temp = TempRootfs::new(UserIds::Mapped);
    let name = guest("web").name;
    temp.rootfs.remove(&name).await.expect("nothing is there");
    temp.rootfs.ensure(&guest("web")).await.expect("makes");
    symlink(temp.dir.path(), temp.at("web/rootfs/link")).expect("link");
    fs::create_dir_all(temp.at(".web.gone/rootfs")).expect("leftover");
    fs::create_dir_all(temp.at(".web.new/rootfs")).expect("leftover");
    temp.rootfs.remove(&name).await.expect("removes");
    temp.rootfs.remove(&name).await.expect("removes");
    assert_eq!(fs::read_dir(temp.at("")).expect("list").count(), 0);
}

#[tokio::test]
async fn sweep_removes_found_objects_only() {
    let temp = TempRootfs::new(UserIds::Mapped);
    temp.rootfs.ensure(&guest("web")).await.expect("makes");
    fs::create_dir_all(temp.at(".old.gone/rootfs")).expect("leftover");
    fs::create_dir_all(temp.at("Foreign")).expect("foreign");
    for found in temp.rootfs.observe().await.expect("observes") {
        temp.rootfs.sweep(&found).await.expect("sweeps");
        temp.rootfs.sweep(&found).await.expect("is gone");
    }
    assert!(temp.objects().await.is_empty());
    for object in ["Foreign", "../../state", "", ".."] {
        let object = temp.at(object).display().to_string();
        let swept = temp.rootfs.sweep(&Found::ours(None, object)).await;
        let refused = swept.expect_err("refused").downcast();
        assert!(
            matches!(refused, Ok(RootfsError::Foreign { .. })),
            "{refused:?}"
        );
    }
    assert!(temp.at("Foreign").exists());
}

#[tokio::test]
async fn ensure_fails_on_a_nearly_full_disk() {
    let temp = TempRootfs::with_min_free(UserIds::Mapped, u64::MAX);
    let error = temp
        .rootfs
        .ensure(&guest("web"))
        .await
        .expect_err("no space");
    let failure = Failure::from(&error);
    assert_eq!(failure.code, Code::DiskFull);
    assert!(failure.message.contains("state/guests has "), "{failure}");
    assert!(failure.remedy.expect("a remedy").contains("agent list"));
    assert!(temp.objects().await.is_empty());
    let check = &temp.rootfs.check().await[0];
    assert_eq!(check.verdict, Verdict::Broken);
    assert!(check.finding.contains(" inodes left"), "{check:?}");
    // A guest with a tree can still start.
    let enough = TempRootfs::new(UserIds::Mapped);
    enough.rootfs.ensure(&guest("web")).await.expect("makes");
    let config = DirConfig {
        identity: Identity::of('a'),
        min_free: u64::MAX,
        ..(*enough.rootfs.config).clone()
    };
    let nearly_full = DirRootfs::new(config);
    nearly_full.ensure(&guest("web")).await.expect("is there");
    let hog = enough.at("web/rootfs/hog");
    fs::write(hog, vec![1; 3 << 20]).expect("written");
    let remedy = nearly_full.check().await[0].remedy.clone();
    let remedy = remedy.expect("a remedy");
    assert!(
        remedy.contains("The largest guests: web (3 MiB in "),
        "{remedy}"
    );
}

#[tokio::test]
async fn open_directory_is_closed_and_reported() {
    let temp = TempRootfs::new(UserIds::Mapped);
    fs::create_dir_all(temp.at("")).expect("guests");
    fs::set_permissions(temp.at(""), fs::Permissions::from_mode(0o755)).expect("chmod");
    let verdict = |checks: Vec<Check>| checks[1].verdict;
    assert_eq!(verdict(temp.rootfs.check().await), Verdict::Broken);
    temp.rootfs.ensure(&guest("web")).await.expect("makes");
    assert_eq!(verdict(temp.rootfs.check().await), Verdict::Ok);
}

#[tokio::test]
async fn ext4_spreads_guests() {
    const EXT4: u64 = 0xEF53;
    let temp = TempRootfs::new(UserIds::Mapped);
    for _ in 0..2 {
        temp.rootfs.ensure(&guest("web")).await.expect("makes");
        let guests = fs::File::open(temp.at("")).expect("guests");
        let kind = rustix::fs::fstatfs(&guests).expect("a file system").f_type;
        if u64::try_from(kind) != Ok(EXT4) {
            eprintln!(
                "INNKEEPER-NOT-RUN: ext4_spreads_guests: the temporary directory is not on ext4"
            );
            return;
        }
        let flags = ioctl_getflags(&guests).expect("flags");
        assert!(flags.contains(IFlags::TOPDIR), "{flags:?}");
        temp.rootfs
            .remove(&guest("web").name)
            .await
            .expect("removed");
    }
}

#[tokio::test]
async fn observe_fails_if_the_directory_is_unreadable() {
    let temp = TempRootfs::new(UserIds::Mapped);
    fs::create_dir_all(temp.dir.path().join("state")).expect("state");
    fs::write(temp.dir.path().join("state/guests"), "not a directory").expect("write");
    temp.rootfs.observe().await.expect_err("cannot be listed");
}

/// A tree of another daemon was moved into the directory.
#[tokio::test]
async fn remove_keeps_directories_of_other_daemons() {
    let temp = TempRootfs::new(UserIds::Mapped);
    let web = crate::rootfs::test_guest("web");
    temp.rootfs.ensure(&web).await.expect("makes");
    let directory = temp.at("web");
    let found = temp.rootfs.observe().await.expect("observes");
    assert!(found[0].ownership.is_ours());
    if !Identity::of('b').mark(&directory).expect("marks") {
        eprintln!("INNKEEPER-NOT-RUN: the file system takes no marks");
        return;
    }
    let found = temp.rootfs.observe().await.expect("observes");
    assert_eq!(found[0].ownership, Ownership::Other);
    temp.rootfs.remove(&web.name).await.expect("keeps it");
    temp.rootfs.sweep(&found[0]).await.expect("keeps it");
    assert!(directory.join("rootfs").is_dir());
}
