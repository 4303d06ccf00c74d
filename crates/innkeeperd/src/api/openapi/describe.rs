//! The description of one call, and its operation in the document.

use std::collections::{BTreeMap, BTreeSet};

use innkeeper_model::access::Role;
use innkeeper_model::{Code, Failure};
use utoipa::openapi::extensions::ExtensionsBuilder;
use utoipa::openapi::path::{
    Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn,
};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Type};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{
    ContentBuilder, Header, HttpMethod, Ref, RefOr, Required, Response, ResponseBuilder, Schema,
};
use utoipa::{IntoParams, ToSchema};

use super::super::access::{Access, Needs, Scope};
use super::path;

/// The name of the security scheme.
pub(super) const BEARER: &str = "token";

/// Codes of every call that requires a role.
const COMMON: &[Code] = &[
    Code::InvalidRequest,
    Code::Unauthorized,
    Code::Forbidden,
    Code::TooManyFailures,
    Code::TooManyRequests,
    Code::StoreFailed,
    Code::Internal,
    Code::ShuttingDown,
    Code::DaemonUnavailable,
];

/// Schemas by name.
pub(super) type Schemas = Vec<(String, RefOr<Schema>)>;

/// The description of one call.
pub(super) struct Description {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) id: &'static str,
    summary: &'static str,
    query: Vec<Parameter>,
    body: Option<Body>,
    responses: BTreeMap<u16, Response>,
    codes: Vec<Code>,
    pub(super) schemas: Schemas,
}

/// The body of a request.
struct Body {
    schema: RefOr<Schema>,
    required: bool,
}

pub(super) fn get(path: &'static str, id: &'static str, summary: &'static str) -> Description {
    Description::new("GET", path, id, summary)
}

pub(super) fn post(path: &'static str, id: &'static str, summary: &'static str) -> Description {
    Description::new("POST", path, id, summary)
}

pub(super) fn delete(path: &'static str, id: &'static str, summary: &'static str) -> Description {
    Description::new("DELETE", path, id, summary)
}

impl Description {
    fn new(
        method: &'static str,
        path: &'static str,
        id: &'static str,
        summary: &'static str,
    ) -> Self {
        Self {
            method,
            path,
            id,
            summary,
            query: Vec::new(),
            body: None,
            responses: BTreeMap::new(),
            codes: Vec::new(),
            schemas: Vec::new(),
        }
    }

    /// Adds the parameters of the query.
    pub(super) fn query<T: IntoParams>(mut self) -> Self {
        self.query
            .extend(T::into_params(|| Some(ParameterIn::Query)));
        self
    }

    /// Sets the body of the request. It may be omitted if all its fields may.
    pub(super) fn takes<T: ToSchema>(mut self) -> Self {
        let required = match T::schema() {
            RefOr::T(Schema::Object(object)) => !object.required.is_empty(),
            _ => true,
        };
        let schema = self.reference::<T>();
        self.body = Some(Body { schema, required });
        self
    }

    /// Adds the response to a success, as JSON.
    pub(super) fn returns<T: ToSchema>(self) -> Self {
        self.responds::<T>(200, "Success.")
    }

    /// Adds the response to a success, a list as JSON.
    pub(super) fn returns_list<T: ToSchema>(mut self) -> Self {
        let items = self.reference::<T>();
        let list = ArrayBuilder::new().items(items).build();
        self.response(200, "Success.", json(list.into()))
    }

    /// Adds the response to a recorded request, which will be carried out.
    pub(super) fn accepts<T: ToSchema>(self) -> Self {
        self.responds::<T>(
            202,
            "Recorded on disk: it will be carried out, even after a crash.",
        )
    }

    /// Adds a response as JSON.
    pub(super) fn responds<T: ToSchema>(mut self, status: u16, description: &str) -> Self {
        let schema = self.reference::<T>();
        self.response(status, description, json(schema))
    }

    /// Adds the response to a success, any object as JSON.
    pub(super) fn returns_object(self, description: &str) -> Self {
        let object = ObjectBuilder::new().schema_type(Type::Object).build();
        self.response(200, description, json(RefOr::T(object.into())))
    }

    /// Adds the response to a success: server-sent events with values of a type as their data.
    pub(super) fn sends_events_of<T: ToSchema>(mut self, description: &str) -> Self {
        self.reference::<T>();
        let content = ContentBuilder::new().build();
        let response = ResponseBuilder::new().content("text/event-stream", content);
        self.response(200, description, response)
    }

    /// Adds the response to a success: values of a type as JSON, one on each line.
    pub(super) fn streams_lines_of<T: ToSchema>(mut self, description: &str) -> Self {
        self.reference::<T>();
        self.streams("application/x-ndjson", description)
    }

    /// Adds the response to a success, as text of a media type.
    pub(super) fn streams(self, media_type: &str, description: &str) -> Self {
        let text: Schema = ObjectBuilder::new()
            .schema_type(Type::String)
            .build()
            .into();
        let content = ContentBuilder::new().schema(Some(text)).build();
        let response = ResponseBuilder::new().content(media_type, content);
        self.response(200, description, response)
    }

    /// Adds the response to a request that switches to a protocol.
    pub(super) fn switches_to(mut self, protocol: &str) -> Self {
        let header = ParameterBuilder::new()
            .name("Upgrade")
            .parameter_in(ParameterIn::Header)
            .required(Required::True)
            .description(Some("The protocol, with `Connection: Upgrade`."))
            .schema(Some(constant(protocol)))
            .build();
        self.query.push(header);
        let response = ResponseBuilder::new()
            .header("Upgrade", Header::new(Schema::Object(constant(protocol))));
        self.response(
            101,
            "The connection carries frames of the protocol in both directions.",
            response,
        )
    }

