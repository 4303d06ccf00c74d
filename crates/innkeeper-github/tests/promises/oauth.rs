//! Logins of people.

use innkeeper_github::client::{GithubError, OauthApp, Settings, account};
use innkeeper_github::fake::{AccountRecord, FakeGithub, OauthRecord};
use innkeeper_model::Secret;

const CALLBACK: &str = "https://api.example.org/login/callback";

/// The example of RFC 7636, appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

struct Stage {
    fake: FakeGithub,
    app: OauthApp,
}

impl Stage {
    async fn new() -> Self {
        let fake = FakeGithub::start().await.expect("starts");
        fake.with(|world| {
            world.oauth = Some(OauthRecord {
                client_id: "Iv1".to_owned(),
                client_secret: "hunter2".to_owned(),
                callback: CALLBACK.to_owned(),
            });
            let account = AccountRecord {
                id: 583_231,
                organizations: (0..5).map(|i| format!("Org{i}")).collect(),
                teams: vec!["Org1/platform".to_owned()],
            };
            world.accounts.insert("octocat".to_owned(), account);
            world.visitor = Some("octocat".to_owned());
            world.page_size = Some(2);
        });
        let app = OauthApp::new("Iv1", Secret::new("hunter2"));
        Self { fake, app }
    }

    fn settings(&self) -> Settings {
        Settings {
            base_url: self.fake.base_url(),
            attempts: 1,
            ..Settings::default()
        }
    }

    /// Follows GitHub's page as a browser does, and returns the code.
    async fn code(&self) -> String {
        let page = self
            .app
            .page(&self.fake.base_url(), CALLBACK, "a state", CHALLENGE);
        let uri: hyper::Uri = page.parse().expect("a URL");
        let stream = tokio::net::TcpStream::connect(uri.authority().expect("one").as_str());
        let stream = stream.await.expect("connects");
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io)
            .await
            .expect("opens");
        tokio::spawn(connection);
        let target = uri.path_and_query().expect("a path").to_string();
        let request = hyper::Request::get(target).header("host", "github.example.org");
        let request = request
            .body(http_body_util::Empty::<hyper::body::Bytes>::new())
            .expect("a request");
        let response = sender.send_request(request).await.expect("responds");
        let location = response.headers()["location"].to_str().expect("text");
        let query = location.strip_prefix(CALLBACK).expect("the callback");
        let (code, state) = query.split_once('&').expect("two parameters");
        assert_eq!(state, "state=a%20state");
        code.strip_prefix("?code=").expect("a code").to_owned()
    }

    async fn exchange(&self, code: &str, verifier: &str) -> Result<Secret, GithubError> {
        let web = self.settings();
        self.app.exchange(web, CALLBACK, code, verifier).await
    }
}

#[tokio::test]
async fn login_ends_with_the_account_and_all_its_groups() {
    let stage = Stage::new().await;
    let token = stage.exchange(&stage.code().await, VERIFIER).await;
    let found = account(stage.settings(), token.expect("a token")).await;
    let found = found.expect("an account");
    assert_eq!((found.id, found.login.as_str()), (583_231, "octocat"));
    let organizations: Vec<_> = found.organizations.iter().map(String::as_str).collect();
    assert_eq!(organizations, ["org0", "org1", "org2", "org3", "org4"]);
    assert!(found.teams.iter().eq(["org1/platform"]));
}

#[tokio::test]
async fn code_is_for_one_login_and_valid_once() {
    let stage = Stage::new().await;
    let refused = |result: Result<Secret, GithubError>| {
        let error = result.expect_err("refused");
        assert!(
            !format!("{error} {error:?}").contains("hunter2"),
            "{error:?}"
        );
        matches!(error, GithubError::Refused { .. })
    };
    let stolen = stage.code().await;
    assert!(refused(stage.exchange(&stolen, &"x".repeat(43)).await));
    let code = stage.code().await;
    assert!(stage.exchange(&code, VERIFIER).await.is_ok());
    assert!(refused(stage.exchange(&code, VERIFIER).await));
    let other = OauthApp::new("Iv1", Secret::new("wrong"));
    let code = stage.code().await;
    let web = stage.settings();
    assert!(refused(
        other.exchange(web, CALLBACK, &code, VERIFIER).await
    ));
}

#[tokio::test]
async fn account_with_an_incomplete_list_does_not_log_in() {
    let stage = Stage::new().await;
    for path in ["/user/orgs?per_page=100&page=2", "/user/teams", "/user?"] {
        let token = stage.exchange(&stage.code().await, VERIFIER).await;
        stage.fake.with(|world| {
            world
                .failures
                .push_back(innkeeper_github::fake::InjectedFailure {
                    method: None,
                    path: path.trim_end_matches('?').to_owned(),
                    times: 1,
                    kind: innkeeper_github::fake::FailureKind::Status(404),
                });
        });
        let found = account(stage.settings(), token.expect("a token")).await;
        found.expect_err(path);
        stage.fake.with(|world| world.failures.clear());
    }
}
