use axum::Router;
use innkeeper_model::{Code, Failure};

use crate::fake::{Fake, fail};

#[test]
fn files_are_copied_from_the_previews_guest() {
    let stopped = Failure::new(Code::GuestNotRunning, "guest 'web-7' does not run");
    let fake = Fake::new(Router::new().route("/v1/previews/web-7/exec", fail(stopped)));
    let run = fake.preview(&["cp", "--user", "app", "web-7:log", "/tmp"]);
    assert_eq!(run.status, 4, "{run:?}");
    let [request] = &fake.requests()[..] else {
        panic!("{:?}", fake.requests());
    };
    let command = r#""command":["/run/host/innkeeper/shim","copy-out","--","log"]"#;
    assert!(
        request.starts_with("POST /v1/previews/web-7/exec ")
            && request.contains(command)
            && request.contains(r#""user":"app""#),
        "{request}"
    );
}
