//! Headers of apps' responses.

use super::*;

#[tokio::test]
async fn responses_are_for_one_host_and_not_for_search_engines() {
    let Some(rig) = Rig::start("route responses").await else {
        return;
    };
    rig.ensure(&full("web")).await;
    check_responses(&["/", "/api/x"]).await;
    rig.stop().await;
}

pub(super) async fn check_responses(paths: &[&str]) {
    for path in paths {
        let response = get("web.localhost", path).await;
        assert_eq!(response.header("x-robots-tag"), Some("noindex"), "{path}");
        let cookies: Vec<_> = response
            .head
            .lines()
            .filter_map(|line| line.strip_prefix("Set-Cookie: "))
            .collect();
        assert_eq!(
            cookies,
            [
                "own=1; Path=/; Domain=web.localhost; Secure",
                "none=1; HttpOnly",
                "parent=1; Path=/",
                "dotted=1",
                "twice=1; Path=/",
                "dense=1;Secure;Domain=web.localhost;;HttpOnly",
                "tabs=1; Path=/",
                "escaped=1; Path=/",
                "quoted=1",
                "value=Domain=localhost; Comment=domain=localhost",
                "other=1; Domain=notlocalhost; Path=/",
            ],
            "{path}"
        );
    }
    // Caddy cannot change the headers of an upgrade.
    for (cookie, status) in [
        ("a=1; Domain=web.localhost; Path=/", 101),
        ("a=1; Path=/; domain=.LOCALHOST", 502),
        ("a=1; Domain=localhost.; Path=/", 502),
        ("a=1; Domain=%6cocalhost", 502),
    ] {
        for path in ["/", "/ws"] {
            let header = format!("X-Cookie: {cookie}\r\n");
            let (mut socket, head) = Socket::request("web.localhost", path, &header).await;
            assert!(
                head.starts_with(&format!("HTTP/1.1 {status} ")),
                "{cookie}: {head}"
            );
            assert_eq!(
                head.contains("Set-Cookie"),
                status == 101,
                "{cookie}: {head}"
            );
            if status == 101 {
                assert!(socket.echoes().await, "{cookie}");
            }
        }
    }
}
