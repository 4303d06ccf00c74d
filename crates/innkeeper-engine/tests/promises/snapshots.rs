//! Snapshots, restores and forks.

use innkeeper_facilities::fake::a_closure;
use innkeeper_model::api::{Accepted, ForkRequest, GcRequest, SnapshotRequest};
use innkeeper_model::{Code, Explain, GuestName, GuestState, Operation, SnapshotLabel, Verb};

use crate::fixture::{Fixture, fixture, name};

fn label(text: &str) -> SnapshotLabel {
    SnapshotLabel::parse(text).expect("valid")
}

fn request(text: &str) -> SnapshotRequest {
    SnapshotRequest {
        label: Some(label(text)),
    }
}

fn copy_to(guest: &str, snapshot: Option<&str>) -> ForkRequest {
    ForkRequest {
        name: name(guest),
        snapshot: snapshot.map(label),
    }
}

impl Fixture {
    pub(crate) fn write(&self, guest: &str, files: &str) {
        let files = files.to_owned();
        self.host.world().trees.insert(name(guest), files);
    }

    pub(crate) fn files(&self, guest: &str) -> Option<String> {
        self.host.world().trees.get(&name(guest)).cloned()
    }

    async fn labels(&self) -> Vec<String> {
        let all = self.engine.snapshots().await.expect("reads");
        all.into_iter().map(|one| one.label.to_string()).collect()
    }

    async fn take(&self, guest: &str, text: &str) -> Operation {
        let taken = self
            .engine
            .snapshot(&name(guest), request(text), "test")
            .await;
        self.ended(taken.expect("accepted").accepted).await
    }

    async fn restore(&self, guest: &str, text: &str) -> Operation {
        let (guest, label) = (name(guest), label(text));
        let accepted = self.engine.restore_snapshot(&guest, &label, "test").await;
        self.ended(accepted.expect("accepted")).await
    }

    async fn fork(&self, guest: &str, request: ForkRequest) -> Operation {
        let accepted = self.engine.fork(&name(guest), request, "test").await;
        self.ended(accepted.expect("accepted")).await
    }

    fn calls(&self, guest: &GuestName) -> Vec<String> {
        let world = self.host.world();
        let suffix = format!(" {guest}");
        let calls = world.calls.iter();
        calls
            .filter_map(|call| call.strip_suffix(&suffix))
            .map(str::to_owned)
            .collect()
    }
}

#[tokio::test]
async fn restore_returns_files_and_destroy_removes_snapshots() {
    let fixture = fixture();
    fixture.create("web").await;
    fixture.write("web", "before");
    assert_eq!(fixture.take("web", "one").await.failure, None);
    fixture.write("web", "after");
    fixture.host.world().calls.clear();

    assert_eq!(fixture.restore("web", "one").await.failure, None);
    assert_eq!(fixture.files("web").as_deref(), Some("before"));
    assert_eq!(fixture.state("web").await, Some(GuestState::Running));
    let calls = fixture.calls(&name("web"));
    let at = |what: &str| calls.iter().position(|call| call == what).expect(what);
    assert!(at("unit.stop") < at("rootfs.restore"), "{calls:?}");
    assert!(at("rootfs.restore") < at("unit.ensure"), "{calls:?}");

    let deleted = fixture
        .engine
        .delete_snapshot(&name("web"), &label("one"), "test")
        .await;
    let deleted = fixture.ended(deleted.expect("accepted")).await;
    assert_eq!(
        (deleted.verb, deleted.failure),
        (Verb::DeleteSnapshot, None)
    );
    assert!(fixture.host.world().snapshots.is_empty());
    fixture.take("web", "two").await;
    assert_eq!(fixture.destroy("web").await.failure, None);
    assert!(fixture.host.world().is_empty());
    assert!(fixture.labels().await.is_empty());
}

#[tokio::test]
async fn restore_leaves_a_stopped_guest_stopped() {
    let fixture = fixture();
    fixture.create("web").await;
    let stopped = fixture.engine.stop(&name("web"), "test").await;
    fixture.ended(stopped.expect("accepted")).await;
    fixture.write("web", "before");
    fixture.take("web", "one").await;
    fixture.write("web", "after");
    fixture.restore("web", "one").await;
    assert_eq!(fixture.files("web").as_deref(), Some("before"));
    assert_eq!(fixture.state("web").await, Some(GuestState::Stopped));
}

