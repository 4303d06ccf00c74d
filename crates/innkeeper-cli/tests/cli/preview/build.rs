use innkeeper_model::{Code, EventKind, Failure};
use insta::assert_snapshot;

use crate::build::daemon;
use crate::fake::Fake;

fn fake(end: EventKind) -> Fake {
    daemon("/v1/preview-builds", end)
}

#[test]
fn a_build_is_followed_to_its_end() {
    let fake = fake(EventKind::Finished);
    assert_snapshot!(fake.preview(&["build", "octo/web", "main"]).whole(), @r"
    status: 0
    --- stdout
    [INFO] Building branch main of octo/web.
    [OK] The closure is built after N ms.
    --- stderr
    ");
    assert_eq!(
        fake.seen()[0],
        r#"POST /v1/preview-builds {"repo":"octo/web","branch":"main"}"#
    );
}

#[test]
fn a_configuration_that_is_wrong_has_the_exit_status_of_a_build() {
    let failure = Failure::new(Code::PreviewConfigInvalid, "'routes' is missing");
    let run = fake(EventKind::Failed { failure }).preview(&["build", "octo/web", "main", "--json"]);
    assert_eq!(
        (run.status, run.failure().code),
        (6, Code::PreviewConfigInvalid)
    );
}
