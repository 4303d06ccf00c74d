//! A minimal HTTP client for the API socket that shares no code with the daemon.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use innkeeper_model::api::{Accepted, GuestView};
use innkeeper_model::{Event, Failure, Operation};
use serde::de::DeserializeOwned;

/// A timeout that only a failed test reaches.
const TIMEOUT: Duration = Duration::from_secs(90);

#[derive(Clone, Debug)]
pub(crate) struct Client {
    socket: PathBuf,
    /// Headers of each request, each with its end of line.
    headers: String,
}

#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn read<T: DeserializeOwned>(&self) -> T {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn failure(&self) -> Failure {
        assert!(self.status >= 400, "not rejected: {self:?}");
        self.read()
    }
}

impl Client {
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self {
            socket,
            headers: String::new(),
        }
    }

    /// Returns the same client with more headers.
    pub(crate) fn with_headers(mut self, headers: &str) -> Self {
        self.headers.push_str(headers);
        self
    }

    /// Calls the API. An error means that the daemon is unreachable or died during the call.
    pub(crate) fn try_call(
        &self,
        method: &str,
        path: &str,
        body: &str,
    ) -> std::io::Result<Response> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let (length, headers) = (body.len(), &self.headers);
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: innkeeper\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}"
        )?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let truncated = || std::io::Error::other(format!("truncated response: {text:?}"));
        let (head, body) = text.split_once("\r\n\r\n").ok_or_else(truncated)?;
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|s| s.parse().ok())
            .ok_or_else(truncated)?;
        let body = if head.to_lowercase().contains("transfer-encoding: chunked") {
            unchunk(body).ok_or_else(truncated)?
        } else {
            body.to_owned()
        };
        Ok(Response { status, body })
    }

    pub(crate) fn call(&self, method: &str, path: &str, body: &str) -> Response {
        self.try_call(method, path, body)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        let answer = self.call("GET", path, "");
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.read()
    }

    /// Follows an accepted operation to its end.
    pub(crate) fn finish(&self, answer: &Response) -> Operation {
        assert_eq!(answer.status, 202, "{answer:?}");
        let id = answer.read::<Accepted>().operation;
        drop(self.events(&format!("operation={id}&follow=true")));
        self.get(&format!("/v1/operations/{id}"))
    }

    pub(crate) fn events(&self, query: &str) -> Vec<Event> {
        let answer = self.call("GET", &format!("/v1/events?{query}"), "");
        let data = answer
            .body
            .lines()
            .filter_map(|line| line.strip_prefix("data: "));
        data.map(|json| serde_json::from_str(json).expect(json))
            .collect()
    }

    /// Creates a guest and waits until it runs.
    pub(crate) fn create(&self, name: &str, closure: &str) -> GuestView {
        let operation = self.finish(&self.call("POST", "/v1/guests", &create_body(name, closure)));
        assert_eq!(operation.failure, None, "{operation:?}");
        self.guest(name)
    }

    pub(crate) fn destroy(&self, name: &str) {
        let operation = self.finish(&self.call("DELETE", &format!("/v1/guests/{name}"), ""));
        assert_eq!(operation.failure, None, "{operation:?}");
    }

    pub(crate) fn change(&self, name: &str, verb: &str) {
        let operation = self.finish(&self.call("POST", &format!("/v1/guests/{name}/{verb}"), ""));
        assert_eq!(operation.failure, None, "{operation:?}");
    }

    /// Takes a snapshot of a stopped guest.
    pub(crate) fn take_snapshot(&self, name: &str, label: &str) {
        let path = format!("/v1/guests/{name}/snapshots");
        let body = format!(r#"{{"label":"{label}"}}"#);
        let operation = self.finish(&self.call("POST", &path, &body));
        assert_eq!(operation.failure, None, "{operation:?}");
    }

    pub(crate) fn guest(&self, name: &str) -> GuestView {
        self.get(&format!("/v1/guests/{name}"))
    }
}

pub(crate) fn create_body(name: &str, closure: &str) -> String {
    serde_json::json!({ "name": name, "closure": closure, "memory": "128M" }).to_string()
}

/// Decodes the chunked transfer coding (RFC 9112, section 7.1). `None` for truncated input.
fn unchunk(mut text: &str) -> Option<String> {
    let mut body = String::new();
    loop {
        let (size, rest) = text.split_once("\r\n")?;
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.push_str(rest.get(..size)?);
        text = rest.get(size..)?.strip_prefix("\r\n")?;
    }
}
