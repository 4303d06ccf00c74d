use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{DNSClass, RData, RecordType};

use super::*;
use crate::message::tests::{query, query_of_labels};

const SUBNET: &str = "10.100.0.0/16";

fn client(address: &str) -> Client {
    let address = address.parse().expect("an address");
    Client::of(address, SUBNET.parse().expect("a subnet"))
}

fn decide_as(client: &str, packet: &[u8], hosts: &Hosts) -> Decision {
    let subnet = SUBNET.parse().expect("a subnet");
    decide(self::client(client), packet, hosts, subnet)
}

/// Writes the hosts of a preview as innkeeperd does.
pub(crate) fn write_route(table: &Path, guest: &str, slug: &str, host: &str) {
    let guests = table.join("guests");
    fs::create_dir_all(&guests).expect("made");
    let host = table.join("previews").join(slug).join("hosts").join(host);
    fs::create_dir_all(host).expect("made");
    let target = format!("../previews/{slug}/hosts");
    symlink(target, guests.join(guest)).ok();
}

#[test]
fn clients_are_told_apart_by_their_addresses() {
    let gateway = Ipv4Addr::new(10, 100, 0, 2);
    let guest = Ipv4Addr::new(10, 100, 0, 3);
    assert_eq!(client("10.100.0.3"), Client::Guest { guest, gateway });
    assert_eq!(client("::ffff:10.100.0.3"), client("10.100.0.3"));
    assert_eq!(client("127.0.0.1"), Client::Host);
    for stranger in [
        "10.100.0.2",
        "10.100.0.255",
        "10.101.0.3",
        "192.0.2.1",
        "::1",
    ] {
        assert_eq!(client(stranger), Client::Stranger, "{stranger}");
    }
}

#[test]
fn guests_resolve_only_their_own_hosts_to_their_gateway() {
    let table = tempfile::tempdir().expect("a directory");
    write_route(table.path(), "10.100.0.3", "web", "web.example.org");
    write_route(table.path(), "10.100.0.3", "web", "admin-web.example.org");
    write_route(table.path(), "10.100.0.5", "shop", "shop.example.org");
    let hosts = Hosts::new(table.path());
    // The address of the response; `None` if the query is forwarded.
    let resolve = |from: &str, name: &str, kind| {
        let packet = query(name, kind).to_vec().expect("encoded");
        match decide_as(from, &packet, &hosts) {
            Decision::Respond(response) => {
                let response = Message::from_vec(&response).expect("a message");
                assert_eq!(response.metadata.response_code, ResponseCode::NoError);
                Some(response.answers.first().map(|record| record.data.clone()))
            }
            Decision::Forward(forwarded) => {
                assert_eq!(forwarded.bytes(), packet);
                None
            }
            Decision::Ignore => panic!("{name} is ignored"),
        }
    };
    let address = |last| Some(Some(RData::from(Ipv4Addr::new(10, 100, 0, last))));
    let (web, shop) = ("10.100.0.3", "10.100.0.5");
    assert_eq!(resolve(web, "WEB.example.org.", RecordType::A), address(2));
    assert_eq!(
        resolve(web, "admin-web.example.org.", RecordType::A),
        address(2)
    );
    assert_eq!(
        resolve(shop, "shop.example.org.", RecordType::A),
        address(4)
    );
    for kind in [RecordType::AAAA, RecordType::HTTPS] {
        assert_eq!(resolve(web, "web.example.org.", kind), Some(None), "{kind}");
    }
    // Another preview's host, names above and below an own one, another guest, and names that would lead elsewhere.
    for (from, name) in [
        (web, "shop.example.org."),
        (shop, "web.example.org."),
        (web, "example.org."),
        (web, "x.web.example.org."),
        ("10.100.0.7", "web.example.org."),
        (web, "."),
    ] {
        assert_eq!(resolve(from, name, RecordType::A), None, "{from} {name}");
    }
    for labels in ["..", ".", "..|10.100.0.5|shop", "..|..|..|etc"] {
        let packet = query_of_labels(labels).to_vec().expect("encoded");
        let decision = decide_as(web, &packet, &hosts);
        assert!(matches!(decision, Decision::Forward(_)), "{labels:?}");
    }
    // A route that is gone.
    fs::rename(
        table.path().join("previews/web"),
        table.path().join("previews/.web.new"),
    )
    .expect("renamed");
    assert_eq!(resolve(web, "web.example.org.", RecordType::A), None);
}

