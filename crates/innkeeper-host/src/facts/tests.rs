//! Tests in a network namespace and with files of their own.

use std::fs;
use std::future::Future;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use futures_util::FutureExt;

use super::*;
use innkeeper_facilities::HostFacts as _;

use crate::identity::Identity;
use crate::network::NetworkConfig;
use crate::network::testing::{enter_own_namespace, ip};

/// Fails after a time limit far above the expected time.
async fn in_time<T>(future: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(30);
    tokio::time::timeout(limit, future).await.expect("in time")
}

/// Replaces a file atomically.
fn replace(file: &Path, text: &str) {
    let aside = file.with_extension("new");
    fs::write(&aside, text).expect("written");
    fs::rename(&aside, file).expect("renamed");
}

#[tokio::test]
async fn file_events_follow_links() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |path: &str| dir.path().join(path);
    fs::create_dir(at("etc")).expect("made");
    let file = at("etc/resolv.conf");
    // As systemd-resolved leaves it, before it runs.
    symlink("../run/resolve/stub.conf", &file).expect("a link");
    let stub = at("run/resolve/stub.conf");
    type Step<'a> = (&'a str, Box<dyn Fn() + 'a>);
    let steps: [Step<'_>; 8] = [
        (
            "a directory is created",
            Box::new(|| fs::create_dir_all(at("run/resolve")).expect("made")),
        ),
        (
            "the file is created",
            Box::new(|| fs::write(&stub, "1").expect("written")),
        ),
        (
            "it is written in place",
            Box::new(|| fs::write(&stub, "2").expect("written")),
        ),
        ("it is replaced", Box::new(|| replace(&stub, "3"))),
        (
            "it is removed",
            Box::new(|| fs::remove_file(&stub).expect("removed")),
        ),
        (
            "the link has a new target",
            Box::new(|| {
                symlink(at("other.conf"), at("etc/new")).expect("a link");
                fs::rename(at("etc/new"), &file).expect("renamed");
            }),
        ),
        (
            "the new target is created",
            Box::new(|| replace(&at("other.conf"), "4")),
        ),
        ("a file replaces the link", Box::new(|| replace(&file, "5"))),
    ];
    for (what, step) in steps {
        let events = FileEvents::subscribe(std::slice::from_ref(&file)).expect("subscribed");
        assert!(events.next().now_or_never().is_none(), "before: {what}");
        step();
        let event = tokio::time::timeout(Duration::from_secs(30), events.next()).await;
        event.expect(what).expect("an event");
    }
}

#[tokio::test]
async fn only_new_name_servers_and_mtu_are_reported() {
    if !enter_own_namespace("only_new_name_servers_and_mtu_are_reported") {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("resolv.conf");
    replace(&file, "nameserver 192.0.2.1\n");
    ip(&["link", "add", "wan", "type", "veth", "peer", "name", "far"]).await;
    ip(&["link", "set", "wan", "mtu", "1400", "up"]).await;
    ip(&["link", "set", "far", "up"]).await;
    ip(&["addr", "add", "198.51.100.1/24", "dev", "wan"]).await;
    ip(&["route", "add", "default", "via", "198.51.100.2"]).await;
    let network = VethNetwork::new(NetworkConfig {
        range: "10.100.0.0/16".parse().expect("range"),
        identity: Identity::of('a'),
    });
    let facts = HostFacts::new(NameServers::in_files(vec![file.clone()]), Arc::new(network));
    let known = || facts.known.lock().clone().expect("known");
    in_time(facts.changed()).await;
    assert_eq!(known().mtu, Some(1400));

    // The same name servers in a new file, and other interfaces, are not a change.
    let no_change = async {
        replace(
            &file,
            "# The same.\nnameserver 192.0.2.1\nsearch example.org\n",
        );
        ip(&[
            "link", "add", "other", "type", "veth", "peer", "name", "others",
        ])
        .await;
        replace(&file, "nameserver 192.0.2.2\n");
    };
    in_time(async { tokio::join!(facts.changed(), no_change) }).await;
    assert_eq!(
        known().nameservers,
        ["192.0.2.2".parse::<IpAddr>().expect("address")]
    );

    for (change, mtu) in [
        (&["link", "set", "wan", "mtu", "1280"][..], 1280),
        (
            &[
                "route",
                "replace",
                "default",
                "via",
                "198.51.100.2",
                "mtu",
                "1200",
            ],
            1200,
        ),
    ] {
        in_time(async { tokio::join!(facts.changed(), ip(change)) }).await;
        assert_eq!(known().mtu, Some(mtu));
    }

    // A file that cannot be read, such as a directory, keeps the former servers.
    fs::remove_file(&file).expect("removed");
    fs::create_dir(&file).expect("made");
    assert!(!facts.update().await);
    fs::remove_dir(&file).expect("removed");
    assert!(facts.update().await, "no servers");
}
