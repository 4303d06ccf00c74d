use std::sync::atomic::{AtomicUsize, Ordering};

use innkeeper_facilities::fake::ExecResult;
use innkeeper_model::preview::PullDetails;
use innkeeper_model::{BuildProgress, Code, Failure, Secret};
use innkeeper_store::PreviewFact;

use super::*;
use crate::fixture::{Harness, closure, meta, sha, slug};

fn public() -> PreviewFact {
    PreviewFact::Details(PullDetails {
        title: Some("A menu".to_owned()),
        author: Some("mona".to_owned()),
        private: Some(false),
    })
}

/// A preview that is being built, of a public repository.
async fn harness() -> Harness {
    let harness = Harness::new().await;
    harness.claim().await;
    let state = PreviewFact::State(PreviewState::Building);
    harness
        .set(vec![PreviewFact::ConfigFound, public(), state])
        .await;
    harness
}

async fn written(harness: &Harness) -> PageStatus {
    harness.parts.status_pages.write(&slug()).await;
    harness.host.world().pages[&slug()].clone()
}

#[tokio::test]
async fn status_follows_the_record() {
    let harness = harness().await;
    harness
        .set(vec![PreviewFact::State(PreviewState::Queued)])
        .await;
    let first = written(&harness).await;
    harness
        .set(vec![PreviewFact::State(PreviewState::Building)])
        .await;
    let pages = &harness.parts.status_pages;
    pages.journal.note(&slug(), "Building.");
    let status = written(&harness).await;
    let states: Vec<_> = status.steps.iter().map(|step| step.state).collect();
    assert_eq!(states, [PreviewState::Queued, PreviewState::Building]);
    assert_eq!(status.started_at, first.started_at);
    let details = status.details.expect("public");
    assert_eq!(details.title.as_deref(), Some("A menu"));
    assert_eq!(details.author.as_deref(), Some("mona"));
    assert_eq!(details.pull_request, Some(7));

    // Another commit begins again.
    let head = PreviewFact::Head {
        repo: details.head_repo,
        branch: details.branch,
        sha: sha('b'),
    };
    harness
        .set(vec![head, PreviewFact::State(PreviewState::Queued)])
        .await;
    assert_eq!(written(&harness).await.steps.len(), 1);
}

#[tokio::test]
async fn private_repositories_show_slug_state_and_times_only() {
    let harness = harness().await;
    // Unknown counts as private.
    for private in [None, Some(true)] {
        let details = PullDetails {
            private,
            ..PullDetails::default()
        };
        harness.set(vec![PreviewFact::Details(details)]).await;
        assert_eq!(written(&harness).await.details, None);
    }
    harness.set(vec![public()]).await;
    assert!(written(&harness).await.details.is_some());

    let full = Harness::with(|config| config.page = crate::PageContents::Full).await;
    full.claim().await;
    full.set(vec![PreviewFact::ConfigFound]).await;
    assert!(written(&full).await.details.is_some());
}

#[tokio::test]
async fn events_reach_the_log_and_the_progress() {
    let harness = harness().await;
    let pages = harness.parts.status_pages.clone();
    let task = tokio::spawn(pages.clone().run());
    let secret = Secret::new("correct horse");
    pages.masks.learn(&slug(), [&secret]).await;
    let progress = BuildProgress {
        built: 1,
        to_build: 3,
        ..BuildProgress::default()
    };
    loop {
        // Until the task has subscribed, events are lost.
        pages.journal.note(&slug(), "The key is 'correct horse'.");
        pages.journal.build_progress(&slug(), progress.clone());
        tokio::time::sleep(INTERVAL).await;
        let status = harness.host.world().pages.get(&slug()).cloned();
        let Some(details) = status.and_then(|status| status.details) else {
            continue;
        };
        let has_line = details
            .log
            .iter()
            .any(|line| line.text == "The key is '***'.");
        assert!(details.log.iter().all(|line| !line.text.contains("horse")));
        if has_line && details.progress.as_ref() == Some(&progress) {
            break;
        }
    }
    task.abort();
}

