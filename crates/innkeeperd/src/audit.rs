//! The audit log: each change, with its actor and its result.

use std::net::IpAddr;

use axum::response::Response;
use innkeeper_model::Code;
use innkeeper_model::api::AuditRetention;
use innkeeper_store::{AuditLimits, NewAuditEntry, Store, StoreError};
use tracing::warn;

use crate::api::Caller;
use crate::config::AuditSettings;

/// The maximum length of an object's name in the log, in characters. Valid names are shorter.
const MAX_OBJECT: usize = 200;

/// The audit log.
#[derive(Clone)]
pub(crate) struct AuditLog {
    store: Store,
    limits: AuditLimits,
}

/// The object of a call whose path does not name it, in the extensions of its response.
#[derive(Clone, Debug)]
pub(crate) struct AuditObject(pub(crate) String);

impl AuditLog {
    /// Creates the log of a store, with limits from the configuration.
    pub(crate) fn new(store: Store, settings: &AuditSettings) -> Self {
        Self {
            store,
            limits: settings.limits(),
        }
    }

    /// Returns the limits of the log.
    pub(crate) fn retention(&self) -> AuditRetention {
        let days = self.limits.age.as_secs() / (24 * 60 * 60);
        AuditRetention {
            days: u32::try_from(days).unwrap_or(u32::MAX),
            entries: self.limits.entries,
        }
    }

    /// Records a call before it begins. `object` may be any text.
    ///
    /// # Errors
    /// When the database cannot be written. The call must not begin then.
    pub(crate) async fn begin(
        &self,
        caller: &Caller,
        verb: &'static str,
        object: Option<String>,
    ) -> Result<Recorded, StoreError> {
        self.begin_by(caller.actor(), caller.source(), verb, object)
            .await
    }

    /// Records a call of an actor without a [`Caller`]: see [`Self::begin`].
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub(crate) async fn begin_by(
        &self,
        actor: String,
        source: Option<IpAddr>,
        verb: &'static str,
        object: Option<String>,
    ) -> Result<Recorded, StoreError> {
        let entry = NewAuditEntry {
            actor,
            source: source.map(|source| source.to_string()),
            verb: verb.to_owned(),
            object: object.as_deref().map(printable),
        };
        Ok(Recorded {
            store: self.store.clone(),
            seq: self.store.begin_audit(entry, self.limits).await?,
        })
    }
}

/// A call in the log that has no result yet.
pub(crate) struct Recorded {
    store: Store,
    seq: i64,
}

impl Recorded {
    /// Records the call's result. A failure is logged: the change was made.
    pub(crate) fn finish(self, response: &Response) -> impl Future<Output = ()> + Send + use<> {
        let object = response.extensions().get::<AuditObject>();
        let object = object.map(|AuditObject(object)| printable(object));
        let result = result(response).to_owned();
        async move {
            let finished = self.store.finish_audit(self.seq, object, result);
            if let Err(error) = finished.await {
                warn!(entry = self.seq, %error, "an audit entry stays without its result");
            }
        }
    }
}

/// Returns `ok`, or the code of the failure in a response.
fn result(response: &Response) -> &'static str {
    let status = response.status();
    match response.extensions().get::<Code>() {
        Some(code) => code.as_str(),
        None if status.is_client_error() => Code::InvalidRequest.as_str(),
        None if status.is_server_error() => Code::Internal.as_str(),
        None => "ok",
    }
}

/// Returns the beginning of a text, without control characters.
fn printable(text: &str) -> String {
    text.escape_debug().take(MAX_OBJECT).collect()
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use axum::response::IntoResponse;
    use innkeeper_model::Failure;

    use super::*;
    use crate::api_error::ApiError;

    #[test]
    fn result_is_ok_or_the_code_of_the_failure() {
        let failure = Failure::new(Code::GuestBusy, "busy");
        assert_eq!(result(&ApiError(failure).into_response()), "guest_busy");
        for (status, expected) in [
            (StatusCode::ACCEPTED, "ok"),
            (StatusCode::SWITCHING_PROTOCOLS, "ok"),
            (StatusCode::PAYLOAD_TOO_LARGE, "invalid_request"),
            (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        ] {
            assert_eq!(result(&status.into_response()), expected);
        }
    }

    #[test]
    fn object_is_short_and_printable() {
        assert_eq!(printable("web-1"), "web-1");
        assert_eq!(printable("a\n\u{1b}[2J"), r"a\n\u{1b}[2J");
        assert_eq!(printable(&"x".repeat(1000)).len(), MAX_OBJECT);
    }
}
