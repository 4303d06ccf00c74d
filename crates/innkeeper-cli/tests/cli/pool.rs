use axum::Router;
use innkeeper_model::SnapshotLabel;
use innkeeper_model::api::{PoolReport, PoolVolume, RetainedSpace};
use insta::assert_snapshot;

use crate::fake::{Fake, respond};
use crate::samples::name;

fn report() -> PoolReport {
    let volume = |volume: &str, guest: Option<&str>, data_percent| PoolVolume {
        name: volume.to_owned(),
        guest: guest.map(name),
        snapshot: None,
        size_bytes: 20 << 30,
        data_percent,
    };
    let label = SnapshotLabel::parse("old").expect("a label");
    PoolReport {
        driver: "lvm-thin".to_owned(),
        place: "pool/thin".to_owned(),
        size_bytes: 100 << 30,
        data_percent: 87.25,
        metadata_percent: Some(10.5),
        limit_percent: Some(85),
        min_free_bytes: None,
        retained: RetainedSpace {
            agents: 2,
            bytes: 3 << 20,
        },
        remedy: Some("Destroy guests, or `lvextend --size +10G pool/thin`.".to_owned()),
        volumes: vec![
            volume("innkeeper-guest-web", Some("web"), Some(3.5)),
            PoolVolume {
                snapshot: Some(label),
                ..volume("innkeeper-snap-web.old", Some("web"), None)
            },
            volume("somebody-elses", None, Some(50.0)),
        ],
    }
}

fn fake(report: &PoolReport) -> Fake {
    Fake::new(Router::new().route("/v1/pool", respond(report)))
}

#[test]
fn pool_report_has_volumes_and_remedy() {
    assert_snapshot!(fake(&report()).innkeeper(&["pool"]).ok(), @r"
    pool/thin (lvm-thin): 87.2 % of 102400 MiB in use, 10.5 % of the metadata; new guests and snapshots are refused from 85 % of either.
    Retained files of 2 destroyed agents use 3 MiB; they are removed when space is needed (`agent list --all`).
    The pool is full. Destroy guests, or `lvextend --size +10G pool/thin`.

    VOLUME                  GUEST  SNAPSHOT  SIZE       USED
    innkeeper-guest-web     web    -         20480 MiB  3.5 %
    innkeeper-snap-web.old  web    old       20480 MiB  -
    somebody-elses          -      -         20480 MiB  50.0 %
    ");
}

#[test]
fn directory_report_has_free_space() {
    let report = PoolReport {
        driver: "dir".to_owned(),
        place: "/var/lib/innkeeper/guests".to_owned(),
        metadata_percent: None,
        limit_percent: None,
        min_free_bytes: Some(1 << 30),
        remedy: None,
        retained: RetainedSpace::default(),
        volumes: Vec::new(),
        ..report()
    };
    assert_snapshot!(fake(&report).innkeeper(&["pool"]).ok(), @"/var/lib/innkeeper/guests (dir): 87.2 % of 102400 MiB in use; a new guest or snapshot needs 1024 MiB free.");
}

#[test]
fn json_has_the_report() {
    let stdout = fake(&report()).innkeeper(&["pool", "--json"]).ok();
    let read: PoolReport = serde_json::from_str(&stdout).expect("one value");
    assert_eq!(read, report());
}
