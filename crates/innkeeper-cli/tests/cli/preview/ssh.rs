use axum::Router;
use innkeeper_model::{GuestKind, GuestState};
use insta::assert_snapshot;

use crate::fake::{Fake, answer};
use crate::samples::guest;

#[test]
fn a_preview_that_is_stopped_is_refused_with_its_own_verbs() {
    let mut view = guest("web-7", 1);
    (view.guest.kind, view.state) = (GuestKind::Preview, GuestState::Stopped);
    let fake = Fake::new(Router::new().route("/v1/previews/web-7/guest", answer(&view)));
    assert_snapshot!(fake.preview(&["ssh", "web-7", "uname", "-r"]).whole(), @r"
    status: 4
    --- stdout
    --- stderr
    [ERROR] preview 'web-7' cannot be reached: it is stopped
            Hint: `preview list` shows its state; `preview start web-7` starts it.
    ");
}
