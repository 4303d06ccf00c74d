//! What several of these tests need.

use std::path::{Path, PathBuf};
use std::process::Command;

use innkeeper_model::{
    ClosureSource, Cpus, Guest, GuestKind, GuestName, Limits, MemorySize, Operation, StorePath,
};
use innkeeper_store::{NewGuest, Store, StoreError};
use tempfile::TempDir;

/// A store in a directory of its own, which goes with it.
pub(crate) struct Fixture {
    pub(crate) store: Store,
    pub(crate) directory: TempDir,
    subnet: &'static str,
}

impl Fixture {
    pub(crate) fn new(subnet: &'static str) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let store = open(&database(directory.path()), subnet).expect("opens");
        Self {
            store,
            directory,
            subnet,
        }
    }

    /// The same store after a restart of the daemon.
    pub(crate) async fn reopened(self) -> Self {
        self.store.close().await.expect("closes");
        let store = open(&database(self.directory.path()), self.subnet).expect("opens again");
        Self { store, ..self }
    }
}

pub(crate) fn database(directory: &Path) -> PathBuf {
    directory.join("innkeeper.db")
}

pub(crate) fn open(path: &Path, subnet: &str) -> Result<Store, StoreError> {
    Store::open(path, subnet.parse().expect("subnet"))
}

pub(crate) fn name(text: &str) -> GuestName {
    text.parse().expect("name")
}

pub(crate) fn closure() -> StorePath {
    "/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-guest"
        .parse()
        .expect("store path")
}

pub(crate) fn new_guest(guest: &str) -> NewGuest {
    NewGuest {
        name: name(guest),
        kind: GuestKind::Agent,
        source: ClosureSource::Path(closure()),
        closure: None,
        limits: Limits {
            memory: MemorySize::from_bytes(512 << 20),
            cpus: Cpus::from_percent(150),
            tasks: 512,
        },
        origin: None,
    }
}

pub(crate) async fn create(store: &Store, guest: &str) -> (Guest, Operation) {
    store
        .create_guest(new_guest(guest), "uid:0")
        .await
        .expect("creates")
}

/// Removes a guest as the engine does when it has seen everything of it gone.
pub(crate) async fn forget(store: &Store, guest: &str) {
    store
        .delete_guest(&name(guest), None)
        .await
        .expect("forgets");
}

/// This test binary once more, to run one test as `program … <binary> <test>` with `directory` in the
/// environment, which tells the test that it is the child.
pub(crate) fn again(program: &[&str], test: &str, directory: &Path) -> Command {
    let binary = std::env::current_exe().expect("own path");
    let arguments = [
        binary.to_str().expect("UTF-8"),
        test,
        "--exact",
        "--nocapture",
        "--test-threads=1",
    ];
    let mut words = program.iter().copied().chain(arguments);
    let mut command = new_command(words.next().expect("never empty"));
    command.args(words).env(CHILD, directory);
    command
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place of these tests that runs programs; innkeeper-host is not below this crate"
)]
fn new_command(program: &str) -> Command {
    Command::new(program)
}

const CHILD: &str = "INNKEEPER_STORE_TEST_CHILD";

/// The directory that a child is to work in; nothing in the parent.
pub(crate) fn child_directory() -> Option<PathBuf> {
    std::env::var_os(CHILD).map(PathBuf::from)
}

/// Runs a child to its end and fails with what it said, or says why it cannot be run here.
pub(crate) fn run_child(mut command: Command, test: &str) {
    let Ok(output) = command.output() else {
        eprintln!(
            "INNKEEPER-NOT-RUN: {test}: {:?} is not installed",
            command.get_program()
        );
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains(CANNOT_MOUNT) {
        eprintln!("INNKEEPER-NOT-RUN: {test}: {}", said.trim());
        return;
    }
    assert!(
        output.status.success(),
        "the child failed:\n{}\n{said}",
        String::from_utf8_lossy(&output.stdout)
    );
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("1 passed"),
        "the child ran no test"
    );
}

const CANNOT_MOUNT: &str = "cannot mount here";

/// The beginning of a command that runs the rest in a mount namespace of its own, where `directory` is a
/// tmpfs with these options. What is mounted goes with the namespace.
pub(crate) fn with_tmpfs<'a>(directory: &'a Path, options: &'a str) -> [&'a str; 7] {
    [
        "unshare",
        "--mount",
        "sh",
        "-c",
        // $0 is the directory, $1 the options.
        "mount -t tmpfs -o \"$1\" tmpfs \"$0\" || { echo 'cannot mount here' >&2; exit 1; }; shift; exec \"$@\"",
        directory.to_str().expect("UTF-8"),
        options,
    ]
}
