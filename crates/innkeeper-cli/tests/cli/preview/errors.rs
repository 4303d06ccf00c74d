//! Tests of invalid values, which fail before any request.

use innkeeper_model::Code;
use insta::assert_snapshot;

use crate::fake::{command, run};

#[test]
fn invalid_values_have_codes() {
    let long = "x".repeat(41);
    let cases: [(&[&str], Code); 8] = [
        (
            &["create", "o/r", "main", "--slug", "Web"],
            Code::InvalidSlug,
        ),
        (
            &["create", "o/r", "main", "--slug", &long],
            Code::SlugTooLong,
        ),
        (
            &["create", "o/r", "main", "--slug", "webhook"],
            Code::InvalidSlug,
        ),
        (&["logs", &long], Code::SlugTooLong),
        (&["db", "reset", "-y", "a_b"], Code::InvalidSlug),
        (&["create", "web", "main"], Code::InvalidRequest),
        (&["build", "o/r", "a..b"], Code::InvalidRequest),
        (
            &["approve", "web-7", "--sha", "2b2b2b2"],
            Code::InvalidRequest,
        ),
    ];
    for (arguments, code) in cases {
        let run = run(command("preview", &[&["--json"], arguments].concat()));
        assert_eq!((run.status, run.failure().code), (1, code), "{arguments:?}");
    }
}

#[test]
fn new_and_existing_slugs_have_different_hints() {
    let create = ["create", "o/r", "main", "--slug", "Web"];
    assert_snapshot!(run(command("preview", &create)).transcript(), @r"
    status: 1
    --- stdout
    --- stderr
    [ERROR] invalid slug: guest name 'Web' contains 'W'; only a-z, 0-9 and '-' are allowed
            Hint: Use for example --slug web.
    ");
    assert_snapshot!(run(command("preview", &["update", "Web"])).transcript(), @r"
    status: 1
    --- stdout
    --- stderr
    [ERROR] invalid slug: guest name 'Web' contains 'W'; only a-z, 0-9 and '-' are allowed
            Hint: `preview list` shows the slugs of all previews.
    ");
}
