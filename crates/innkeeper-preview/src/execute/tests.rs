use std::sync::atomic::AtomicUsize;

use innkeeper_facilities::RouteState;
use innkeeper_facilities::fake::ExecResult;
use innkeeper_model::Code;
use innkeeper_model::preview::Meta;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use super::*;
use crate::fixture::{Harness, closure, sha, slug};

mod rest;

/// An app on the address of the first guest. Ends with its harness's runtime.
async fn serve_app() -> u16 {
    let listener = TcpListener::bind("127.100.0.3:0").await.expect("binds");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer).await.ok();
        }
    });
    port
}

/// A preview with a live version whose app answers on a port.
async fn harness(port: u16) -> Harness {
    harness_with(port, |_| {}).await
}

async fn harness_with(port: u16, change: impl FnOnce(&mut PreviewsConfig)) -> Harness {
    let harness = Harness::with(change).await;
    harness.claim().await;
    let meta = format!(
        r#"{{"setupService":"setup.service","appServices":["app.service"],"database":"host",
            "routes":[{{"path":"/","port":{port}}}]}}"#
    );
    harness
        .set(vec![
            PreviewFact::Live {
                sha: sha('a'),
                closure: closure(),
                meta: Box::new(Meta::parse(&meta).expect("valid")),
            },
            PreviewFact::State(PreviewState::Live),
        ])
        .await;
    harness.host.world().exec = Some(Arc::new(|_, request| run(&request.command)));
    harness
}

/// Runs a command in a guest whose services are up.
fn run(command: &[String]) -> ExecResult {
    let is_query = command.iter().any(|word| word == "show");
    let up = "Type=simple\nActiveState=active\nResult=success\n";
    ExecResult {
        stdout: if is_query { up } else { "" }.to_owned(),
        ..ExecResult::default()
    }
}

async fn execute(harness: &Harness) -> Result<(), PreviewError> {
    let preview = harness.preview().await.expect("exists");
    let executor = &harness.parts.parts.executor;
    executor.execute(&preview, Plan::of(&preview)).await
}

fn calls(harness: &Harness) -> Vec<String> {
    harness.host.world().calls.clone()
}

fn called(harness: &Harness, call: &str) -> bool {
    calls(harness)
        .iter()
        .any(|made| made == &format!("{call} web-7"))
}

#[tokio::test]
async fn lost_guest_is_restored_with_its_files_and_route() {
    let harness = harness(serve_app().await).await;
    execute(&harness).await.expect("restored");
    let world = harness.host.world();
    assert!(world.databases.contains_key(&slug()));
    assert!(world.routes.contains_key(&slug()));
    let environment = &world.guest_files[&(slug(), "/etc/preview.env")];
    let environment = String::from_utf8_lossy(environment);
    assert!(
        environment.contains("DATABASE_URL='postgresql://"),
        "{environment}"
    );
}

#[tokio::test]
async fn password_of_a_new_database_and_the_token_are_masked() {
    let harness = harness_with(serve_app().await, |config| config.share_token = true).await;
    let masks = &harness.parts.parts.masks;
    // The first line of the log comes before there is a database.
    masks.of(&slug()).await;
    execute(&harness).await.expect("restored");
    let mask = masks.of(&slug()).await;
    let world = harness.host.world();
    for path in ["/etc/preview.env", "/etc/preview-token"] {
        let file = &world.guest_files[&(slug(), path)];
        let file = String::from_utf8_lossy(file);
        let shown = mask.text(&file);
        assert!(shown.contains("***"), "{shown}");
        assert!(!shown.contains("password of"), "{shown}");
    }
}

#[tokio::test]
async fn running_app_is_not_touched() {
    let harness = harness(serve_app().await).await;
    execute(&harness).await.expect("restored");
    let commands = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&commands);
    harness.host.world().exec = Some(Arc::new(move |_, request| {
        if starts(&request.command) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        run(&request.command)
    }));
    harness.host.world().calls.clear();
    execute(&harness).await.expect("maintained");
    assert_eq!(commands.load(Ordering::Relaxed), 0);
    assert!(!called(&harness, "unit.ensure"));
    assert!(!called(&harness, "route.ensure"));
}

#[tokio::test]
async fn service_that_fails_is_the_result_with_its_journal() {
    let harness = harness(serve_app().await).await;
    harness.host.world().exec = Some(Arc::new(|_, request| match &request.command[..] {
        [_, verb, ..] if verb == "restart" => ExecResult {
            status: 1,
            ..ExecResult::default()
        },
        [program, ..] if program == "journalctl" => ExecResult {
            stdout: "no such module\n".to_owned(),
            ..ExecResult::default()
        },
        _ => ExecResult::default(),
    }));
    let error = execute(&harness).await.expect_err("fails");
    assert_eq!(error.code(), Code::AppUnhealthy);
    assert_eq!(error.log(), ["no such module"]);
    assert!(!called(&harness, "route.ensure"));
}

