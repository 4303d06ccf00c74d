//! `innkeeper logout`.

use clap::Args;
use innkeeper_model::access::TokenRecord;
use innkeeper_model::{Code, Failure};

use crate::context::Context;
use crate::contexts::Contexts;
use crate::failure::{CommandError, Status};
use crate::target::Place;

/// End the session of `innkeeper login`
///
/// The gateway's host refuses the session from then on, and its token is removed from the context in use, or that of --context.
/// The context keeps its URL, for the next `innkeeper login`.
#[derive(Args, Debug)]
pub(crate) struct Logout {}

impl Logout {
    pub(crate) async fn run(self, cx: &Context) -> Status {
        let Place::Context(name) = &cx.client.selection()?.place else {
            return Err(no_login("no context is in use").into());
        };
        let stored = Contexts::load()?.get(name)?.clone();
        let Some(login) = &stored.login else {
            return Err(no_login(&format!("the context '{name}' has no session")).into());
        };
        let has_ended = match cx.client.delete::<TokenRecord>("/v1/session").await {
            Ok(_) => false,
            // It expired, or an administrator revoked it.
            Err(CommandError::Failure(failure)) if failure.code == Code::Unauthorized => true,
            Err(CommandError::Failure(failure)) => return Err(still_valid(name, &failure).into()),
            Err(error) => return Err(error),
        };
        Contexts::change(|contexts| {
            // Another program may have logged in again, or removed the context.
            let current = contexts.contexts.get_mut(name);
            if let Some(current) = current.filter(|current| current.token == stored.token) {
                current.token = None;
                current.login = None;
            }
            Ok(())
        })?;
        let person = &login.person;
        cx.output.ok(match has_ended {
            true => format!(
                "The session of {person} had ended. Its token is removed from the context {name}."
            ),
            false => format!("Logged out of {name}: the session of {person} has ended."),
        })?;
        if cx.output.is_json() {
            let session = &login.session;
            cx.output
                .value(&serde_json::json!({ "name": name, "session": session }))?;
        }
        Ok(0)
    }
}

fn no_login(problem: &str) -> Failure {
    Failure::new(
        Code::InvalidRequest,
        format!("there is no login to end: {problem}"),
    )
    .with_remedy("`innkeeper context list` shows the contexts with a login; name one with --context. `innkeeper context rm` removes one with a token.")
}

/// Creates the failure for a session that could not be ended. Its token is kept, so that the user can try again.
fn still_valid(name: &str, failure: &Failure) -> Failure {
    let message = format!(
        "cannot end the session of the context '{name}': {}",
        failure.message
    );
    let cause = failure.remedy.as_deref().unwrap_or("Try again.");
    Failure::new(failure.code, message).with_remedy(format!(
        "{cause} The session stays valid meanwhile. `innkeeper context rm {name}` removes its token from this machine only."
    ))
}
