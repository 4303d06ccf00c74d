use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use innkeeper_github::client::{Credentials, Github, Hook};
use innkeeper_github::event::{DELIVERY_HEADER, Delivery, EVENT_HEADER, parse};
use innkeeper_github::fake::HookTarget;
use innkeeper_github::signature::{SIGNATURE_HEADER, SecretSet};
use innkeeper_model::Secret;
use innkeeper_model::preview::PrAction;
use jiff::{Timestamp, ToSpan};
use tokio::sync::mpsc;

use crate::support::{Stage, key, repo};

/// A webhook server that returns 503 until `up`, and forwards accepted deliveries.
async fn webhook(up: Arc<AtomicBool>) -> (String, mpsc::UnboundedReceiver<Delivery>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let handle = async move |headers: HeaderMap, body: Bytes| {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let secrets = SecretSet::new([Secret::new("s")]).expect("a secret");
        if secrets.verify(&body, text(SIGNATURE_HEADER)).is_err() {
            return StatusCode::UNAUTHORIZED;
        }
        if !up.load(Ordering::SeqCst) {
            return StatusCode::SERVICE_UNAVAILABLE;
        }
        let (event, id) = (text(EVENT_HEADER), text(DELIVERY_HEADER));
        let delivery = parse(event.expect("an event"), id.expect("an id"), &body);
        sender
            .send(delivery.expect("valid"))
            .expect("somebody listens");
        StatusCode::ACCEPTED
    };
    let routes = axum::Router::new().route("/webhook/github", axum::routing::post(handle));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, routes).await });
    (format!("http://{address}/webhook/github"), receiver)
}

async fn app(stage: &Stage, url: &str) -> Github {
    let path = key(stage.directory.path(), "PEM");
    let app = stage.fake.add_app("1", 42, &path).expect("a key");
    stage.fake.with(|world| {
        world.hook = Some(HookTarget {
            url: url.to_owned(),
            secret: "s".to_owned(),
        });
    });
    Github::new(stage.settings(), Credentials::App(Arc::new(app))).expect("a client")
}

#[tokio::test]
async fn failed_deliveries_are_listed_and_redelivered() {
    let stage = Stage::new().await;
    let (_, sha) = stage.open_pull();
    let up = Arc::new(AtomicBool::new(true));
    let (url, mut arrived) = webhook(up.clone()).await;
    let github = app(&stage, &url).await;

    let good = stage
        .fake
        .deliver(&repo(), 7, "opened", "octocat")
        .await
        .expect("sent");
    assert_eq!(good.status_code, 202);
    let Some(Delivery::PullRequest(event)) = arrived.recv().await else {
        panic!("no event");
    };
    assert_eq!((event.action, event.head_sha), (PrAction::Opened, sha));

    up.store(false, Ordering::SeqCst);
    let lost = stage
        .fake
        .deliver(&repo(), 7, "closed", "octocat")
        .await
        .expect("sent");
    let twice = stage
        .fake
        .deliver(&repo(), 7, "synchronize", "octocat")
        .await
        .expect("sent");
    stage.fake.with(|world| world.page_size = Some(1));

    let elsewhere = github.hooks(&repo(), "https://other").await;
    assert_eq!(elsewhere.expect("listed"), []);
    let hooks = github.hooks(&repo(), &url).await.expect("listed");
    assert_eq!(hooks, [Hook::App]);
    let [hook] = hooks.try_into().expect("one");
    let since = Timestamp::now() - 1.hour();
    let failed = github
        .failed_deliveries(&hook, since)
        .await
        .expect("listed");
    let guids: Vec<&str> = failed
        .iter()
        .map(|delivery| delivery.guid.as_str())
        .collect();
    assert_eq!(
        guids,
        [&lost.guid, &twice.guid],
        "the oldest first, and not the good one"
    );

    up.store(true, Ordering::SeqCst);
    for delivery in &failed {
        github.redeliver(&hook, delivery.id).await.expect("asked");
        let Some(Delivery::PullRequest(event)) = arrived.recv().await else {
            panic!("no event");
        };
        assert_eq!(event.delivery, delivery.guid);
    }
    let left = github
        .failed_deliveries(&hook, since)
        .await
        .expect("listed");
    assert_eq!(left, []);
    assert_eq!(
        github
            .failed_deliveries(&hook, Timestamp::now() + 1.hour())
            .await
            .expect("listed"),
        []
    );
}

#[tokio::test]
async fn hook_of_a_repository_is_found_by_its_url() {
    let stage = Stage::new().await;
    stage.open_pull();
    let up = Arc::new(AtomicBool::new(false));
    let (url, _arrived) = webhook(up).await;
    app(&stage, &url).await;
    let github = stage.github();
    let hooks = github.hooks(&repo(), &url).await.expect("listed");
    assert_eq!(
        hooks,
        [Hook::Repo {
            repo: repo(),
            id: 1
        }]
    );
    assert_eq!(
        github
            .hooks(&repo(), "https://other")
            .await
            .expect("listed"),
        []
    );

    let lost = stage
        .fake
        .deliver(&repo(), 7, "opened", "octocat")
        .await
        .expect("sent");
    let since = Timestamp::now() - 1.hour();
    let failed = github
        .failed_deliveries(&hooks[0], since)
        .await
        .expect("listed");
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].guid, lost.guid);
    assert_eq!(failed[0].attempts, 1);
    github
        .redeliver(&hooks[0], failed[0].id)
        .await
        .expect("asked");
    let again = github.failed_deliveries(&hooks[0], since).await;
    let [again] = again.expect("listed").try_into().expect("one");
    assert_eq!((again.attempts, again.first_at), (2, failed[0].first_at));
    assert_ne!(again.id, failed[0].id);
}
