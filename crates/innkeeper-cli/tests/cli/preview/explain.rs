use axum::Router;
use innkeeper_model::Code;
use innkeeper_model::api::Verdict;
use innkeeper_model::preview::api::{Link, LinkKind, PreviewExplanation, SituationCause};
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
        rest: None,
        slug: name("web-7"),
        cause: Some(SituationCause {
            verdict: unit,
            finding: match unit {
                Verdict::Broken => "1a1a1a1 failed: the setup service failed".to_owned(),
                _ => "1a1a1a1 is live".to_owned(),
            },
            code: (unit == Verdict::Broken).then_some(Code::AppUnhealthy),
            remedy: remedy.map(str::to_owned),
            log: match unit {
                Verdict::Broken => vec![" 12 | npm: \u{1b}[31mmissing script\u{1b}[0m".to_owned()],
                _ => Vec::new(),
            },
        }),
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
fn cause_comes_first() {
    let fake = fake(&explanation(Verdict::Broken));
    assert_snapshot!(fake.preview(&["explain", "web-7"]).transcript(), @r"
    status: 1
    --- stdout
    [BROKEN] web-7: 1a1a1a1 failed: the setup service failed (app_unhealthy)
            Hint: `preview logs web-7` shows why.
             12 | npm: missing script
    [WARN] url https://web-7.preview.example.com: status 503
            Hint: Look below.
    [BROKEN] unit web.service: it is what was found
    [OK] delivery: no delivery
    3 links checked: 1 broken, 1 warning.
    --- stderr
    ");
}

#[test]
fn complete_chain_exits_with_0() {
    let fake = fake(&explanation(Verdict::Ok));
    assert_snapshot!(fake.preview(&["explain", "web-7"]).transcript(), @r"
    status: 0
    --- stdout
    [OK] web-7: 1a1a1a1 is live
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
