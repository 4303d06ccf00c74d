use axum::Router;
use innkeeper_model::{Code, Failure};

use crate::fake::{Fake, fail};

#[test]
fn connects_to_the_previews_guest() {
    let closed = Failure::new(
        Code::PortClosed,
        "guest 'web-7' accepts no connection on port 80",
    );
    let fake = Fake::new(Router::new().route("/v1/previews/web-7/connect/80", fail(closed)));
    let run = fake.preview(&["connect", "web-7", "80", "--json"]);
    assert_eq!((run.status, run.failure().code), (4, Code::PortClosed));
}
