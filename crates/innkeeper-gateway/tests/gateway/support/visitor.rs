//! Visitors of previews that are not public, as Caddy describes them to the gateway.

use std::fmt::Write as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use innkeeper_model::GuestName;
use innkeeper_model::access::{
    ACCESS_FILE, ACCESS_HEADER, AccessFile, AccessGrant, CHECK_PATH, GrantId, GrantKind, GrantText,
    PreviewAccess,
};
use innkeeper_model::preview::{RepoName, Visibility};
use jiff::{Timestamp, ToSpan as _};
use sha2::Sha256;

use super::client::{Answer, get};
use super::program::Program;
use super::token;

/// The header of a browser that opens a page.
pub(crate) const PAGE: (&str, &str) = ("accept", "text/html,*/*;q=0.8");

/// Returns the host of a preview.
pub(crate) fn host(slug: &str) -> String {
    format!("{slug}.example.org")
}

/// Returns the text of the grant with this number.
pub(crate) fn grant(id: i64) -> String {
    let text = GrantText::new(GrantId(id), &[9; 32]);
    text.text().expose().to_owned()
}

/// Returns a published grant that is valid for an hour.
pub(crate) fn published(id: i64, slug: &str, kind: GrantKind) -> AccessGrant {
    let mut sha256 = String::new();
    for byte in GrantText::new(GrantId(id), &[9; 32]).digest() {
        write!(sha256, "{byte:02x}").expect("a string");
    }
    AccessGrant {
        id: GrantId(id),
        slug: name(slug),
        kind,
        sha256,
        expires: Some(Timestamp::now() + 1.hour()),
    }
}

/// Writes the rights of visitors as innkeeperd does.
pub(crate) fn publish(directory: &Path, previews: &[(&str, Visibility)], grants: &[AccessGrant]) {
    let previews = previews.iter();
    let previews = previews.map(|(slug, visibility)| preview(slug, *visibility));
    write(directory, previews.collect(), grants);
}

/// Writes the rights of visitors of one private preview of a fork.
pub(crate) fn publish_fork(directory: &Path, slug: &str, grants: &[AccessGrant]) {
    let mut preview = preview(slug, Visibility::Private);
    preview.fork = true;
    write(directory, vec![preview], grants);
}

fn preview(slug: &str, visibility: Visibility) -> PreviewAccess {
    PreviewAccess {
        slug: name(slug),
        hosts: vec![host(slug), host(&format!("api-{slug}"))],
        visibility,
        repo: RepoName::parse("octo/web").expect("a repository"),
        fork: false,
    }
}

fn write(directory: &Path, previews: Vec<PreviewAccess>, grants: &[AccessGrant]) {
    let file = AccessFile {
        version: AccessFile::VERSION,
        previews,
        grants: grants.to_vec(),
    };
    let path = directory.join(ACCESS_FILE);
    std::fs::create_dir_all(path.parent().expect("a directory")).expect("makes");
    let new = path.with_extension("new");
    std::fs::write(&new, serde_json::to_vec(&file).expect("JSON")).expect("writes");
    std::fs::rename(new, path).expect("renames");
}

fn name(slug: &str) -> GuestName {
    GuestName::parse(slug).expect("a name")
}

/// Sends Caddy's request about a visitor's GET request to the host of a preview.
pub(crate) async fn visit(
    program: &Program,
    slug: &str,
    target: &str,
    headers: &[(&str, &str)],
) -> Answer {
    visit_host(program, slug, &host(slug), target, headers).await
}

/// Sends Caddy's request about a visitor's request to any host.
pub(crate) async fn visit_host(
    program: &Program,
    slug: &str,
    host: &str,
    target: &str,
    headers: &[(&str, &str)],
) -> Answer {
    let preview = format!("/{slug}");
    let mut all = vec![
        (ACCESS_HEADER, preview.as_str()),
        ("x-forwarded-host", host),
        ("x-forwarded-uri", target),
        ("x-forwarded-proto", "https"),
    ];
    if !headers
        .iter()
        .any(|(name, _)| *name == "x-forwarded-method")
    {
        all.push(("x-forwarded-method", "GET"));
    }
    all.extend(headers);
    get(&program.access, CHECK_PATH, &all).await
}

/// Returns the cookie that a response sets, as a browser sends it.
pub(crate) fn cookie(answer: &Answer) -> String {
    let set = answer.header("set-cookie");
    set.split(';').next().unwrap_or_default().to_owned()
}

/// Returns the cookie of a person's session.
pub(crate) fn session(id: i64) -> String {
    format!("__Host-innkeeper={}", token(id).text().expose())
}

/// Returns the path and the query of a URL of a host.
pub(crate) fn path_of<'a>(url: &'a str, host: &str) -> &'a str {
    let rest = url.strip_prefix("https://").expect("HTTPS");
    let path = rest.strip_prefix(host).expect("a URL of the host");
    assert!(path.starts_with('/'), "{url}");
    path
}

/// Opens a page of a preview in a browser whose person has a session, and returns the pass.
pub(crate) async fn log_in(program: &Program, slug: &str, target: &str, id: i64) -> String {
    let (nonce, code) = obtain_code(program, slug, target, id).await;
    let exchanged = visit(program, slug, &code, &[PAGE, ("cookie", &nonce)]).await;
    assert_eq!(exchanged.status(), 302, "{}", exchanged.body);
    let wanted = format!("https://{}{target}", host(slug));
    assert_eq!(exchanged.header("location"), wanted);
    cookie(&exchanged)
}

/// Returns the cookie from before the login, and the path with the one-time code.
pub(crate) async fn obtain_code(
    program: &Program,
    slug: &str,
    target: &str,
    id: i64,
) -> (String, String) {
    let first = visit(program, slug, target, &[PAGE]).await;
    assert_eq!(first.status(), 302, "{}", first.body);
    let entrance = path_of(first.header("location"), "api.example.org");
    let session = session(id);
    let headers = [("cookie", session.as_str()), ("host", "api.example.org")];
    let entered = get(&program.socket, entrance, &headers).await;
    assert_eq!(entered.status(), 302, "{}", entered.body);
    let code = path_of(entered.header("location"), &host(slug)).to_owned();
    (cookie(&first), code)
}

/// Returns a JSON Web Token with any header, signed with HS256.
pub(crate) fn signed(key: &str, header: &str, claims: &serde_json::Value) -> String {
    let header = URL_SAFE_NO_PAD.encode(header);
    let claims = URL_SAFE_NO_PAD.encode(claims.to_string());
    let text = format!("{header}.{claims}");
    let mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("a key");
    let signature = mac.chain_update(&text).finalize().into_bytes();
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}
