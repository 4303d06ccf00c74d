//! The services in a preview's guest: started in the contract's order, and asked whether they answer.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use innkeeper_model::api::ExecRequest;
use innkeeper_model::preview::{Meta, ServiceName};
use innkeeper_model::{Code, Failure, Guest, GuestName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::PreviewError;
use crate::previews::Inner;

/// How much of a command's output is kept: its end.
const KEPT: usize = 32 << 10;

/// How many lines of a service's journal are shown when it fails.
const LINES: &str = "40";

/// How long a command may take that only asks.
const ASKING: Duration = Duration::from_secs(20);

/// How often something that is awaited is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// How long an app may take for one answer.
const ANSWER: Duration = Duration::from_secs(10);

/// The contract's file that tells the setup service to build anew.
const FORCE_REBUILD: &str = "/tmp/force-rebuild";

/// A command that ended in a guest.
pub(crate) struct Ran {
    pub(crate) status: i32,
    pub(crate) output: String,
}

impl Inner {
    /// Waits until the guest's service manager answers, and knows the services.
    ///
    /// # Errors
    /// When it does not in time, or a service is not there.
    pub(crate) async fn await_services(
        &self,
        slug: &GuestName,
        meta: &Meta,
    ) -> Result<(), PreviewError> {
        let deadline = Instant::now() + self.config.boot_timeout;
        let setup = meta.setup_service.as_str();
        loop {
            let ask = ["systemctl", "show", "-p", "LoadState", "--value", setup];
            match self.run_in(slug, None, &ask, ASKING).await {
                Ok(ran) if ran.status == 0 => break,
                Ok(ran) if Instant::now() > deadline => {
                    return Err(unhealthy(
                        format!("the service manager of preview '{slug}' does not answer"),
                        &ran.output,
                    ));
                }
                Err(error) if Instant::now() > deadline => return Err(error),
                Ok(_) | Err(_) => sleep(LOOK).await,
            }
        }
        for service in std::iter::once(&meta.setup_service).chain(&meta.app_services) {
            let ask = [
                "systemctl",
                "show",
                "-p",
                "LoadState",
                "--value",
                service.as_str(),
            ];
            let state = self.run_in(slug, None, &ask, ASKING).await?.output;
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

    /// Runs the setup service to its end, `anew` with the contract's file that has it build all of it. The app's
    /// services go on meanwhile.
    ///
    /// # Errors
    /// When it fails or does not end in time; with the end of its journal.
    pub(crate) async fn set_up(
        &self,
        slug: &GuestName,
        meta: &Meta,
        anew: bool,
    ) -> Result<(), PreviewError> {
        if anew {
            // Not every setup service looks for it, and not every guest has the user.
            let touched = self.run_in(slug, Some("preview"), &["touch", FORCE_REBUILD], ASKING);
            drop(touched.await);
        }
        let setup = &meta.setup_service;
        let said = |what| format!("the setup service '{setup}' {what}");
        self.restart(
            slug,
            setup,
            self.config.setup_timeout,
            said("failed"),
            said("did not end"),
        )
        .await
    }

    /// Starts the app's services, or starts them again.
    ///
    /// # Errors
    /// When one does not start, or not in time; with the end of its journal.
    pub(crate) async fn start_app(
        &self,
        slug: &GuestName,
        meta: &Meta,
    ) -> Result<(), PreviewError> {
        for service in &meta.app_services {
            let said = format!("the app service '{service}' did not start");
            self.restart(
                slug,
                service,
                self.config.health_timeout,
                said.clone(),
                said,
            )
            .await?;
        }
        Ok(())
    }

    /// Restarts a service, or says what it did: `failed`, or `slow` when it took longer than `limit`.
    async fn restart(
        &self,
        slug: &GuestName,
        service: &ServiceName,
        limit: Duration,
        failed: String,
        slow: String,
    ) -> Result<(), PreviewError> {
        let restart = ["systemctl", "restart", service.as_str()];
        let ran = timeout(limit, self.run_in(slug, None, &restart, limit * 2)).await;
        let said = match ran {
            Ok(ran) if ran.as_ref().is_ok_and(|ran| ran.status == 0) => return Ok(()),
            Ok(ran) => {
                ran?;
                failed
            }
            Err(_) => {
                let stop = ["systemctl", "stop", "--no-block", service.as_str()];
                drop(self.run_in(slug, None, &stop, ASKING).await);
                format!("{slow} within {} s", limit.as_secs())
            }
        };
        Err(unhealthy(said, &self.journal_of(slug, service).await))
    }

    /// Waits until every port of the app answers a request, with anything but a fault of its own (5xx).
    ///
    /// # Errors
    /// When one does not in time; with the end of the journals.
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
                let mut journals = String::new();
                for service in &meta.app_services {
                    journals.push_str(&self.journal_of(&guest.name, service).await);
                }
                return Err(unhealthy(silent, &journals));
            }
            sleep(LOOK).await;
        }
    }

    /// The first port that does not answer as it should, as a sentence.
    pub(crate) async fn silent_port(&self, guest: &Guest, meta: &Meta) -> Option<String> {
        let address = match self.address(guest) {
            Ok(address) => address,
            Err(error) => return Some(error.to_string()),
        };
        let host = self.config.host(&guest.name);
        for (port, path) in ports(meta) {
            match answer(address, port, &host, &path).await {
                Ok(status) if status < 500 => {}
                Ok(status) => return Some(format!("port {port} answers {path} with {status}")),
                Err(error) => return Some(format!("nothing answers on port {port}: {error}")),
            }
        }
        None
    }

    /// Whether all of the app's services run, as the guest's service manager says. One of `Type=oneshot` may have
    /// ended well.
    pub(crate) async fn app_runs(&self, slug: &GuestName, meta: &Meta) -> bool {
        for service in &meta.app_services {
            let ask = ["systemctl", "is-active", "--quiet", service.as_str()];
            let ran = self.run_in(slug, None, &ask, ASKING).await;
            if ran.is_ok_and(|ran| ran.status == 0) {
                continue;
            }
            let ask = [
                "systemctl",
                "show",
                "-p",
                "Type,ActiveState,Result",
                service.as_str(),
            ];
            let ran = self.run_in(slug, None, &ask, ASKING).await;
            if !ran.is_ok_and(|ran| ran.status == 0 && has_done_its_work(&ran.output)) {
                return false;
            }
        }
        true
    }

    /// The end of a service's journal.
    async fn journal_of(&self, slug: &GuestName, service: &ServiceName) -> String {
        let ask = [
            "journalctl",
            "--no-pager",
            "-o",
            "cat",
            "-n",
            LINES,
            "-u",
            service.as_str(),
        ];
        let ran = self.run_in(slug, None, &ask, ASKING).await;
        ran.map_or_else(|error| format!("{error}\n"), |ran| ran.output)
    }

    /// Runs a command in the guest to its end. Dropping the future kills it.
    pub(crate) async fn run_in(
        &self,
        slug: &GuestName,
        user: Option<&str>,
        command: &[&str],
        limit: Duration,
    ) -> Result<Ran, PreviewError> {
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
            Ran { status, output }
        };
        timeout(limit, run).await.map_err(|_| {
            PreviewError::new(
                Code::TimedOut,
                format!(
                    "`{}` in preview '{slug}' did not end within {} s",
                    command.join(" "),
                    limit.as_secs()
                ),
                format!("`preview logs {slug}` shows what the guest does."),
            )
        })
    }
}