#[tokio::test]
async fn removal_leaves_no_object_and_no_record() {
    let harness = harness(serve_app().await).await;
    execute(&harness).await.expect("restored");
    assert!(!harness.host.world().is_empty());
    let absent = innkeeper_store::Presence::Absent;
    harness.set(vec![PreviewFact::Desired(absent)]).await;
    execute(&harness).await.expect("removed");
    assert!(harness.host.world().is_empty());
    assert!(harness.preview().await.is_none());
}

#[tokio::test]
async fn removal_keeps_the_guest_of_a_route_that_is_left() {
    let harness = harness(serve_app().await).await;
    execute(&harness).await.expect("restored");
    let absent = innkeeper_store::Presence::Absent;
    harness.set(vec![PreviewFact::Desired(absent)]).await;
    harness.host.fail("route.remove", 1);
    execute(&harness).await.expect_err("the route is left");
    // The slot must not be reassigned, and everything else goes.
    assert!(harness.store.guest(&slug()).await.expect("read").is_some());
    assert!(called(&harness, "unit.stop"));
    assert!(harness.host.world().databases.is_empty());
    assert!(harness.preview().await.is_some());
    execute(&harness).await.expect("removed");
    assert!(harness.host.world().is_empty());
}

/// Answers the search for the configuration of the next commit.
fn answer_search(harness: &Harness, found: bool) {
    let files: &[&str] = if found { &["preview-config.nix"] } else { &[] };
    harness.github.with(|world| world.answer_root(files));
}

/// The requests that change anything on GitHub.
fn publications(harness: &Harness) -> usize {
    harness.github.with(|world| {
        let mut requests = world.requests.iter();
        requests
            .by_ref()
            .filter(|request| !matches!(request.method.as_str(), "GET" | "HEAD"))
            .count()
    })
}

#[tokio::test]
async fn unreadable_commit_keeps_the_live_version() {
    let harness = harness(serve_app().await).await;
    execute(&harness).await.expect("restored");
    harness.host.world().routes.clear();
    let queued = vec![PreviewFact::State(PreviewState::Queued)];
    harness.set(queued).await;
    // The fake repository has no commits at all.
    let error = execute(&harness).await.expect_err("no access");
    assert_eq!(error.code(), Code::NoAccess);
    assert!(error.is_transient());
    assert!(harness.host.world().routes.contains_key(&slug()));
    assert_eq!(harness.record().await.live_sha, Some(sha('a')));
}

#[tokio::test]
async fn pull_request_without_a_configuration_is_left_alone() {
    for head in [Some(crate::fixture::repo()), None] {
        let harness = Harness::new().await;
        harness.open_pull(sha('a'));
        harness.claim_unseen().await;
        // Also one of a fork, which would wait for an approval.
        let head = PreviewFact::Head {
            repo: head,
            branch: crate::fixture::branch(),
            sha: sha('a'),
        };
        harness.set(vec![head]).await;
        answer_search(&harness, false);
        let error = execute(&harness).await.expect_err("no configuration");
        assert_eq!(error.code(), Code::ConfigMissing);
        let before = harness.preview().await.expect("exists");
        assert_eq!(before.record.state, PreviewState::Queued);
        assert!(harness.host.world().is_empty());
        let reporter = &harness.parts.parts.reporter;
        reporter.report_again(&slug()).await.expect("nothing");
        reporter.report_removal(&before).await.expect("nothing");
        assert_eq!(publications(&harness), 0);
    }
}

#[tokio::test]
async fn dropped_configuration_stops_the_preview_and_keeps_its_data() {
    let harness = harness(serve_app().await).await;
    harness.open_pull(sha('b'));
    execute(&harness).await.expect("restored");
    let push = async |digit| {
        let head = PreviewFact::Head {
            repo: Some(crate::fixture::repo()),
            branch: crate::fixture::branch(),
            sha: sha(digit),
        };
        let queued = PreviewFact::State(PreviewState::Queued);
        harness.set(vec![head, queued]).await;
    };
    push('b').await;
    answer_search(&harness, false);
    execute(&harness).await.expect("dropped");
    let dropped = harness.preview().await.expect("exists");
    assert_eq!(dropped.record.state, PreviewState::Dropped);
    assert_eq!(dropped.record.live_sha, None);
    let fault = dropped.record.fault.as_ref().expect("the reason");
    assert_eq!(fault.code, Code::ConfigMissing);
    assert!(
        fault
            .remedy
            .as_ref()
            .is_some_and(|text| text.contains("24h"))
    );
    assert!(called(&harness, "unit.stop"));
    assert!(harness.host.world().databases.contains_key(&slug()));
    assert!(harness.store.guest(&slug()).await.expect("read").is_some());

    // The grace period counts from the first commit without the file.
    let hour = Duration::from_secs(3_600);
    let advanced = harness.store.advance_running_time(hour).await;
    advanced.expect("advanced");
    push('c').await;
    answer_search(&harness, false);
    execute(&harness).await.expect("dropped");
    let again = harness.preview().await.expect("exists");
    assert_eq!(again.removal_running, dropped.removal_running);

    // The file returns; the fake repository cannot be evaluated.
    push('d').await;
    answer_search(&harness, true);
    execute(&harness).await.expect_err("not evaluated");
    let back = harness.preview().await.expect("exists");
    assert_eq!(back.removal_running, None);
}

