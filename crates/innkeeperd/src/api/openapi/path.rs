//! The parameters in the paths of calls.

use innkeeper_model::access::TokenName;
use innkeeper_model::preview::EnvName;
use innkeeper_model::{GuestName, SnapshotLabel};
use utoipa::PartialSchema;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Required, Schema};

/// Returns the parameters of a path, in its order.
pub(super) fn parameters(path: &'static str) -> impl Iterator<Item = Parameter> {
    let names = path.split('/').filter_map(|segment| {
        let inner = segment.strip_prefix('{')?;
        inner.strip_suffix('}')
    });
    names.map(|name| {
        let (description, schema) = describe(path, name);
        ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Path)
            .required(Required::True)
            .description(Some(description))
            .schema(Some(schema))
            .build()
    })
}

/// Returns the meaning and the schema of a parameter.
fn describe(path: &str, name: &str) -> (&'static str, RefOr<Schema>) {
    match name {
        "name" if path == "/v1/retained/{name}" => {
            ("The number of the retained files.", number(1.0, None))
        }
        "name" if path.starts_with("/v1/retained/") => {
            ("The former name of the agent.", GuestName::schema())
        }
        "name" if path.starts_with("/v1/secrets/") => {
            ("The name of the secret.", EnvName::schema())
        }
        "owner" => ("The owner of the repository at GitHub.", text()),
        "repo" => ("The name of the repository, without its owner.", text()),
        "name" => ("The name of the agent.", GuestName::schema()),
        "slug" => ("The name of the preview.", GuestName::schema()),
        "label" => ("The label of the snapshot.", SnapshotLabel::schema()),
        "token" => ("The name of the token.", TokenName::schema()),
        "port" => ("The TCP port in the guest.", number(1.0, Some(65_535.0))),
        "id" if path.starts_with("/v1/operations/") => {
            ("The number of the operation.", number(1.0, None))
        }
        "id" if path.ends_with("/grants/{id}") => {
            ("The number of the share link or token.", number(1.0, None))
        }
        _ => ("The id of the delivery (`X-GitHub-Delivery`).", text()),
    }
}

fn number(minimum: f64, maximum: Option<f64>) -> RefOr<Schema> {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(minimum))
        .maximum(maximum)
        .into()
}

fn text() -> RefOr<Schema> {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .into()
}
