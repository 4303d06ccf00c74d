use innkeeper_model::preview::{PullRequest, RepoName};

use crate::support::{Stage, repo};

#[tokio::test]
async fn open_pull_requests_are_listed_over_all_pages() {
    let stage = Stage::new().await;
    stage.open_pull();
    stage.fake.with(|world| {
        let found = world.repos.get_mut(&repo()).expect("the repository");
        let pull = found.pulls.get(&7).expect("opened").clone();
        for number in 1..=250 {
            let mut pull = pull.clone();
            pull.open = number % 10 != 0;
            found.pulls.insert(number, pull);
        }
    });
    let listed = stage
        .github()
        .open_pull_requests(&repo())
        .await
        .expect("listed");
    let mut numbers: Vec<u64> = listed.iter().map(|view| view.pull_request.number).collect();
    numbers.sort_unstable();
    let open: Vec<u64> = (1..=250).filter(|number| number % 10 != 0).collect();
    assert_eq!(numbers, open);
    assert_eq!(stage.count("GET", "/repos/octo/web/pulls"), 3);
}

#[tokio::test]
async fn incomplete_list_is_an_error() {
    let stage = Stage::new().await;
    stage.open_pull();
    stage.fake.with(|world| {
        world.page_size = Some(1);
        let found = world.repos.get_mut(&repo()).expect("the repository");
        let pull = found.pulls.get(&7).expect("opened").clone();
        found.pulls.insert(8, pull);
        world.fail(
            "GET",
            "page=2",
            99,
            innkeeper_github::fake::FailureKind::Status(404),
        );
    });
    assert!(stage.github().open_pull_requests(&repo()).await.is_err());
}

#[tokio::test]
async fn pull_request_has_its_current_state() {
    let stage = Stage::new().await;
    let (pull_request, sha) = stage.open_pull();
    let github = stage.github();
    let view = github
        .pull_request(&pull_request)
        .await
        .expect("an answer")
        .expect("exists");
    assert!(view.open && !view.merged && !view.is_fork);
    assert_eq!((view.head_sha, view.body.as_str()), (sha, "Adds a login."));

    stage.fake.with(|world| {
        let found = world.repos.get_mut(&repo()).expect("the repository");
        let pull = found.pulls.get_mut(&7).expect("opened");
        (pull.open, pull.merged) = (false, true);
        pull.head_repo = Some(RepoName::parse("mallory/web").expect("a repository"));
        pull.body.clear();
    });
    let view = github
        .pull_request(&pull_request)
        .await
        .expect("an answer")
        .expect("exists");
    assert!(!view.open && view.merged && view.is_fork);
    assert_eq!(view.body, "");

    let other = PullRequest {
        number: 8,
        ..pull_request
    };
    assert_eq!(github.pull_request(&other).await.expect("an answer"), None);
}

#[tokio::test]
async fn own_comments_exclude_those_of_others() {
    let stage = Stage::new().await;
    let (pull_request, _) = stage.open_pull();
    let github = stage.github();
    stage.fake.with(|world| {
        world.page_size = Some(2);
        world.add_token("other", "mallory");
    });
    let mallory = innkeeper_github::client::Github::new(
        stage.settings(),
        innkeeper_github::client::Credentials::Token(innkeeper_model::Secret::new("other")),
    )
    .expect("a client");
    for _ in 0..5 {
        mallory
            .create_comment(&pull_request, "<!-- m -->\nforged")
            .await
            .expect("written");
    }
    github
        .create_comment(&pull_request, "about <!-- m -->")
        .await
        .expect("written");
    let ours = github
        .create_comment(&pull_request, "<!-- m -->\nours")
        .await
        .expect("written");
    let found = github
        .own_comments(&pull_request, "<!-- m -->")
        .await
        .expect("listed");
    assert_eq!(found, [ours]);
}