#[tokio::test]
async fn rollback_to_a_version_without_a_database_has_no_url() {
    let harness = harness(serve_app().await).await;
    execute(&harness).await.expect("restored");
    let failed = Version::live(&harness.preview().await.expect("exists")).expect("live");
    let mut live = failed.clone();
    live.meta.database = DatabaseMode::Container;
    let Version { sha, closure, meta } = live;
    let meta = Box::new(meta);
    let preview = harness
        .set(vec![PreviewFact::Live { sha, closure, meta }])
        .await;

    let executor = &harness.parts.parts.executor;
    let cause = Cause::Wanted;
    let failed = Arc::new(Target {
        version: failed,
        cause,
    });
    let mut execution = Execution {
        plan: Plan::BringUp,
        preview: preview.clone(),
        database: None,
        changes: None,
        turn: None,
    };
    let ensured = Step::Serve(Serve::EnsureDatabase, Arc::clone(&failed));
    executor
        .run(&ensured, &mut execution)
        .await
        .expect("created");
    let setup = Step::Serve(Serve::SetUp, failed);
    for step in after_failure(&preview, &setup, VecDeque::new()) {
        executor.run(&step, &mut execution).await.expect("served");
    }
    let world = harness.host.world();
    let environment = &world.guest_files[&(slug(), "/etc/preview.env")];
    let environment = String::from_utf8_lossy(environment);
    assert!(!environment.contains("DATABASE_URL"), "{environment}");
}

#[tokio::test]
async fn guest_of_a_fork_gets_no_token() {
    let token = (slug(), "/etc/preview-token");
    let harness = harness_with(serve_app().await, |config| config.share_token = true).await;
    execute(&harness).await.expect("restored");
    assert!(harness.host.world().guest_files.contains_key(&token));

    let fork = PreviewFact::Head {
        repo: None,
        branch: crate::fixture::branch(),
        sha: sha('a'),
    };
    let unset = PreviewFact::State(PreviewState::WaitingForApproval);
    harness
        .set(vec![fork, unset, PreviewFact::Dirty(true)])
        .await;
    execute(&harness).await.expect("restored");
    assert!(!harness.host.world().guest_files.contains_key(&token));
}

/// The route of the preview.
fn route(harness: &Harness) -> RouteState {
    harness.host.world().routes[&slug()].state.clone()
}

/// The state of a service that was killed.
const KILLED: &str = "ActiveState=failed\nResult=signal\nExecMainStatus=9\n";

/// Reports whether a command starts or restarts a service.
fn starts(command: &[String]) -> bool {
    matches!(command, [_, verb, ..] if verb == "start" || verb == "restart")
}

/// Has the app's service be in this state until a service is started. Returns the number of starts.
fn count_starts(harness: &Harness, state: &'static str) -> Arc<AtomicUsize> {
    let (started, is_up) = (Arc::new(AtomicUsize::new(0)), AtomicBool::new(false));
    let counted = Arc::clone(&started);
    harness.host.world().exec = Some(Arc::new(move |_, request| {
        let mut result = run(&request.command);
        if starts(&request.command) {
            counted.fetch_add(1, Ordering::Relaxed);
            is_up.store(true, Ordering::Relaxed);
        } else if !is_up.load(Ordering::Relaxed) && !result.stdout.is_empty() {
            result.stdout = state.to_owned();
        }
        result
    }));
    started
}

/// Records the jobs of the app's service, which is in this state until the first of them.
fn record_jobs(harness: &Harness, state: &'static str) -> Arc<Mutex<Vec<String>>> {
    let jobs = Arc::new(Mutex::new(Vec::new()));
    let recorded = Arc::clone(&jobs);
    harness.host.world().exec = Some(Arc::new(move |_, request| {
        let mut result = run(&request.command);
        let is_of_app = request
            .command
            .last()
            .is_some_and(|unit| unit == "app.service");
        if is_of_app && starts(&request.command) {
            recorded.lock().push(request.command[1].clone());
        } else if recorded.lock().is_empty() && !result.stdout.is_empty() {
            result.stdout = state.to_owned();
        }
        result
    }));
    jobs
}

