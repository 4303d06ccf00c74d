//! Handing deliveries to innkeeperd.
//!
//! A few lanes, each with a connection that is kept open, take what waits and send it in one request: what
//! arrives while a request is under way goes with the next one. So a storm costs as many requests as
//! innkeeperd can answer, and a single delivery waits for nobody.
//!
//! While innkeeperd restarts, lanes try again until the deliveries in hand have no time left. A request that
//! got no answer may have been carried out; innkeeperd knows deliveries by their ids.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use innkeeper_model::chain;
use innkeeper_model::preview::intake::{
    INTAKE_PATH, IntakeAnswer, IntakeRequest, MAX_BATCH, MAX_BODY,
};
use tokio::net::UnixStream;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::Instant;
use tracing::{error, info, warn};

/// One request is being carried out while the next one is put together.
const LANES: usize = 2;

/// How many deliveries may wait for a lane. More wait to wait.
const WAITING: usize = 1024;

/// How long innkeeperd may take for one request before another connection is tried.
const EXCHANGE: Duration = Duration::from_secs(5);

/// How long to wait before innkeeperd is tried again.
const PAUSE: Duration = Duration::from_millis(50);

/// The way to innkeeperd. Clones share it; the lanes end with the last one.
#[derive(Clone, Debug)]
pub struct Intake {
    queue: mpsc::Sender<Waiting>,
}

/// A delivery that somebody waits for.
#[derive(Debug)]
struct Waiting {
    /// The [`IntakeRequest`] as JSON.
    request: Vec<u8>,
    answer: oneshot::Sender<IntakeAnswer>,
}

impl Waiting {
    /// Whether somebody still waits. Whoever has run out of time does not.
    fn is_wanted(&self) -> bool {
        !self.answer.is_closed()
    }
}

impl Intake {
    /// Starts the lanes to the socket at this path, which need not be there yet. Must be called in a Tokio
    /// runtime.
    #[must_use]
    pub fn start(socket: PathBuf) -> Self {
        let (queue, waiting) = mpsc::channel(WAITING);
        let shared = Arc::new(Shared {
            socket,
            waiting: Mutex::new(waiting),
            is_away: AtomicBool::new(false),
        });
        for _ in 0..LANES {
            tokio::spawn(Arc::clone(&shared).lane());
        }
        Self { queue }
    }

    /// Hands over one delivery and returns what became of it; nothing when that is not known by the
    /// deadline.
    pub async fn hand_over(
        &self,
        request: &IntakeRequest,
        deadline: Instant,
    ) -> Option<IntakeAnswer> {
        let request = match serde_json::to_vec(request) {
            Ok(request) => request,
            Err(error) => {
                error!(%error, "a delivery cannot be written down");
                return None;
            }
        };
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { request, answer };
        let exchange = async {
            self.queue.send(waiting).await.ok()?;
            answered.await.ok()
        };
        tokio::time::timeout_at(deadline, exchange).await.ok()?
    }
}

/// Why a request was not answered as it should be.
#[derive(Debug, thiserror::Error)]
enum ExchangeError {
    #[error("cannot connect to {}", path.display())]
    Connect { path: PathBuf, source: io::Error },
    #[error("the connection to innkeeperd broke")]
    Connection(#[from] hyper::Error),
    #[error("the answer of innkeeperd broke off or is too long")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("innkeeperd did not answer in time")]
    Slow,
    #[error("innkeeperd refused with {0}")]
    Refused(StatusCode),
    #[error("the answer of innkeeperd is not understood: {0}")]
    NotUnderstood(String),
}

impl ExchangeError {
    /// Whether the same request may be answered later. Otherwise something in it is not what innkeeperd
    /// expects.
    fn is_passing(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Connection(_) | Self::Body(_) | Self::Slow => true,
            Self::Refused(status) => *status == StatusCode::SERVICE_UNAVAILABLE,
            Self::NotUnderstood(_) => false,
        }
    }
}

