//! A client with a persistent connection, like that of the proxy in front of the program.

use std::io;
use std::net::SocketAddr;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Method, Request};
use innkeeper_http::{Connection, connect_tcp, exchange};
use serde_json::Value;

use super::payload::RawDelivery;

/// A response.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Null if it was not JSON.
    pub(crate) body: Value,
}

/// A client that connects on demand.
pub(crate) struct Client {
    address: SocketAddr,
    connection: Option<Connection>,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            connection: None,
        }
    }

    /// Creates a client that is connected, and has sent nothing.
    pub(crate) async fn connected(address: SocketAddr) -> Self {
        Self {
            address,
            connection: Some(connect_tcp(address).await.expect("connects")),
        }
    }

    /// Waits until the program has closed the connection.
    pub(crate) async fn wait_until_closed(&self) {
        while self
            .connection
            .as_ref()
            .is_some_and(|open| !open.is_closed())
        {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    /// Sends a delivery. An error means that the connection failed; the next call opens a new one.
    pub(crate) async fn deliver(&mut self, sent: &RawDelivery) -> Result<Response, io::Error> {
        self.deliver_to("/webhook/github", sent).await
    }

    pub(crate) async fn deliver_to(
        &mut self,
        path: &str,
        sent: &RawDelivery,
    ) -> Result<Response, io::Error> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header("Content-Type", sent.content_type)
            .header("X-GitHub-Delivery", &sent.id)
            .header("X-GitHub-Event", &sent.event);
        if let Some(signature) = &sent.signature {
            request = request.header("X-Hub-Signature-256", signature);
        }
        let body = Full::new(sent.body.clone());
        self.send(request.body(body).expect("request")).await
    }

    pub(crate) async fn get(&mut self, path: &str) -> Result<Response, io::Error> {
        let request = Request::get(path).body(Full::default()).expect("request");
        self.send(request).await
    }

    pub(crate) async fn send(
        &mut self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response, io::Error> {
        let host = hyper::header::HeaderValue::from_static("webhook.example.com");
        request.headers_mut().insert(hyper::header::HOST, host);
        let result = self.exchange(request).await;
        if result.is_err() {
            self.connection = None;
        }
        result
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Response, io::Error> {
        let sender = match self.connection.take() {
            Some(sender) if !sender.is_closed() => self.connection.insert(sender),
            _ => self.connection.insert(connect_tcp(self.address).await?),
        };
        let answer = exchange(sender, request, usize::MAX).await?;
        Ok(Response {
            status: answer.status().as_u16(),
            body: serde_json::from_slice(answer.body()).unwrap_or_default(),
        })
    }
}
