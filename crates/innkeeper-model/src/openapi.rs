//! Schemas (OpenAPI 3.1) of the types that JSON represents as a text or a number. Those of all others are derived.
//!
//! A pattern lists the accepted characters and lengths. A parser may check more, such as reserved words.

use std::borrow::Cow;

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::access::{Login, TokenName};
use crate::preview::sources::SourcePath;
use crate::preview::{
    BranchName, CommitSha, EnvName, HealthPath, PreviewCommand, RepoName, RoutePath, RouteTimeout,
    ServiceName,
};
use crate::{
    Code, Cpus, GuestName, Installable, MemorySize, Secret, SnapshotLabel, StorePath, UserIdCount,
};

macro_rules! schemas {
    ($($type:ident: $description:literal, $schema:expr;)*) => {$(
        impl PartialSchema for $type {
            fn schema() -> RefOr<Schema> {
                $schema.description(Some($description)).into()
            }
        }

        impl ToSchema for $type {
            fn name() -> Cow<'static, str> {
                Cow::Borrowed(stringify!($type))
            }
        }
    )*};
}

fn text(pattern: &str, example: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(SchemaType::Type(Type::String))
        .pattern(Some(pattern))
        .examples([example])
}

fn number(minimum: u32, maximum: u32) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(SchemaType::Type(Type::Integer))
        .minimum(Some(f64::from(minimum)))
        .maximum(Some(f64::from(maximum)))
}

/// The names of the codes: utoipa does not see those that a macro gives to serde.
fn codes() -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(SchemaType::Type(Type::String))
        .enum_values(Some(Code::ALL.iter().map(|code| code.as_str())))
}

schemas! {
    Code: "The stable name of a failure, for programs to act on. Codes are never renamed or reused.", codes();
    GuestName: "The name of a guest or preview: a DNS label in lower case.",
        text("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", "web-1");
    SnapshotLabel: "The label of a snapshot.",
        text("^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$", "before-upgrade");
    StorePath: "The path of an object in the Nix store.",
        text(
            "^/nix/store/[0-9abcdfghijklmnpqrsvwxyz]{32}-[0-9A-Za-z+._?=-]{1,211}$",
            "/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-guest",
        );
    Installable: "A flake output, `<flake>` or `<flake>#<attribute>`.",
        ObjectBuilder::new().schema_type(SchemaType::Type(Type::String)).examples(["github:octo/agents#agent"]);
    MemorySize: "An amount of memory: a decimal number with an optional unit K, M, G or T, powers of 1024.",
        text("^[0-9]+([.][0-9]{1,6})?([KMGTkmgt]?([Ii]?[Bb])?)$", "512M");
    Cpus: "A number of processors with at most two decimal places.",
        text("^[0-9]+([.][0-9]{1,2})?$", "0.5");
    UserIdCount: "A number of user ids: a power of two.", number(65_536, 1_048_576);
    TokenName: "The name of a token.",
        text("^[0-9A-Za-z._][0-9A-Za-z._-]{0,63}$", "laptop");
    Login: "The login of a person's account at GitHub.",
        text("^[0-9A-Za-z][0-9A-Za-z_-]{0,99}$", "octocat");
    RepoName: "A repository at GitHub, `owner/name`.",
        text("^[0-9A-Za-z-]{1,39}/[0-9A-Za-z._-]{1,100}$", "octo/web");
    BranchName: "The name of a branch, by the rules of git-check-ref-format(1).",
        text("^[^\\u0000-\\u0020~^:?*\\[\\\\]{1,255}$", "main");
    CommitSha: "The full hash of a commit.",
        text("^[0-9a-f]{40}$", "0123456789abcdef0123456789abcdef01234567");
    SourcePath: "The path of a file in a repository, relative to its root.",
        ObjectBuilder::new().schema_type(SchemaType::Type(Type::String)).examples(["preview-config.nix"]);
    ServiceName: "The name of a systemd service.",
        text("^[0-9A-Za-z:_.\\\\][0-9A-Za-z:_.@\\\\-]*$", "web.service");
    RoutePath: "The paths of a route.", text("^/", "/api/*");
    HealthPath: "The path of an app's health check.", text("^/", "/healthz");
    EnvName: "The name of an environment variable.", text("^[A-Za-z_][0-9A-Za-z_]*$", "API_KEY");
    Secret: "A secret text.", ObjectBuilder::new().schema_type(SchemaType::Type(Type::String));
    RouteTimeout: "Seconds until a response of an app must begin.", number(1, 65_535);
    PreviewCommand: "A command in a comment.",
        text("^(stop|start|reset-db|rebuild|approve [0-9a-f]{40})$", "rebuild");
}