/// What the lanes share.
struct Shared {
    socket: PathBuf,
    waiting: Mutex<mpsc::Receiver<Waiting>>,
    /// Whether the log says that innkeeperd cannot be reached.
    is_away: AtomicBool,
}

type Connection = SendRequest<Full<Bytes>>;

impl Shared {
    async fn lane(self: Arc<Self>) {
        let mut connection = None;
        loop {
            let mut batch = Vec::new();
            let taken = self
                .waiting
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

    /// Sends a batch until it is answered or nobody waits for it any more.
    async fn deliver(&self, connection: &mut Option<Connection>, batch: Vec<Waiting>) {
        // What innkeeperd does not understand must not keep it from the rest: then one goes after the other.
        let mut batches = vec![batch];
        while let Some(mut batch) = batches.pop() {
            batch.retain(Waiting::is_wanted);
            if batch.is_empty() {
                continue;
            }
            match self.exchange(connection, &batch).await {
                Ok(answers) => {
                    self.is_back();
                    for (waiting, answer) in batch.into_iter().zip(answers) {
                        // Whoever ran out of time in this moment has told GitHub so.
                        drop(waiting.answer.send(answer));
                    }
                }
                Err(error) if error.is_passing() => {
                    *connection = None;
                    self.is_away(&error);
                    batches.push(batch);
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) if batch.len() == 1 => {
                    *connection = None;
                    error!(
                        error = chain(&error),
                        "a delivery is lost; are both programs of one version?"
                    );
                }
                Err(_) => {
                    *connection = None;
                    batches.extend(batch.into_iter().rev().map(|one| vec![one]));
                }
            }
        }
    }

    /// One request and its answer.
    async fn exchange(
        &self,
        connection: &mut Option<Connection>,
        batch: &[Waiting],
    ) -> Result<Vec<IntakeAnswer>, ExchangeError> {
        let exchange = async {
            let sender = match connection {
                Some(sender) => sender,
                None => connection.insert(connect(&self.socket).await?),
            };
            sender.ready().await?;
            let answer = sender.send_request(request(batch)).await?;
            if answer.status() != StatusCode::OK {
                return Err(ExchangeError::Refused(answer.status()));
            }
            let body = Limited::new(answer.into_body(), MAX_BODY).collect().await;
            Ok(body.map_err(ExchangeError::Body)?.to_bytes())
        };
        let body = tokio::time::timeout(EXCHANGE, exchange)
            .await
            .map_err(|_| ExchangeError::Slow)??;
        let answers: Vec<_> = serde_json::from_slice(&body)
            .map_err(|error| ExchangeError::NotUnderstood(error.to_string()))?;
        if answers.len() != batch.len() {
            let problem = format!("{} answers to {} deliveries", answers.len(), batch.len());
            return Err(ExchangeError::NotUnderstood(problem));
        }
        Ok(answers)
    }

    /// Says once that innkeeperd cannot be reached.
    fn is_away(&self, error: &ExchangeError) {
        if !self.is_away.swap(true, Ordering::Relaxed) {
            warn!(
                error = chain(error),
                "innkeeperd takes no deliveries; trying again"
            );
        }
    }

    /// Says once that innkeeperd can be reached again.
    fn is_back(&self) {
        if self.is_away.swap(false, Ordering::Relaxed) {
            info!("innkeeperd takes deliveries again");
        }
    }
}

async fn connect(socket: &Path) -> Result<Connection, ExchangeError> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|source| ExchangeError::Connect {
            path: socket.to_owned(),
            source,
        })?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Its errors are seen by whoever sends a request.
    tokio::spawn(connection);
    Ok(sender)
}

/// A list of requests that are JSON already.
fn request(batch: &[Waiting]) -> Request<Full<Bytes>> {
    let length: usize = batch.iter().map(|waiting| waiting.request.len() + 1).sum();
    let mut body = Vec::with_capacity(length + 1);
    for waiting in batch {
        body.push(if body.is_empty() { b'[' } else { b',' });
        body.extend_from_slice(&waiting.request);
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
