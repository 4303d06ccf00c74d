//! API calls and their responses.

use hyper::body::Bytes;
use hyper::{HeaderMap, Method, StatusCode, header};
use innkeeper_model::preview::RepoName;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::GithubError;

/// GitHub's media type for JSON.
const JSON: &str = "application/vnd.github+json";

/// Maximum length of a JSON response, in bytes. A page of 100 pull requests has about 2 MB.
const MAX_JSON: usize = 16 << 20;

/// Maximum length of GitHub's message in an error, in characters.
const MAX_MESSAGE: usize = 300;

/// All characters except the unreserved ones of a URL (RFC 3986, section 2.3) are encoded.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The condition for a retry after a lost connection or a timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    /// The call is idempotent.
    Always,
    /// The call creates an object: a retry is safe only if GitHub did not receive it.
    IfNotSent,
}

/// A call of the API.
#[derive(Clone, Debug)]
pub(crate) struct ApiCall {
    /// Its action, as in "cannot …".
    pub(crate) name: String,
    pub(crate) method: Method,
    /// Path and query relative to the API's base URL.
    pub(crate) path: String,
    pub(crate) accept: &'static str,
    pub(crate) body: Bytes,
    pub(crate) retry: Retry,
    /// Maximum length of the response, in bytes.
    pub(crate) limit: usize,
}

/// A response with any status.
#[derive(Debug)]
pub(crate) struct ApiResponse {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl ApiCall {
    pub(crate) fn get(name: impl Into<String>, path: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            method: Method::GET,
            path: path.into(),
            accept: JSON,
            body: Bytes::new(),
            retry: Retry::Always,
            limit: MAX_JSON,
        }
    }

    pub(crate) fn with_body(
        method: Method,
        name: impl Into<String>,
        path: impl Into<String>,
        body: &impl Serialize,
    ) -> Result<Self, GithubError> {
        let name = name.into();
        let body = serde_json::to_vec(body).map_err(|source| GithubError::InvalidResponse {
            call: name.clone(),
            source: source.into(),
        })?;
        Ok(Self {
            // PATCH, PUT and DELETE are idempotent; POST creates an object.
            retry: if method == Method::POST {
                Retry::IfNotSent
            } else {
                Retry::Always
            },
            method,
            body: body.into(),
            ..Self::get(name, path)
        })
    }

    /// Marks a POST as idempotent.
    pub(crate) fn idempotent(mut self) -> Self {
        self.retry = Retry::Always;
        self
    }
}

impl ApiResponse {
    /// Returns the response if its status is a success.
    ///
    /// # Errors
    /// GitHub's refusal.
    pub(crate) fn success(self, call: &ApiCall) -> Result<Self, GithubError> {
        if self.status.is_success() {
            return Ok(self);
        }
        let (call, message) = (call.name.clone(), self.message());
        let needs = self.header("x-accepted-github-permissions").map(printable);
        Err(match self.status {
            StatusCode::UNAUTHORIZED => GithubError::Unauthorized { call },
            StatusCode::FORBIDDEN => GithubError::Forbidden {
                call,
                message,
                needs,
            },
            status => GithubError::Refused {
                call,
                status: status.as_u16(),
                message,
            },
        })
    }

    pub(crate) fn json<T: DeserializeOwned>(&self, call: &ApiCall) -> Result<T, GithubError> {
        serde_json::from_slice(&self.body).map_err(|source| GithubError::InvalidResponse {
            call: call.name.clone(),
            source: source.into(),
        })
    }

    /// Reports whether the object does not exist. The status is 409 for an empty repository, and 422 for an invalid name
    /// of a commit.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(
            self.status,
            StatusCode::NOT_FOUND | StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY
        )
    }

    /// Returns GitHub's error message, on one line.
    fn message(&self) -> Option<String> {
        let body: ErrorBody = serde_json::from_slice(&self.body).ok()?;
        let mut text = printable(&body.message);
        if let Some(detail) = body
            .errors
            .iter()
            .flatten()
            .find_map(|e| e["message"].as_str())
        {
            text.push_str(": ");
            text.push_str(&printable(detail));
        }
        Some(text)
    }

    pub(crate) fn documentation(&self) -> Option<String> {
        let body: ErrorBody = serde_json::from_slice(&self.body).ok()?;
        body.documentation_url
    }

    pub(crate) fn header(&self, name: impl header::AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Returns the URL of the next page, by the `Link` header (RFC 8288, section 3).
    pub(crate) fn next_page(&self) -> Option<&str> {
        self.header(header::LINK)?.split(',').find_map(|link| {
            let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
            parameters
                .split(';')
                .any(|p| matches!(p.trim(), "rel=\"next\"" | "rel=next"))
                .then_some(target)
        })
    }
}

/// Returns GitHub's text on one line of limited length.
fn printable(text: &str) -> String {
    let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    printable.take(MAX_MESSAGE).collect()
}

/// The body of an error response ("Troubleshooting the REST API").
#[derive(serde::Deserialize)]
struct ErrorBody {
    message: String,
    documentation_url: Option<String>,
    errors: Option<Vec<serde_json::Value>>,
}

/// Returns a path below a repository.
pub(crate) fn repo_path(repo: &RepoName, rest: &str) -> String {
    format!("/repos/{}/{}{rest}", repo.owner(), repo.name())
}

/// Encodes a text as one segment of a path or a value in a query.
pub(crate) fn segment(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

/// Encodes a text as several segments, separated at its slashes.
pub(crate) fn segments(text: &str) -> String {
    text.split('/').map(segment).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linked(value: &str) -> ApiResponse {
        let mut headers = HeaderMap::new();
        headers.insert(header::LINK, value.parse().expect("a header"));
        ApiResponse {
            status: StatusCode::OK,
            headers,
            body: Bytes::new(),
        }
    }

    #[test]
    fn next_page_is_found_among_links() {
        let both = r#"<https://api.github.com/x?page=1>; rel="prev", <https://api.github.com/x?page=3>; rel="next""#;
        assert_eq!(
            linked(both).next_page(),
            Some("https://api.github.com/x?page=3")
        );
        for last in [
            r#"<https://api.github.com/x?page=1>; rel="first""#,
            "",
            "<",
            "x; rel=\"next\"",
        ] {
            assert_eq!(linked(last).next_page(), None, "{last:?}");
        }
    }

    #[test]
    fn segment_encodes_special_characters() {
        assert_eq!(segment("a/../b?c#d%"), "a%2F..%2Fb%3Fc%23d%25");
        assert_eq!(segments("feature/a b'c"), "feature/a%20b%27c");
        assert_eq!(segment("dependabot[bot]"), "dependabot%5Bbot%5D");
    }
}
