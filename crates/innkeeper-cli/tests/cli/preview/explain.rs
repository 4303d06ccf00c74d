use axum::Router;
use innkeeper_model::api::Verdict;
use innkeeper_model::preview::api::{Link, LinkKind, PreviewExplanation};
use insta::assert_snapshot;

use crate::fake::{Fake, respond};
use crate::samples::name;

fn link(
    link: LinkKind,
    object: &str,
    verdict: Verdict,
    finding: &str,
    remedy: Option<&str>,
) -> Link {
    Link {
        link,
        object: object.to_owned(),
        verdict,
        finding: finding.to_owned(),
        remedy: remedy.map(str::to_owned),
    }
}

fn explanation(unit: Verdict) -> PreviewExplanation {
    let url = "https://web-7.preview.example.com";
    let remedy = (unit == Verdict::Broken).then_some("`preview logs web-7` shows why.");
    PreviewExplanation {
        slug: name("web-7"),
        chain: vec![
            link(
                LinkKind::Url,
                url,
                Verdict::Warning,
                "status 503",
                Some("Look below."),
            ),
            link(
                LinkKind::Unit,
                "web.service",
                unit,
                "it is what was found",
                remedy,
            ),
            link(LinkKind::Delivery, "", Verdict::Ok, "no delivery", None),
        ],
    }
}

fn fake(explanation: &PreviewExplanation) -> Fake {
    Fake::new(Router::new().route("/v1/previews/web-7/explain", respond(explanation)))
}

#[test]
fn first_broken_link_is_repeated_at_the_end() {
    let fake = fake(&explanation(Verdict::Broken));
    assert_snapshot!(fake.preview(&["explain", "web-7"]).transcript(), @r"
    status: 1
    --- stdout
    [WARN] url https://web-7.preview.example.com: status 503
            Hint: Look below.
    [BROKEN] unit web.service: it is what was found
    [OK] delivery: no delivery
    3 links checked: 1 broken, 1 warning.
    [BROKEN] The first broken link is the unit.
            Hint: `preview logs web-7` shows why.
    --- stderr
    ");
}

#[test]
fn complete_chain_exits_with_0() {
    let fake = fake(&explanation(Verdict::Ok));
    assert_snapshot!(fake.preview(&["explain", "web-7"]).transcript(), @r"
    status: 0
    --- stdout
    [WARN] url https://web-7.preview.example.com: status 503
            Hint: Look below.
    [OK] unit web.service: it is what was found
    [OK] delivery: no delivery
    3 links checked: nothing is broken, 1 warning.
    --- stderr
    ");
}

#[test]
fn json_has_the_chain_and_the_same_status() {
    let broken = explanation(Verdict::Broken);
    let run = fake(&broken).preview(&["explain", "web-7", "--json"]);
    assert_eq!((run.status, run.stderr.as_str()), (1, ""));
    let value: PreviewExplanation = serde_json::from_str(&run.stdout).expect("one value");
    assert_eq!(value, broken);
}