#[tokio::test]
async fn secrets_that_a_guest_receives_while_it_is_followed_are_masked() {
    let harness = harness().await;
    let evaluated = PreviewFact::Evaluated {
        key: "key".to_owned(),
        closure: closure(),
        meta: Box::new(meta()),
    };
    let state = PreviewFact::State(PreviewState::SettingUp);
    harness.set(vec![evaluated, state]).await;
    let guests = &harness.parts.parts.executor.guests;
    let created = guests.ensure(&slug(), &closure(), true).await;
    assert_eq!(created.expect("created"), None);
    let reads = Arc::new(AtomicUsize::new(0));
    let read = Arc::clone(&reads);
    let pages = &harness.parts.status_pages;
    harness.host.world().exec = Some(Arc::new(move |_, _| {
        let entry = r#"{"__REALTIME_TIMESTAMP":"1790000000000000","MESSAGE":"key: correct horse"}"#;
        let is_first = read.fetch_add(1, Ordering::Relaxed) == 0;
        ExecResult {
            stdout: if is_first { "" } else { entry }.to_owned(),
            ..ExecResult::default()
        }
    }));
    written(&harness).await;
    while reads.load(Ordering::Relaxed) == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let secret = Secret::new("correct horse");
    pages.masks.learn(&slug(), [&secret]).await;
    let line = loop {
        let details = written(&harness).await.details.expect("public");
        let mut lines = details.log.into_iter().map(|line| line.text);
        match lines.find(|text| text.starts_with("key")) {
            Some(line) => break line,
            None => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    assert_eq!(line, "key: ***");
}

#[tokio::test]
async fn the_next_daemon_continues_the_log() {
    let harness = harness().await;
    let pages = &harness.parts.status_pages;
    written(&harness).await;
    if let Some(entry) = pages.entries.lock().get_mut(&slug()) {
        entry.feed.push(jiff::Timestamp::now(), "the last line");
    }
    let before = written(&harness).await;
    pages.entries.lock().clear();
    let after = written(&harness).await;
    assert_eq!(after, before);
}

#[tokio::test]
async fn the_next_daemon_continues_a_wake_whose_app_starts() {
    let harness = harness().await;
    let pages = &harness.parts.status_pages;
    for (interruption, continues) in [(None, false), (Some(Interruption::Restarting), true)] {
        pages.begin_wake(&slug()).await;
        if interruption.is_some() {
            pages.set_interruption(&slug(), interruption).await;
        }
        assert!(written(&harness).await.wake.is_some());
        pages.entries.lock().clear();
        assert_eq!(written(&harness).await.wake.is_some(), continues);
    }
    // The app answers.
    pages.set_interruption(&slug(), None).await;
    assert_eq!(written(&harness).await.wake, None);
}

#[test]
fn entries_of_the_guest_are_shown_once_with_all_lines() {
    let mut feed = Feed::default();
    let at = |second| jiff::Timestamp::from_second(second).expect("valid");
    let first = [(1, "one\ntwo\n"), (1, "three"), (2, "four")];
    let again = first.into_iter().chain([(3, "five")]);
    for entries in [first.to_vec(), again.collect()] {
        feed.begin_guest();
        for (second, text) in entries {
            feed.push_of_guest(at(second), text);
        }
    }
    let texts: Vec<_> = feed.log().into_iter().map(|line| line.text).collect();
    assert_eq!(texts, ["one", "two", "three", "four", "five"]);
}

#[tokio::test]
async fn failure_shows_the_reason_and_hides_the_host() {
    let harness = harness().await;
    let mut fault = Failure::new(Code::AppUnhealthy, "nothing answers on port 3000");
    fault.log = vec!["npm error".to_owned()];
    let failed = PreviewFact::State(PreviewState::Failed);
    harness
        .set(vec![failed, PreviewFact::Fault(Some(fault))])
        .await;
    let details = written(&harness).await.details.expect("public");
    let failure = details.failure.expect("a failure");
    assert_eq!(failure.lines, ["npm error"]);
    assert!(details.advice.expect("advice").starts_with("Push a commit"));

    let host = Failure::new(Code::DiskFull, "/var/lib/innkeeper is full");
    harness.set(vec![PreviewFact::Fault(Some(host))]).await;
    let details = written(&harness).await.details.expect("public");
    let failure = details.failure.expect("a failure");
    assert!(
        failure.message.contains("problem of the host"),
        "{}",
        failure.message
    );
    assert!(failure.lines.is_empty());
}

#[tokio::test]
async fn status_is_removed_with_the_preview() {
    let harness = harness().await;
    written(&harness).await;
    let pages = &harness.parts.status_pages;
    pages.remove(&slug()).await.expect("removed");
    assert!(harness.host.world().pages.is_empty());

    // One that a crash left is removed at the next start.
    let status = written(&harness).await;
    harness
        .store
        .delete_preview(&slug())
        .await
        .expect("deleted");
    assert!(harness.host.world().pages.contains_key(&status.slug));
    pages.write_all().await;
    assert!(harness.host.world().pages.is_empty());
}