/// Whether a service that does not run is one that need not, by what `systemctl show` says of it.
fn has_done_its_work(shown: &str) -> bool {
    let says = |property| shown.lines().any(|line| line.trim() == property);
    says("Type=oneshot") && says("ActiveState=inactive") && says("Result=success")
}

/// The end of what is read.
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

/// Every port with a path to ask for.
fn ports(meta: &Meta) -> BTreeMap<u16, String> {
    let hosts = meta.extra_hosts.iter().flat_map(|host| &host.routes);
    meta.routes
        .iter()
        .chain(hosts)
        .map(|rule| {
            let base = if rule.strip_prefix {
                "/"
            } else {
                rule.path.base()
            };
            let path = if base.is_empty() { "/" } else { base };
            (rule.port, path.to_owned())
        })
        .collect()
}

/// The status with which an app answers a request.
async fn answer(address: Ipv4Addr, port: u16, host: &str, path: &str) -> std::io::Result<u16> {
    let ask = async {
        let mut stream = TcpStream::connect(SocketAddr::from((address, port))).await?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: innkeeper\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        // `HTTP/1.1 200`, and nothing more is needed.
        let mut start = [0; 12];
        stream.read_exact(&mut start).await?;
        Ok::<_, std::io::Error>(start)
    };
    let start = timeout(ANSWER, ask)
        .await
        .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))?;
    status(&start).ok_or_else(|| std::io::Error::other("it does not speak HTTP"))
}

/// The status in the start of an answer. The app can answer anything.
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
    fn an_app_can_answer_anything() {
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

    #[test]
    fn a_service_that_does_one_thing_need_not_run() {
        let shown = "Type=oneshot\nResult=success\nActiveState=inactive\n";
        assert!(has_done_its_work(shown));
        for (was, is) in [
            ("oneshot", "simple"),
            ("success", "exit-code"),
            ("inactive", "failed"),
            ("inactive", "activating"),
        ] {
            assert!(!has_done_its_work(&shown.replace(was, is)), "{is}");
        }
    }

    #[test]
    fn every_port_is_asked_once() {
        let meta = Meta::parse(
            r#"{"setupService":"s","appServices":["a"],"database":"container",
                "routes":[{"path":"/","port":3000},{"path":"/api/*","port":4000,"stripPrefix":true}],
                "extraHosts":[{"prefix":"admin","routes":[{"path":"/","port":4000}]}]}"#,
        )
        .expect("valid");
        let asked: Vec<_> = ports(&meta).into_iter().collect();
        assert_eq!(asked, [(3000, "/".to_owned()), (4000, "/".to_owned())]);
    }
}
