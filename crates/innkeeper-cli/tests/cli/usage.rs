use axum::Router;
use innkeeper_model::access::{ActorUse, Amount, QuotaReport, RepoUse, Role};
use insta::assert_snapshot;

use crate::fake::{Fake, respond};

const GIB: u64 = 1 << 30;

fn amount(used: u64, limit: Option<u64>) -> Amount {
    Amount { used, limit }
}

fn report() -> QuotaReport {
    let alice = ActorUse {
        actor: "github:583231".to_owned(),
        name: Some("alice".to_owned()),
        role: Some(Role::Developer),
        table: Some("quotas.developer".to_owned()),
        agents: amount(3, Some(5)),
        memory_bytes: amount(12 * GIB, Some(16 * GIB)),
        cpu_percent: amount(150, Some(400)),
        disk_bytes: amount(GIB / 2, None),
        previews: amount(2, Some(3)),
    };
    let root = ActorUse {
        actor: "uid:0".to_owned(),
        name: None,
        role: None,
        table: None,
        agents: amount(1, None),
        memory_bytes: amount(GIB, None),
        cpu_percent: amount(125, None),
        disk_bytes: amount(0, None),
        previews: amount(0, None),
    };
    QuotaReport {
        actors: vec![alice, root],
        repositories: vec![RepoUse {
            repo: "octo/web".to_owned().try_into().expect("a name"),
            previews: amount(4, Some(4)),
        }],
    }
}

fn fake(report: &QuotaReport) -> Fake {
    Fake::new(Router::new().route("/v1/quotas", respond(report)))
}

#[test]
fn report_has_the_use_and_the_limit_of_each_owner() {
    assert_snapshot!(fake(&report()).innkeeper(&["usage"]).ok(), @r"
    OWNER                  ROLE       AGENTS  MEMORY            CPUS      DISK     PREVIEWS
    alice (github:583231)  developer  3 of 5  12 GiB of 16 GiB  1.5 of 4  512 MiB  2 of 3
    uid:0                  -          1       1 GiB             1.25      0 MiB    0

    REPOSITORY  PREVIEWS
    octo/web    4 of 4
    ");
}

#[test]
fn report_without_owners_has_no_table() {
    let stdout = fake(&QuotaReport::default()).innkeeper(&["usage"]).ok();
    assert_snapshot!(stdout, @"(no agent or preview has an owner)");
}

#[test]
fn json_has_the_report() {
    let stdout = fake(&report()).innkeeper(&["usage", "--json"]).ok();
    let read: QuotaReport = serde_json::from_str(&stdout).expect("one value");
    assert_eq!(read, report());
}