#[tokio::test]
async fn generated_labels_differ() {
    let fixture = fixture();
    fixture.create("web").await;
    for _ in 0..3 {
        let taken = fixture
            .engine
            .snapshot(&name("web"), SnapshotRequest::default(), "test")
            .await;
        let taken = taken.expect("accepted");
        assert_eq!(fixture.ended(taken.accepted).await.failure, None);
    }
    assert_eq!(fixture.labels().await.len(), 3);
}

#[tokio::test]
async fn failed_snapshot_leaves_nothing_and_the_guest_running() {
    let fixture = fixture();
    fixture.create("web").await;
    fixture.host.fail("rootfs.snapshot", 1);
    fixture.host.fail("rootfs.delete_snapshot", 1);
    let failure = fixture.take("web", "one").await.failure.expect("failed");
    assert!(failure.message.contains("rootfs.snapshot"), "{failure:?}");
    fixture
        .until("the file work is cleared", async || {
            let guest = fixture.engine.guest(&name("web")).await.expect("there");
            guest.file_work.is_none() && guest.fault.is_none()
        })
        .await;
    assert!(fixture.host.world().snapshots.is_empty() && fixture.labels().await.is_empty());
    assert_eq!(fixture.state("web").await, Some(GuestState::Running));
    assert_eq!(fixture.take("web", "one").await.failure, None);
}

#[tokio::test]
async fn failed_restore_leaves_the_files_and_the_guest_running() {
    for step in [
        "unit.stop",
        "unit.remove",
        "network.remove",
        "rootfs.restore",
    ] {
        let fixture = fixture();
        fixture.create("web").await;
        fixture.take("web", "one").await;
        fixture.write("web", "after");
        fixture.host.fail(step, 1);
        let failure = fixture.restore("web", "one").await.failure.expect(step);
        assert!(failure.message.contains(step), "{failure:?}");
        fixture
            .until("it runs again", async || {
                fixture.state("web").await == Some(GuestState::Running)
            })
            .await;
        assert_eq!(fixture.files("web").as_deref(), Some("after"), "{step}");
        assert_eq!(fixture.restore("web", "one").await.failure, None, "{step}");
    }
}

#[tokio::test]
async fn restore_is_not_repeated_when_the_start_fails() {
    let fixture = fixture();
    fixture.create("web").await;
    fixture.take("web", "one").await;
    fixture.write("web", "after");
    fixture.host.fail("unit.ensure", 1);
    assert!(fixture.restore("web", "one").await.failure.is_some());
    fixture
        .until("it runs again", async || {
            fixture.state("web").await == Some(GuestState::Running)
        })
        .await;
    let calls = fixture.calls(&name("web"));
    let restored = calls.iter().filter(|call| *call == "rootfs.restore");
    assert_eq!(restored.count(), 1, "{calls:?}");
}

#[tokio::test]
async fn fork_copies_files_and_gets_its_own_identity() {
    let fixture = fixture();
    fixture.create("web").await;
    fixture.write("web", "before");
    fixture.take("web", "one").await;
    fixture.write("web", "after");
    assert_eq!(
        fixture.fork("web", copy_to("now", None)).await.failure,
        None
    );
    let then = fixture.fork("web", copy_to("then", Some("one"))).await;
    assert_eq!((then.verb, then.failure), (Verb::Fork, None));
    assert_eq!(fixture.files("now").as_deref(), Some("after"));
    assert_eq!(fixture.files("then").as_deref(), Some("before"));
    let copy = fixture.engine.guest(&name("then")).await.expect("there");
    assert_eq!((copy.closure, copy.file_work), (Some(a_closure()), None));
    let calls = fixture.calls(&name("then"));
    let at = |what: &str| calls.iter().position(|call| call == what).expect(what);
    // Before Nix can collect what the files refer to.
    assert!(at("closure.inherit") < at("rootfs.ensure"));
    assert!(at("rootfs.ensure") < at("secrets.forget_identity"));
    assert!(at("secrets.forget_identity") < at("secrets.ensure"));
    // The copy still starts after its origin was destroyed.
    fixture.destroy("web").await;
    for change in [Verb::Stop, Verb::Start] {
        let changed: Accepted = match change {
            Verb::Stop => fixture.engine.stop(&name("then"), "test").await,
            _ => fixture.engine.start(&name("then"), "test").await,
        }
        .expect("accepted");
        assert_eq!(fixture.ended(changed).await.failure, None);
    }
    assert_eq!(fixture.files("then").as_deref(), Some("before"));
}

