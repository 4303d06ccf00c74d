//! Files of older versions are migrated with all their data. Each released version has a dump here, made with
//! `sqlite3 innkeeper.db .dump`, which is never changed.

use innkeeper_model::access::{Role, TokenKind};
use innkeeper_model::preview::api::DeliveryState;
use innkeeper_model::preview::{PreviewState, PullDetails, RepoName, Rollout, Situation};
use innkeeper_model::{
    ChangeOutcome, ChangePhase, Code, DesiredState, FileWork, IdlePolicy, Level, Limits,
    OperationId, OperationState, OwnSystemState, RetainedId, Slot,
};
use innkeeper_store::{
    AuditFilter, DeliveryFilter, EventFilter, PreviewRequest, RunningTime, Store, StoredToken,
};
use rusqlite::Connection;

use crate::dumps::{
    VERSION_1, VERSION_2, VERSION_3, VERSION_4, VERSION_5, VERSION_6, VERSION_7, VERSION_9,
    VERSION_10, VERSION_11, VERSION_12, VERSION_13, VERSION_14, VERSION_15, VERSION_16, VERSION_17,
    VERSION_18, VERSION_19, VERSION_20, VERSION_21, VERSION_22, VERSION_23, VERSION_24, VERSION_25,
    VERSION_26, VERSION_27, VERSION_28, VERSION_29, VERSION_30,
};
use crate::support::{SUBNET, closure, database, name, open};

/// The newest version that has a dump. A new migration needs a new one.
const NEWEST: i64 = 32;

pub(crate) fn restore(dump: &str) -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().expect("directory");
    let path = database(directory.path());
    let connection = Connection::open(&path).expect("opens");
    connection.execute_batch(dump).expect("restores");
    connection.close().expect("closes");
    let store = open(&path, SUBNET).expect("migrates");
    (directory, store)
}

/// Returns the statements that created the tables and indexes, as SQLite stores them.
fn schema(connection: &Connection) -> Vec<String> {
    connection
        .prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name")
        .expect("prepares")
        .query_map((), |row| row.get(0))
        .expect("reads")
        .collect::<Result<_, _>>()
        .expect("reads")
}

#[tokio::test]
async fn version_1_is_migrated_with_its_data() {
    let (_directory, store) = restore(VERSION_1);
    let guests = store.guests().await.expect("reads");
    let [broken, web] = &guests[..] else {
        panic!("{guests:?}");
    };
    assert_eq!(
        (&web.name, web.slot.number(), web.desired),
        (&name("web"), 2, DesiredState::Running)
    );
    assert_eq!(web.closure, Some(closure()));
    assert_eq!(web.created_at.to_string(), "2026-11-20T10:00:00.000001Z");
    assert_eq!(
        broken.fault.as_ref().map(|fault| fault.code),
        Some(Code::RootfsFailed)
    );

    let report = store.slots().await.expect("report");
    assert_eq!((report.counter, report.taken.len()), (5, 3));
    let running = store.running_operations().await.expect("reads");
    assert_eq!(running.len(), 1);
    let failed = store.operation(OperationId(3)).await.expect("reads");
    assert_eq!(failed.expect("kept").state, OperationState::Failed);
    assert_eq!(
        store
            .events(EventFilter::default())
            .await
            .expect("reads")
            .len(),
        3
    );
    let flake = innkeeper_model::Installable::parse("/srv/fleet", "agent").expect("installable");
    assert!(store.cached_closure(&flake).await.expect("reads").is_some());
}

#[tokio::test]
async fn version_2_is_migrated_with_its_data() {
    let (_directory, store) = restore(VERSION_2);
    assert_eq!(store.guests().await.expect("reads").len(), 2);
    let kept = store.deliveries(DeliveryFilter::default()).await;
    let states: Vec<_> = kept.expect("reads").iter().rev().map(|d| d.state).collect();
    let (pending, failed) = (DeliveryState::Pending, DeliveryState::Failed);
    let (done, superseded) = (DeliveryState::Done, DeliveryState::Superseded);
    assert_eq!(states, [superseded, done, pending, failed, pending]);

    let web = store
        .preview(&name("web-7"))
        .await
        .expect("reads")
        .expect("kept");
    assert_eq!(web.record.state, PreviewState::Failed);
    assert_eq!(
        web.record.fault.map(|fault| fault.code),
        Some(Code::GithubFailed)
    );
    assert_eq!((web.comment_id, web.deployment_id), (Some(5), Some(6)));
    let key = web.evaluation.expect("was evaluated");
    let evaluation = store.evaluation(&key).await.expect("reads").expect("kept");
    assert_eq!(
        (evaluation.closure, Some(evaluation.meta)),
        (closure(), web.live_meta)
    );
    assert_eq!(store.previews().await.expect("reads").len(), 2);
}

