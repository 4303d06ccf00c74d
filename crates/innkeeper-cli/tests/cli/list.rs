use axum::Router;
use innkeeper_model::api::GuestView;
use innkeeper_model::{GuestKind, GuestState};
use insta::assert_snapshot;

use rustix::termios::{Winsize, tcsetwinsize};

use crate::fake::{Fake, attach, read_until, respond, terminal};
use crate::samples::{guest, retained};

fn daemon_with(guests: &[GuestView]) -> Fake {
    Fake::new(Router::new().route("/v1/guests", respond(&guests)))
}

fn sample_daemon() -> Fake {
    let mut stopped = guest("a-xkcd42", 300);
    stopped.state = GuestState::Stopped;
    stopped.guest_address = None;
    stopped.owner_name = Some("octocat".to_owned());
    let mut preview = guest("shop-17", 2);
    preview.guest.kind = GuestKind::Preview;
    daemon_with(&[guest("web", 1), preview, stopped])
}

#[test]
fn list_prints_a_table() {
    assert_snapshot!(sample_daemon().agent(&["list"]).ok(), @r"
    NAME      STATUS   ADDRESS     SLOT  MEMORY  CPUS  CREATED               OWNER
    web       running  10.100.0.3  1     4G      0.5   2026-11-20T10:00:00Z  uid:1000
    a-xkcd42  stopped  -           300   4G      0.5   2026-11-20T10:00:00Z  octocat
    ");
}

#[test]
fn json_has_the_views() {
    let stdout = sample_daemon().agent(&["list", "--json"]).ok();
    let views: Vec<GuestView> = serde_json::from_str(&stdout).expect("one value");
    let names: Vec<_> = views.iter().map(|view| view.guest.name.as_str()).collect();
    assert_eq!(names, ["web", "a-xkcd42"]);
    assert_eq!(views[0], guest("web", 1));
}

#[test]
fn quiet_prints_names_only() {
    assert_eq!(
        sample_daemon().agent(&["list", "-q"]).ok(),
        "web\na-xkcd42\n"
    );
    assert_eq!(daemon_with(&[]).agent(&["list", "--quiet"]).ok(), "");
}

#[test]
fn table_fits_80_columns() {
    let fake = daemon_with(&[guest(&"long-name".repeat(4), 1)]);
    let (mut user_end, program_end) = terminal();
    let size = Winsize {
        ws_row: 24,
        ws_col: 80,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&program_end, size).expect("a size");
    let mut command = fake.command("agent", &["list"]);
    attach(&mut command, &program_end);
    let mut child = command.spawn().expect("it starts");
    let shown = read_until(&mut user_end, "10.100.0.3");
    assert!(child.wait().expect("it ends").success());
    assert!(shown.starts_with("NAME "), "{shown}");
    let widest = shown.lines().map(|line| line.trim_end().len()).max();
    assert!(widest <= Some(80), "{shown}");
}

#[test]
fn empty_list_has_a_note() {
    assert_eq!(daemon_with(&[]).agent(&["list"]).ok(), "(no agents)\n");
    assert_eq!(daemon_with(&[]).agent(&["list", "--json"]).ok(), "[]\n");
}

#[test]
fn all_includes_destroyed_agents() {
    let mut removing = retained(8, "db", 0);
    removing.retained.removing = true;
    removing.retained.bytes = None;
    let destroyed = [retained(7, "web", 3541), removing];
    let router = Router::new()
        .route("/v1/guests", respond(&[guest("web", 1)]))
        .route("/v1/retained", respond(&destroyed));
    let fake = Fake::new(router);
    assert_snapshot!(fake.agent(&["list", "--all"]).ok(), @r"
    NAME  STATUS   ADDRESS     SLOT  MEMORY  CPUS  CREATED               OWNER
    web   running  10.100.0.3  1     4G      0.5   2026-11-20T10:00:00Z  uid:1000

    DESTROYED  ID  SIZE   TIME LEFT      DESTROYED AT
    web        7   3 MiB  60 min         2026-11-20T11:00:00Z
    db         8   -      being removed  2026-11-20T11:00:00Z
    ");
    let stdout = fake.agent(&["list", "--all", "--json"]).ok();
    let value: serde_json::Value = serde_json::from_str(&stdout).expect("one value");
    assert_eq!(value["agents"][0]["name"], "web");
    assert_eq!(value["destroyed"][0]["remaining_seconds"], 3541);
    assert_eq!(value["destroyed"][0]["id"], 7);
}
