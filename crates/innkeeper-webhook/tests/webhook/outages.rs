//! Outages of innkeeperd: deliveries wait until their deadline.

use innkeeper_model::preview::intake::IntakeAnswer;
use serde_json::json;

use crate::support::client::Client;
use crate::support::payload::RawDelivery;
use crate::support::program::Program;
use crate::support::{directory, intake};

#[tokio::test]
async fn a_delivery_waits_for_a_restarting_daemon() {
    let directory = directory();
    let program = Program::start(directory.path());
    let address = program.address;
    let deliver = |id: &'static str| {
        tokio::spawn(async move {
            let sent = RawDelivery::pull_request(id, "opened", 7, 1);
            Client::new(address)
                .deliver(&sent)
                .await
                .expect("answers")
                .status
        })
    };
    // The daemon starts late, stops with its connections, and starts again.
    let first = deliver("d-1");
    let (store, serving) = intake::start(directory.path());
    assert_eq!(first.await.expect("ends"), 202);
    serving.abort();
    drop(serving.await);
    store.close().await.expect("closes");
    let second = deliver("d-2");
    let (store, _serving) = intake::start(directory.path());
    assert_eq!(second.await.expect("ends"), 202);
    for id in ["d-1", "d-2"] {
        assert!(store.delivery(id).await.expect("reads").is_some(), "{id}");
    }
}

#[tokio::test]
async fn a_delivery_fails_in_time_while_the_daemon_is_down() {
    let directory = directory();
    let program = Program::start(directory.path());
    let mut client = Client::new(program.address);
    let start = std::time::Instant::now();
    let sent = RawDelivery::pull_request("d-1", "opened", 7, 1);
    let answer = client.deliver(&sent).await.expect("answers");
    assert_eq!(
        (answer.status, answer.body),
        (503, json!({"error": "unavailable"}))
    );
    // GitHub disconnects after 10 s, and then shows no response.
    eprintln!("unavailable after {:?}", start.elapsed());
}

#[tokio::test]
async fn a_failed_write_of_the_daemon_is_not_accepted() {
    let directory = directory();
    let listener = intake::bind(directory.path());
    let failure = innkeeper_model::Failure::new(innkeeper_model::Code::DiskFull, "full");
    let answers = vec![IntakeAnswer::Failed { failure }];
    let app = axum::Router::new().route(
        "/v1/deliveries",
        axum::routing::post(async || axum::Json(answers)),
    );
    tokio::spawn(axum::serve(listener, app).into_future());
    let program = Program::start(directory.path());
    let mut client = Client::new(program.address);
    let sent = RawDelivery::pull_request("d-1", "opened", 7, 1);
    assert_eq!(client.deliver(&sent).await.expect("answers").status, 503);
}

#[tokio::test]
async fn a_rejected_delivery_does_not_affect_its_batch() {
    let directory = directory();
    let listener = intake::bind(directory.path());
    // A daemon of another version, which rejects pull request 13.
    let app = axum::Router::new().route(
        "/v1/deliveries",
        axum::routing::post(
            async |axum::Json(all): axum::Json<Vec<serde_json::Value>>| {
                let number =
                    |one: &serde_json::Value| one["event"]["pull_request"]["number"].as_u64();
                if all.iter().any(|one| number(one) == Some(13)) {
                    return Err(axum::http::StatusCode::UNPROCESSABLE_ENTITY);
                }
                let slug: innkeeper_model::GuestName = "web".parse().expect("name");
                Ok(axum::Json(vec![IntakeAnswer::Accepted { slug }; all.len()]))
            },
        ),
    );
    let program = Program::start(directory.path());
    let deliveries: Vec<_> = (1..40)
        .map(|number| {
            let address = program.address;
            tokio::spawn(async move {
                let sent = RawDelivery::pull_request(&format!("d-{number}"), "opened", number, 1);
                let answer = Client::new(address).deliver(&sent).await;
                (number, answer.expect("answers").status)
            })
        })
        .collect();
    tokio::spawn(axum::serve(listener, app).into_future());
    for delivery in deliveries {
        let (number, status) = delivery.await.expect("ends");
        assert_eq!(status, if number == 13 { 503 } else { 202 }, "{number}");
    }
}