#[tokio::test]
async fn version_3_is_migrated_with_its_data() {
    for (dump, dirty) in [(VERSION_2, [false, false]), (VERSION_3, [true, false])] {
        let (_directory, store) = restore(dump);
        let previews = store.previews().await.expect("reads");
        let read: Vec<_> = previews.iter().map(|preview| preview.dirty).collect();
        assert_eq!(read, dirty);
    }
}

#[tokio::test]
async fn version_4_is_migrated_with_its_data() {
    for (dump, by_label) in [(VERSION_3, [false, false]), (VERSION_4, [true, false])] {
        let (_directory, store) = restore(dump);
        let previews = store.previews().await.expect("reads");
        let read = previews.iter().map(|preview| preview.approved_by_label);
        assert_eq!(read.collect::<Vec<_>>(), by_label);
    }
}

#[tokio::test]
async fn version_5_is_migrated_with_its_data() {
    let (_directory, store) = restore(VERSION_4);
    assert_eq!(store.snapshots().await.expect("reads"), []);
    let (_directory, store) = restore(VERSION_5);
    let snapshots = store.snapshots().await.expect("reads");
    let labels: Vec<_> = snapshots.iter().map(|one| one.label.as_str()).collect();
    assert_eq!(labels, ["before-upgrade", "20261120-100200"]);
    let web = store.guest(&name("web")).await.expect("reads");
    let label = snapshots[0].label.clone();
    assert_eq!(
        web.and_then(|web| web.file_work),
        Some(FileWork::Restore(label))
    );
}

#[tokio::test]
async fn version_6_is_migrated_with_its_data() {
    for (dump, announced) in [
        (VERSION_5, [(false, 0), (false, 0)]),
        (VERSION_6, [(true, 3), (false, 0)]),
    ] {
        let (_directory, store) = restore(dump);
        let previews = store.previews().await.expect("reads");
        let read = previews.iter().map(|preview| {
            let is_wanted = preview.announced_sha.as_ref() == Some(&preview.record.wanted_sha);
            (is_wanted, preview.announced_after)
        });
        assert_eq!(read.collect::<Vec<_>>(), announced);
    }
}

#[tokio::test]
async fn version_7_is_migrated_with_its_data() {
    for (dump, seconds) in [(VERSION_6, 0), (VERSION_7, 93_784)] {
        let (_directory, store) = restore(dump);
        let running = store.running_time().await.expect("reads");
        let since_then = running.since(RunningTime::default()).as_secs();
        assert!((seconds..seconds + 60).contains(&since_then));
    }
}

#[tokio::test]
async fn version_9_is_migrated_with_its_data() {
    let (_directory, store) = restore(VERSION_9);
    let identity = store.identity().await.expect("reads");
    assert_eq!(identity.daemon.as_str(), "5f0c1d2e3b4a59687786a5b4c3d2e1f0");
    assert!(identity.adopted);
}

/// A database of a release without identities has objects to adopt, once, and keeps its new identity.
#[tokio::test]
async fn identity_is_created_once() {
    let (directory, old) = restore(VERSION_7);
    let first = old.identity().await.expect("reads");
    assert!(!first.adopted);
    old.finish_adoption().await.expect("records");
    old.close().await.expect("closes");
    let again = open(&database(directory.path()), SUBNET).expect("opens");
    let second = again.identity().await.expect("reads");
    assert_eq!(
        (second.daemon, second.adopted),
        (first.daemon.clone(), true)
    );

    let fresh = tempfile::tempdir().expect("directory");
    let fresh = open(&database(fresh.path()), SUBNET).expect("opens");
    let fresh = fresh.identity().await.expect("reads");
    assert!(fresh.adopted, "a new database has no objects to adopt");
    assert_ne!(fresh.daemon, first.daemon);
}

