//! Names of hosts: which reach a preview, from outside and from guests.

use super::*;

/// Characters of hosts must not act as patterns for names of files.
#[tokio::test]
async fn unusual_hosts_reach_only_their_own_preview() {
    let Some(rig) = Rig::start("unusual hosts").await else {
        return;
    };
    rig.ensure(&full("web")).await;
    for host in ["WEB.localhost", "wEb.LOCALHOST", "Admin-Web.localhost"] {
        assert_eq!(get(host, "/").await.status, 200, "{host}");
    }
    for host in [
        "*.localhost",
        "w*.localhost",
        "we%62.localhost",
        "we_.localhost",
        "w\\eb.localhost",
        "%2e.localhost",
        "~.localhost",
    ] {
        let status = get(host, "/").await.status;
        assert!([400, 404].contains(&status), "{host}: {status}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn only_names_of_previews_reach_them() {
    let Some(rig) = Rig::start("names of hosts").await else {
        return;
    };
    rig.ensure(&simple("web")).await;
    let dotted = request("WEB.localhost.", "POST /a%2Fb?c=%20", "", b"").await;
    assert_eq!(
        (dotted.status, dotted.header("location")),
        (308, Some("http://WEB.localhost:8080/a%2Fb?c=%20")),
        "{dotted:?}"
    );
    for host in [
        "localhost",
        "localhost.",
        "web.web.localhost",
        "a.b.web.localhost",
        "other.localhost",
        "web.example.org",
        "[w]eb.localhost",
    ] {
        let response = get(host, "/").await;
        assert_eq!(
            (response.status, response.body.as_str()),
            (404, "No preview answers here."),
            "{host}"
        );
    }
    rig.stop().await;
}

/// Sends a request to the guests' port from a guest's address, and returns the status and the body.
async fn request_from(guest: [u8; 4], host: &str) -> (u16, String) {
    let socket = tokio::net::TcpSocket::new_v4().expect("socket");
    socket
        .bind(SocketAddr::from((guest, 0)))
        .expect("the guest's address");
    let mut stream = socket
        .connect(SocketAddr::from(([127, 0, 0, 1], 8082)))
        .await
        .expect("connect");
    let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("write");
    let mut response = String::new();
    stream.read_to_string(&mut response).await.expect("read");
    let (head, body) = response.split_once("\r\n\r\n").expect("a response");
    (head[9..12].parse().expect("status"), body.to_owned())
}

#[tokio::test]
async fn guests_reach_only_their_own_hosts() {
    let other_site = "http://admin.example.org:8080 {\n\trespond secret\n}";
    let Some(rig) = Rig::start_with("hosts of guests", other_site).await else {
        return;
    };
    rig.ensure(&with_extra("web", "admin")).await;
    let shop = RouteSpec {
        guest_address: OTHER_GUEST.into(),
        ..simple("shop")
    };
    rig.ensure(&shop).await;
    let status = async |guest, host: &str| request_from(guest, host).await.0;
    for host in ["web.localhost", "ADMIN-web.localhost", "web.localhost:443"] {
        assert_eq!(status(GUEST, host).await, 200, "{host}");
        assert_eq!(status(OTHER_GUEST, host).await, 403, "{host}");
    }
    for host in [
        "shop.localhost",
        "nobody.localhost",
        "admin.example.org",
        "localhost",
        "a.web.localhost",
        "*.localhost",
        "..",
    ] {
        let (status, body) = request_from(GUEST, host).await;
        assert!([403, 404].contains(&status), "{host}: {status} {body}");
    }
    assert_eq!(status([127, 0, 0, 1], "web.localhost").await, 403);
    // Another address of the guest, whose former one goes to another preview.
    let moved = RouteSpec {
        guest_address: [127, 0, 1, 7].into(),
        ..simple("web")
    };
    rig.ensure(&moved).await;
    assert_eq!(status(GUEST, "web.localhost").await, 403);
    let taken = RouteSpec {
        guest_address: GUEST.into(),
        ..simple("shop")
    };
    rig.ensure(&taken).await;
    assert_eq!(status(GUEST, "shop.localhost").await, 200);
    assert_eq!(status(OTHER_GUEST, "shop.localhost").await, 403);
    rig.remove("shop").await;
    assert_eq!(status(GUEST, "shop.localhost").await, 403);
    rig.stop().await;
}

/// Checks that an administrator's own site has precedence.
async fn check_other_site(test: &str, site: &str, host: &str) {
    let site = format!("{site} {{\n\trespond mine\n}}");
    let Some(rig) = Rig::start_with(test, &site).await else {
        return;
    };
    rig.ensure(&simple("web")).await;
    assert_eq!(get(host, "/").await.body, "mine");
    assert_eq!(get("web.localhost", "/").await.status, 200);
    assert_eq!(rig.loads(), 1);
    rig.stop().await;
}

#[tokio::test]
async fn site_of_the_domain_stays() {
    check_other_site("site of the domain", "http://localhost:8080", "localhost").await;
}

#[tokio::test]
async fn site_of_all_hosts_stays() {
    check_other_site("site of all hosts", "http://:8080", "other.example.org").await;
}
