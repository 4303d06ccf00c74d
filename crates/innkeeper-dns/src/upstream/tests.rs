use std::fs;

use super::*;

#[test]
fn name_servers_of_the_host_are_followed() {
    let directory = tempfile::tempdir().expect("a directory");
    let [first, second] = ["a", "b"].map(|name| directory.path().join(name));
    fs::write(&first, "nameserver 127.0.0.53\nnameserver 192.0.2.1\n").expect("written");
    let upstream = Upstream::in_files(vec![first.clone(), second.clone()]);
    let expected = |last: &[u8]| -> Vec<IpAddr> {
        last.iter()
            .map(|last| IpAddr::from([192, 0, 2, *last]))
            .collect()
    };
    assert_eq!(upstream.servers(), expected(&[1]));
    fs::write(&second, "nameserver 192.0.2.1\nnameserver 192.0.2.2\n").expect("written");
    forget(&upstream);
    assert_eq!(upstream.servers(), expected(&[1, 2]));
    // While a file cannot be read, the former ones apply.
    fs::remove_file(&second).expect("removed");
    fs::create_dir(&second).expect("made");
    forget(&upstream);
    assert_eq!(upstream.servers(), expected(&[1, 2]));
    fs::remove_dir(&second).expect("removed");
    forget(&upstream);
    assert_eq!(upstream.servers(), expected(&[1]));
}

/// Makes the next call read the files.
fn forget(upstream: &Upstream) {
    if let Source::Files { known, .. } = &upstream.source {
        known.lock().read_at = None;
    }
}
