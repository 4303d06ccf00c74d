use axum::Router;
use innkeeper_model::{GuestKind, GuestState, GuestUsage, MemorySize, UsageReport};
use insta::assert_snapshot;

use crate::fake::{Fake, attach, read_until, respond, terminal};
use crate::samples::name;

fn report() -> UsageReport {
    let web = GuestUsage {
        name: name("web"),
        kind: GuestKind::Agent,
        state: GuestState::Running,
        memory_bytes: Some(300 << 20),
        memory_limit: MemorySize::from_bytes(4 << 30),
        cpu_percent: Some(97.25),
        received_per_second: 12_300.0,
        sent_per_second: 410.0,
        sessions: 1,
        idle_seconds: 0,
        last_use: "an open session (exec)".to_owned(),
    };
    let shop = GuestUsage {
        name: name("shop-7"),
        kind: GuestKind::Preview,
        memory_bytes: None,
        cpu_percent: None,
        received_per_second: 0.0,
        sent_per_second: 0.0,
        sessions: 0,
        idle_seconds: 754,
        last_use: "2 new connections to it".to_owned(),
        ..web.clone()
    };
    UsageReport {
        guests: vec![web, shop],
    }
}

fn fake(report: &UsageReport) -> Fake {
    Fake::new(Router::new().route("/v1/usage", respond(report)))
}

#[test]
fn table_has_use_and_idle_time() {
    assert_snapshot!(fake(&report()).innkeeper(&["top"]).ok(), @r"
    NAME    KIND     STATUS   CPU     MEMORY   LIMIT  IN         OUT      IDLE  LAST USE
    web     agent    running  97.2 %  300 MiB  4G     12.3 kB/s  410 B/s  0s    an open session (exec)
    shop-7  preview  running  -       -        4G     0 B/s      0 B/s    12m   2 new connections to it
    ");
    let nothing = fake(&UsageReport::default());
    assert_eq!(nothing.innkeeper(&["top"]).ok(), "(no guest runs)\n");
}

#[test]
fn json_has_the_report() {
    let stdout = fake(&report()).innkeeper(&["top", "--json"]).ok();
    let read: UsageReport = serde_json::from_str(&stdout).expect("one value");
    assert_eq!(read, report());
}

/// On a terminal, the table is requested and printed until the program is interrupted.
#[test]
fn table_is_renewed_on_a_terminal() {
    let fake = fake(&report());
    let (mut user, program) = terminal();
    let mut command = fake.command("innkeeper", &["top"]);
    attach(&mut command, &program);
    let mut running = command.spawn().expect("it starts");
    // Only the program has its end now: reading fails if it exits.
    drop((command, program));
    for _ in 0..2 {
        read_until(&mut user, "\u{1b}[H\u{1b}[J");
        read_until(&mut user, "shop-7");
    }
    assert!(running.try_wait().expect("a status").is_none());
    running.kill().expect("killed");
    running.wait().expect("ended");
    assert!(fake.requests().len() >= 2);

    let (mut user, program) = terminal();
    let mut command = fake.command("innkeeper", &["top", "--once"]);
    attach(&mut command, &program);
    let mut once = command.spawn().expect("it starts");
    drop((command, program));
    let output = read_until(&mut user, "shop-7");
    assert!(!output.contains('\u{1b}'), "{output:?}");
    assert!(once.wait().expect("ended").success());
}
