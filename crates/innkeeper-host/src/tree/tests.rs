//! What a guest may have put into its tree, and what must not come of it.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{RenameFlags, mkfifoat, renameat_with};

use super::*;

const ROOT: Owner = Owner { uid: 0, gid: 0 };

/// A guest's tree beside the host's own files, which nothing may change or read.
struct House {
    dir: tempfile::TempDir,
    tree: Tree,
}

impl House {
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

    /// The host's files are as they were.
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

/// Leads from any directory of the tree to the host's files, as a guest would guess it.
fn upwards(path: &Path) -> PathBuf {
    Path::new("../../../../../../../../../../").join(path.strip_prefix("/").expect("absolute"))
}

#[test]
fn a_write_makes_directories_and_sets_owner_and_mode() {
    let house = House::new();
    let owner = Owner {
        uid: 4_000,
        gid: 4_001,
    };
    house
        .tree
        .write(Path::new("/a/b/c"), b"x", owner, 0o4750)
        .expect("writes");
    let file = fs::metadata(house.inside("a/b/c")).expect("stat");
    assert_eq!(
        (file.uid(), file.gid(), file.mode() & 0o7777),
        (4_000, 4_001, 0o4750)
    );
    let above = fs::metadata(house.inside("a/b")).expect("stat");
    assert_eq!((above.uid(), above.mode() & 0o7777), (0, 0o755));
    assert_eq!(fs::read_dir(house.inside("a/b")).expect("list").count(), 1);
}

#[test]
fn directories_made_on_the_way_belong_to_the_trees_owner() {
    let house = House::new();
    std::os::unix::fs::chown(house.inside(""), Some(70_000), Some(70_001)).expect("chown");
    let tree = Tree::open(&house.inside("")).expect("opens");
    tree.write(Path::new("etc/ssh/key"), b"x", ROOT, 0o600)
        .expect("writes");
    let made = fs::metadata(house.inside("etc/ssh")).expect("stat");
    assert_eq!((made.uid(), made.gid()), (70_000, 70_001));
}

#[test]
fn a_link_in_the_files_place_is_replaced_and_not_followed() {
    let house = House::new();
    for target in [
        house.host("secret"),
        upwards(&house.host("secret")),
        "nowhere".into(),
    ] {
        fs::remove_file(house.inside("file")).ok();
        symlink(&target, house.inside("file")).expect("link");
        house.write("file").expect("writes");
        assert!(
            fs::symlink_metadata(house.inside("file"))
                .expect("stat")
                .is_file()
        );
        assert_eq!(house.read_inside("file"), "written");
        house.assert_host_untouched();
    }
}

#[test]
fn a_link_above_the_file_stays_inside_the_tree() {
    let house = House::new();
    for target in [house.host(""), upwards(&house.host(""))] {
        fs::remove_file(house.inside("etc")).ok();
        symlink(&target, house.inside("etc")).expect("link");
        // The same path inside the tree is where the guest itself would end up.
        let twin = house
            .inside("")
            .join(house.host("").strip_prefix("/").expect("absolute"));
        fs::create_dir_all(&twin).expect("twin");
        house.write("etc/file").expect("writes");
        assert_eq!(
            fs::read_to_string(twin.join("file")).expect("read"),
            "written"
        );
        house.assert_host_untouched();
        fs::remove_file(twin.join("file")).expect("remove");
    }
}

#[test]
fn a_link_above_the_file_that_leads_nowhere_becomes_a_directory() {
    let house = House::new();
    for target in [house.host(""), upwards(&house.host("")), "etc".into()] {
        remove(&house.inside("etc")).expect("removes");
        symlink(&target, house.inside("etc")).expect("link");
        house.write("etc/file").expect("writes");
        assert!(
            fs::symlink_metadata(house.inside("etc"))
                .expect("stat")
                .is_dir()
        );
        assert_eq!(house.read_inside("etc/file"), "written");
        house.assert_host_untouched();
    }
}

#[test]
fn whatever_stands_in_the_files_place_is_replaced() {
    let house = House::new();
    mkfifoat(CWD, house.inside("fifo"), Mode::RUSR).expect("fifo");
    fs::create_dir_all(house.inside("directory/below")).expect("directory");
    fs::create_dir_all(house.inside(".innkeeper-directory/below")).expect("directory");
    symlink(house.host("secret"), house.inside(".innkeeper-fifo")).expect("link");
    for name in ["fifo", "directory", "directory"] {
        house.write(name).expect(name);
        assert_eq!(house.read_inside(name), "written");
    }
    house.assert_host_untouched();
}

#[test]
fn a_second_name_of_the_same_file_keeps_the_former_contents() {
    let house = House::new();
    fs::write(house.inside("shadow"), "the guest's").expect("write");
    fs::hard_link(house.inside("shadow"), house.inside("file")).expect("link");
    house.write("file").expect("writes");
    assert_eq!(house.read_inside("shadow"), "the guest's");
    assert_eq!(house.read_inside("file"), "written");
}

#[test]
fn only_the_very_same_file_is_left_as_it_is() {
    let house = House::new();
    let inode = || {
        fs::symlink_metadata(house.inside("file"))
            .expect("stat")
            .ino()
    };
    house.write("file").expect("writes");
    let first = inode();
    house.write("file").expect("writes");
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
    for (what, change) in changes {
        let before = inode();
        change(&house.inside("file"));
        house.write("file").expect("writes");
        assert_ne!(inode(), before, "{what}");
        assert_eq!(house.read_inside("file"), "written");
    }
}

#[test]
fn a_failed_write_leaves_the_former_contents_and_nothing_aside() {
    let house = House::new();
    house.write("file").expect("writes");
    let too_long = "x".repeat(250);
    assert!(house.write(&too_long).is_err());
    assert_eq!(fs::read_dir(house.inside("")).expect("list").count(), 1);
}

#[test]
fn a_read_stays_inside_and_opens_regular_files_only() {
    let house = House::new();
    let read = |path: &str| house.tree.read(Path::new(path), 100);
    symlink(house.host("secret"), house.inside("absolute")).expect("link");
    symlink(upwards(&house.host("secret")), house.inside("upwards")).expect("link");
    symlink("/proc/self/root", house.inside("magic")).expect("link");
    mkfifoat(CWD, house.inside("fifo"), Mode::RUSR).expect("fifo");
    fs::create_dir(house.inside("directory")).expect("directory");
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
    fs::write(house.inside("file"), "x".repeat(100)).expect("write");
    symlink("/file", house.inside("link")).expect("link");
    assert_eq!(read("link").expect("reads").len(), 100);
    assert!(house.tree.read(Path::new("file"), 99).is_err());
}

#[test]
fn a_mounted_proc_does_not_lead_outside() {
    in_own_mount_namespace(|| {
        let house = House::new();
        fs::create_dir(house.inside("proc")).expect("proc");
        mount(&["-t", "proc", "proc"], &house.inside("proc"));
        let through = format!("proc/self/root{}", house.host("secret").display());
        assert!(house.tree.read(Path::new(&through), 100).is_err());
        let through = format!("proc/self/cwd{}", house.host("file").display());
        assert!(house.write(&through).is_err());
        house.assert_host_untouched();
    });
}

#[test]
fn a_directory_is_made_or_taken_over_but_never_through_a_link() {
    let house = House::new();
    let owner = Owner {
        uid: 1_000,
        gid: 100,
    };
    symlink(house.host(""), house.inside("creds")).expect("link");
    for _ in 0..2 {
        house
            .tree
            .make_dir(Path::new("/creds"), owner, 0o500)
            .expect("makes");
        let made = fs::symlink_metadata(house.inside("creds")).expect("stat");
        assert!(made.is_dir());
        assert_eq!(
            (made.uid(), made.gid(), made.mode() & 0o7777),
            (1_000, 100, 0o500)
        );
    }
    assert_ne!(fs::metadata(house.host("")).expect("stat").uid(), 1_000);
    house.assert_host_untouched();
}

#[test]
fn a_link_that_leads_nowhere_is_there_all_the_same() {
    let house = House::new();
    let exists = |path: &str| house.tree.exists(Path::new(path)).expect("looks");
    symlink("/etc/static/hosts", house.inside("hosts")).expect("link");
    assert!(exists("hosts"));
    assert!(!exists("missing"));
    assert!(!exists("missing/below"));
    assert!(!exists("hosts/below"));
}

#[test]
fn lists_names_and_takes_a_missing_directory_for_an_empty_one() {
    let house = House::new();
    house.write("a/one").expect("writes");
    house.write("a/.two").expect("writes");
    let mut names = house.tree.list(Path::new("a")).expect("lists");
    names.sort();
    assert_eq!(names, [".two", "one"]);
    assert!(house.tree.list(Path::new("b")).expect("lists").is_empty());
    house.tree.remove(Path::new("a/one")).expect("removes");
    house
        .tree
        .remove(Path::new("a/one"))
        .expect("is gone already");
    house
        .tree
        .remove(Path::new("b/one"))
        .expect("was never there");
    assert_eq!(house.tree.list(Path::new("a")).expect("lists"), [".two"]);
}

#[test]
fn the_hosts_own_paths_have_no_way_up() {
    let house = House::new();
    for path in ["..", "a/../../b", "", "/"] {
        assert!(house.write(path).is_err(), "{path:?} was accepted");
    }
    symlink(house.host(""), house.dir.path().join("link")).expect("link");
    Tree::open(&house.dir.path().join("link")).expect_err("a link is no tree");
}

#[test]
fn swapping_a_directory_for_a_link_during_2000_writes_redirects_none() {
    let house = House::new();
    fs::create_dir(house.inside("etc")).expect("etc");
    let over = AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        // Also when an assertion fails; the scope waits for the thread.
        let _end = EndOnDrop(&over);
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                symlink(house.host(""), house.inside("link")).ok();
                renameat_with(
                    CWD,
                    house.inside("etc"),
                    CWD,
                    house.inside("link"),
                    RenameFlags::EXCHANGE,
                )
                .ok();
            }
        });
        (0..2_000)
            .filter(|_| {
                let written = house.write("etc/file").is_ok();
                if let Ok(text) = house.tree.read(Path::new("etc/secret"), 100) {
                    assert_ne!(text, b"the host's own");
                }
                written
            })
            .count()
    });
    assert!(written > 0, "no write got through");
    house.assert_host_untouched();
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
    fn what_is_absent_is_removed_already() {
        let house = House::new();
        remove(&house.inside("missing")).expect("absent");
        remove(&house.inside("missing/below")).expect("absent");
    }

    #[test]
    fn links_go_and_their_targets_stay() {
        let house = House::new();
        symlink(house.host(""), house.inside("link")).expect("link");
        symlink(house.host("secret"), house.inside("file")).expect("link");
        fs::create_dir(house.inside("below")).expect("directory");
        symlink(house.host(""), house.inside("below/link")).expect("link");
        remove(&house.inside("")).expect("removes");
        assert!(!house.inside("").exists());
        symlink(house.host(""), house.inside("")).ok();
        remove(&house.dir.path().join("rootfs")).expect("removes the link itself");
        house.assert_host_untouched();
    }

    #[test]
    fn a_tree_2000_deep_goes_with_few_open_files() {
        let house = House::new();
        let mut here = rustix::fs::open(house.inside(""), DIRECTORY, Mode::empty()).expect("open");
        for depth in 0..2_000 {
            let name = if depth % 7 == 0 {
                ".innkeeper-1"
            } else {
                "directory-with-a-name"
            };
            for name in [name, "sibling"] {
                mkdirat(&here, name, Mode::RWXU).expect("mkdir");
            }
            mkdirat(&here, ".innkeeper-2", Mode::RWXU).expect("mkdir");
            mkfifoat(&here, ".innkeeper-2/fifo", Mode::RUSR).expect("fifo");
            here = openat(&here, name, DIRECTORY, Mode::empty()).expect("open");
        }
        remove(&house.inside("")).expect("removes");
        assert!(!house.inside("").exists());
    }

    #[test]
    fn closed_directories_sockets_and_odd_names_go() {
        let house = House::new();
        fs::create_dir_all(house.inside("closed/below")).expect("directory");
        fs::write(house.inside("closed/below/file"), "x").expect("write");
        fs::set_permissions(house.inside("closed"), fs::Permissions::from_mode(0o000))
            .expect("chmod");
        std::os::unix::net::UnixListener::bind(house.inside("socket")).expect("socket");
        assert!(
            fs::metadata(house.inside("socket"))
                .expect("stat")
                .file_type()
                .is_socket()
        );
        fs::write(house.inside("").join(OsStr::from_bytes(b"\xff\n *")), "x").expect("write");
        remove(&house.inside("")).expect("removes");
        assert!(!house.inside("").exists());
    }

    #[test]
    fn immutable_entries_go() {
        let house = House::new();
        fs::create_dir_all(house.inside("var/empty")).expect("directory");
        fs::create_dir_all(house.inside("var/full/below")).expect("directory");
        fs::write(house.inside("var/full/below/file"), "x").expect("write");
        for path in ["var/empty", "var/full", "var/full/below/file"] {
            let file = File::open(house.inside(path)).expect(path);
            if let Err(errno) = rustix::fs::ioctl_setflags(&file, rustix::fs::IFlags::IMMUTABLE) {
                eprintln!("INNKEEPER-NOT-RUN: immutable_entries_go: chattr +i: {errno}");
                return;
            }
        }
        remove(&house.inside("")).expect("removes");
        assert!(!house.inside("").exists());
    }

    #[test]
    fn two_removals_at_the_same_time_both_succeed() {
        for _ in 0..20 {
            let house = House::new();
            for n in 0..50 {
                fs::create_dir_all(house.inside(&format!("{n}/a/b/c"))).expect("directory");
            }
            std::thread::scope(|scope| {
                let other = scope.spawn(|| remove(&house.inside("")));
                let here = remove(&house.inside(""));
                // Either may meet a directory that the other one fills at this moment.
                drop((other.join().expect("joins"), here));
            });
            remove(&house.inside("")).expect("removes");
            assert!(!house.inside("").exists());
        }
    }

    #[test]
    fn a_mount_is_named_and_not_touched() {
        in_own_mount_namespace(|| {
            let house = House::new();
            for place in ["mounted", "a/b/c/mounted"] {
                fs::create_dir_all(house.inside(place)).expect("directory");
                fs::write(house.inside("beside"), "x").expect("write");
                mount(
                    &["--bind", house.host("").to_str().expect("text")],
                    &house.inside(place),
                );
                let error = remove(&house.inside("")).expect_err("something is mounted");
                assert!(error.path.ends_with("mounted"), "{error}");
                assert_eq!(error.source.to_string(), "something is mounted there");
                assert!(!house.inside("beside").exists(), "the removal went on");
                house.assert_host_untouched();
                unmount(&error.path);
                remove(&house.inside("")).expect("removes");
                house.assert_host_untouched();
                fs::create_dir(house.inside("")).expect("rootfs");
            }
            fs::write(house.inside("file"), "x").expect("write");
            mount(
                &["--bind", house.host("secret").to_str().expect("text")],
                &house.inside("file"),
            );
            let error = remove(&house.inside("")).expect_err("something is mounted");
            assert_eq!(error.path, house.inside("file"));
            house.assert_host_untouched();
            unmount(&house.inside("file"));
        });
    }

    #[test]
    fn directories_that_cannot_be_moved_are_emptied_where_they_are() {
        in_own_mount_namespace(|| {
            let house = House::new();
            for name in ["lower", "upper", "work", "merged"] {
                fs::create_dir(house.dir.path().join(name)).expect(name);
            }
            let at = |name: &str| house.dir.path().join(name);
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

/// Runs a test on a thread whose mounts nobody else sees; they go with the thread.
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

/// Runs a program in the namespaces of this very thread.
fn run(program: &str, arguments: &[&str]) {
    let mut command = crate::command::command(program).into_std();
    let status = command.args(arguments).status().expect(program);
    assert!(status.success(), "{program} {arguments:?}: {status}");
}