#[tokio::test]
async fn version_10_is_migrated_with_its_data() {
    for (dump, seconds) in [(VERSION_9, [93_784; 2]), (VERSION_10, [93_000, 0])] {
        let (_directory, store) = restore(dump);
        let previews = store.previews().await.expect("reads");
        let began = RunningTime::default();
        let read = previews
            .iter()
            .map(|preview| preview.active_running.since(began).as_secs());
        assert_eq!(read.collect::<Vec<_>>(), seconds);
    }
}

#[tokio::test]
async fn version_11_is_migrated_with_its_data() {
    let repo = RepoName::parse("octo/web").expect("a name");
    for (dump, id, to_check) in [
        (VERSION_10, None, [""; 0].to_vec()),
        (VERSION_11, Some(1_296_269), vec!["renamed-/old.1296270"]),
    ] {
        let (_directory, store) = restore(dump);
        let identity = store.repo_identity(&repo).await.expect("reads");
        assert_eq!((identity.id, identity.is_first), (id, true));
        let names = store.repos_to_check().await.expect("reads");
        let names: Vec<_> = names.iter().map(RepoName::as_str).collect();
        assert_eq!(names, to_check);
    }
}

#[tokio::test]
async fn version_12_is_migrated_with_its_data() {
    let (_directory, store) = restore(VERSION_11);
    assert!(store.retained().await.expect("reads").is_empty());
    let (_directory, store) = restore(VERSION_12);
    let retained = store.retained().await.expect("reads");
    let [web, old] = &retained[..] else {
        panic!("{retained:?}");
    };
    assert_eq!(
        (web.record.id, web.record.bytes),
        (RetainedId(3), Some(4096))
    );
    assert_eq!(
        (&web.record.name, &web.record.closure),
        (&name("web"), &Some(closure()))
    );
    let now = store.running_time().await.expect("reads");
    assert!((784..844).contains(&now.since(web.since).as_secs()));
    assert_eq!(
        (old.record.removing, old.operation),
        (true, Some(OperationId(5)))
    );
    let broken = store
        .guest(&name("broken"))
        .await
        .expect("reads")
        .expect("there");
    assert_eq!(broken.retain, Some(RetainedId(5)));
}

#[tokio::test]
async fn version_13_is_migrated_with_its_data() {
    let (_directory, store) = restore(VERSION_12);
    assert!(store.pings().await.expect("reads").is_empty());
    let (_directory, store) = restore(VERSION_13);
    let pings = store.pings().await.expect("reads");
    let [ping] = &pings[..] else {
        panic!("{pings:?}");
    };
    assert_eq!(ping.owner, "octo/web");
    assert_eq!(ping.problems[0].remedy, "Select it.");
    assert_eq!(store.retained().await.expect("reads").len(), 2);
}

#[tokio::test]
async fn version_14_is_migrated_with_its_data() {
    for (dump, request, reset) in [
        (VERSION_13, None, false),
        (VERSION_14, Some(PreviewRequest::Command), true),
    ] {
        let (_directory, store) = restore(dump);
        let web = store.preview(&name("web-7")).await.expect("reads");
        let web = web.expect("kept");
        assert_eq!((web.request, web.reset_database), (request, reset));
    }
    let (_directory, store) = restore(VERSION_14);
    let command = store.delivery("c0ffee00-cc78-11e3-81ab-4c9367dc0958").await;
    let command = command.expect("reads").expect("kept");
    assert_eq!(command.state, DeliveryState::Pending);
    assert_eq!(command.event.action(), "/preview reset-db");
}

#[tokio::test]
async fn version_15_is_migrated_with_its_data() {
    // Former releases reported on every preview.
    for (dump, expected) in [
        (VERSION_14, [(true, false), (true, false)]),
        (VERSION_15, [(true, true), (false, false)]),
    ] {
        let (_directory, store) = restore(dump);
        let previews = store.previews().await.expect("reads");
        let read = previews
            .iter()
            .map(|preview| (preview.config_seen, preview.removal_running.is_some()));
        assert_eq!(read.collect::<Vec<_>>(), expected);
    }
}

