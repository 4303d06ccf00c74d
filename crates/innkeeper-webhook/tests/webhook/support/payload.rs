//! Deliveries in GitHub's format.

use hyper::body::Bytes;
use innkeeper_github::signature::SecretSet;
use innkeeper_model::Secret;
use serde_json::{Value, json};

/// The webhook's secret.
pub(crate) const SECRET: &str = "it is no secret";

/// The content type of a form.
const FORM: &str = "application/x-www-form-urlencoded";

/// A delivery with its headers.
#[derive(Clone, Debug)]
pub(crate) struct RawDelivery {
    pub(crate) id: String,
    pub(crate) event: String,
    pub(crate) content_type: &'static str,
    pub(crate) signature: Option<String>,
    pub(crate) body: Bytes,
}

impl RawDelivery {
    /// A signed `pull_request` event with the fields that the program reads.
    pub(crate) fn pull_request(id: &str, action: &str, number: u64, commit: u64) -> Self {
        let body = payload(action, number, commit).to_string();
        Self::signed(id, "pull_request", body)
    }

    pub(crate) fn signed(id: &str, event: &str, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        Self {
            id: id.to_owned(),
            event: event.to_owned(),
            content_type: "application/json",
            signature: Some(sign(SECRET, &body)),
            body,
        }
    }

    /// A signed form.
    pub(crate) fn form(id: &str, event: &str, body: impl Into<Bytes>) -> Self {
        Self {
            content_type: FORM,
            ..Self::signed(id, event, body)
        }
    }
}

pub(crate) fn sign(secret: &str, body: &[u8]) -> String {
    let secrets = SecretSet::new([Secret::new(secret)]).expect("a secret");
    secrets.sign(body)
}

pub(crate) fn payload(action: &str, number: u64, commit: u64) -> Value {
    json!({
        "action": action,
        "number": number,
        "pull_request": {
            "number": number,
            "state": "open",
            "user": { "login": "alice" },
            "head": {
                "ref": "topic", "sha": format!("{commit:040x}"), "repo": { "full_name": "octo/web" }
            },
            "base": {
                "ref": "main", "sha": format!("{commit:040x}"), "repo": { "full_name": "octo/web" }
            },
        },
        "repository": { "full_name": "octo/web" },
        "sender": { "login": "alice" },
        "label": { "name": "preview" },
    })
}
