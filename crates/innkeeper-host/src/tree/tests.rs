//! Attacks by entries in a guest's tree, which must not affect the host's files.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{RenameFlags, mkfifoat, renameat_with};

use super::*;

const ROOT: Owner = Owner { uid: 0, gid: 0 };

/// A guest's tree beside files of the host that must stay unread and unchanged.
struct Fixture {
    dir: tempfile::TempDir,
    tree: Tree,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory for the test");
        fs::create_dir(dir.path().join("rootfs")).expect("rootfs");
        fs::create_dir(dir.path().join("host")).expect("host");
        fs::write(dir.path().join("host/secret"), "the host's own").expect("secret");
        let tree = Tree::open(&dir.path().join("rootfs")).expect("opens");
        Self { dir, tree }
    }

    fn inside(&self, path: &str) -> PathBuf {
        self.dir.path().join("rootfs").join(path)
    }

    fn host(&self, path: &str) -> PathBuf {
        self.dir.path().join("host").join(path)
    }

    fn write(&self, path: &str) -> Result<(), FileError> {
        self.tree.write(Path::new(path), b"written", ROOT, 0o644)
    }

    fn read_inside(&self, path: &str) -> String {
        fs::read_to_string(self.inside(path)).expect(path)
    }

    /// Fails if the host's files were changed.
    fn assert_host_untouched(&self) {
        let names: Vec<_> = fs::read_dir(self.host(""))
            .expect("list")
            .map(|e| e.expect("entry").file_name())
            .collect();
        assert_eq!(names, ["secret"]);
        assert_eq!(
            fs::read_to_string(self.host("secret")).expect("read"),
            "the host's own"
        );
        assert_eq!(
            fs::metadata(self.host("secret")).expect("stat").mode() & 0o777,
            0o644
        );
    }
}

/// Returns a relative path from any directory of the tree to the host's files, as a guest would guess it.
fn upwards(path: &Path) -> PathBuf {
    Path::new("../../../../../../../../../../").join(path.strip_prefix("/").expect("absolute"))
}

#[test]
fn write_creates_directories_and_sets_owner_and_mode() {
    let fixture = Fixture::new();
    let owner = Owner {
        uid: 4_000,
        gid: 4_001,
    };
    fixture
        .tree
        .write(Path::new("/a/b/c"), b"x", owner, 0o4750)
        .expect("writes");
    let file = fs::metadata(fixture.inside("a/b/c")).expect("stat");
    assert_eq!(
        (file.uid(), file.gid(), file.mode() & 0o7777),
        (4_000, 4_001, 0o4750)
    );
    let above = fs::metadata(fixture.inside("a/b")).expect("stat");
    assert_eq!((above.uid(), above.mode() & 0o7777), (0, 0o755));
    assert_eq!(
        fs::read_dir(fixture.inside("a/b")).expect("list").count(),
        1
    );
}

#[test]
fn created_directories_belong_to_the_trees_owner() {
    let fixture = Fixture::new();
    std::os::unix::fs::chown(fixture.inside(""), Some(70_000), Some(70_001)).expect("chown");
    let tree = Tree::open(&fixture.inside("")).expect("opens");
    tree.write(Path::new("etc/ssh/key"), b"x", ROOT, 0o600)
        .expect("writes");
    let made = fs::metadata(fixture.inside("etc/ssh")).expect("stat");
    assert_eq!((made.uid(), made.gid()), (70_000, 70_001));
}

#[test]
fn write_replaces_a_link_without_following_it() {
    let fixture = Fixture::new();
    for target in [
        fixture.host("secret"),
        upwards(&fixture.host("secret")),
        "nowhere".into(),
    ] {
        fs::remove_file(fixture.inside("file")).ok();
        symlink(&target, fixture.inside("file")).expect("link");
        fixture.write("file").expect("writes");
        assert!(
            fs::symlink_metadata(fixture.inside("file"))
                .expect("stat")
                .is_file()
        );
        assert_eq!(fixture.read_inside("file"), "written");
        fixture.assert_host_untouched();
    }
}

