use axum::Router;
use innkeeper_model::{GuestKind, GuestState, GuestUsage, Level, MemorySize};
use insta::assert_snapshot;
use rustix::termios::{Winsize, tcsetwinsize};

use crate::fake::{Fake, attach, read_until, respond, terminal};
use crate::samples::name;

fn report() -> Vec<GuestUsage> {
    let web = GuestUsage {
        name: name("web"),
        kind: GuestKind::Agent,
        state: GuestState::Running,
        level: Level::Awake,
        memory_bytes: Some(300 << 20),
        memory_limit: MemorySize::from_bytes(4 << 30),
        disk_bytes: Some(2 << 30),
        cpu_percent: Some(97.25),
        received_per_second: 12_300.0,
        sent_per_second: 410.0,
        sessions: 1,
        idle_seconds: Some(0),
        last_use: Some("an open session (exec)".to_owned()),
        sleep_order: None,
        sleep_reason: "it was used 0 s ago: an open session (exec)".to_owned(),
    };
    let shop = GuestUsage {
        name: name("shop-7"),
        kind: GuestKind::Preview,
        state: GuestState::Paused,
        level: Level::Paused,
        memory_bytes: None,
        disk_bytes: None,
        cpu_percent: None,
        received_per_second: 0.0,
        sent_per_second: 0.0,
        sessions: 0,
        idle_seconds: Some(754),
        last_use: Some("2 new connections to it".to_owned()),
        sleep_order: Some(1),
        sleep_reason: "it has been idle the longest".to_owned(),
        ..web.clone()
    };
    let docs = GuestUsage {
        name: name("docs"),
        state: GuestState::Asleep,
        level: Level::Asleep,
        disk_bytes: Some(1 << 20),
        idle_seconds: None,
        last_use: None,
        sleep_order: None,
        sleep_reason: "it is asleep".to_owned(),
        ..shop.clone()
    };
    vec![web, shop, docs]
}

fn fake(report: &[GuestUsage]) -> Fake {
    Fake::new(Router::new().route("/v1/usage", respond(&report)))
}

#[test]
fn table_has_use_idle_time_and_the_next_to_sleep() {
    assert_snapshot!(fake(&report()).innkeeper(&["top"]).ok(), @r"
    NAME    KIND     STATUS   CPU     MEMORY   LIMIT  DISK      IN         OUT      IDLE  LAST USE
    web     agent    running  97.2 %  300 MiB  4G     2048 MiB  12.3 kB/s  410 B/s  0s    an open session (exec)
    shop-7  preview  paused   -       -        4G     -         0 B/s      0 B/s    12m   2 new connections to it
    docs    preview  asleep   -       -        4G     1 MiB     -          -        -     -

    Next to sleep when memory runs short: shop-7, because it has been idle the longest.
    ");
    assert_snapshot!(fake(&report()[..1]).innkeeper(&["top"]).ok(), @r"
    NAME  KIND   STATUS   CPU     MEMORY   LIMIT  DISK      IN         OUT      IDLE  LAST USE
    web   agent  running  97.2 %  300 MiB  4G     2048 MiB  12.3 kB/s  410 B/s  0s    an open session (exec)

    No guest is to be put to sleep when memory runs short.
    ");
    assert_eq!(fake(&[]).innkeeper(&["top"]).ok(), "(no guest runs)\n");
}

#[test]
fn json_is_the_list() {
    let stdout = fake(&report()).innkeeper(&["top", "--json"]).ok();
    let read: Vec<GuestUsage> = serde_json::from_str(&stdout).expect("one value");
    assert_eq!(read, report());
    assert_eq!(fake(&[]).innkeeper(&["top", "--json"]).ok(), "[]\n");
}

/// A screen that is lower than the table keeps its header: the last guests are counted instead.
#[test]
fn table_fits_the_height_of_the_terminal() {
    let guests: Vec<_> = (1..=30)
        .map(|number| GuestUsage {
            name: name(&format!("guest-{number}")),
            ..report().remove(1)
        })
        .collect();
    let fake = fake(&guests);
    for (rows, shown) in [(24, 19), (6, 1), (2, 1), (34, 30), (33, 28)] {
        let (mut user, program) = terminal();
        let size = Winsize {
            ws_row: rows,
            ws_col: 100,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&program, size).expect("a size");
        let mut command = fake.command("innkeeper", &["top"]);
        attach(&mut command, &program);
        let mut running = command.spawn().expect("it starts");
        drop((command, program));
        read_until(&mut user, "\u{1b}[H\u{1b}[J");
        let screen = read_until(&mut user, "the longest.\r\n");
        running.kill().expect("killed");
        running.wait().expect("ended");
        let lines: Vec<_> = screen.lines().collect();
        assert!(lines[0].starts_with("NAME "), "{screen}");
        // The cursor is in one more line.
        assert!(lines.len() < usize::from(rows.max(6)), "{rows}: {screen}");
        let guests = lines.iter().filter(|line| line.starts_with("guest-"));
        assert_eq!(guests.count(), shown, "{rows}: {screen}");
        let more = format!("({} more guests, which use less)", 30 - shown);
        assert_eq!(screen.contains(&more), shown < 30, "{rows}: {screen}");
    }
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
