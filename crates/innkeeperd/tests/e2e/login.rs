//! `innkeeper login` on a laptop, through the real gateway. Only GitHub is a fake, and the browser is played.

#![expect(clippy::disallowed_methods, reason = "tests run programs")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use innkeeper_github::fake::{AccountRecord, FakeGithub, OauthRecord};
use innkeeper_model::access::{AuditEntry, TokenKind, TokenRecord};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::support::{Daemon, Sandbox, wait_until};

/// The gateway's host, as browsers reach it.
const HOST: &str = "api.test";

/// A program that is killed on drop.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A host with a daemon and a gateway, and a laptop that reaches the gateway over TCP.
struct Host {
    github: FakeGithub,
    _runtime: Runtime,
    _gateway: Running,
    _daemon: Daemon,
    /// The address of the gateway for the laptop.
    address: SocketAddr,
    sandbox: Sandbox,
}

/// A response with its head as text.
struct Response {
    head: String,
    body: String,
}

impl Response {
    fn status(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    /// Returns the value of a header.
    fn header(&self, name: &str) -> &str {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let mut values = lines.filter(|(key, _)| key.eq_ignore_ascii_case(name));
        values.next().map_or("", |(_, value)| value)
    }

    /// Returns the cookie that it sets, as a browser sends it.
    fn cookie(&self) -> String {
        let set = self.header("set-cookie");
        set.split(';').next().unwrap_or_default().to_owned()
    }
}

/// Sends a request, and reads the response until the connection ends.
fn exchange(
    mut stream: impl Read + Write,
    request: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Response {
    let mut text = format!("{request} HTTP/1.1\r\nconnection: close\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
    stream.write_all(text.as_bytes()).expect("sends");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("responds");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a response");
    Response {
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

fn program(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_innkeeperd")).with_file_name(name);
    let shown = path.display();
    assert!(
        path.exists(),
        "{shown} is not built: cargo build --workspace"
    );
    path
}

/// Passes connections to a TCP port on to a socket, as Caddy does.
fn forward(socket: PathBuf) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(gateway) = UnixStream::connect(&socket) else {
                continue;
            };
            let (mut from, mut to) = (
                client.try_clone().expect("a descriptor"),
                gateway.try_clone().expect("a descriptor"),
            );
            thread::spawn(move || {
                drop(std::io::copy(&mut from, &mut to));
                drop(to.shutdown(Shutdown::Write));
            });
            let (mut from, mut to) = (gateway, client);
            thread::spawn(move || {
                drop(std::io::copy(&mut from, &mut to));
                drop(to.shutdown(Shutdown::Both));
            });
        }
    });
    address
}

impl Host {
    fn start() -> Self {
        let mut sandbox = Sandbox::new();
        // After the sandbox, so that it serves in its network.
        let runtime = Runtime::new().expect("a runtime");
        let github = runtime.block_on(FakeGithub::start());
        let github = github.expect("a fake GitHub");
        let callback = format!("https://{HOST}/login/callback");
        github.with(|world| {
            world.oauth = Some(OauthRecord {
                client_id: "client".to_owned(),
                client_secret: "secret".to_owned(),
                callback: callback.clone(),
            });
            let account = AccountRecord {
                id: 583_231,
                ..AccountRecord::default()
            };
            world.accounts.insert("octocat".to_owned(), account);
            world.visitor = Some("octocat".to_owned());
        });
        let root = sandbox.path().to_owned();
        let app = root.join("oauth.env");
        fs::write(
            &app,
            "GITHUB_CLIENT_ID=client\nGITHUB_CLIENT_SECRET=secret\n",
        )
        .expect("written");
        fs::create_dir(root.join("gateway")).expect("made");
        sandbox.configure(&format!(
            "[gateway]\nenabled = true\nhost = '{HOST}'\ngroup = 'root'\nsocket_group = 'root'\nmetrics_listen = ''\n\
             socket = '{gateway}/http.sock'\naccess_socket = '{gateway}/access.sock'\nstate_dir = '{gateway}'\n\
             [github]\napi_url = '{github}'\n\
             [people]\noauth_file = '{app}'\ngithub_url = '{github}'\nusers = {{ octocat = 'developer' }}\n",
            gateway = root.join("gateway").display(),
            github = github.base_url(),
            app = app.display(),
        ));
        let daemon = sandbox.start();
        let gateway = Command::new(program("innkeeper-gateway"))
            .arg("--config")
            .arg(sandbox.config())
            .env_clear()
            .stdin(Stdio::null())
            .spawn()
            .expect("starts");
        let socket = root.join("gateway/http.sock");
        wait_until("the gateway listens", || {
            UnixStream::connect(&socket).is_ok()
        });
        Self {
            address: forward(socket),
            github,
            _runtime: runtime,
            _gateway: Running(gateway),
            _daemon: daemon,
            sandbox,
        }
    }

