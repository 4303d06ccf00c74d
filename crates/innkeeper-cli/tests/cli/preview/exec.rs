use axum::Router;
use innkeeper_model::{Code, Failure};

use crate::fake::{Fake, fail};

#[test]
fn command_runs_in_the_previews_guest() {
    let stopped = Failure::new(Code::GuestNotRunning, "guest 'web-7' does not run");
    let fake = Fake::new(Router::new().route("/v1/previews/web-7/exec", fail(stopped)));
    let run = fake.preview(&["exec", "-it", "web-7", "--", "ls", "-l"]);
    assert_eq!(run.status, 4, "{run:?}");
    let [output] = &fake.requests()[..] else {
        panic!("{:?}", fake.requests());
    };
    assert!(
        output.starts_with("POST /v1/previews/web-7/exec ")
            && output.contains(r#""command":["ls","-l"],"tty":true"#),
        "{output}"
    );
}