#[test]
fn write_follows_parent_links_only_inside_the_tree() {
    let fixture = Fixture::new();
    for target in [fixture.host(""), upwards(&fixture.host(""))] {
        fs::remove_file(fixture.inside("etc")).ok();
        symlink(&target, fixture.inside("etc")).expect("link");
        // Inside the guest, the link resolves to the same path within the tree.
        let twin = fixture
            .inside("")
            .join(fixture.host("").strip_prefix("/").expect("absolute"));
        fs::create_dir_all(&twin).expect("twin");
        fixture.write("etc/file").expect("writes");
        assert_eq!(
            fs::read_to_string(twin.join("file")).expect("read"),
            "written"
        );
        fixture.assert_host_untouched();
        fs::remove_file(twin.join("file")).expect("remove");
    }
}

#[test]
fn write_replaces_a_dangling_parent_link_by_a_directory() {
    let fixture = Fixture::new();
    for target in [fixture.host(""), upwards(&fixture.host("")), "etc".into()] {
        remove(&fixture.inside("etc")).expect("removes");
        symlink(&target, fixture.inside("etc")).expect("link");
        fixture.write("etc/file").expect("writes");
        assert!(
            fs::symlink_metadata(fixture.inside("etc"))
                .expect("stat")
                .is_dir()
        );
        assert_eq!(fixture.read_inside("etc/file"), "written");
        fixture.assert_host_untouched();
    }
}

#[test]
fn write_replaces_fifos_and_directories() {
    let fixture = Fixture::new();
    mkfifoat(CWD, fixture.inside("fifo"), Mode::RUSR).expect("fifo");
    fs::create_dir_all(fixture.inside("directory/below")).expect("directory");
    fs::create_dir_all(fixture.inside(".innkeeper-directory/below")).expect("directory");
    symlink(fixture.host("secret"), fixture.inside(".innkeeper-fifo")).expect("link");
    for name in ["fifo", "directory", "directory"] {
        fixture.write(name).expect(name);
        assert_eq!(fixture.read_inside(name), "written");
    }
    fixture.assert_host_untouched();
}

#[test]
fn write_keeps_other_hard_links_unchanged() {
    let fixture = Fixture::new();
    fs::write(fixture.inside("shadow"), "the guest's").expect("write");
    fs::hard_link(fixture.inside("shadow"), fixture.inside("file")).expect("link");
    fixture.write("file").expect("writes");
    assert_eq!(fixture.read_inside("shadow"), "the guest's");
    assert_eq!(fixture.read_inside("file"), "written");
}

#[test]
fn write_skips_only_an_identical_file() {
    let fixture = Fixture::new();
    let inode = || {
        fs::symlink_metadata(fixture.inside("file"))
            .expect("stat")
            .ino()
    };
    fixture.write("file").expect("writes");
    let first = inode();
    fixture.write("file").expect("writes");
    assert_eq!(inode(), first);
    type Change = fn(&Path);
    let changes: [(&str, Change); 5] = [
        ("contents", |file| {
            fs::write(file, "Written").expect("write");
        }),
        ("length", |file| fs::write(file, "written!").expect("write")),
        ("mode", |file| {
            fs::set_permissions(file, fs::Permissions::from_mode(0o666)).expect("chmod");
        }),
        ("owner", |file| {
            std::os::unix::fs::chown(file, Some(1), None).expect("chown");
        }),
        ("another name", |file| {
            fs::hard_link(file, file.with_file_name("other")).expect("link");
        }),
    ];
    for (property, change) in changes {
        let before = inode();
        change(&fixture.inside("file"));
        fixture.write("file").expect("writes");
        assert_ne!(inode(), before, "{property}");
        assert_eq!(fixture.read_inside("file"), "written");
    }
}

#[test]
fn failed_write_keeps_the_old_contents() {
    let fixture = Fixture::new();
    fixture.write("file").expect("writes");
    let too_long = "x".repeat(250);
    assert!(fixture.write(&too_long).is_err());
    assert_eq!(fs::read_dir(fixture.inside("")).expect("list").count(), 1);
}