#[test]
fn strangers_are_ignored_and_the_host_gets_the_version_only() {
    let table = tempfile::tempdir().expect("a directory");
    let hosts = Hosts::new(table.path());
    let mut version = query("version.server.", RecordType::TXT);
    version.queries[0].set_query_class(DNSClass::CH);
    for (message, code) in [
        (version, ResponseCode::NoError),
        (query("example.org.", RecordType::A), ResponseCode::Refused),
    ] {
        let packet = message.to_vec().expect("encoded");
        let stranger = decide_as("192.0.2.1", &packet, &hosts);
        assert!(matches!(stranger, Decision::Ignore));
        let Decision::Respond(response) = decide_as("127.0.0.1", &packet, &hosts) else {
            panic!("no response");
        };
        let response = Message::from_vec(&response).expect("a message");
        assert_eq!(response.metadata.response_code, code);
    }
}

#[test]
fn only_the_host_resolves_settled_routes() {
    let table = tempfile::tempdir().expect("a directory");
    let settle = |host: &str, target: &str| {
        let directory = table.path().join("hosts").join(host);
        fs::create_dir_all(&directory).expect("made");
        symlink(target, directory.join("settled")).expect("linked");
    };
    settle("web.example.org", "live/10.100.0.3:3000");
    settle("gateway.example.org", "live/10.100.0.2:3000");
    settle("host.example.org", "live/127.0.0.1:22");
    settle("other.example.org", "page/10.100.0.3:3000");
    fs::create_dir(table.path().join("hosts/new.example.org")).expect("made");
    let hosts = Hosts::new(table.path());
    // The code and the record of the response.
    let resolve = |from: &str, message: &Message| {
        let packet = message.to_vec().expect("encoded");
        match decide_as(from, &packet, &hosts) {
            Decision::Respond(response) => {
                let response = Message::from_vec(&response).expect("a message");
                let record = response
                    .answers
                    .first()
                    .map(|record| record.data.to_string());
                (response.metadata.response_code, record)
            }
            other => panic!("{other:?}"),
        }
    };
    let name = |name: &str| format!("{name}.routes.innkeeper.internal.");
    let ask = |from: &str, label: &str, kind| resolve(from, &query(&name(label), kind));
    let found = |record: &str| (ResponseCode::NoError, Some(record.to_owned()));
    let absent = (ResponseCode::NXDomain, None);
    let (srv, a) = (RecordType::SRV, RecordType::A);
    assert_eq!(
        ask("127.0.0.1", "WEB.example.org", srv),
        found("0 0 3000 g-10-100-0-3.routes.innkeeper.internal.")
    );
    assert_eq!(ask("127.0.0.1", "g-10-100-0-3", a), found("10.100.0.3"));
    for (label, kind) in [("web.example.org", a), ("g-10-100-0-3", RecordType::AAAA)] {
        let response = ask("127.0.0.1", label, kind);
        assert_eq!(response, (ResponseCode::NoError, None), "{label}");
    }
    // Hosts that are not settled, other addresses than guests', and names that would lead elsewhere.
    for (label, kind) in [
        ("new.example.org", srv),
        ("gateway.example.org", srv),
        ("host.example.org", srv),
        ("other.example.org", srv),
        ("shop.example.org", srv),
        ("g-10-100-0-2", a),
        ("g-127-0-0-1", a),
        ("g-10-100-0-03", a),
        ("x.g-10-100-0-3", a),
    ] {
        assert_eq!(ask("127.0.0.1", label, kind), absent, "{label}");
    }
    for labels in [
        "..|web.example.org",
        "*|example|org",
        "web example|org",
        "web/example|org",
    ] {
        let message = query_of_labels(&format!("{labels}|routes|innkeeper|internal"));
        assert_eq!(resolve("127.0.0.1", &message), absent, "{labels}");
        // No name in the zone is forwarded.
        assert_eq!(resolve("10.100.0.3", &message), absent, "{labels}");
    }
    // Not even the guest itself.
    for (label, kind) in [("web.example.org", srv), ("g-10-100-0-3", a)] {
        assert_eq!(ask("10.100.0.3", label, kind), absent, "{label}");
    }
}
