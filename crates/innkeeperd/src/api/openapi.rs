//! The OpenAPI document of the API, from the table of all calls and the types of their bodies. docs/openapi.json is a copy.

mod describe;
mod guests;
mod host;
mod path;
mod previews;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use axum::Extension;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use innkeeper_model::Failure;
use serde_json::Value;
use utoipa::openapi::path::{PathItem, PathsBuilder};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, OpenApi, OpenApiBuilder};
use utoipa::{PartialSchema as _, ToSchema as _};

use self::describe::{BEARER, Description, Schemas};
use super::access::Access;

/// The introduction of the document.
const ABOUT: &str = "\
The API of innkeeperd, on its Unix socket and through innkeeper-gateway. A failure is a `Failure` with a stable code: \
`x-innkeeper-codes` lists those of a call. A body above 64 KiB, or above 16 MiB for `preview-check`, gets 413. \
`x-innkeeper-role` is the role that the call requires.";

/// A call's method, path, and the access that it requires.
pub(super) type Gated = (&'static str, &'static str, Access);

/// The document, made at its first request.
#[derive(Clone)]
pub(super) struct Document {
    calls: Arc<[Gated]>,
    text: Arc<OnceLock<String>>,
}

impl Document {
    /// Creates the document of these calls.
    pub(super) fn of(calls: impl Iterator<Item = Gated>) -> Self {
        Self {
            calls: calls.collect(),
            text: Arc::default(),
        }
    }

    /// Returns it as JSON.
    fn json(&self) -> &str {
        self.text.get_or_init(|| {
            let mut document = serde_json::to_value(build(&self.calls)).unwrap_or_default();
            plain_links(&mut document);
            format!("{document:#}\n")
        })
    }
}

/// Returns the document.
pub(super) async fn show(Extension(document): Extension<Document>) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json")];
    (headers, document.json().to_owned()).into_response()
}

/// Returns all descriptions.
fn descriptions() -> Vec<Description> {
    let mut all = host::all();
    all.extend(guests::all());
    all.extend(previews::all());
    all
}

fn build(calls: &[Gated]) -> OpenApi {
    let accesses: HashMap<(&str, &str), Access> = calls
        .iter()
        .map(|&(method, path, access)| ((method, path), access))
        .collect();
    let mut paths = PathsBuilder::new();
    let mut schemas: Schemas = vec![(Failure::name().into_owned(), Failure::schema())];
    Failure::schemas(&mut schemas);
    for description in descriptions() {
        if let Some(&access) = accesses.get(&(description.method, description.path)) {
            let operation = description.operation(access);
            let item = PathItem::new(description.http_method(), operation);
            paths = paths.path(description.path, item);
        }
        schemas.extend(description.schemas);
    }
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(
            "A token of `innkeeper token create`. The Unix socket requires none.",
        ))
        .build();
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("Innkeeper")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some(ABOUT)),
        )
        .paths(paths)
        .components(Some(
            ComponentsBuilder::new()
                .schemas_from_iter(schemas)
                .security_scheme(BEARER, SecurityScheme::Http(bearer))
                .build(),
        ))
        .build()
}

/// Replaces rustdoc's links in descriptions by their text.
fn plain_links(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(plain_links),
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    Value::String(text) if name == "description" => *text = plain(text),
                    other => plain_links(other),
                }
            }
        }
        _ => {}
    }
}

/// Returns a text of rustdoc without the targets of its links: `[text](target)` and `[text]` become `text`.
fn plain(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, link)) = rest.split_once('[') {
        let Some((label, after)) = link.split_once(']') else {
            break;
        };
        result.push_str(before);
        result.push_str(label);
        let target = after
            .strip_prefix('(')
            .and_then(|target| target.split_once(')'));
        rest = target.map_or(after, |(_, after)| after);
    }
    result.push_str(rest);
    result.replace("crate::", "").replace("Self::", "")
}
