use innkeeper_model::BuildProgress;
use innkeeper_model::preview::page::PageStep;
use innkeeper_model::preview::{BranchName, CommitSha, RepoName};
use proptest::prelude::*;

use super::*;

fn time(text: &str) -> Timestamp {
    format!("2026-11-20T10:{text}Z").parse().expect("a time")
}

fn slug() -> GuestName {
    GuestName::parse("web-7").expect("a name")
}

fn step(state: PreviewState, at: &str) -> PageStep {
    PageStep {
        state,
        since: time(at),
    }
}

/// Returns a status with every field.
fn full() -> PageStatus {
    PageStatus {
        slug: slug(),
        state: PreviewState::Building,
        since: time("00:05"),
        started_at: time("00:00"),
        interruption: None,
        wake: None,
        steps: vec![
            step(PreviewState::Queued, "00:00"),
            step(PreviewState::Evaluating, "00:01"),
            step(PreviewState::Building, "00:05"),
        ],
        details: Some(PageDetails {
            repo: RepoName::parse("octo/web").expect("a repository"),
            web_url: "https://github.com".to_owned(),
            pull_request: Some(7),
            title: Some("A new <menu>".to_owned()),
            author: Some("mona".to_owned()),
            branch: BranchName::parse("feature/menu").expect("a branch"),
            head_repo: Some(RepoName::parse("octo/web").expect("a repository")),
            commit: CommitSha::parse(&"1a".repeat(20)).expect("a commit"),
            progress: Some(BuildProgress {
                activity: "building menu".to_owned(),
                built: 12,
                to_build: 40,
                ..BuildProgress::default()
            }),
            failure: Some(PageFailure {
                message: "the setup service failed".to_owned(),
                remedy: Some("Push a fix.".to_owned()),
                lines: vec!["npm error".to_owned(), "exit 1".to_owned()],
            }),
            advice: Some("Wait.".to_owned()),
            log: vec![PageLine {
                number: 3,
                at: time("00:06"),
                text: "a & b".to_owned(),
            }],
        }),
    }
}

fn shown(status: PageStatus) -> String {
    render(&slug(), &Some(status.into()), time("01:00")).into_string()
}

#[test]
fn page_has_every_part_of_a_status() {
    // One element a line.
    let page = shown(full()).replace('<', "\n<").replace("\n</", "</");
    let page = page.replace(&assets::url("x")["/.innkeeper/x".len()..], "?VERSION");
    insta::assert_snapshot!(page);
}

#[test]
fn private_repository_shows_slug_state_and_times_only() {
    let mut status = full();
    status.details = None;
    let page = shown(status);
    for hidden in ["octo", "menu", "mona", "1a1a", "npm", "Wait", "12 of"] {
        assert!(!page.contains(hidden), "{hidden} in {page}");
    }
    for visible in ["web-7", "Building", "10:00:05 UTC", "4 s"] {
        assert!(page.contains(visible), "no {visible} in {page}");
    }
}

#[test]
fn stages_follow_the_steps() {
    let classes = |status: &PageStatus| {
        let markup = stages(status).into_string();
        let classes = markup.split("<li class=\"").skip(1);
        let classes: Vec<_> = classes
            .map(|rest| rest.split('"').next().unwrap_or_default().to_owned())
            .collect();
        classes.join(" ")
    };
    let mut status = full();
    assert_eq!(classes(&status), "done current ahead ahead ahead");
    status.steps.remove(2);
    status.steps.push(step(PreviewState::SettingUp, "00:07"));
    status.state = PreviewState::SettingUp;
    assert_eq!(classes(&status), "done done done current ahead");
    assert!(stages(&status).into_string().contains("cached"));
    status.steps.push(step(PreviewState::Failed, "00:09"));
    status.state = PreviewState::Failed;
    assert_eq!(classes(&status), "done done done broken ahead");
    status.state = PreviewState::WaitingForApproval;
    assert_eq!(classes(&status), "");
}

#[test]
fn every_state_has_a_page() {
    for state in PreviewState::ALL {
        let mut status = full();
        status.state = state;
        let title = format!("<title>{} · web-7</title>", words::headline(&status));
        assert!(shown(status).contains(&title), "{title}");
    }
    assert!(
        render(&slug(), &None, time("01:00"))
            .into_string()
            .contains("Not available yet")
    );
}

proptest! {
    /// Texts of strangers add no markup: the page has the same elements and attributes for any text.
    #[test]
    fn hostile_texts_add_no_markup(title in "[^\\s].*", author in any::<String>(), line in any::<String>()) {
        let with = |text: [&str; 3]| {
            let mut status = full();
            let details = status.details.as_mut().expect("details");
            details.title = Some(text[0].to_owned());
            details.author = Some(text[1].to_owned());
            for shown in [&mut details.log[0].text, &mut details.advice.get_or_insert_default()] {
                *shown = text[2].to_owned();
            }
            let failure = details.failure.as_mut().expect("a failure");
            failure.message = text[2].to_owned();
            failure.lines[0] = text[2].to_owned();
            details.progress.get_or_insert_default().activity = format!("x{}", text[2]);
            let page = shown(status);
            let marks: String = page.chars().filter(|c| matches!(c, '<' | '>' | '"')).collect();
            (marks, page)
        };
        prop_assume!(!page_text(&title).trim().is_empty());
        let (marks, page) = with([&title, &author, &line]);
        prop_assert_eq!(marks, with(["t", "a", "l"]).0);
        prop_assert!(!page.chars().any(|c| c.is_control() && c != '\n'));
    }
}
