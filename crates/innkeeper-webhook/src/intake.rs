//! Handing deliveries to innkeeperd.
//!
//! A few senders, each with a persistent connection, take the queued deliveries and send them in one request. Deliveries
//! that arrive while a request is in flight are coalesced into the next one. So a storm costs as many requests as
//! innkeeperd can answer, and a single delivery is sent at once.
//!
//! While innkeeperd restarts, senders retry until the deadlines of their deliveries. An unanswered request may have been
//! executed; retries are idempotent, because innkeeperd identifies deliveries by their ids.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Request, StatusCode, header};
use innkeeper_http::{Connection, connect_unix};
use innkeeper_model::chain;
use innkeeper_model::preview::intake::{
    INTAKE_PATH, IntakeAnswer, IntakeRequest, MAX_BATCH, MAX_BODY,
};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::Instant;
use tracing::{error, info, warn};

/// Two, so that one request is in flight while the next one is assembled.
const SENDERS: usize = 2;

/// Capacity of the queue. Further deliveries wait for a place in it.
const QUEUE: usize = 1024;

/// Timeout for one request; after it, the request is retried on another connection.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The pause before a retry.
const PAUSE: Duration = Duration::from_millis(50);

/// A client of innkeeperd's intake. Clones share the queue; the senders end with the last clone.
#[derive(Clone, Debug)]
pub(crate) struct Intake {
    queue: mpsc::Sender<Queued>,
}

/// A delivery whose request waits for the answer.
#[derive(Debug)]
struct Queued {
    /// The [`IntakeRequest`] as JSON.
    request: Vec<u8>,
    answer: oneshot::Sender<IntakeAnswer>,
}

impl Queued {
    /// Reports whether the request still waits: its deadline has not passed.
    fn is_awaited(&self) -> bool {
        !self.answer.is_closed()
    }
}

impl Intake {
    /// Starts the senders for the socket at this path, which need not exist yet. Must be called in a Tokio runtime.
    pub(crate) fn start(socket: PathBuf) -> Self {
        let (queue, queued) = mpsc::channel(QUEUE);
        let shared = Arc::new(Shared {
            socket,
            queue: Mutex::new(queued),
            is_unreachable: AtomicBool::new(false),
        });
        for _ in 0..SENDERS {
            tokio::spawn(Arc::clone(&shared).sender());
        }
        Self { queue }
    }

    /// Hands over one delivery and returns innkeeperd's answer, or `None` without an answer by the deadline.
    pub(crate) async fn hand_over(
        &self,
        request: &IntakeRequest,
        deadline: Instant,
    ) -> Option<IntakeAnswer> {
        let request = match serde_json::to_vec(request) {
            Ok(request) => request,
            Err(error) => {
                error!(%error, "cannot serialize a delivery");
                return None;
            }
        };
        let (answer, answered) = oneshot::channel();
        let queued = Queued { request, answer };
        let exchange = async {
            self.queue.send(queued).await.ok()?;
            answered.await.ok()
        };
        tokio::time::timeout_at(deadline, exchange).await.ok()?
    }
}

/// A failed request.
#[derive(Debug, thiserror::Error)]
enum ExchangeError {
    #[error("cannot connect to {}", path.display())]
    Connect { path: PathBuf, source: io::Error },
    #[error("lost the connection to innkeeperd, or its answer is too long")]
    Connection(#[from] io::Error),
    #[error("innkeeperd did not answer in time")]
    Timeout,
    #[error("innkeeperd refused the request with {0}")]
    Refused(StatusCode),
    #[error("cannot parse innkeeperd's answer: {0}")]
    Unparsable(String),
}

impl ExchangeError {
    /// Reports whether a retry of the same request may succeed. Otherwise innkeeperd does not support it.
    fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Connection(_) | Self::Timeout => true,
            Self::Refused(status) => *status == StatusCode::SERVICE_UNAVAILABLE,
            Self::Unparsable(_) => false,
        }
    }
}

/// State shared by the senders.
struct Shared {
    socket: PathBuf,
    queue: Mutex<mpsc::Receiver<Queued>>,
    /// Set while an outage of innkeeperd has been logged.
    is_unreachable: AtomicBool,
}

