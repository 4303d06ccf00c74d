//! An operation, from its acceptance to its end.

use innkeeper_model::api::Accepted;
use innkeeper_model::{EventKind, Failure, Kind, StorePath};

use crate::client::Client;
use crate::events::{Events, Patience};
use crate::failure::CommandError;
use crate::output::Output;
use crate::progress::Progress;

/// Does what follows the acceptance of an operation, and leaves it at that when the caller presses Ctrl-C;
/// `note` says then what becomes of what was asked for.
///
/// All of it belongs inside: once the signal is caught, it does not end the program by itself any more.
pub(crate) async fn attended<T>(
    note: impl FnOnce() -> String,
    work: impl Future<Output = Result<T, CommandError>>,
) -> Result<T, CommandError> {
    tokio::select! {
        result = work => result,
        Ok(()) = tokio::signal::ctrl_c() => Err(CommandError::Interrupted { note: note() }),
    }
}

/// Shows what an operation does and returns when it has ended as asked, with the closure if it built one. `label` says
/// what it is for.
pub(crate) async fn follow(
    client: &Client,
    output: &Output,
    accepted: &Accepted,
    label: &str,
) -> Result<Option<StorePath>, CommandError> {
    follow_with(client, output, accepted, label, Patience::default()).await
}

async fn follow_with(
    client: &Client,
    output: &Output,
    accepted: &Accepted,
    label: &str,
    patience: Patience,
) -> Result<Option<StorePath>, CommandError> {
    let mut events = Events::of_operation(client, accepted.operation, patience);
    let mut progress = Progress::start(output, label)?;
    let mut built = None;
    loop {
        let event = events.next().await.map_err(|error| lost(error, accepted))?;
        match event.map(|event| event.kind) {
            // A stream that follows ends with its last event only.
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

/// What becomes of an operation that nobody follows any more.
pub(crate) fn goes_on(accepted: &Accepted) -> String {
    let look = look(accepted);
    format!(
        "Operation {} goes on without this program; {look} shows it.",
        accepted.operation
    )
}

fn look(accepted: &Accepted) -> String {
    match &accepted.guest {
        Some(guest) => format!("`innkeeper events --follow --guest {guest}`"),
        None => "`innkeeper events --follow`".to_owned(),
    }
}

/// Adds to a lost connection what becomes of the operation.
fn lost(error: CommandError, accepted: &Accepted) -> CommandError {
    match error {
        CommandError::Failure(failure) if failure.code.kind() == Kind::Unavailable => {
            let operation = accepted.operation;
            let message = format!(
                "operation {operation} is recorded, but its end was not seen: {}",
                failure.message
            );
            Failure::new(failure.code, message)
                .with_remedy(format!(
                    "It goes on as soon as innkeeperd runs (`systemctl status innkeeper`); {} shows it.",
                    look(accepted)
                ))
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

    #[tokio::test]
    async fn a_daemon_that_stays_away_is_given_up_and_the_operation_is_not() {
        let client = Client::new("/nonexistent/api.sock".into());
        let output = Output::new(false, true);
        let accepted = Accepted {
            operation: OperationId(7),
            guest: Some(GuestName::parse("web").expect("a name")),
        };
        let patience = Patience {
            limit: Duration::from_millis(30),
            pause: Duration::from_millis(10),
        };
        let error = follow_with(&client, &output, &accepted, "x", patience).await;
        let Err(CommandError::Failure(failure)) = error else {
            panic!("it did not fail: {error:?}");
        };
        assert_eq!(failure.code, Code::DaemonUnreachable);
        let text = format!("{} {}", failure.message, failure.remedy.expect("a remedy"));
        assert!(
            text.contains("operation 7") && text.contains("It goes on"),
            "{text}"
        );
        assert!(
            text.contains("innkeeper events --follow --guest web"),
            "{text}"
        );
    }
}
