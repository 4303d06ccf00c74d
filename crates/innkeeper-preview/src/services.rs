//! The services in a preview's guest: starts them in the contract's order and probes the app's ports.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use innkeeper_engine::Engine;
use innkeeper_model::api::ExecRequest;
use innkeeper_model::preview::{Meta, RouteProtocol, ServiceName};
use innkeeper_model::{Code, Failure, Guest, GuestName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use crate::guests::Guests;
use crate::probe_socket;
use crate::probes::{Probe, endpoints, probes};
use crate::service_states::{self, ServiceState};
use crate::watch::{refusal, refusing};
use crate::{PreviewError, PreviewsConfig};

/// Size of the kept end of a command's output, in bytes.
const KEPT: usize = 32 << 10;

/// Number of lines of a service's journal that are shown when it fails.
const LINES: &str = "40";

/// Timeout of a command that only queries.
const QUERY_TIMEOUT: Duration = Duration::from_secs(20);

/// Interval at which an awaited condition is polled.
const POLL: Duration = Duration::from_millis(100);

/// Timeout of one request to the app.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The contract's file that has the setup service rebuild everything.
const FORCE_REBUILD: &str = "/tmp/force-rebuild";

/// Result of a command in a guest.
struct Exit {
    status: i32,
    output: String,
}

/// Services of previews' guests.
#[derive(Clone)]
pub(crate) struct Services {
    config: Arc<PreviewsConfig>,
    engine: Engine,
    guests: Guests,
}

impl Services {
    pub(crate) fn new(config: Arc<PreviewsConfig>, engine: Engine, guests: Guests) -> Self {
        Self {
            config,
            engine,
            guests,
        }
    }

    /// Waits until the guest's service manager answers and knows the services.
    ///
    /// # Errors
    /// It does not in time, or a service does not exist.
    pub(crate) async fn await_ready(
        &self,
        slug: &GuestName,
        meta: &Meta,
    ) -> Result<(), PreviewError> {
        let deadline = Instant::now() + self.config.boot_timeout;
        let setup = meta.setup_service.as_str();
        loop {
            let query = ["systemctl", "show", "-p", "LoadState", "--value", setup];
            match self.query(slug, &query).await {
                Ok(exit) if exit.status == 0 => break,
                Ok(exit) if Instant::now() > deadline => {
                    return Err(unhealthy(
                        format!("the service manager of preview '{slug}' does not answer"),
                        &exit.output,
                    ));
                }
                Err(error) if Instant::now() > deadline => return Err(error),
                Ok(_) | Err(_) => sleep(POLL).await,
            }
        }
        for service in std::iter::once(&meta.setup_service).chain(&meta.app_services) {
            let service = service.as_str();
            let query = ["systemctl", "show", "-p", "LoadState", "--value", service];
            let state = self.query(slug, &query).await?.output;
            if state.trim() == "not-found" {
                return Err(PreviewError::new(
                    Code::PreviewConfigInvalid,
                    format!(
                        "preview-config.nix names the service '{service}', and the guest has no such unit"
                    ),
                    "Declare it in systemd.services, or correct setupService and appServices.",
                ));
            }
        }
        Ok(())
    }

    /// Runs the setup service to its end. `force` makes it rebuild everything, by the contract's file. The app's services
    /// keep running meanwhile.
    ///
    /// # Errors
    /// It fails or does not end in time; with the end of its journal.
    pub(crate) async fn set_up(
        &self,
        slug: &GuestName,
        meta: &Meta,
        force: bool,
    ) -> Result<(), PreviewError> {
        if force {
            // Best effort: not every setup service reads it, and not every guest has the user.
            let touch = ["touch", FORCE_REBUILD];
            let touched = self.run_in(slug, Some("preview"), &touch, QUERY_TIMEOUT);
            drop(touched.await);
        }
        let setup = &meta.setup_service;
        let failure = |problem| format!("the setup service '{setup}' {problem}");
        self.run_job(
            slug,
            "restart",
            setup,
            self.config.setup_timeout,
            failure("failed"),
            failure("did not end"),
        )
        .await
    }

    /// Starts those of the app's services that do not run, also one that ended too often.
    ///
    /// # Errors
    /// One does not start in time; with the end of its journal.
    pub(crate) async fn start_app(
        &self,
        slug: &GuestName,
        meta: &Meta,
    ) -> Result<(), PreviewError> {
        self.run_jobs(slug, "start", meta).await
    }

    /// Restarts the app's services, which ends the requests that they respond to.
    ///
    /// # Errors
    /// As for [`Self::start_app`].
    pub(crate) async fn restart_app(
        &self,
        slug: &GuestName,
        meta: &Meta,
    ) -> Result<(), PreviewError> {
        self.run_jobs(slug, "restart", meta).await
    }

    /// Runs a job of the service manager, `start` or `restart`, for each of the app's services.
    async fn run_jobs(&self, slug: &GuestName, job: &str, meta: &Meta) -> Result<(), PreviewError> {
        for service in &meta.app_services {
            let failure = format!("the app service '{service}' did not start");
            let timeout = self.config.health_timeout;
            // The service manager refuses to start a service that has just ended several times.
            let reset = ["systemctl", "reset-failed", service.as_str()];
            drop(self.query(slug, &reset).await);
            self.run_job(slug, job, service, timeout, failure.clone(), failure)
                .await?;
        }
        Ok(())
    }

    /// Runs a job for a service. The error's message is `failed`, or `slow` after a timeout of `limit`.
    async fn run_job(
        &self,
        slug: &GuestName,
        job: &str,
        service: &ServiceName,
        limit: Duration,
        failed: String,
        slow: String,
    ) -> Result<(), PreviewError> {
        let command = ["systemctl", job, service.as_str()];
        let exit = timeout(limit, self.run_in(slug, None, &command, limit * 2)).await;
        let message = match exit {
            Ok(exit) if exit.as_ref().is_ok_and(|exit| exit.status == 0) => return Ok(()),
            Ok(exit) => {
                exit?;
                failed
            }
            Err(_) => {
                let stop = ["systemctl", "stop", "--no-block", service.as_str()];
                drop(self.query(slug, &stop).await);
                format!("{slow} within {} s", limit.as_secs())
            }
        };
        Err(unhealthy(message, &self.journal_of(slug, service).await))
    }

    /// Waits until every port of the app answers a request with any status but a server error (5xx).
    ///
    /// # Errors
    /// One does not in time; with the end of the journals.
    pub(crate) async fn await_answers(
        &self,
        guest: &Guest,
        meta: &Meta,
    ) -> Result<(), PreviewError> {
        let deadline = Instant::now() + self.config.health_timeout;
        loop {
            let Some(silent) = self.silent_port(guest, meta).await else {
                return Ok(());
            };
            if Instant::now() > deadline {
                let journals = self.journals(&guest.name, meta).await;
                return Err(unhealthy(silent, &journals));
            }
            sleep(POLL).await;
        }
    }

    /// Returns the first port that does not answer as it should, as a sentence.
    pub(crate) async fn silent_port(&self, guest: &Guest, meta: &Meta) -> Option<String> {
        let address = match self.guests.address(guest) {
            Ok(address) => address,
            Err(error) => return Some(error.to_string()),
        };
        let host = self.config.host(&guest.name);
        for probe in probes(meta) {
            let Probe { port, path, .. } = &probe;
            let answered = match probe.protocol {
                RouteProtocol::Http => answer(address, *port, &host, path).await,
                // A server that speaks HTTP/2 is a sufficient answer: its status would need a client of HTTP/2.
                RouteProtocol::H2c => answer_h2c(address, *port).await.map(|()| 200),
            };
            match answered {
                Ok(status) if probe.accepts(status) => {}
                Ok(status) => return Some(format!("port {port} answers {path} with {status}")),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                    return Some(format!(
                        "nothing answers on port {port}: {error}. The app must listen on this port of all addresses (0.0.0.0), not only of localhost"
                    ));
                }
                Err(error) => return Some(format!("nothing answers on port {port}: {error}")),
            }
        }
        None
    }

    /// Reports whether all of the app's services run, according to the guest's service manager.
    pub(crate) async fn are_running(&self, slug: &GuestName, meta: &Meta) -> bool {
        self.state(slug, meta).await == ServiceState::Up
    }

    /// Returns the state of the app: that of its services, and of its ports once these run. A port that refuses
    /// connections counts as [`ServiceState::Changing`].
    pub(crate) async fn app_state(&self, guest: &Guest, meta: &Meta) -> ServiceState {
        let state = self.state(&guest.name, meta).await;
        let Ok(address) = self.guests.address(guest) else {
            return state;
        };
        if state != ServiceState::Up {
            return state;
        }
        match refusing(&endpoints(meta, address)).await {
            Some(port) => ServiceState::Changing(refusal(port.port())),
            None => ServiceState::Up,
        }
    }

    /// Returns the error of an app that ends again and again, with the end of the journals.
    pub(crate) async fn crash_loop(
        &self,
        slug: &GuestName,
        meta: &Meta,
        ends: usize,
        within: Duration,
    ) -> PreviewError {
        let seconds = within.as_secs().max(1);
        unhealthy(
            format!("the app ended {ends} times within {seconds} s"),
            &self.journals(slug, meta).await,
        )
    }

    async fn journals(&self, slug: &GuestName, meta: &Meta) -> String {
        let mut journals = String::new();
        for service in &meta.app_services {
            journals.push_str(&self.journal_of(slug, service).await);
        }
        journals
    }

    async fn state(&self, slug: &GuestName, meta: &Meta) -> ServiceState {
        let services = &meta.app_services;
        let mut query = vec!["systemctl", "show", "-p", service_states::PROPERTIES];
        query.extend(services.iter().map(ServiceName::as_str));
        match self.query(slug, &query).await {
            Ok(exit) if exit.status == 0 => service_states::parse(services, &exit.output),
            _ => ServiceState::Changing("the guest's service manager does not answer".to_owned()),
        }
    }

    /// Returns the end of a service's journal.
    async fn journal_of(&self, slug: &GuestName, service: &ServiceName) -> String {
        let service = service.as_str();
        let command = [
            "journalctl",
            "--no-pager",
            "-o",
            "cat",
            "-n",
            LINES,
            "-u",
            service,
        ];
        let exit = self.query(slug, &command).await;
        exit.map_or_else(|error| format!("{error}\n"), |exit| exit.output)
    }

    async fn query(&self, slug: &GuestName, command: &[&str]) -> Result<Exit, PreviewError> {
        self.run_in(slug, None, command, QUERY_TIMEOUT).await
    }

    /// Runs a command in the guest to its end. Dropping the future kills it.
    async fn run_in(
        &self,
        slug: &GuestName,
        user: Option<&str>,
        command: &[&str],
        limit: Duration,
    ) -> Result<Exit, PreviewError> {
        let request = ExecRequest {
            command: command.iter().map(|&word| word.to_owned()).collect(),
            tty: false,
            size: None,
            environment: Vec::new(),
            user: user.map(str::to_owned),
            detached: false,
        };
        let mut session = Box::pin(self.engine.exec(slug, &request)).await?;
        drop(session.stdin.take());
        let run = async {
            let stderr = session.stderr.as_mut();
            let (out, err) = tokio::join!(tail(Some(&mut session.stdout)), tail(stderr));
            let status = session.command.wait().await.unwrap_or(-1);
            let output = String::from_utf8_lossy(&[out, err].concat()).into_owned();
            Exit { status, output }
        };
        timeout(limit, run).await.map_err(|_| {
            PreviewError::new(
                Code::TimedOut,
                format!(
                    "`{}` in preview '{slug}' did not end within {} s",
                    command.join(" "),
                    limit.as_secs()
                ),
                format!("`preview logs {slug}` shows the guest's log."),
            )
        })
    }
}