    /// Adds codes of failures beside the common ones.
    pub(super) fn fails(mut self, codes: &[Code]) -> Self {
        self.codes.extend(codes);
        self
    }

    fn response(mut self, status: u16, description: &str, response: ResponseBuilder) -> Self {
        let response = response.description(description).build();
        self.responses.insert(status, response);
        self
    }

    /// Returns a reference to the schema of a type, which the document gets.
    fn reference<T: ToSchema>(&mut self) -> RefOr<Schema> {
        T::schemas(&mut self.schemas);
        self.schemas.push((T::name().into_owned(), T::schema()));
        RefOr::Ref(Ref::from_schema_name(T::name()))
    }

    /// Returns the method as the document names it.
    pub(super) fn http_method(&self) -> HttpMethod {
        match self.method {
            "GET" => HttpMethod::Get,
            "POST" => HttpMethod::Post,
            _ => HttpMethod::Delete,
        }
    }

    /// Returns the operation of the document, given the access that the call requires.
    pub(super) fn operation(&self, access: Access) -> Operation {
        let mut operation = OperationBuilder::new()
            .operation_id(Some(self.id))
            .summary(Some(self.summary))
            .description(Some(describe_access(access)))
            .tag(tag(self.path));
        for parameter in path::parameters(self.path).chain(self.query.iter().cloned()) {
            operation = operation.parameter(parameter);
        }
        if let Some(body) = &self.body {
            let content = ContentBuilder::new().schema(Some(body.schema.clone()));
            let body = RequestBodyBuilder::new()
                .content("application/json", content.build())
                .required(Some(required(body.required)));
            operation = operation
                .request_body(Some(body.build()))
                .response("413", failure(&[Code::InvalidRequest]));
        }
        for (status, response) in &self.responses {
            operation = operation.response(status.to_string(), response.clone());
        }
        let codes = self.all_codes(access);
        for (status, codes) in by_status(&codes) {
            operation = operation.response(status.to_string(), failure(&codes));
        }
        let extensions = ExtensionsBuilder::new()
            .add("x-innkeeper-role", role(access.needs))
            .add(
                "x-innkeeper-codes",
                codes.iter().map(|code| code.as_str()).collect::<Vec<_>>(),
            );
        operation = operation.extensions(Some(extensions.build()));
        operation
            .securities(Some(match access.needs {
                Needs::Nothing => Vec::new(),
                _ => vec![SecurityRequirement::new(BEARER, Vec::<String>::new())],
            }))
            .build()
    }

    /// Returns the codes of all failures, each once.
    fn all_codes(&self, access: Access) -> Vec<Code> {
        let common = match access.needs {
            Needs::Nothing => &[],
            _ => COMMON,
        };
        let all: BTreeSet<&str> = (common.iter().chain(&self.codes))
            .map(|code| code.as_str())
            .collect();
        let known = Code::ALL.iter().copied();
        known.filter(|code| all.contains(code.as_str())).collect()
    }
}

fn json(schema: RefOr<Schema>) -> ResponseBuilder {
    let content = ContentBuilder::new().schema(Some(schema)).build();
    ResponseBuilder::new().content("application/json", content)
}

/// The schema of exactly one text.
fn constant(text: &str) -> utoipa::openapi::schema::Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some([text]))
        .build()
}

/// Returns the response to failures with these codes, which have the same status.
fn failure(codes: &[Code]) -> Response {
    let names: Vec<String> = codes.iter().map(|code| format!("`{code}`")).collect();
    let schema = RefOr::Ref(Ref::from_schema_name(Failure::name()));
    json(schema)
        .description(format!("A failure: {}.", names.join(", ")))
        .build()
}

/// Returns codes by their HTTP status.
fn by_status(codes: &[Code]) -> BTreeMap<u16, Vec<Code>> {
    let mut statuses: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for &code in codes {
        statuses.entry(code.http_status()).or_default().push(code);
    }
    statuses
}

fn required(required: bool) -> Required {
    match required {
        true => Required::True,
        false => Required::False,
    }
}

/// Returns the group of a call: the first segment of its path after the version.
fn tag(path: &str) -> &str {
    path.split('/').nth(2).unwrap_or_default()
}

fn role(needs: Needs) -> &'static str {
    match needs {
        Needs::Nothing => "none",
        Needs::Gateway => "gateway",
        Needs::Session | Needs::Browser => "person",
        Needs::Role(role) => role.as_str(),
        Needs::Upkeep => Role::Admin.as_str(),
        Needs::Host => "host",
    }
}

fn describe_access(access: Access) -> String {
    let needs = match access.needs {
        Needs::Nothing => "Requires no token.".to_owned(),
        Needs::Gateway => {
            "For innkeeper-gateway itself only: it refuses requests of clients.".to_owned()
        }
        Needs::Session => "Requires the session of a person.".to_owned(),
        Needs::Browser => "Requires the session of a person in a browser.".to_owned(),
        Needs::Host => "Works on the host only: the gateway refuses it.".to_owned(),
        Needs::Role(role) => format!("Requires the role `{role}`."),
        Needs::Upkeep => {
            "Requires the role `admin`, or a member of the group on the host.".to_owned()
        }
    };
    let scope = match (access.needs, access.scope) {
        (Needs::Nothing | Needs::Host | Needs::Gateway | Needs::Session | Needs::Browser, _) => "",
        (_, Scope::Host) => " Refuses tokens of one repository.",
        (_, Scope::Own) => {
            " A developer changes its own agents only. Refuses tokens of one repository."
        }
        (_, Scope::Visible) => {
            " A token of one repository reaches the previews of that repository."
        }
    };
    let audit = match access.audit {
        Some(verb) => format!(" The audit log has it as `{verb}`."),
        None => String::new(),
    };
    format!("{needs}{scope}{audit}")
}