/// A daemon that starts while the app starts does not know that the former one has started it, and that requests which waited for
/// its port may have reached it.
#[tokio::test]
async fn app_that_a_former_daemon_has_started_is_not_restarted() {
    let harness = harness(serve_app().await).await;
    execute(&harness).await.expect("restored");
    harness.parts.parts.health.forget(&slug());
    let jobs = record_jobs(&harness, "ActiveState=activating\n");
    execute(&harness).await.expect("served");
    assert_eq!(*jobs.lock(), ["start"]);
    assert_eq!(route(&harness), RouteState::Live);
}

#[tokio::test]
async fn app_that_a_revival_did_not_bring_back_is_restarted() {
    let harness = harness(serve_app().await).await;
    execute(&harness).await.expect("restored");
    let jobs = record_jobs(&harness, KILLED);
    let run_before = harness.host.world().exec.clone().expect("set");
    harness.host.world().exec = Some(Arc::new(move |guest, request| {
        let result = run_before(guest, request);
        let is_first = request.command.iter().any(|word| word == "start");
        ExecResult {
            status: i32::from(is_first),
            ..result
        }
    }));
    execute(&harness).await.expect("set up again");
    assert_eq!(*jobs.lock(), ["start", "restart"]);
}

#[tokio::test]
async fn ended_app_is_started_without_its_setup() {
    let harness = harness(serve_app().await).await;
    execute(&harness).await.expect("restored");
    assert_eq!(route(&harness), RouteState::Live);
    let health = harness.parts.parts.health.clone();
    assert_eq!(health.watched().len(), 1);

    let started = count_starts(&harness, KILLED);
    execute(&harness).await.expect("revived");
    // The app's service, and not the setup service.
    assert_eq!(started.load(Ordering::Relaxed), 1);
    assert_eq!(route(&harness), RouteState::Live);
    assert_eq!(health.trouble(&slug()), None);
    assert!(!health.is_stable(&slug(), Instant::now()));
}

#[tokio::test]
async fn app_is_set_up_again_after_its_guest_was_started() {
    let harness = harness(serve_app().await).await;
    execute(&harness).await.expect("restored");
    let engine = &harness.previews.components.engine;
    // In a guest that has just booted, the app's service was never started, or the service manager does not answer yet.
    for state in ["ActiveState=inactive\nResult=success\n", ""] {
        let stopped = harness.previews.stop_guest(&slug(), "alice").await;
        let stopped = stopped.expect("stopped").operation;
        engine.ended_operation(stopped).await.expect("ended");
        let started = harness.previews.start_guest(&slug(), "alice").await;
        let started = started.expect("started").operation;
        engine.ended_operation(started).await.expect("ended");
        let started = count_starts(&harness, state);
        execute(&harness).await.expect("served again");
        // The setup service, and the app's.
        assert_eq!(started.load(Ordering::Relaxed), 2, "{state:?}");
        assert_eq!(route(&harness), RouteState::Live);
        let health = &harness.parts.parts.health;
        assert!(health.is_stable(&slug(), Instant::now()), "no end counts");
    }
}

#[tokio::test]
async fn app_that_ends_again_and_again_is_a_crash_loop() {
    let harness = harness(serve_app().await).await;
    execute(&harness).await.expect("restored");
    let health = &harness.parts.parts.health;
    let ports = health.watched().remove(0).1;
    for _ in 0..4 {
        health.ended(&slug(), "it ended".to_owned(), Instant::now());
        health.serve(&slug(), ports.clone());
    }
    let started = count_starts(&harness, KILLED);
    let error = execute(&harness).await.expect_err("a loop");
    assert_eq!(started.load(Ordering::Relaxed), 0);
    assert_eq!(error.code(), Code::AppUnhealthy);
    assert!(error.to_string().contains("ended 5 times"), "{error}");
    let trouble = health.trouble(&slug()).expect("down");
    assert_eq!(
        trouble.reason,
        "the app service 'app.service' was ended by signal 9"
    );
}

#[tokio::test]
async fn live_app_that_ends_during_an_evaluation_is_brought_back() {
    let harness = harness(serve_app().await).await;
    execute(&harness).await.expect("restored");
    harness.open_pull(sha('b'));
    harness
        .set(vec![PreviewFact::State(PreviewState::Queued)])
        .await;
    let started = count_starts(&harness, KILLED);
    let executor = &harness.parts.parts.executor;
    let preview = harness.preview().await.expect("exists");
    let health = &harness.parts.parts.health;
    health.ended(&slug(), "it ended".to_owned(), Instant::now());
    let revived = async {
        while health.trouble(&slug()).is_some() {
            tokio::task::yield_now().await;
        }
    };
    executor.while_reviving(&preview, revived).await;
    assert_eq!(started.load(Ordering::Relaxed), 1);
    assert_eq!(route(&harness), RouteState::Live);
}