impl Shared {
    async fn sender(self: Arc<Self>) {
        let mut connection = None;
        loop {
            let mut batch = Vec::new();
            let taken = self
                .queue
                .lock()
                .await
                .recv_many(&mut batch, MAX_BATCH)
                .await;
            if taken == 0 {
                return;
            }
            self.deliver(&mut connection, batch).await;
        }
    }

    /// Sends a batch until it is answered or the deadlines of all its deliveries have passed.
    async fn deliver(&self, connection: &mut Option<Connection>, batch: Vec<Queued>) {
        // A delivery that innkeeperd rejects must not block the rest of its batch: then each is sent alone.
        let mut batches = vec![batch];
        while let Some(mut batch) = batches.pop() {
            batch.retain(Queued::is_awaited);
            if batch.is_empty() {
                continue;
            }
            match self.exchange(connection, &batch).await {
                Ok(answers) => {
                    self.log_recovery();
                    for (queued, answer) in batch.into_iter().zip(answers) {
                        // Fails if the deadline has just passed: GitHub has received 503 then.
                        drop(queued.answer.send(answer));
                    }
                }
                Err(error) if error.is_transient() => {
                    *connection = None;
                    self.log_outage(&error);
                    batches.push(batch);
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) if batch.len() == 1 => {
                    *connection = None;
                    error!(
                        error = chain(&error),
                        "innkeeperd rejected a delivery; check that both programs have the same version"
                    );
                }
                Err(_) => {
                    *connection = None;
                    batches.extend(batch.into_iter().rev().map(|one| vec![one]));
                }
            }
        }
    }

    /// Sends one request and returns its answers.
    async fn exchange(
        &self,
        connection: &mut Option<Connection>,
        batch: &[Queued],
    ) -> Result<Vec<IntakeAnswer>, ExchangeError> {
        let exchange = async {
            let sender = match connection {
                Some(sender) => sender,
                None => connection.insert(connect(&self.socket).await?),
            };
            let answer = innkeeper_http::exchange(sender, request(batch), MAX_BODY).await?;
            if answer.status() != StatusCode::OK {
                return Err(ExchangeError::Refused(answer.status()));
            }
            Ok(answer.into_body())
        };
        let body = tokio::time::timeout(REQUEST_TIMEOUT, exchange)
            .await
            .map_err(|_| ExchangeError::Timeout)??;
        let answers: Vec<_> = serde_json::from_slice(&body)
            .map_err(|error| ExchangeError::Unparsable(error.to_string()))?;
        if answers.len() != batch.len() {
            let problem = format!("{} answers for {} deliveries", answers.len(), batch.len());
            return Err(ExchangeError::Unparsable(problem));
        }
        Ok(answers)
    }

    /// Logs the start of an outage of innkeeperd.
    fn log_outage(&self, error: &ExchangeError) {
        if !self.is_unreachable.swap(true, Ordering::Relaxed) {
            warn!(
                error = chain(error),
                "cannot hand deliveries to innkeeperd; retrying"
            );
        }
    }

    /// Logs the end of an outage of innkeeperd.
    fn log_recovery(&self) {
        if self.is_unreachable.swap(false, Ordering::Relaxed) {
            info!("innkeeperd accepts deliveries again");
        }
    }
}

async fn connect(socket: &Path) -> Result<Connection, ExchangeError> {
    let connected = connect_unix(socket).await;
    connected.map_err(|source| ExchangeError::Connect {
        path: socket.to_owned(),
        source,
    })
}

/// Returns the HTTP request for a batch, whose items are already JSON.
fn request(batch: &[Queued]) -> Request<Full<Bytes>> {
    let length: usize = batch.iter().map(|queued| queued.request.len() + 1).sum();
    let mut body = Vec::with_capacity(length + 1);
    for queued in batch {
        body.push(if body.is_empty() { b'[' } else { b',' });
        body.extend_from_slice(&queued.request);
    }
    body.push(b']');
    let mut request = Request::new(Full::new(body.into()));
    *request.method_mut() = hyper::Method::POST;
    *request.uri_mut() = hyper::Uri::from_static(INTAKE_PATH);
    let headers = request.headers_mut();
    headers.insert(header::HOST, header::HeaderValue::from_static("innkeeperd"));
    headers.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/json"),
    );
    request
}
