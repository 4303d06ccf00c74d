use innkeeper_model::{Code, EventKind, Failure};
use insta::assert_snapshot;

use crate::build::daemon;
use crate::fake::Fake;

fn fake(end: EventKind) -> Fake {
    daemon("/v1/preview-builds", end)
}

#[test]
fn build_is_followed_to_its_end() {
    let fake = fake(EventKind::Finished);
    assert_snapshot!(fake.preview(&["build", "octo/web", "main"]).transcript(), @r"
    status: 0
    --- stdout
    [INFO] Building branch main of octo/web.
    [OK] Closure built in N ms.
    --- stderr
    ");
    assert_eq!(
        fake.requests()[0],
        r#"POST /v1/preview-builds {"repo":"octo/web","branch":"main"}"#
    );
}

#[test]
fn invalid_configuration_exits_with_6() {
    let failure = Failure::new(Code::PreviewConfigInvalid, "'routes' is missing");
    let run = fake(EventKind::Failed { failure }).preview(&["build", "octo/web", "main", "--json"]);
    assert_eq!(
        (run.status, run.failure().code),
        (6, Code::PreviewConfigInvalid)
    );
}