#[test]
fn read_stays_inside_and_opens_only_regular_files() {
    let fixture = Fixture::new();
    let read = |path: &str| fixture.tree.read(Path::new(path), 100);
    symlink(fixture.host("secret"), fixture.inside("absolute")).expect("link");
    symlink(upwards(&fixture.host("secret")), fixture.inside("upwards")).expect("link");
    symlink("/proc/self/root", fixture.inside("magic")).expect("link");
    mkfifoat(CWD, fixture.inside("fifo"), Mode::RUSR).expect("fifo");
    fs::create_dir(fixture.inside("directory")).expect("directory");
    for path in [
        "absolute",
        "upwards",
        "magic",
        "fifo",
        "directory",
        "missing",
    ] {
        read(path).expect_err(path);
    }
    fs::write(fixture.inside("file"), "x".repeat(100)).expect("write");
    symlink("/file", fixture.inside("link")).expect("link");
    assert_eq!(read("link").expect("reads").len(), 100);
    assert!(fixture.tree.read(Path::new("file"), 99).is_err());
}

#[test]
fn mounted_proc_does_not_lead_outside() {
    in_own_mount_namespace(|| {
        let fixture = Fixture::new();
        fs::create_dir(fixture.inside("proc")).expect("proc");
        mount(&["-t", "proc", "proc"], &fixture.inside("proc"));
        let through = format!("proc/self/root{}", fixture.host("secret").display());
        assert!(fixture.tree.read(Path::new(&through), 100).is_err());
        let through = format!("proc/self/cwd{}", fixture.host("file").display());
        assert!(fixture.write(&through).is_err());
        fixture.assert_host_untouched();
    });
}

#[test]
fn make_dir_never_follows_a_link() {
    let fixture = Fixture::new();
    let owner = Owner {
        uid: 1_000,
        gid: 100,
    };
    symlink(fixture.host(""), fixture.inside("creds")).expect("link");
    for _ in 0..2 {
        fixture
            .tree
            .make_dir(Path::new("/creds"), owner, 0o500)
            .expect("makes");
        let made = fs::symlink_metadata(fixture.inside("creds")).expect("stat");
        assert!(made.is_dir());
        assert_eq!(
            (made.uid(), made.gid(), made.mode() & 0o7777),
            (1_000, 100, 0o500)
        );
    }
    assert_ne!(fs::metadata(fixture.host("")).expect("stat").uid(), 1_000);
    fixture.assert_host_untouched();
}

#[test]
fn dangling_link_exists() {
    let fixture = Fixture::new();
    let exists = |path: &str| fixture.tree.exists(Path::new(path)).expect("looks");
    symlink("/etc/static/hosts", fixture.inside("hosts")).expect("link");
    assert!(exists("hosts"));
    assert!(!exists("missing"));
    assert!(!exists("missing/below"));
    assert!(!exists("hosts/below"));
}

#[test]
fn list_and_remove_accept_missing_directories() {
    let fixture = Fixture::new();
    fixture.write("a/one").expect("writes");
    fixture.write("a/.two").expect("writes");
    let mut names = fixture.tree.list(Path::new("a")).expect("lists");
    names.sort();
    assert_eq!(names, [".two", "one"]);
    assert!(fixture.tree.list(Path::new("b")).expect("lists").is_empty());
    fixture.tree.remove(Path::new("a/one")).expect("removes");
    fixture.tree.remove(Path::new("a/one")).expect("absent");
    fixture.tree.remove(Path::new("b/one")).expect("absent");
    assert_eq!(fixture.tree.list(Path::new("a")).expect("lists"), [".two"]);
}

#[test]
fn paths_with_parent_components_are_rejected() {
    let fixture = Fixture::new();
    for path in ["..", "a/../../b", "", "/"] {
        assert!(fixture.write(path).is_err(), "{path:?} was accepted");
    }
    symlink(fixture.host(""), fixture.dir.path().join("link")).expect("link");
    Tree::open(&fixture.dir.path().join("link")).expect_err("a link");
}

