//! Throwaway network namespaces for tests on the real kernel.
//!
//! A test first moves its own thread into a new namespace, which represents the host: with the runtime of
//! `#[tokio::test]`, every thread and program that the test starts later inherits it. The machine's own network is never
//! touched.

use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use innkeeper_model::{
    ClosureSource, DesiredState, Guest, GuestKind, GuestName, Limits, Slot, StorePath, UserIdCount,
};
use nix::sched::{CloneFlags, unshare};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

/// Moves the test into its own network namespace. If the machine does not allow that, reports the test as not run and
/// returns `false`.
pub(crate) fn enter_own_namespace(test: &str) -> bool {
    match unshare(CloneFlags::CLONE_NEWNET) {
        Ok(()) => true,
        Err(error) => {
            eprintln!("INNKEEPER-NOT-RUN: {test}: cannot make a network namespace: {error}");
            false
        }
    }
}

/// A process in its own network namespace, like a guest's first process. It ends with its handle.
pub(crate) struct Leader {
    child: tokio::process::Child,
    pub(crate) pid: u32,
}

impl Leader {
    /// Starts it in a namespace that belongs to the host's user namespace.
    pub(crate) async fn start() -> Self {
        Self::with(&["--net"]).await
    }

    /// Starts it in a namespace that belongs to its own user namespace, as with nspawn's `--private-users`.
    pub(crate) async fn start_in_user_namespace() -> Self {
        Self::with(&["--user", "--map-root-user", "--net"]).await
    }

    async fn with(arguments: &[&str]) -> Self {
        // `cat` ends with the test even if that is killed: its standard input closes.
        let child = crate::command::command("unshare")
            .args(arguments)
            .arg("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("unshare");
        let pid = child.id().expect("running");
        let inside = || {
            std::fs::read_to_string(format!("/proc/{pid}/comm"))
                .is_ok_and(|name| name.trim() == "cat")
        };
        while !inside() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Self { child, pid }
    }

    /// Ends it, and its namespace with it.
    pub(crate) async fn stop(mut self) {
        self.child.kill().await.expect("kill");
    }

    /// Runs a job on a thread inside the namespace.
    pub(crate) fn inside<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> thread::JoinHandle<T> {
        let path = format!("/proc/{}/ns/net", self.pid);
        thread::spawn(move || {
            enter(Path::new(&path));
            job()
        })
    }

    /// Runs a program inside the namespace and returns its output.
    pub(crate) async fn run(&self, command: &[&str]) -> Vec<u8> {
        let pid = self.pid.to_string();
        let arguments = [&["--target", &pid, "--net"], command].concat();
        crate::command::run("nsenter", arguments, b"")
            .await
            .expect("nsenter")
    }

    /// Returns the output of `ip -json` inside the namespace.
    pub(crate) async fn ip(&self, arguments: &[&str]) -> Value {
        parse(&self.run(&[&["ip", "-json"], arguments].concat()).await)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the calling thread was made for this"
)]
fn enter(namespace: &Path) {
    let file = std::fs::File::open(namespace).expect("namespace");
    move_into_link_name_space(
        std::os::fd::AsFd::as_fd(&file),
        Some(LinkNameSpaceType::Network),
    )
    .expect("setns");
}

/// Returns the output of `ip -json` in the test's own namespace.
pub(crate) async fn ip(arguments: &[&str]) -> Value {
    let mut all = vec!["-json"];
    all.extend(arguments);
    parse(&crate::command::run("ip", all, b"").await.expect("ip"))
}

fn parse(output: &[u8]) -> Value {
    if output.is_empty() {
        return Value::Null;
    }
    serde_json::from_slice(output).expect("JSON")
}

/// Returns the record of a guest.
pub(crate) fn guest(name: &str, slot: u32) -> Guest {
    let closure = StorePath::parse("/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-guest");
    Guest {
        name: GuestName::parse(name).expect("name"),
        kind: GuestKind::Agent,
        slot: Slot::new(slot),
        desired: DesiredState::Running,
        level: innkeeper_model::Level::Awake,
        source: ClosureSource::Path(closure.expect("path")),
        closure: None,
        limits: Limits {
            memory: "1G".parse().expect("size"),
            cpus: "1".parse().expect("cpus"),
            tasks: 100,
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
