use axum::Router;
use axum::routing::get;
use insta::assert_snapshot;

use crate::fake::Fake;

fn fake() -> Fake {
    let log = "preview-config.nix was evaluated\nlistening on 3000\n";
    Fake::new(Router::new().route("/v1/previews/web-7/logs", get(async move || log)))
}

#[test]
fn log_is_printed_unchanged() {
    let fake = fake();
    assert_snapshot!(fake.preview(&["logs", "web-7", "--follow", "-n", "5"]).ok(), @r"
    preview-config.nix was evaluated
    listening on 3000
    ");
    fake.preview(&["logs", "web-7"]).ok();
    assert_eq!(
        fake.requests(),
        [
            "GET /v1/previews/web-7/logs?lines=5&follow=true",
            "GET /v1/previews/web-7/logs?lines=100&follow=false"
        ]
    );
}

#[test]
fn json_has_one_value_per_line() {
    assert_snapshot!(fake().preview(&["logs", "web-7", "--json"]).ok(), @r#"
    {"line":"preview-config.nix was evaluated"}
    {"line":"listening on 3000"}
    "#);
}