#[test]
fn concurrent_swaps_of_links_redirect_no_write() {
    let fixture = Fixture::new();
    fs::create_dir(fixture.inside("etc")).expect("etc");
    let over = AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        // Even if an assertion fails, because the scope waits for the thread.
        let _end = EndOnDrop(&over);
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                symlink(fixture.host(""), fixture.inside("link")).ok();
                renameat_with(
                    CWD,
                    fixture.inside("etc"),
                    CWD,
                    fixture.inside("link"),
                    RenameFlags::EXCHANGE,
                )
                .ok();
            }
        });
        (0..2_000)
            .filter(|_| {
                let written = fixture.write("etc/file").is_ok();
                if let Ok(text) = fixture.tree.read(Path::new("etc/secret"), 100) {
                    assert_ne!(text, b"the host's own");
                }
                written
            })
            .count()
    });
    assert!(written > 0, "all writes failed");
    fixture.assert_host_untouched();
}

struct EndOnDrop<'a>(&'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

mod removal {
    use super::*;

    #[test]
    fn remove_succeeds_for_absent_paths() {
        let fixture = Fixture::new();
        remove(&fixture.inside("missing")).expect("absent");
        remove(&fixture.inside("missing/below")).expect("absent");
    }

    #[test]
    fn remove_deletes_links_but_not_their_targets() {
        let fixture = Fixture::new();
        symlink(fixture.host(""), fixture.inside("link")).expect("link");
        symlink(fixture.host("secret"), fixture.inside("file")).expect("link");
        fs::create_dir(fixture.inside("below")).expect("directory");
        symlink(fixture.host(""), fixture.inside("below/link")).expect("link");
        remove(&fixture.inside("")).expect("removes");
        assert!(!fixture.inside("").exists());
        symlink(fixture.host(""), fixture.inside("")).ok();
        remove(&fixture.dir.path().join("rootfs")).expect("removes the link itself");
        fixture.assert_host_untouched();
    }

    #[test]
    fn remove_handles_2000_levels_with_few_open_files() {
        let fixture = Fixture::new();
        let root = rustix::fs::open(fixture.inside(""), DIRECTORY, Mode::empty());
        let mut current = root.expect("open");
        for depth in 0..2_000 {
            let name = if depth % 7 == 0 {
                ".innkeeper-1"
            } else {
                "directory-with-a-name"
            };
            for name in [name, "sibling"] {
                mkdirat(&current, name, Mode::RWXU).expect("mkdir");
            }
            mkdirat(&current, ".innkeeper-2", Mode::RWXU).expect("mkdir");
            mkfifoat(&current, ".innkeeper-2/fifo", Mode::RUSR).expect("fifo");
            current = openat(&current, name, DIRECTORY, Mode::empty()).expect("open");
        }
        remove(&fixture.inside("")).expect("removes");
        assert!(!fixture.inside("").exists());
    }

    #[test]
    fn remove_handles_modes_sockets_and_odd_names() {
        let fixture = Fixture::new();
        fs::create_dir_all(fixture.inside("closed/below")).expect("directory");
        fs::write(fixture.inside("closed/below/file"), "x").expect("write");
        fs::set_permissions(fixture.inside("closed"), fs::Permissions::from_mode(0o000))
            .expect("chmod");
        std::os::unix::net::UnixListener::bind(fixture.inside("socket")).expect("socket");
        assert!(
            fs::metadata(fixture.inside("socket"))
                .expect("stat")
                .file_type()
                .is_socket()
        );
        fs::write(fixture.inside("").join(OsStr::from_bytes(b"\xff\n *")), "x").expect("write");
        remove(&fixture.inside("")).expect("removes");
        assert!(!fixture.inside("").exists());
    }

    #[test]
    fn remove_handles_immutable_entries() {
        let fixture = Fixture::new();
        fs::create_dir_all(fixture.inside("var/empty")).expect("directory");
        fs::create_dir_all(fixture.inside("var/full/below")).expect("directory");
        fs::write(fixture.inside("var/full/below/file"), "x").expect("write");
        for path in ["var/empty", "var/full", "var/full/below/file"] {
            let file = File::open(fixture.inside(path)).expect(path);
            if let Err(errno) = rustix::fs::ioctl_setflags(&file, rustix::fs::IFlags::IMMUTABLE) {
                eprintln!(
                    "INNKEEPER-NOT-RUN: remove_handles_immutable_entries: chattr +i: {errno}"
                );
                return;
            }
        }
        remove(&fixture.inside("")).expect("removes");
        assert!(!fixture.inside("").exists());
    }

