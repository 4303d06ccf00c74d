//! Has the workers of previews follow the results of changes of their guests' levels.

use innkeeper_engine::Engine;
use innkeeper_model::{Event, Explain as _, GuestKind, GuestName, Verb, chain};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tracing::warn;

use crate::PreviewError;
use crate::workers::{WakeReason, Workers};

/// Wakes the worker of a preview at the end of each change of its guest's level, whoever requested it: a pause or a wake may
/// have failed, and a paused guest may have lost its processes.
pub(crate) async fn follow(mut events: Receiver<Event>, engine: Engine, workers: Workers) {
    loop {
        let changed = match events.recv().await {
            Ok(event) => changed_by(&engine, &event).await,
            Err(RecvError::Lagged(_)) => all(&engine).await,
            Err(RecvError::Closed) => return,
        };
        match changed {
            Ok(slugs) => slugs
                .iter()
                .for_each(|slug| workers.wake(slug, WakeReason::Check)),
            Err(error) => warn!(code = %error.code(), "{}", chain(&error)),
        }
    }
}

/// Returns the preview whose guest's level may have changed with an event.
async fn changed_by(engine: &Engine, event: &Event) -> Result<Vec<GuestName>, PreviewError> {
    let (Some(name), Some(id)) = (&event.guest, event.operation) else {
        return Ok(Vec::new());
    };
    if !event.kind.is_final() {
        return Ok(Vec::new());
    }
    let store = engine.store();
    let operation = store.operation(id).await?;
    let changes_level = operation.is_some_and(|operation| {
        let verb = operation.verb;
        matches!(verb, Verb::Pause | Verb::Sleep | Verb::Wake | Verb::Restore)
    });
    if !changes_level {
        return Ok(Vec::new());
    }
    let guest = store.guest(name).await?;
    let guest = guest.filter(|guest| guest.kind == GuestKind::Preview);
    Ok(guest.map(|guest| guest.name).into_iter().collect())
}

async fn all(engine: &Engine) -> Result<Vec<GuestName>, PreviewError> {
    let previews = engine.store().previews().await?;
    let slugs = previews.into_iter().map(|preview| preview.record.slug);
    Ok(slugs.collect())
}
