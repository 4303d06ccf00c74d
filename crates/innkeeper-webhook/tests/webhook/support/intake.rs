//! A fake of innkeeperd's side of the intake: the real store behind the real socket. innkeeperd's tests cover both programs
//! together.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use axum::extract::{DefaultBodyLimit, State};
use axum::routing::post;
use axum::{Json, Router};
use innkeeper_model::preview::DeliveryEvent;
use innkeeper_model::preview::intake::{
    INTAKE_PATH, IntakeAnswer, IntakeEvent, IntakeRequest, MAX_BODY,
};
use innkeeper_model::{Failure, GuestName};
use innkeeper_store::{NewDelivery, Receipt, Store};
use tokio::net::UnixListener;

/// The path of the socket in a directory.
pub(crate) fn socket(directory: &Path) -> PathBuf {
    directory.join("intake.sock")
}

pub(crate) fn open(directory: &Path) -> Store {
    let subnet = "10.100.0.0/16".parse().expect("subnet");
    Store::open(&directory.join("innkeeper.db"), subnet).expect("opens")
}

/// Starts the intake in this process.
pub(crate) fn start(directory: &Path) -> (Store, tokio::task::JoinHandle<()>) {
    let store = open(directory);
    let serving = tokio::spawn(serve(bind(directory), store.clone()));
    (store, serving)
}

/// Listens as innkeeperd does: replaces an existing socket.
pub(crate) fn bind(directory: &Path) -> UnixListener {
    let (path, aside) = (socket(directory), directory.join("intake.new"));
    drop(std::fs::remove_file(&aside));
    let listener = UnixListener::bind(&aside).expect("listens");
    let everybody = std::fs::Permissions::from_mode(0o666);
    std::fs::set_permissions(&aside, everybody).expect("permissions");
    std::fs::rename(&aside, &path).expect("renames");
    listener
}

pub(crate) async fn serve(listener: UnixListener, store: Store) {
    let app = Router::new()
        .route(INTAKE_PATH, post(deliveries))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(store);
    axum::serve(listener, app).await.expect("serves");
}

async fn deliveries(
    State(store): State<Store>,
    Json(requests): Json<Vec<IntakeRequest>>,
) -> Json<Vec<IntakeAnswer>> {
    let all = requests.len();
    let new = requests.into_iter().filter_map(|request| {
        let event = match request.event {
            IntakeEvent::PullRequest(event) => DeliveryEvent::PullRequest(event),
            IntakeEvent::Command(event) => DeliveryEvent::Command(event),
            IntakeEvent::Repository(_) | IntakeEvent::Ping(_) => return None,
        };
        Some(NewDelivery {
            slugs: vec![slug(&event)],
            event,
            received_at: request.received_at,
        })
    });
    let new: Vec<_> = new.collect();
    if new.len() != all {
        return Json(vec![IntakeAnswer::Noted; all]);
    }
    let slugs: Vec<_> = new.iter().map(|new| new.slugs[0].clone()).collect();
    let answers = match store.record_deliveries(new).await {
        Ok(recorded) => recorded.into_iter().zip(slugs).map(answer).collect(),
        Err(error) => {
            let failure = Failure::from(&error);
            let failed = IntakeAnswer::Failed { failure };
            vec![failed; slugs.len()]
        }
    };
    Json(answers)
}

fn slug(event: &DeliveryEvent) -> GuestName {
    let number = event.pull_request().number;
    format!("web-{number}").parse().expect("name")
}

fn answer((recorded, preferred): (Receipt, GuestName)) -> IntakeAnswer {
    match recorded {
        Receipt::Duplicate {
            slug,
            is_finished: true,
        } => IntakeAnswer::Duplicate {
            slug: slug.unwrap_or(preferred),
        },
        Receipt::New { slug } | Receipt::Stale { slug } | Receipt::Duplicate { slug, .. } => {
            IntakeAnswer::Accepted {
                slug: slug.unwrap_or(preferred),
            }
        }
        Receipt::SlugsTaken => IntakeAnswer::SlugCollision,
    }
}