#[tokio::test]
async fn version_16_is_migrated_with_its_data() {
    let rollout = async |dump| {
        let (_directory, store) = restore(dump);
        let web = store.preview(&name("web-7")).await.expect("reads");
        let checks = store.open_checks().await.expect("reads");
        (web.expect("kept").record.rollout, checks)
    };
    let (before, checks) = rollout(VERSION_15).await;
    assert_eq!((before, checks), (Rollout::default(), Vec::new()));
    let (after, checks) = rollout(VERSION_16).await;
    assert_eq!((after.attempt, after.duration_ms), (3, Some(30_000)));
    assert_eq!(
        after.live_at.expect("live").to_string(),
        "2026-11-20T10:00:30.000003Z"
    );
    assert_eq!(after.changes.expect("known").lines(), ["+ nodejs 22.1"]);
    let situations: Vec<_> = checks.iter().map(|check| check.situation).collect();
    assert_eq!(situations, [None, Some(Situation::NoConfig)]);
}

#[tokio::test]
async fn version_17_is_migrated_with_its_data() {
    for (dump, expected) in [
        (VERSION_16, None),
        (VERSION_17, Some("apps/api/preview.nix")),
    ] {
        let (_directory, store) = restore(dump);
        let web = store.preview(&name("web-7")).await.expect("reads");
        let web = web.expect("kept").record;
        assert_eq!((web.pull_request, web.config_path), (Some(7), None));
        let api = store.preview(&name("web-7-api")).await.expect("reads");
        let path = api.and_then(|api| api.record.config_path);
        assert_eq!(
            path.as_ref()
                .map(innkeeper_model::preview::sources::SourcePath::as_str),
            expected
        );
    }
}

#[tokio::test]
async fn version_18_is_migrated_with_its_data() {
    let web = name("web-7");
    let (_directory, store) = restore(VERSION_17);
    let preview = store.preview(&web).await.expect("reads").expect("there");
    // Unknown counts as private.
    assert_eq!(preview.details, PullDetails::default());
    assert!(!preview.details.is_public());
    let (_directory, store) = restore(VERSION_18);
    let preview = store.preview(&web).await.expect("reads").expect("there");
    assert_eq!(preview.details.title.as_deref(), Some("A menu"));
    assert_eq!(preview.details.author.as_deref(), Some("mona"));
    assert!(preview.details.is_public());
}

#[tokio::test]
async fn version_19_is_migrated_with_its_data() {
    let with_host = VERSION_18.replace(
        r#""extraHosts":[]"#,
        r#""extraHosts":[{"prefix":"api","routes":[]}]"#,
    );
    let repo = RepoName::parse("Octo/Web").expect("a name");
    let other = RepoName::parse("octo/other").expect("a name");
    for (dump, has_prefix, visited) in [
        (VERSION_18, false, false),
        (&with_host, true, false),
        (VERSION_19, true, true),
    ] {
        let (directory, store) = restore(dump);
        let has = async |repo| store.has_older_prefix(repo, &name("api")).await;
        assert_eq!(has(Some(&repo)).await.expect("reads"), has_prefix);
        assert_eq!(has(None).await.expect("reads"), has_prefix);
        assert!(!has(Some(&other)).await.expect("reads"));
        let dev = store.has_older_prefix(None, &name("dev")).await;
        assert!(!dev.expect("reads"));
        let rows = Connection::open(database(directory.path())).expect("opens");
        let sql = "SELECT count(visited_at) FROM previews";
        let count: i64 = rows.query_row(sql, (), |row| row.get(0)).expect("reads");
        assert_eq!(count > 0, visited);
    }
}