/// Reads to the end and returns the end of it.
async fn tail(from: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut kept = Vec::new();
    let Some(mut from) = from else {
        return kept;
    };
    let mut piece = vec![0; 4096];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        kept.extend_from_slice(&piece[..length]);
        if kept.len() > 2 * KEPT {
            kept.drain(..kept.len() - KEPT);
        }
    }
    kept
}

/// Returns the status with which an app answers a request.
async fn answer(address: Ipv4Addr, port: u16, host: &str, path: &str) -> std::io::Result<u16> {
    let exchange = async {
        let mut stream = probe_socket::connect(SocketAddr::from((address, port))).await?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: innkeeper\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        // `HTTP/1.1 200` is all that is needed.
        let mut start = [0; 12];
        stream.read_exact(&mut start).await?;
        Ok::<_, std::io::Error>(start)
    };
    let start = timeout(ANSWER_TIMEOUT, exchange)
        .await
        .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))?;
    status(&start).ok_or_else(|| std::io::Error::other("the answer is not HTTP"))
}

/// Waits until a server answers the preface of HTTP/2 with its own, a frame of settings (RFC 9113, section 3.4).
async fn answer_h2c(address: Ipv4Addr, port: u16) -> std::io::Result<()> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let exchange = async {
        let mut stream = probe_socket::connect(SocketAddr::from((address, port))).await?;
        stream.write_all(&[PREFACE, &SETTINGS].concat()).await?;
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        Ok::<_, std::io::Error>(head)
    };
    let head = timeout(ANSWER_TIMEOUT, exchange)
        .await
        .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))?;
    if head[3..] == SETTINGS[3..] {
        Ok(())
    } else {
        Err(std::io::Error::other("the answer is not HTTP/2"))
    }
}