#[tokio::test]
async fn fork_leaves_nothing_when_a_step_fails() {
    for step in [
        "closure.inherit",
        "rootfs.ensure",
        "secrets.forget_identity",
        "unit.release",
    ] {
        let fixture = fixture();
        fixture.create("web").await;
        fixture.host.fail(step, 1);
        let failure = fixture.fork("web", copy_to("copy", None)).await.failure;
        assert!(failure.expect(step).message.contains(step));
        assert_eq!(fixture.state("copy").await, None, "{step}");
        assert_eq!(fixture.files("copy"), None, "{step}");
        assert_eq!(fixture.state("web").await, Some(GuestState::Running));
    }
}

#[tokio::test]
async fn concurrent_forks_to_one_name_refuse_one() {
    let fixture = fixture();
    fixture.create("web").await;
    let web = name("web");
    let fork = || fixture.engine.fork(&web, copy_to("copy", None), "test");
    let (first, second) = tokio::join!(fork(), fork());
    let (won, lost) = match (first, second) {
        (Ok(won), Err(lost)) | (Err(lost), Ok(won)) => (won, lost),
        other => panic!("{other:?}"),
    };
    assert_eq!(lost.code(), Code::GuestExists);
    assert_eq!(fixture.ended(won).await.failure, None);
}

#[tokio::test]
async fn plain_trees_are_copied_only_while_stopped() {
    let fixture = fixture();
    fixture.create("web").await;
    fixture.host.world().plain = true;
    let web = name("web");
    let snapshot = fixture.engine.snapshot(&web, request("one"), "test").await;
    assert_eq!(snapshot.expect_err("refused").code(), Code::GuestRunning);
    let copy = fixture
        .engine
        .fork(&web, copy_to("copy", None), "test")
        .await;
    assert_eq!(copy.expect_err("refused").code(), Code::GuestRunning);

    let stopped = fixture.engine.stop(&web, "test").await.expect("accepted");
    fixture.ended(stopped).await;
    assert_eq!(fixture.take("web", "one").await.failure, None);
    assert_eq!(
        fixture.fork("web", copy_to("copy", None)).await.failure,
        None
    );
    let started = fixture.engine.start(&web, "test").await.expect("accepted");
    fixture.ended(started).await;
    assert_eq!(
        fixture
            .fork("web", copy_to("other", Some("one")))
            .await
            .failure,
        None
    );
    assert_eq!(fixture.restore("web", "one").await.failure, None);
}

#[tokio::test]
async fn snapshots_and_forks_need_room_and_an_agent() {
    let fixture = fixture();
    fixture.create("web").await;
    fixture.take("web", "one").await;
    let preview = fixture
        .engine
        .create_preview(&name("pr-7"), &a_closure(), "test")
        .await;
    fixture.ended(preview.expect("accepted")).await;
    for guest in ["web", "pr-7"] {
        fixture.host.world().full = guest == "web";
        let guest = name(guest);
        let refused = [
            fixture
                .engine
                .snapshot(&guest, request("two"), "test")
                .await
                .err(),
            fixture
                .engine
                .fork(&guest, copy_to("copy", None), "test")
                .await
                .err(),
            fixture
                .engine
                .restore_snapshot(&guest, &label("one"), "test")
                .await
                .err(),
        ];
        for error in refused {
            let expected = match guest.as_str() {
                "web" => Code::RootfsFailed,
                _ => Code::GuestIsPreview,
            };
            assert_eq!(error.expect("refused").code(), expected, "{guest}");
        }
    }
    assert_eq!(fixture.state("copy").await, None);
}

#[tokio::test]
async fn gc_and_doctor_compare_snapshots_with_records() {
    let fixture = fixture();
    fixture.create("web").await;
    fixture.take("web", "one").await;
    let lost = (name("web"), label("lost"));
    fixture
        .host
        .world()
        .snapshots
        .insert(lost.clone(), String::new());
    let swept = fixture
        .engine
        .gc(GcRequest::default())
        .await
        .expect("swept");
    let objects: Vec<_> = swept
        .orphans
        .iter()
        .map(|one| one.object.as_str())
        .collect();
    assert_eq!(objects, ["web.lost"]);
    assert!(!fixture.host.world().snapshots.contains_key(&lost));

    let gone = (name("web"), label("one"));
    fixture.host.world().snapshots.remove(&gone);
    let report = fixture.engine.doctor().await.expect("checks");
    let found = report
        .checks
        .iter()
        .find(|check| check.finding.contains("'one'"));
    let remedy = found.and_then(|check| check.remedy.clone()).expect("found");
    assert!(
        remedy.contains("agent snapshot web --delete one"),
        "{remedy}"
    );
    assert_eq!(fixture.state("web").await, Some(GuestState::Running));
}
