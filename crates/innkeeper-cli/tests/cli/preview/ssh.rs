use axum::Router;
use innkeeper_model::{GuestKind, GuestState};
use insta::assert_snapshot;

use crate::fake::{Fake, respond};
use crate::samples::guest;

#[test]
fn stopped_preview_remedy_names_preview_commands() {
    let mut view = guest("web-7", 1);
    (view.guest.kind, view.state) = (GuestKind::Preview, GuestState::Stopped);
    let fake = Fake::new(Router::new().route("/v1/previews/web-7/guest", respond(&view)));
    assert_snapshot!(fake.preview(&["ssh", "web-7", "uname", "-r"]).transcript(), @r"
    status: 4
    --- stdout
    --- stderr
    [ERROR] cannot reach preview 'web-7': it is stopped
            Hint: `preview list` shows its state; `preview start web-7` starts it.
    ");
}