/// Parses the status in the start of an answer. The app can answer anything.
fn status(start: &[u8]) -> Option<u16> {
    let start = std::str::from_utf8(start).ok()?;
    let (_, digits) = start.strip_prefix("HTTP/1.")?.split_once(' ')?;
    digits.parse().ok()
}

fn unhealthy(message: String, log: &str) -> PreviewError {
    let mut failure = Failure::new(Code::AppUnhealthy, message)
        .with_remedy("The log shows why; push a commit that corrects it.");
    let lines: Vec<_> = log.lines().map(str::to_owned).collect();
    failure.log = lines[lines.len().saturating_sub(40)..].to_vec();
    failure.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_of_an_answer_is_parsed_strictly() {
        assert_eq!(status(b"HTTP/1.1 200"), Some(200));
        assert_eq!(status(b"HTTP/1.0 503"), Some(503));
        for odd in [
            "HTTP/1.1\u{e9}20",
            "HTTP/1.\u{e9}200",
            "HTTP/1.1 +\u{e9}",
            "SSH-2.0-Open",
        ] {
            assert_eq!(status(odd.as_bytes()), None, "{odd:?}");
        }
        assert_eq!(status(&[0xff; 12]), None);
    }

    /// The answers of two servers: one of HTTP/2, and one of HTTP/1.1, which rejects the preface.
    #[tokio::test]
    async fn only_a_server_of_http2_answers_its_preface() {
        for (answer, is_http2) in [
            (&[0, 0, 0, 4, 0, 0, 0, 0, 0][..], true),
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", false),
            (b"", false),
        ] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
                .await
                .expect("bind");
            let port = listener.local_addr().expect("address").port();
            let serve = async {
                let (mut stream, _) = listener.accept().await.expect("accept");
                let mut preface = [0; 33];
                stream.read_exact(&mut preface).await.expect("preface");
                stream.write_all(answer).await.expect("write");
            };
            let (answered, ()) = tokio::join!(answer_h2c(Ipv4Addr::LOCALHOST, port), serve);
            assert_eq!(answered.is_ok(), is_http2, "{answered:?}");
        }
    }
}
