use innkeeper_model::Explain as _;
use innkeeper_model::preview::PreviewState;
use innkeeper_store::PreviewFact;

use super::*;
use crate::fixture::{Harness, sha, slug};

async fn shown(lines: usize, piece: &'static [u8]) -> Vec<u8> {
    let endless = stream::repeat_with(move || Ok(piece.to_vec()));
    let pieces = first_lines(Box::pin(endless), lines);
    let pieces: Vec<_> = pieces.map(|piece| piece.expect("a piece")).collect().await;
    pieces.concat()
}

#[tokio::test]
async fn endless_output_is_cut_off() {
    assert_eq!(shown(3, b"one\ntwo\nthr").await, b"one\ntwo\nthrone\n");
    assert_eq!(shown(2, b"y\n").await, b"y\ny\n");
    assert_eq!(shown(2, &[b'x'; 1000]).await.len(), 2 * LONGEST_LINE);
    assert_eq!(shown(0, b"y\n").await, b"");
}

/// Two attempts with a note each.
async fn two_attempts() -> Harness {
    let harness = Harness::new().await;
    harness.claim().await;
    let journal = &harness.parts.parts.journal;
    for (number, commit) in [(1, 'a'), (2, 'b')] {
        journal.attempt(&slug(), number, &sha(commit));
        journal.note(&slug(), format!("Note {number}."));
    }
    harness
}

async fn texts(harness: &Harness, filter: LogFilter) -> Vec<String> {
    let log = harness.previews.logs(&slug(), 100, false, filter).await;
    let lines: Vec<LogLine> = log.expect("a log").collect().await;
    lines.into_iter().map(|line| line.text).collect()
}

#[tokio::test]
async fn attempts_are_separated_and_selected() {
    let harness = two_attempts().await;
    assert_eq!(
        texts(&harness, LogFilter::default()).await,
        [
            "Attempt 1 of aaaaaaa begins.",
            "Note 1.",
            "Attempt 2 of bbbbbbb begins.",
            "Note 2."
        ]
    );
    for (number, expected) in [
        (1, ["Attempt 1 of aaaaaaa begins.", "Note 1."]),
        (2, ["Attempt 2 of bbbbbbb begins.", "Note 2."]),
    ] {
        let filter = LogFilter {
            attempt: Some(number),
            ..LogFilter::default()
        };
        assert_eq!(texts(&harness, filter).await, expected);
    }
    let unknown = LogFilter {
        attempt: Some(3),
        ..LogFilter::default()
    };
    let refused = harness.previews.logs(&slug(), 9, false, unknown).await;
    let error = refused.map(drop).expect_err("no such attempt");
    assert!(error.to_string().contains("has no attempt 3"), "{error}");
}

#[tokio::test]
async fn lines_are_selected_by_time_and_source() {
    let harness = two_attempts().await;
    let future = Timestamp::now() + Duration::from_secs(3_600);
    let later = LogFilter {
        since: Some(future),
        ..LogFilter::default()
    };
    assert_eq!(texts(&harness, later).await, [""; 0]);
    let of = |service: &str| LogFilter {
        service: Some(service.to_owned()),
        ..LogFilter::default()
    };
    let refused = async |service| {
        let log = harness.previews.logs(&slug(), 9, false, of(service)).await;
        let error = log.map(drop).expect_err("refused");
        assert_eq!(error.code(), Code::InvalidRequest);
        format!("{error}: {}", error.remedy().expect("a remedy"))
    };
    refused("--root=/").await;
    let early = refused("app").await;
    assert!(early.contains("once the commit is evaluated"), "{early}");
    harness.set_live(sha('a')).await;
    assert_eq!(texts(&harness, of("app")).await, [""; 0]);
    let unknown = refused("ap").await;
    assert!(
        unknown.contains(
            "no lines of a service 'ap': The app's services are setup.service, app.service;"
        ),
        "{unknown}"
    );
}

#[tokio::test]
async fn attempts_are_counted_by_the_record() {
    let harness = Harness::new().await;
    harness.claim().await;
    for number in 1..=2 {
        let preview = harness.set(vec![PreviewFact::Attempt]).await;
        assert_eq!(preview.record.rollout.attempt, number);
    }
    let before = harness.record().await.rollout;
    harness
        .set(vec![PreviewFact::State(PreviewState::Building)])
        .await;
    let building = harness.record().await.rollout;
    assert!(building.state_since > before.state_since);
    assert_eq!(building.began_at, before.began_at);
    harness.set(vec![PreviewFact::CameUp]).await;
    let live = harness.record().await.rollout;
    assert!(live.live_at >= building.state_since && live.duration_ms.is_some());
}
