//! Snapshots, returning to them, and guests that begin as a copy.

use innkeeper_model::api::{Accepted, ForkRequest, GcRequest, SnapshotRequest};
use innkeeper_model::{Code, Explain, GuestName, GuestState, Operation, SnapshotLabel, Verb};

use crate::fake::a_closure;
use crate::promises::{Inn, inn, name};

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

impl Inn {
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
        self.end_of(taken.expect("accepted").accepted).await
    }

    async fn restore(&self, guest: &str, text: &str) -> Operation {
        let (guest, label) = (name(guest), label(text));
        let accepted = self.engine.restore_snapshot(&guest, &label, "test").await;
        self.end_of(accepted.expect("accepted")).await
    }

    async fn fork(&self, guest: &str, request: ForkRequest) -> Operation {
        let accepted = self.engine.fork(&name(guest), request, "test").await;
        self.end_of(accepted.expect("accepted")).await
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
async fn a_guest_returns_to_what_it_was_and_goes_with_its_snapshots() {
    let inn = inn();
    inn.create("web").await;
    inn.write("web", "before");
    assert_eq!(inn.take("web", "one").await.failure, None);
    inn.write("web", "after");
    inn.host.world().calls.clear();

    assert_eq!(inn.restore("web", "one").await.failure, None);
    assert_eq!(inn.files("web").as_deref(), Some("before"));
    assert_eq!(inn.state("web").await, Some(GuestState::Running));
    let calls = inn.calls(&name("web"));
    let at = |what: &str| calls.iter().position(|call| call == what).expect(what);
    assert!(at("unit.stop") < at("rootfs.restore"), "{calls:?}");
    assert!(at("rootfs.restore") < at("unit.ensure"), "{calls:?}");

    let deleted = inn
        .engine
        .delete_snapshot(&name("web"), &label("one"), "test")
        .await;
    let deleted = inn.end_of(deleted.expect("accepted")).await;
    assert_eq!(
        (deleted.verb, deleted.failure),
        (Verb::DeleteSnapshot, None)
    );
    assert!(inn.host.world().snapshots.is_empty());
    inn.take("web", "two").await;
    assert_eq!(inn.destroy("web").await.failure, None);
    assert!(inn.host.world().is_empty());
    assert!(inn.labels().await.is_empty());
}

#[tokio::test]
async fn a_guest_that_is_stopped_stays_so() {
    let inn = inn();
    inn.create("web").await;
    let stopped = inn.engine.stop(&name("web"), "test").await;
    inn.end_of(stopped.expect("accepted")).await;
    inn.write("web", "before");
    inn.take("web", "one").await;
    inn.write("web", "after");
    inn.restore("web", "one").await;
    assert_eq!(inn.files("web").as_deref(), Some("before"));
    assert_eq!(inn.state("web").await, Some(GuestState::Stopped));
}

#[tokio::test]
async fn labels_that_are_made_up_differ() {
    let inn = inn();
    inn.create("web").await;
    for _ in 0..3 {
        let taken = inn
            .engine
            .snapshot(&name("web"), SnapshotRequest::default(), "test")
            .await;
        let taken = taken.expect("accepted");
        assert_eq!(inn.end_of(taken.accepted).await.failure, None);
    }
    assert_eq!(inn.labels().await.len(), 3);
}

#[tokio::test]
async fn a_snapshot_that_fails_leaves_nothing_and_the_guest_goes_on() {
    let inn = inn();
    inn.create("web").await;
    inn.host.fail("rootfs.snapshot", 1);
    inn.host.fail("rootfs.delete_snapshot", 1);
    let failure = inn.take("web", "one").await.failure.expect("failed");
    assert!(failure.message.contains("rootfs.snapshot"), "{failure:?}");
    inn.until("nothing is to be done any more", async || {
        let guest = inn.engine.guest(&name("web")).await.expect("there");
        guest.file_work.is_none() && guest.fault.is_none()
    })
    .await;
    assert!(inn.host.world().snapshots.is_empty() && inn.labels().await.is_empty());
    assert_eq!(inn.state("web").await, Some(GuestState::Running));
    assert_eq!(inn.take("web", "one").await.failure, None);
}

#[tokio::test]
async fn a_return_that_fails_leaves_the_guest_as_it_was_and_running() {
    for step in [
        "unit.stop",
        "unit.remove",
        "network.remove",
        "rootfs.restore",
    ] {
        let inn = inn();
        inn.create("web").await;
        inn.take("web", "one").await;
        inn.write("web", "after");
        inn.host.fail(step, 1);
        let failure = inn.restore("web", "one").await.failure.expect(step);
        assert!(failure.message.contains(step), "{failure:?}");
        inn.until("it runs again", async || {
            inn.state("web").await == Some(GuestState::Running)
        })
        .await;
        assert_eq!(inn.files("web").as_deref(), Some("after"), "{step}");
        assert_eq!(inn.restore("web", "one").await.failure, None, "{step}");
    }
}

#[tokio::test]
async fn a_return_whose_guest_does_not_start_is_not_done_twice() {
    let inn = inn();
    inn.create("web").await;
    inn.take("web", "one").await;
    inn.write("web", "after");
    inn.host.fail("unit.ensure", 1);
    assert!(inn.restore("web", "one").await.failure.is_some());
    inn.until("it runs again", async || {
        inn.state("web").await == Some(GuestState::Running)
    })
    .await;
    let calls = inn.calls(&name("web"));
    let restored = calls.iter().filter(|call| *call == "rootfs.restore");
    assert_eq!(restored.count(), 1, "{calls:?}");
}

#[tokio::test]
async fn a_copy_has_the_files_and_an_identity_of_its_own() {
    let inn = inn();
    inn.create("web").await;
    inn.write("web", "before");
    inn.take("web", "one").await;
    inn.write("web", "after");
    assert_eq!(inn.fork("web", copy_to("now", None)).await.failure, None);
    let then = inn.fork("web", copy_to("then", Some("one"))).await;
    assert_eq!((then.verb, then.failure), (Verb::Fork, None));
    assert_eq!(inn.files("now").as_deref(), Some("after"));
    assert_eq!(inn.files("then").as_deref(), Some("before"));
    let copy = inn.engine.guest(&name("then")).await.expect("there");
    assert_eq!((copy.closure, copy.file_work), (Some(a_closure()), None));
    let calls = inn.calls(&name("then"));
    let at = |what: &str| calls.iter().position(|call| call == what).expect(what);
    assert!(at("rootfs.ensure") < at("secrets.forget_identity"));
    assert!(at("secrets.forget_identity") < at("secrets.ensure"));
    // The origin may go, and the copy starts all the same.
    inn.destroy("web").await;
    for change in [Verb::Stop, Verb::Start] {
        let changed: Accepted = match change {
            Verb::Stop => inn.engine.stop(&name("then"), "test").await,
            _ => inn.engine.start(&name("then"), "test").await,
        }
        .expect("accepted");
        assert_eq!(inn.end_of(changed).await.failure, None);
    }
    assert_eq!(inn.files("then").as_deref(), Some("before"));
}

#[tokio::test]
async fn a_failure_in_any_step_of_a_copy_leaves_nothing_of_it() {
    for step in ["rootfs.ensure", "secrets.forget_identity", "unit.release"] {
        let inn = inn();
        inn.create("web").await;
        inn.host.fail(step, 1);
        let failure = inn.fork("web", copy_to("copy", None)).await.failure;
        assert!(failure.expect(step).message.contains(step));
        assert_eq!(inn.state("copy").await, None, "{step}");
        assert_eq!(inn.files("copy"), None, "{step}");
        assert_eq!(inn.state("web").await, Some(GuestState::Running));
    }
}

#[tokio::test]
async fn of_two_copies_of_one_name_one_is_refused() {
    let inn = inn();
    inn.create("web").await;
    let web = name("web");
    let fork = || inn.engine.fork(&web, copy_to("copy", None), "test");
    let (first, second) = tokio::join!(fork(), fork());
    let (won, lost) = match (first, second) {
        (Ok(won), Err(lost)) | (Err(lost), Ok(won)) => (won, lost),
        other => panic!("{other:?}"),
    };
    assert_eq!(lost.code(), Code::GuestExists);
    assert_eq!(inn.end_of(won).await.failure, None);
}

#[tokio::test]
async fn plain_trees_are_copied_only_while_the_guest_does_not_run() {
    let inn = inn();
    inn.create("web").await;
    inn.host.world().plain = true;
    let web = name("web");
    let snapshot = inn.engine.snapshot(&web, request("one"), "test").await;
    assert_eq!(snapshot.expect_err("refused").code(), Code::GuestRunning);
    let copy = inn.engine.fork(&web, copy_to("copy", None), "test").await;
    assert_eq!(copy.expect_err("refused").code(), Code::GuestRunning);

    let stopped = inn.engine.stop(&web, "test").await.expect("accepted");
    inn.end_of(stopped).await;
    assert_eq!(inn.take("web", "one").await.failure, None);
    assert_eq!(inn.fork("web", copy_to("copy", None)).await.failure, None);
    let started = inn.engine.start(&web, "test").await.expect("accepted");
    inn.end_of(started).await;
    assert_eq!(
        inn.fork("web", copy_to("other", Some("one"))).await.failure,
        None
    );
    assert_eq!(inn.restore("web", "one").await.failure, None);
}

#[tokio::test]
async fn nothing_is_begun_without_room_or_on_a_preview() {
    let inn = inn();
    inn.create("web").await;
    inn.take("web", "one").await;
    let preview = inn
        .engine
        .create_preview(&name("pr-7"), &a_closure(), "test")
        .await;
    inn.end_of(preview.expect("accepted")).await;
    for guest in ["web", "pr-7"] {
        inn.host.world().full = guest == "web";
        let guest = name(guest);
        let refused = [
            inn.engine
                .snapshot(&guest, request("two"), "test")
                .await
                .err(),
            inn.engine
                .fork(&guest, copy_to("copy", None), "test")
                .await
                .err(),
            inn.engine
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
    assert_eq!(inn.state("copy").await, None);
}

#[tokio::test]
async fn gc_and_doctor_find_snapshots_that_nobody_knows_of_and_that_are_not_there() {
    let inn = inn();
    inn.create("web").await;
    inn.take("web", "one").await;
    let lost = (name("web"), label("lost"));
    inn.host
        .world()
        .snapshots
        .insert(lost.clone(), String::new());
    let swept = inn.engine.gc(GcRequest::default()).await.expect("swept");
    let objects: Vec<_> = swept
        .orphans
        .iter()
        .map(|one| one.object.as_str())
        .collect();
    assert_eq!(objects, ["web.lost"]);
    assert!(!inn.host.world().snapshots.contains_key(&lost));

    let gone = (name("web"), label("one"));
    inn.host.world().snapshots.remove(&gone);
    let report = inn.engine.doctor().await.expect("looks");
    let found = report
        .checks
        .iter()
        .find(|check| check.finding.contains("'one'"));
    let remedy = found.and_then(|check| check.remedy.clone()).expect("found");
    assert!(
        remedy.contains("agent snapshot web --delete one"),
        "{remedy}"
    );
    assert_eq!(inn.state("web").await, Some(GuestState::Running));
}