#[tokio::test]
async fn version_20_is_migrated_with_its_data() {
    let runs = async |dump| {
        let (_directory, store) = restore(dump);
        let guests = store.guests().await.expect("reads");
        let runs = guests.into_iter().map(|guest| {
            let Limits {
                user_ids, nesting, ..
            } = guest.limits;
            (guest.name.to_string(), user_ids.slots(), nesting)
        });
        let taken = store.slots().await.expect("report").taken;
        let counts: Vec<_> = taken.iter().map(|t| (t.slot.number(), t.count)).collect();
        (runs.collect::<Vec<_>>(), counts)
    };
    let (broken, web) = (
        ("broken".to_owned(), 1, false),
        ("web".to_owned(), 1, false),
    );
    let (guests, taken) = runs(VERSION_19).await;
    assert_eq!(guests, [broken.clone(), web.clone()]);
    assert_eq!(taken, [(2, 1), (3, 1), (5, 1)]);
    let (guests, taken) = runs(VERSION_20).await;
    assert_eq!(guests, [broken, web, ("wide".to_owned(), 2, true)]);
    assert_eq!(taken, [(2, 1), (3, 1), (5, 1), (6, 2)]);
}

#[tokio::test]
async fn version_21_is_migrated_with_its_data() {
    let web = name("web");
    let (_directory, store) = restore(VERSION_20);
    let guest = store.guest(&web).await.expect("reads").expect("there");
    assert_eq!((guest.change, guest.last_change), (None, None));
    assert!(!guest.declared);
    let (_directory, store) = restore(VERSION_21);
    let guest = store.guest(&web).await.expect("reads").expect("there");
    let change = guest.change.expect("in progress");
    assert_eq!(change.phase, ChangePhase::Boot);
    assert_eq!(change.other.closure, Some(closure()));
    let last = guest.last_change.expect("one");
    assert_eq!(last.outcome, ChangeOutcome::Switched);
    assert!(guest.declared);
}

#[tokio::test]
async fn version_22_is_migrated_with_its_data() {
    for (dump, expected) in [
        (VERSION_21, [Level::Awake, Level::Awake]),
        (VERSION_22, [Level::Paused, Level::Asleep]),
    ] {
        let (_directory, store) = restore(dump);
        let level = async |guest| {
            let guest = store.guest(&name(guest)).await.expect("reads");
            guest.expect("there").level
        };
        assert_eq!([level("web").await, level("wide").await], expected);
    }
}

#[tokio::test]
async fn version_23_is_migrated_with_its_data() {
    let own = async |dump| {
        let (_directory, store) = restore(dump);
        let guest = store.guest(&name("wide")).await.expect("reads");
        guest.expect("there").own_system
    };
    assert_eq!(own(VERSION_22).await, None);
    let own = own(VERSION_23).await.expect("one");
    assert_eq!(own.state, OwnSystemState::Failed);
    assert_eq!(own.failure.expect("a reason").code, Code::GuestUnhealthy);
}

#[tokio::test]
async fn version_24_is_migrated_with_its_data() {
    let failures = async |dump| {
        let (_directory, store) = restore(dump);
        let wide = store.guest(&name("wide")).await.expect("reads");
        let rollback = store.rollback_of(OperationId(5)).await.expect("reads");
        let failures = [wide.expect("there").wake_failure, rollback];
        failures.map(|failure| failure.map(|failure| failure.code))
    };
    assert_eq!(failures(VERSION_23).await, [None, None]);
    let expected = [Some(Code::RootfsFailed), Some(Code::Internal)];
    assert_eq!(failures(VERSION_24).await, expected);
}

#[tokio::test]
async fn version_25_is_migrated_with_its_data() {
    let (_directory, store) = restore(VERSION_24);
    assert_eq!(store.seats().await.expect("reads"), []);
    let (_directory, store) = restore(VERSION_25);
    let seats = store.seats().await.expect("reads");
    let slots: Vec<_> = seats.iter().map(|seat| seat.slot).collect();
    assert_eq!(slots, [Slot::new(2), Slot::new(7)]);
    assert!(seats[1].ready && seats[1].guest.is_none());
    let of_web = store.seat_of(&name("web")).await.expect("reads");
    assert_eq!(of_web.as_ref(), Some(&seats[0]));
}

