//! Words that make no sense are refused before anything is asked, with the codes of the contract.

use innkeeper_model::Code;
use insta::assert_snapshot;

use crate::fake::{command, run};

#[test]
fn each_refusal_has_its_code() {
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
        (&["destroy", "webhook"], Code::InvalidSlug),
        (&["logs", &long], Code::SlugTooLong),
        (&["db", "reset", "-y", "a_b"], Code::InvalidSlug),
        (&["create", "web", "main"], Code::InvalidRequest),
        (&["build", "o/r", "a..b"], Code::InvalidRequest),
        (
            &["approve", "web-7", "--sha", "2b2b2b2"],
            Code::InvalidRequest,
        ),
    ];
    for (words, code) in cases {
        let run = run(command("preview", &[&["--json"], words].concat()));
        assert_eq!((run.status, run.failure().code), (1, code), "{words:?}");
    }
}

#[test]
fn a_slug_to_choose_and_a_slug_to_find_have_different_hints() {
    let create = ["create", "o/r", "main", "--slug", "Web"];
    assert_snapshot!(run(command("preview", &create)).whole(), @r"
    status: 1
    --- stdout
    --- stderr
    [ERROR] the slug cannot be used: guest name 'Web' contains 'W'; only a-z, 0-9 and '-' are allowed
            Hint: for example --slug web
    ");
    assert_snapshot!(run(command("preview", &["update", "Web"])).whole(), @r"
    status: 1
    --- stdout
    --- stderr
    [ERROR] the slug cannot be used: guest name 'Web' contains 'W'; only a-z, 0-9 and '-' are allowed
            Hint: `preview list` shows the slugs of all previews.
    ");
}
