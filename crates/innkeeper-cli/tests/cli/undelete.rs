use axum::Router;
use innkeeper_model::{Code, Failure, Verb};
use insta::assert_snapshot;

use crate::fake::{Fake, Stream, accept, events, fail, respond};
use crate::samples::{accepted, done, finished, guest};

fn fake() -> Fake {
    let steps = vec![
        accepted(1, Verb::Undelete),
        done(2, "adopt-files"),
        finished(3),
    ];
    Fake::new(
        Router::new()
            .route("/v1/guests/web", respond(&guest("web", 2)))
            .route("/v1/retained/web/undelete", accept(7, Some("web")))
            .route("/v1/events", events([Stream::Ends(steps)])),
    )
}

#[test]
fn address_is_printed() {
    let fake = fake();
    assert_snapshot!(fake.agent(&["undelete", "web"]).transcript(), @r"
    status: 0
    --- stdout
    [INFO] Creating agent web from the retained files of web.
    [INFO] adopting the retained files took 1.2 ms.
    [OK] Agent web is up at 10.100.0.5 with its files after N ms.
    --- stderr
    ");
    assert_eq!(
        fake.requests()[0],
        r#"POST /v1/retained/web/undelete {"as":null,"id":null}"#
    );
}

#[test]
fn request_has_name_and_id_and_json_has_the_guest() {
    let fake = fake();
    let arguments = ["undelete", "web", "--as", "web-2", "--id", "3", "--json"];
    let stdout = fake.agent(&arguments).ok();
    let value: serde_json::Value = serde_json::from_str(&stdout).expect("one value");
    assert_eq!(
        (&value["name"], &value["operation"]),
        (&"web".into(), &7.into())
    );
    assert_eq!(
        fake.requests()[0],
        r#"POST /v1/retained/web/undelete {"as":"web-2","id":3}"#
    );
}

#[test]
fn missing_files_are_reported() {
    let failure_response = Failure::new(Code::RetainedNotFound, "no files are kept")
        .with_remedy("`agent list --all` shows the destroyed agents whose files are kept.");
    let router = Router::new().route("/v1/retained/web/undelete", fail(failure_response));
    assert_snapshot!(Fake::new(router).agent(&["undelete", "web"]).transcript(), @r"
    status: 3
    --- stdout
    --- stderr
    [ERROR] no files are kept
            Hint: `agent list --all` shows the destroyed agents whose files are kept.
    ");
}