    #[test]
    fn concurrent_removals_leave_a_removable_tree() {
        for _ in 0..20 {
            let fixture = Fixture::new();
            for n in 0..50 {
                fs::create_dir_all(fixture.inside(&format!("{n}/a/b/c"))).expect("directory");
            }
            std::thread::scope(|scope| {
                let other = scope.spawn(|| remove(&fixture.inside("")));
                let own = remove(&fixture.inside(""));
                // Each may fail on a directory that the other one fills at this moment.
                drop((other.join().expect("joins"), own));
            });
            remove(&fixture.inside("")).expect("removes");
            assert!(!fixture.inside("").exists());
        }
    }

    #[test]
    fn remove_reports_a_mount_without_touching_it() {
        in_own_mount_namespace(|| {
            let fixture = Fixture::new();
            for place in ["mounted", "a/b/c/mounted"] {
                fs::create_dir_all(fixture.inside(place)).expect("directory");
                fs::write(fixture.inside("beside"), "x").expect("write");
                mount(
                    &["--bind", fixture.host("").to_str().expect("text")],
                    &fixture.inside(place),
                );
                let error = remove(&fixture.inside("")).expect_err("something is mounted");
                assert!(error.path.ends_with("mounted"), "{error}");
                assert_eq!(error.source.to_string(), "something is mounted there");
                assert!(!fixture.inside("beside").exists(), "the removal went on");
                fixture.assert_host_untouched();
                unmount(&error.path);
                remove(&fixture.inside("")).expect("removes");
                fixture.assert_host_untouched();
                fs::create_dir(fixture.inside("")).expect("rootfs");
            }
            fs::write(fixture.inside("file"), "x").expect("write");
            mount(
                &["--bind", fixture.host("secret").to_str().expect("text")],
                &fixture.inside("file"),
            );
            let error = remove(&fixture.inside("")).expect_err("something is mounted");
            assert_eq!(error.path, fixture.inside("file"));
            fixture.assert_host_untouched();
            unmount(&fixture.inside("file"));
        });
    }

    #[test]
    fn remove_handles_directories_that_cannot_be_moved() {
        in_own_mount_namespace(|| {
            let fixture = Fixture::new();
            for name in ["lower", "upper", "work", "merged"] {
                fs::create_dir(fixture.dir.path().join(name)).expect(name);
            }
            let at = |name: &str| fixture.dir.path().join(name);
            fs::create_dir_all(at("lower/tree/a/b/c")).expect("directory");
            fs::write(at("lower/tree/a/b/c/file"), "x").expect("write");
            let options = format!(
                "lowerdir={},upperdir={},workdir={},redirect_dir=off",
                at("lower").display(),
                at("upper").display(),
                at("work").display()
            );
            mount(&["-t", "overlay", "overlay", "-o", &options], &at("merged"));
            let moved = fs::rename(at("merged/tree/a/b"), at("merged/b"));
            assert_eq!(
                moved.expect_err("cannot be moved").kind(),
                io::ErrorKind::CrossesDevices
            );
            remove(&at("merged/tree")).expect("removes");
            assert!(!at("merged/tree").exists());
            assert!(at("lower/tree/a/b/c/file").exists());
        });
    }
}

/// Runs a test on a thread with private mounts, which end with it.
fn in_own_mount_namespace(test: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("unshare, as root");
            run("mount", &["--make-rprivate", "/"]);
            test();
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

fn mount(arguments: &[&str], place: &Path) {
    let mut arguments = arguments.to_vec();
    arguments.push(place.to_str().expect("text"));
    run("mount", &arguments);
}

fn unmount(place: &Path) {
    run("umount", &[place.to_str().expect("text")]);
}

/// Runs a program in the namespaces of this thread.
fn run(program: &str, arguments: &[&str]) {
    let mut command = crate::command::command(program).into_std();
    let status = command.args(arguments).status().expect(program);
    assert!(status.success(), "{program} {arguments:?}: {status}");
}
