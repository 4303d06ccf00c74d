//! One request, and its answer.

use hyper::body::Bytes;
use hyper::{HeaderMap, Method, StatusCode, header};
use innkeeper_model::preview::RepoName;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::GithubError;

/// What GitHub's API answers in JSON, by its own media type.
const JSON: &str = "application/vnd.github+json";

/// The longest JSON answer, in bytes. A page of 100 pull requests has about 2 MB.
const MAX_JSON: usize = 16 << 20;

/// The longest piece of GitHub's complaint that goes into an error, in characters.
const MAX_MESSAGE: usize = 300;

/// Whatever is not unreserved in a URL (RFC 3986, section 2.3) is encoded.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Whether a request may be sent again when nobody knows what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Twice is as good as once.
    Safe,
    /// Twice makes two of it: sent again only when GitHub certainly did nothing.
    Unsafe,
}

/// A request to the API.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// What it does, as in "cannot …".
    pub(crate) name: String,
    pub(crate) method: Method,
    /// Path and query below the API's address.
    pub(crate) path: String,
    pub(crate) accept: &'static str,
    pub(crate) body: Bytes,
    pub(crate) repeat: Repeat,
    /// The longest answer that is read, in bytes.
    pub(crate) limit: usize,
}

/// An answer with any status.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Call {
    pub(crate) fn get(name: impl Into<String>, path: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            method: Method::GET,
            path: path.into(),
            accept: JSON,
            body: Bytes::new(),
            repeat: Repeat::Safe,
            limit: MAX_JSON,
        }
    }

    pub(crate) fn send(
        method: Method,
        name: impl Into<String>,
        path: impl Into<String>,
        body: &impl Serialize,
    ) -> Result<Self, GithubError> {
        let name = name.into();
        let body = serde_json::to_vec(body).map_err(|source| GithubError::NotUnderstood {
            call: name.clone(),
            source: source.into(),
        })?;
        Ok(Self {
            // PATCH, PUT and DELETE say what should be; POST makes something each time.
            repeat: if method == Method::POST {
                Repeat::Unsafe
            } else {
                Repeat::Safe
            },
            method,
            body: body.into(),
            ..Self::get(name, path)
        })
    }

    pub(crate) fn repeatable(mut self) -> Self {
        self.repeat = Repeat::Safe;
        self
    }
}

impl Answer {
    /// The answer, unless it is a refusal.
    pub(crate) fn success(self, call: &Call) -> Result<Self, GithubError> {
        if self.status.is_success() {
            return Ok(self);
        }
        let (call, message) = (call.name.clone(), self.message());
        Err(match self.status {
            StatusCode::UNAUTHORIZED => GithubError::Unauthorized { call },
            StatusCode::FORBIDDEN => GithubError::Forbidden { call, message },
            status => GithubError::Refused {
                call,
                status: status.as_u16(),
                message,
            },
        })
    }

    pub(crate) fn json<T: DeserializeOwned>(&self, call: &Call) -> Result<T, GithubError> {
        serde_json::from_slice(&self.body).map_err(|source| GithubError::NotUnderstood {
            call: call.name.clone(),
            source: source.into(),
        })
    }

    /// Whether GitHub knows no such thing. 409 is what an empty repository answers, 422 what the commits
    /// API answers to a name that is no commit.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(
            self.status,
            StatusCode::NOT_FOUND | StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY
        )
    }

    /// GitHub's own words about a refusal, on one line.
    fn message(&self) -> Option<String> {
        let body: Refusal = serde_json::from_slice(&self.body).ok()?;
        let words = body
            .message
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c });
        let mut text: String = words.take(MAX_MESSAGE).collect();
        if let Some(detail) = body
            .errors
            .iter()
            .flatten()
            .find_map(|e| e["message"].as_str())
        {
            text.push_str(": ");
            text.extend(detail.chars().filter(|c| !c.is_control()).take(MAX_MESSAGE));
        }
        Some(text)
    }

    pub(crate) fn documentation(&self) -> Option<String> {
        let body: Refusal = serde_json::from_slice(&self.body).ok()?;
        body.documentation_url
    }

    pub(crate) fn header(&self, name: impl header::AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Where the next page is, by the `Link` header (RFC 8288, section 3).
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

/// The body of a refusal ("Troubleshooting the REST API").
#[derive(serde::Deserialize)]
struct Refusal {
    message: String,
    documentation_url: Option<String>,
    errors: Option<Vec<serde_json::Value>>,
}

/// The path of something in a repository.
pub(crate) fn repo_path(repo: &RepoName, rest: &str) -> String {
    format!("/repos/{}/{}{rest}", repo.owner(), repo.name())
}

/// A text as one segment of a path or as a value in a query.
pub(crate) fn segment(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

/// A text as several segments, cut at its slashes.
pub(crate) fn segments(text: &str) -> String {
    text.split('/').map(segment).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linked(value: &str) -> Answer {
        let mut headers = HeaderMap::new();
        headers.insert(header::LINK, value.parse().expect("a header"));
        Answer {
            status: StatusCode::OK,
            headers,
            body: Bytes::new(),
        }
    }

    #[test]
    fn the_next_page_is_found_among_links() {
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
    fn texts_of_others_stay_inside_their_segment() {
        assert_eq!(segment("a/../b?c#d%"), "a%2F..%2Fb%3Fc%23d%25");
        assert_eq!(segments("feature/a b'c"), "feature/a%20b%27c");
        assert_eq!(segment("dependabot[bot]"), "dependabot%5Bbot%5D");
    }
}