    /// Sends a request of a browser to the gateway, as Caddy passes it on.
    fn browse(&self, request: &str, headers: &[(&str, &str)], body: &str) -> Response {
        let socket = self.sandbox.path().join("gateway/http.sock");
        let own = [("host", HOST), ("x-forwarded-for", "192.0.2.1")];
        let stream = UnixStream::connect(socket).expect("connects");
        exchange(stream, request, &[&own[..], headers].concat(), body)
    }

    /// Logs in with GitHub in a browser, and returns the cookie of the session.
    fn log_in_browser(&self) -> String {
        let begun = self.browse("GET /login", &[], "");
        assert_eq!(begun.status(), "302", "{}", begun.body);
        let base = self.github.base_url();
        let page = begun.header("location").strip_prefix(&base);
        let page = page.expect("a page of GitHub");
        let stream = TcpStream::connect(base.trim_start_matches("http://")).expect("connects");
        let confirmed = exchange(
            stream,
            &format!("GET {page}"),
            &[("host", "github.test")],
            "",
        );
        let back = confirmed
            .header("location")
            .strip_prefix("https://api.test");
        let back = back.expect("the gateway's URL");
        let cookie = begun.cookie();
        let ended = self.browse(&format!("GET {back}"), &[("cookie", &cookie)], "");
        assert_eq!(ended.status(), "302", "{}", ended.body);
        ended.cookie()
    }

    /// Allows a machine on its page.
    fn allow(&self, session: &str, code: &str) {
        let cookie = ("cookie", session);
        let page = self.browse("GET /device", &[cookie], "");
        let (_, rest) = page
            .body
            .split_once("name=\"csrf\" value=\"")
            .expect("a form");
        let csrf = rest.split('"').next().expect("a token");
        let origin = format!("https://{HOST}");
        let headers = [cookie, ("origin", origin.as_str())];
        let form = format!("csrf={csrf}&user_code={code}");
        let shown = self.browse("POST /device", &headers, &form);
        for part in ["Kim's laptop", "127.0.0.1", "octocat", "developer", code] {
            assert!(shown.body.contains(part), "{part} in {}", shown.body);
        }
        let allowed = self.browse("POST /device", &headers, &format!("{form}&decision=allow"));
        assert_eq!(allowed.status(), "200", "{}", allowed.body);
    }

