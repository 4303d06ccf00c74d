//! Fixtures and helpers that several tests use.

use std::path::{Path, PathBuf};
use std::process::Command;

use innkeeper_model::preview::{
    BranchName, CommandEvent, CommitSha, DeliveryEvent, Meta, PrAction, PullDetails, PullRequest,
    PullRequestEvent, RepoName,
};
use innkeeper_model::{
    ClosureSource, Cpus, Guest, GuestKind, GuestName, Limits, MemorySize, Operation, Slot,
    StorePath, UserIdCount,
};
use innkeeper_store::{NewDelivery, NewGuest, NewPreview, Store, StoreError};
use jiff::Timestamp;
use tempfile::TempDir;

/// The subnet of most tests.
pub(crate) const SUBNET: &str = "10.100.0.0/16";

/// A store in a temporary directory.
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

    /// Returns the same store after a restart of the daemon.
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

/// Returns a guest with the user ids of `slots` slots.
pub(crate) fn wide_guest(guest: &str, slots: u32) -> NewGuest {
    let mut new = new_guest(guest);
    new.limits.user_ids = UserIdCount::try_from(slots * Slot::USER_IDS).expect("a power of two");
    new
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
            user_ids: UserIdCount::default(),
            nesting: false,
        },
        origin: None,
        declared: false,
        idle_policy: None,
    }
}

pub(crate) async fn create(store: &Store, guest: &str) -> (Guest, Operation) {
    store
        .create_guest(new_guest(guest), "uid:0")
        .await
        .expect("creates")
}

/// Deletes a guest's record, as the engine does when all of its resources are gone.
pub(crate) async fn forget(store: &Store, guest: &str) {
    store
        .delete_guest(&name(guest), None)
        .await
        .expect("forgets");
}

pub(crate) fn pull_request(number: u64) -> PullRequest {
    PullRequest {
        repo: RepoName::parse("octo/web").expect("repository"),
        number,
    }
}

pub(crate) fn sha(n: u8) -> CommitSha {
    CommitSha::parse(&format!("{n:040x}")).expect("commit")
}

pub(crate) fn event(id: &str, number: u64, action: PrAction, commit: u8) -> PullRequestEvent {
    let repo = RepoName::parse("octo/web").expect("repository");
    PullRequestEvent {
        delivery: id.to_owned(),
        action,
        pull_request: pull_request(number),
        repo_id: None,
        head_repo: Some(repo),
        head_sha: sha(commit),
        head_branch: BranchName::parse("topic").expect("branch"),
        base_branch: BranchName::parse("main").expect("branch"),
        is_fork: false,
        author: "alice".to_owned(),
        sender: "alice".to_owned(),
        title_changed: false,
        body_changed: false,
        base_changed: false,
        merged: false,
        draft: false,
        updated_at: None,
        details: PullDetails::default(),
    }
}

pub(crate) fn delivery(id: &str, number: u64, action: PrAction, commit: u8) -> NewDelivery {
    NewDelivery {
        event: event(id, number, action, commit).into(),
        received_at: Timestamp::now(),
        slugs: vec![name(&format!("web-{number}"))],
    }
}

/// Returns a comment with a command on a pull request.
pub(crate) fn command(id: &str, number: u64, comment: u64, command: &str) -> NewDelivery {
    let event = CommandEvent {
        delivery: id.to_owned(),
        pull_request: pull_request(number),
        repo_id: None,
        comment,
        command: command.parse().expect("a command"),
        sender: "alice".to_owned(),
        updated_at: None,
    };
    NewDelivery {
        event: event.into(),
        received_at: Timestamp::now(),
        slugs: vec![name(&format!("web-{number}"))],
    }
}

/// Returns a delivery with another event.
pub(crate) fn with_event(
    mut delivery: NewDelivery,
    change: impl FnOnce(&mut PullRequestEvent),
) -> NewDelivery {
    if let DeliveryEvent::PullRequest(event) = &mut delivery.event {
        change(event);
    }
    delivery
}

pub(crate) fn preview(number: u64) -> NewPreview {
    NewPreview::of(&event("d", number, PrAction::Opened, 1))
}

pub(crate) fn meta() -> Meta {
    serde_json::from_value(serde_json::json!({
        "setupService": "setup",
        "appServices": ["web"],
        "database": "host",
        "routes": [{"path": "/", "port": 3000}],
        "hostSecrets": [],
        "extraHosts": [],
    }))
    .expect("meta")
}

pub(crate) async fn claim(
    store: &Store,
    number: u64,
    slugs: &[&str],
) -> Result<String, StoreError> {
    let slugs = slugs.iter().copied().map(name).collect();
    let preview = store.claim_preview(preview(number), slugs).await?;
    Ok(preview.record.slug.to_string())
}

/// Returns a command that runs one test of this binary as `program … <binary> <test>`. The `directory` in its environment
/// makes the test act as the child.
pub(crate) fn test_process(program: &[&str], test: &str, directory: &Path) -> Command {
    let binary = std::env::current_exe().expect("own path");
    let arguments = [
        binary.to_str().expect("UTF-8"),
        test,
        "--exact",
        "--nocapture",
        "--test-threads=1",
    ];
    let mut arguments = program.iter().copied().chain(arguments);
    let mut command = new_command(arguments.next().expect("never empty"));
    command.args(arguments).env(CHILD, directory);
    command
}

#[expect(
    clippy::disallowed_methods,
    reason = "the only place of these tests that runs programs; innkeeper-host is not below this crate"
)]
fn new_command(program: &str) -> Command {
    Command::new(program)
}

const CHILD: &str = "INNKEEPER_STORE_TEST_CHILD";

/// Returns the directory of a child; `None` in the parent.
pub(crate) fn child_directory() -> Option<PathBuf> {
    std::env::var_os(CHILD).map(PathBuf::from)
}

/// Runs a child to its end. Fails with its output, or reports why it cannot run here.
pub(crate) fn run_child(mut command: Command, test: &str) {
    let Ok(output) = command.output() else {
        eprintln!(
            "INNKEEPER-NOT-RUN: {test}: {:?} is not installed",
            command.get_program()
        );
        return;
    };
    let stderr = String::from_utf8_lossy(&output.stderr);
    if stderr.contains(CANNOT_MOUNT) {
        eprintln!("INNKEEPER-NOT-RUN: {test}: {}", stderr.trim());
        return;
    }
    assert!(
        output.status.success(),
        "the child failed:\n{}\n{stderr}",
        String::from_utf8_lossy(&output.stdout)
    );
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("1 passed"),
        "the child ran no test"
    );
}

const CANNOT_MOUNT: &str = "cannot mount here";

/// Returns the prefix of a command that runs the rest in a mount namespace of its own, where `directory` is a tmpfs with
/// these options. The mount disappears with the namespace.
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
