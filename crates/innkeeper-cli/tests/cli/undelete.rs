use axum::Router;
use innkeeper_model::{Code, Failure, Verb};
use insta::assert_snapshot;

use crate::fake::{Fake, Part, accept, answer, events, refuse};
use crate::samples::{accepted, done, finished, guest};

fn fake() -> Fake {
    let steps = vec![
        accepted(1, Verb::Undelete),
        done(2, "adopt-files"),
        finished(3),
    ];
    Fake::new(
        Router::new()
            .route("/v1/guests/web", answer(&guest("web", 2)))
            .route("/v1/retained/web/undelete", accept(7, Some("web")))
            .route("/v1/events", events([Part::Ends(steps)])),
    )
}

#[test]
fn the_agents_address_is_shown() {
    let fake = fake();
    assert_snapshot!(fake.agent(&["undelete", "web"]).whole(), @r"
    status: 0
    --- stdout
    [INFO] Creating agent web with the files of web.
    [INFO] taking over the files took 1.2 ms.
    [OK] Agent web is up at 10.100.0.5 with its files after N ms.
    --- stderr
    ");
    assert_eq!(
        fake.seen()[0],
        r#"POST /v1/retained/web/undelete {"as":null,"id":null}"#
    );
}

#[test]
fn another_name_and_a_number_are_passed_on_and_programs_get_the_guest() {
    let fake = fake();
    let arguments = ["undelete", "web", "--as", "web-2", "--id", "3", "--json"];
    let stdout = fake.agent(&arguments).ok();
    let value: serde_json::Value = serde_json::from_str(&stdout).expect("one value");
    assert_eq!(
        (&value["name"], &value["operation"]),
        (&"web".into(), &7.into())
    );
    assert_eq!(
        fake.seen()[0],
        r#"POST /v1/retained/web/undelete {"as":"web-2","id":3}"#
    );
}

#[test]
fn an_agent_whose_files_are_gone_is_explained() {
    let refusal = Failure::new(Code::RetainedNotFound, "no files are kept")
        .with_remedy("`agent list --all` shows the destroyed agents whose files are kept.");
    let router = Router::new().route("/v1/retained/web/undelete", refuse(refusal));
    assert_snapshot!(Fake::new(router).agent(&["undelete", "web"]).whole(), @r"
    status: 3
    --- stdout
    --- stderr
    [ERROR] no files are kept
            Hint: `agent list --all` shows the destroyed agents whose files are kept.
    ");
}