    /// Returns a command of the laptop, which has no daemon of its own.
    fn laptop(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program(name));
        command
            .args(arguments)
            .env_clear()
            .env("HOME", self.sandbox.path().join("laptop"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn run(&self, name: &str, arguments: &[&str]) -> Output {
        let output = self.laptop(name, arguments).output();
        output.expect("runs")
    }

    /// Logs in the laptop, and returns what the program prints.
    fn log_in_laptop(&self, session: &str) -> Value {
        let url = format!("http://{}", self.address);
        let arguments = ["login", &url, "--name", "Kim's laptop", "--json"];
        let child = self.laptop("innkeeper", &arguments).spawn();
        let mut child = Running(child.expect("starts"));
        let mut errors = BufReader::new(child.0.stderr.take().expect("piped"));
        let mut note = String::new();
        errors.read_line(&mut note).expect("a note");
        let (_, rest) = note.split_once("user_code=").expect("a URL");
        let code = rest.split(' ').next().expect("a code");
        self.allow(session, code);
        let mut output = String::new();
        let mut stdout = child.0.stdout.take().expect("piped");
        stdout.read_to_string(&mut output).expect("text");
        assert!(child.0.wait().expect("ends").success(), "{output}");
        serde_json::from_str(&output).expect("JSON")
    }

    /// Returns the token of the laptop's context.
    fn token(&self) -> Option<String> {
        let file = "laptop/.config/innkeeper/contexts.toml";
        let text = fs::read_to_string(self.sandbox.path().join(file)).expect("the contexts");
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix("token = "))?;
        Some(value.trim_matches('"').to_owned())
    }

    /// Returns the status of a request with a token.
    fn status_with(&self, request: &str, token: &str) -> String {
        let bearer = format!("Bearer {token}");
        let body = r#"{"machine":"x"}"#;
        let body = if request.starts_with("POST") {
            body
        } else {
            ""
        };
        let response = self.browse(request, &[("authorization", &bearer)], body);
        response.status().to_owned()
    }

    /// Returns the valid sessions of machines.
    fn sessions(&self) -> Vec<TokenRecord> {
        let output = self
            .sandbox
            .program("innkeeper", &["token", "list", "--json"], b"");
        let mut all: Vec<TokenRecord> = serde_json::from_slice(&output.stdout).expect("a list");
        all.retain(|record| record.kind == TokenKind::Device);
        all
    }
}

#[test]
fn laptop_logs_in_and_out_and_is_revoked() {
    let host = Host::start();
    let session = host.log_in_browser();
    let login = host.log_in_laptop(&session);
    assert_eq!(login["person"], "octocat");
    assert_eq!(login["role"], "developer");
    let sessions = host.sessions();
    let [record] = sessions.as_slice() else {
        panic!("not one session: {sessions:?}");
    };
    assert_eq!(login["session"], record.name.as_str());
    assert!(
        record.name.as_str().starts_with("octocat.Kimslaptop."),
        "{}",
        record.name
    );
    let list = host.run("agent", &["list"]);
    assert!(list.status.success(), "{list:?}");

    // The session of a machine creates no other.
    let token = host.token().expect("a token");
    assert_eq!(host.status_with("POST /v1/sessions/device", &token), "403");
    let audit = host.sandbox.program("innkeeper", &["audit", "--json"], b"");
    let audit: Vec<AuditEntry> = serde_json::from_slice(&audit.stdout).expect("entries");
    let created = audit.iter().filter(|entry| entry.verb == "login-device");
    let created: Vec<_> = created
        .map(|entry| (entry.actor.as_str(), entry.object.as_deref()))
        .collect();
    assert_eq!(created, [("github:583231", Some(record.name.as_str()))]);

    // A logout ends the session on the host.
    let logout = host.run("innkeeper", &["logout"]);
    assert!(logout.status.success(), "{logout:?}");
    assert_eq!(host.token(), None);
    assert_eq!(host.status_with("GET /v1/guests", &token), "401");
    assert_eq!(host.sessions().len(), 0);
    assert_eq!(host.run("agent", &["list"]).status.code(), Some(9));

    // So does a revocation, for the next request.
    let login = host.log_in_laptop(&session);
    let name = login["session"].as_str().expect("a name").to_owned();
    assert!(host.run("agent", &["list"]).status.success());
    let revoked = host
        .sandbox
        .program("innkeeper", &["token", "revoke", &name], b"");
    assert!(revoked.status.success(), "{revoked:?}");
    let refused = host.run("agent", &["list"]);
    assert_eq!(refused.status.code(), Some(9), "{refused:?}");
    let errors = String::from_utf8_lossy(&refused.stderr);
    assert!(errors.contains("run `innkeeper login` again"), "{errors}");
}