#[tokio::test]
async fn version_26_is_migrated_with_its_data() {
    let policy = async |store: &Store, guest| {
        let guest = store.guest(&name(guest)).await.expect("reads");
        guest.expect("there").idle_policy
    };
    // Agents that never rested by themselves do not begin with it; previews follow the configuration.
    let (_directory, store) = restore(VERSION_25);
    assert_eq!(policy(&store, "web").await, Some(IdlePolicy::AlwaysOn));
    assert_eq!(policy(&store, "broken").await, None);
    assert_eq!(store.keepalives().await.expect("reads"), []);
    let (_directory, store) = restore(VERSION_26);
    assert_eq!(policy(&store, "web").await, Some(IdlePolicy::Pause));
    let kept = store.keepalives().await.expect("reads");
    assert_eq!(kept.len(), 1);
}

#[tokio::test]
async fn version_27_is_migrated_with_its_data() {
    let owner = async |store: &Store| {
        let guest = store.guest(&name("web")).await.expect("reads");
        guest.expect("there").owner
    };
    let (_directory, store) = restore(VERSION_26);
    assert_eq!(owner(&store).await, None);
    assert_eq!(store.tokens().await.expect("reads"), []);
    let (_directory, store) = restore(VERSION_27);
    assert_eq!(owner(&store).await.as_deref(), Some("token:2"));
    let tokens = store.tokens().await.expect("reads");
    let revoked: Vec<_> = (tokens.iter())
        .map(|token| (token.record.role, token.record.revoked_at.is_some()))
        .collect();
    assert_eq!(revoked, [(Role::Viewer, false), (Role::Admin, true)]);
    let filter = AuditFilter {
        limit: 10,
        ..AuditFilter::default()
    };
    let results: Vec<_> = (store.audit(filter).await.expect("reads").into_iter())
        .map(|entry| (entry.seq, entry.result))
        .collect();
    assert_eq!(results, [(4, Some("ok".to_owned())), (5, None)]);
}

#[tokio::test]
async fn version_28_is_migrated_with_its_data() {
    let closures = async |dump| {
        let (_directory, store) = restore(dump);
        let seats = store.seats().await.expect("reads");
        seats
            .into_iter()
            .map(|seat| seat.closure)
            .collect::<Vec<_>>()
    };
    assert_eq!(closures(VERSION_27).await, [None, None]);
    assert_eq!(closures(VERSION_28).await, [None, None, Some(closure())]);
}

#[tokio::test]
async fn version_29_is_migrated_with_its_data() {
    let (_directory, store) = restore(VERSION_28);
    assert_eq!(store.stale_secrets().await.expect("reads"), []);
    let (_directory, store) = restore(VERSION_29);
    let stale = store.stale_secrets().await.expect("reads");
    let read: Vec<_> = (stale.iter())
        .map(|one| (one.seq, one.slug.as_str(), one.name.as_str()))
        .collect();
    assert_eq!(read, [(3, "web-7", "MAIL_KEY")]);
}

#[tokio::test]
async fn version_30_is_migrated_with_its_data() {
    let kinds = async |store: &Store| {
        let tokens = store.tokens().await.expect("reads");
        let kind = |token: StoredToken| (token.record.kind, token.record.person.is_some());
        tokens.into_iter().map(kind).collect::<Vec<_>>()
    };
    let (_directory, store) = restore(VERSION_29);
    assert_eq!(kinds(&store).await, [(TokenKind::Token, false); 2]);
    assert_eq!(store.persons().await.expect("reads"), []);
    let (_directory, store) = restore(VERSION_30);
    let kinds = kinds(&store).await;
    assert_eq!(kinds.last(), Some(&(TokenKind::Browser, true)));
    let persons = store.persons().await.expect("reads");
    assert_eq!(persons[0].groups.teams, ["octo/platform"]);
}

#[test]
fn migrated_schema_equals_a_new_one() {
    let (old_directory, _old) = restore(VERSION_1);
    let new_directory = tempfile::tempdir().expect("directory");
    let _new = open(&database(new_directory.path()), SUBNET).expect("opens");
    let old = Connection::open(database(old_directory.path())).expect("opens");
    let new = Connection::open(database(new_directory.path())).expect("opens");
    assert_eq!(schema(&old), schema(&new));
    let version: i64 = new
        .query_row("PRAGMA user_version", (), |row| row.get(0))
        .expect("reads");
    assert_eq!(
        version, NEWEST,
        "add a dump of the new version and a test that reads it"
    );
}
