//! GitHub is down, or somebody changed there what is ours.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use innkeeper_github::fake::FailureKind;
use innkeeper_model::Code;
use innkeeper_model::api::{DoctorReport, Verdict};
use innkeeper_model::preview::PreviewState;
use innkeeper_model::preview::api::{DeliveryState, DeliveryView};

use crate::support::wait_until;
use crate::town::{Town, run};

/// How often the client tries before it gives a delivery back.
const ATTEMPTS: u32 = 4;

/// Waits until acting on a delivery has failed once.
fn put_off(town: &Town, id: &str) -> DeliveryView {
    let mut seen = None;
    wait_until("it is put off", || {
        seen = town.delivery(id).filter(|view| view.failure.is_some());
        seen.is_some()
    });
    seen.expect("just seen")
}

#[test]
fn what_github_does_not_answer_is_tried_again_and_done() {
    let mut town = Town::new();
    let daemon = town.start();
    town.start_webhook();
    let sha = town.commit_app("topic");
    town.pull(7, "topic", &sha);
    town.github
        .with(|world| world.fail("GET", "/contents/", ATTEMPTS, FailureKind::Status(502)));
    town.deliver(7, "opened");
    let id = town.last_delivery();
    let waiting = put_off(&town, &id);
    assert_eq!(waiting.state, DeliveryState::Pending);
    assert!(waiting.retry_at.is_some(), "{waiting:?}");
    let shown = town
        .sandbox
        .program("innkeeper", &["deliveries", "show", &id], b"");
    let shown = String::from_utf8(shown.stdout).expect("text");
    assert!(shown.contains("502"), "{shown}");
    town.settled(7, &sha, PreviewState::Live);
    town.finished(&id);
    let done = town.delivery(&id).expect("kept");
    assert_eq!((done.state, done.attempts), (DeliveryState::Done, 2));
    daemon.stop();
}

#[test]
fn answers_that_are_cut_off_do_no_harm() {
    let mut town = Town::new();
    let daemon = town.start();
    town.start_webhook();
    // Whatever is asked, the answer to every third question does not come through.
    let sha = town.commit_app("topic");
    town.pull(7, "topic", &sha);
    town.github.with(|world| {
        for path in ["/contents/", "/comments", "/deployments", "/statuses"] {
            world.fail("", path, 1, FailureKind::CutOff);
        }
    });
    town.deliver(7, "opened");
    town.settled(7, &sha, PreviewState::Live);
    wait_until("the pull request says so", || {
        let comments = town.comments(7);
        comments
            .iter()
            .any(|comment| comment.contains("http://web-7.localhost:8080"))
    });
    assert_eq!(town.comments(7).len(), 1, "it says so twice");
    daemon.stop();
}

#[test]
fn a_close_while_github_is_down_takes_the_app_away_at_once() {
    let mut town = Town::new();
    let daemon = town.start();
    town.start_webhook();
    town.open(7, "topic");
    wait_until("the pull request says so", || {
        town.comments(7)
            .first()
            .is_some_and(|comment| comment.contains("http://web-7"))
    });
    town.github.with(|world| {
        world.failures.clear();
        world.fail("", "/repos/", 2 * ATTEMPTS, FailureKind::Status(502));
    });
    town.close(7);
    wait_until("the page is away", || {
        town.browse("web-7", "/", "text/html").0 == 404
    });
    town.gone(7);
    wait_until("the pull request says so", || {
        town.comments(7)[0].contains("removed")
    });
    daemon.stop();
}

#[test]
fn what_somebody_did_to_our_comment_is_undone_by_an_edit() {
    let mut town = Town::new();
    let daemon = town.start();
    town.start_webhook();
    town.open(7, "topic");
    let says_so = |town: &Town| {
        let comments = town.comments(7);
        comments.len() == 1 && comments[0].contains("http://web-7.localhost:8080")
    };
    wait_until("the pull request says so", || says_so(&town));
    town.github.with(|world| {
        let repo = world.repos.get_mut(&town.repo).expect("there");
        repo.comments.clear();
    });
    town.deliver(7, "edited");
    wait_until("the comment is back", || says_so(&town));
    town.finished(&town.last_delivery());
    daemon.stop();
}

