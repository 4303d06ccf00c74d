//! Following an operation from its acceptance to its end.

use innkeeper_model::api::Accepted;
use innkeeper_model::{EventKind, Failure, Kind, StorePath};

use crate::context::Context;
use crate::events::{Events, ReconnectPolicy};
use crate::failure::CommandError;
use crate::progress::Progress;

/// Runs `work` until it ends or the caller presses Ctrl-C, which returns [`CommandError::Interrupted`] with `note`.
///
/// Once the signal is caught, it no longer ends the program by itself. So `work` must contain all that follows the
/// acceptance of an operation.
pub(crate) async fn until_interrupted<T>(
    note: impl FnOnce() -> String,
    work: impl Future<Output = Result<T, CommandError>>,
) -> Result<T, CommandError> {
    tokio::select! {
        result = work => result,
        Ok(()) = tokio::signal::ctrl_c() => Err(CommandError::Interrupted { note: note() }),
    }
}

/// Follows an operation, then runs `next`. Ctrl-C ends both with a note that the operation continues.
pub(crate) async fn complete<T>(
    cx: &Context,
    accepted: &Accepted,
    label: &str,
    next: impl Future<Output = Result<T, CommandError>>,
) -> Result<T, CommandError> {
    // On the heap: the commands that wait for it would be large.
    let completion = Box::pin(async {
        follow(cx, accepted, label).await?;
        next.await
    });
    until_interrupted(|| continues_note(accepted), completion).await
}

/// Shows the progress of an operation until it has finished. Returns the closure if it built one.
///
/// `label` describes the operation, such as `Creating agent web`.
pub(crate) async fn follow(
    cx: &Context,
    accepted: &Accepted,
    label: &str,
) -> Result<Option<StorePath>, CommandError> {
    follow_with(cx, accepted, label, ReconnectPolicy::default()).await
}

async fn follow_with(
    cx: &Context,
    accepted: &Accepted,
    label: &str,
    policy: ReconnectPolicy,
) -> Result<Option<StorePath>, CommandError> {
    let mut events = Events::of_operation(&cx.client, accepted.operation, policy);
    let mut progress = Progress::start(&cx.output, label)?;
    let mut built = None;
    loop {
        let event = (events.next().await).map_err(|error| connection_error(cx, error, accepted))?;
        match event.map(|event| event.kind) {
            // A stream that follows ends with the operation's last event only.
            None | Some(EventKind::Finished) => return Ok(built),
            Some(EventKind::Failed { failure }) => return Err(failure.into()),
            Some(kind) => {
                progress.show(&kind)?;
                if let EventKind::Built { closure, .. } = kind {
                    built = Some(closure);
                }
            }
        }
    }
}

/// Returns the note after Ctrl-C: the operation continues.
pub(crate) fn continues_note(accepted: &Accepted) -> String {
    format!(
        "Operation {} continues in the background; {} shows its progress.",
        accepted.operation,
        events_command(accepted)
    )
}

fn events_command(accepted: &Accepted) -> String {
    match &accepted.guest {
        Some(guest) => format!("`innkeeper events --follow --guest {guest}`"),
        None => "`innkeeper events --follow`".to_owned(),
    }
}

/// Adds to a connection error that the operation is recorded and continues.
fn connection_error(cx: &Context, error: CommandError, accepted: &Accepted) -> CommandError {
    match error {
        CommandError::Failure(failure) if failure.code.kind() == Kind::Unavailable => {
            let message = format!(
                "cannot follow operation {} to its end: {}",
                accepted.operation, failure.message
            );
            let remedy = format!(
                "It continues while innkeeperd runs; {} shows its progress. {}",
                events_command(accepted),
                cx.client.check_remedy()
            );
            Failure::new(failure.code, message)
                .with_remedy(remedy)
                .into()
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use innkeeper_model::{Code, GuestName, OperationId};

    use super::*;
    use crate::client::Client;
    use crate::output::Output;

    #[tokio::test]
    async fn unreachable_daemon_is_given_up_with_operation_hint() {
        let cx = Context {
            client: Client::new("/nonexistent/api.sock".into()),
            output: Output::new(false, true),
            socket: "/nonexistent/api.sock".into(),
        };
        let accepted = Accepted {
            operation: OperationId(7),
            guest: Some(GuestName::parse("web").expect("a name")),
        };
        let policy = ReconnectPolicy {
            timeout: Duration::from_millis(30),
            interval: Duration::from_millis(10),
        };
        let error = follow_with(&cx, &accepted, "x", policy).await;
        let Err(CommandError::Failure(failure)) = error else {
            panic!("it did not fail: {error:?}");
        };
        assert_eq!(failure.code, Code::DaemonUnreachable);
        let text = format!("{} {}", failure.message, failure.remedy.expect("a remedy"));
        assert!(
            text.contains("operation 7") && text.contains("It continues"),
            "{text}"
        );
        assert!(
            text.contains("innkeeper events --follow --guest web"),
            "{text}"
        );
    }
}