#[test]
fn links_that_an_edit_took_from_the_text_come_back() {
    let mut town = Town::watchful("report = 'text'");
    let daemon = town.start();
    town.start_webhook();
    town.open(7, "topic");
    let text = |town: &Town| {
        town.github
            .with(|world| world.repos[&town.repo].pulls[&7].body.clone())
    };
    wait_until("the text has the links", || {
        text(&town).contains("http://web-7.localhost:8080")
    });
    town.change(7, |pull| pull.body = "What it is about.".to_owned());
    town.deliver(7, "edited");
    wait_until("the links are back", || {
        text(&town).contains("http://web-7.localhost:8080")
    });
    assert!(text(&town).contains("What it is about."), "{}", text(&town));
    daemon.stop();
}

/// A Nix that cannot build as long as there is a file: its store has no space left.
fn full_nix(root: &Path, full: &Path) -> String {
    let real = run(root, "sh", &["-c", "command -v nix"]);
    let real = Path::new(real.trim());
    let bin = root.join("bin");
    fs::create_dir(&bin).expect("made");
    for name in ["nix", "nix-instantiate"] {
        symlink(real.with_file_name(name), bin.join(name)).expect("linked");
    }
    let error =
        r#"{"action":"msg","level":0,"msg":"error: writing to file: No space left on device"}"#;
    let script = format!(
        "#!/bin/sh\ncase \" $* \" in *' --realise '*)\n\
         [ ! -e {full} ] || {{ echo '@nix {error}' >&2; exit 1; }};; esac\nexec {store} \"$@\"\n",
        full = full.display(),
        store = real.with_file_name("nix-store").display(),
    );
    let store = bin.join("nix-store");
    fs::write(&store, script).expect("written");
    fs::set_permissions(&store, fs::Permissions::from_mode(0o755)).expect("set");
    bin.join("nix").display().to_string()
}

#[test]
fn a_problem_of_the_host_is_not_blamed_on_the_pull_request_and_tried_again() {
    let mut town = Town::new();
    let full = town.root().join("full");
    fs::write(&full, "").expect("written");
    let nix = full_nix(town.root(), &full);
    let daemon = town.sandbox.start_with(&[("INNKEEPER_NIX_PROGRAM", &nix)]);
    town.start_webhook();
    let sha = town.commit_app("topic");
    let action = town.pull(7, "topic", &sha);
    town.deliver(7, action);
    wait_until("the cause is known", || {
        let fault = town.preview(7).and_then(|view| view.preview.fault);
        fault.is_some_and(|fault| fault.code == Code::DiskFull)
    });
    wait_until("the pull request says so", || {
        town.comments(7).iter().any(|comment| {
            assert!(!comment.contains("push again"), "{comment}");
            assert!(
                !comment.contains(&town.root().display().to_string()),
                "{comment}"
            );
            comment.contains("problem of the host, not of this pull request")
        })
    });
    let listed = town.sandbox.program("preview", &["list"], b"");
    let listed = String::from_utf8(listed.stdout).expect("text");
    assert!(
        listed.contains("web-7 has a host problem, retrying: "),
        "{listed}"
    );
    let report: DoctorReport = town.client().get("/v1/doctor");
    let check = report
        .checks
        .iter()
        .find(|check| check.subject == "preview web-7");
    let check = check.expect("it is named");
    assert_eq!(check.verdict, Verdict::Broken);
    let remedy = check.remedy.as_deref().unwrap_or_default();
    assert!(remedy.contains("free space"), "{check:?}");

    fs::remove_file(&full).expect("removed");
    town.settled(7, &sha, PreviewState::Live);
    assert!(town.page("web-7").contains(sha.as_str()));
    daemon.stop();
}
