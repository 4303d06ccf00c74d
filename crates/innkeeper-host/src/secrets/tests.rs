//! A real tree, real keys.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;
use innkeeper_facilities::{Rootfs, Secrets};

use crate::rootfs::{DirConfig, DirRootfs, test_guest};
use crate::{command, tree};

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOex2CfxWX+uNNHSdY3u8arfZZ5fvdXmEppCaKrbqNvk test";

struct House {
    dir: tempfile::TempDir,
    config: SecretsConfig,
    guest: Guest,
}

impl House {
    async fn new(user_ids: UserIds) -> Self {
        let dir = tempfile::tempdir().expect("a directory for the test");
        let guests = dir.path().join("guests");
        let guest = test_guest("web");
        let rootfs = DirRootfs::new(DirConfig {
            identity: crate::identity::Identity::of('a'),
            guests: guests.clone(),
            min_free: 0,
            user_ids,
        });
        rootfs.ensure(&guest).await.expect("a tree");
        let config = SecretsConfig {
            guests,
            user_ids,
            authorized_keys: vec![KEY.to_owned()],
            admin_key_files: vec![dir.path().join("preview.env")],
            credentials: Some(dir.path().join("claude")),
            agent_uid: 1_000,
            agent_gid: 100,
            nameservers: NameServers::new(vec!["9.9.9.9".parse().expect("address")]),
        };
        Self { dir, config, guest }
    }

    async fn ensure(&self) -> String {
        GuestSecrets::new(self.config.clone())
            .ensure(&self.guest)
            .await
            .expect("writes")
    }

    fn inside(&self, path: &str) -> PathBuf {
        self.config.guests.join("web/rootfs").join(path)
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.inside(path)).expect(path)
    }

    fn credential(&self, name: &str, contents: &str) {
        let directory = self.dir.path().join("claude");
        fs::create_dir_all(&directory).expect("directory");
        fs::write(directory.join(name), contents).expect("write");
    }

    /// Owner, group and mode bits.
    fn stat(&self, path: &str) -> (u32, u32, u32) {
        let stat = fs::symlink_metadata(self.inside(path)).expect(path);
        (stat.uid(), stat.gid(), stat.mode() & 0o7777)
    }
}

#[tokio::test]
async fn a_guest_gets_everything_with_the_owners_it_will_see() {
    for (user_ids, base) in [
        (UserIds::Mapped, 0),
        (UserIds::Shifted, 0x8_0000 + 3 * 0x1_0000),
    ] {
        let house = House::new(user_ids).await;
        house.credential("oauth_token", "secret");
        let public = house.ensure().await;
        assert!(house.text(HOST_KEY_PUBLIC).starts_with(&public));
        assert_eq!(house.stat(HOST_KEY), (base, base, 0o600));
        assert_eq!(house.stat(HOST_KEY_PUBLIC), (base, base, 0o644));
        assert_eq!(house.stat(AUTHORIZED_KEYS), (base, base, 0o644));
        assert!(house.text(AUTHORIZED_KEYS).lines().any(|line| line == KEY));
        assert_eq!(house.stat(CREDENTIALS), (base + 1_000, base + 100, 0o500));
        assert_eq!(
            house.stat("mnt/claude-creds/oauth_token"),
            (base + 1_000, base + 100, 0o400)
        );
        assert_eq!(house.text("mnt/claude-creds/oauth_token"), "secret");
        assert_eq!(house.stat(TOKEN_PROFILE), (base, base, 0o644));
        assert!(
            house
                .text("etc/resolv.conf")
                .ends_with("nameserver 9.9.9.9\n")
        );
        assert_eq!(house.text("etc/hostname"), "web\n");
        assert!(house.text("etc/hosts").contains("127.0.0.2 web"));
        let beside: Vec<_> = fs::read_dir(house.config.guests.join("web"))
            .expect("list")
            .map(|entry| entry.expect("entry").file_name())
            .collect();
        assert_eq!(beside, ["rootfs"], "nothing is left beside the tree");
    }
}

#[tokio::test]
async fn a_running_guest_follows_the_hosts_name_servers_and_keeps_what_is_its_own() {
    let mut house = House::new(UserIds::Mapped).await;
    let file = house.dir.path().join("resolv.conf");
    house.config.nameservers = NameServers::in_files(vec![file.clone()]);
    let follow = async |house: &House, address: &str| {
        let text = format!("nameserver 127.0.0.53\nnameserver {address}\n");
        fs::write(&file, text).expect("write");
        GuestSecrets::new(house.config.clone())
            .follow_host(&house.guest)
            .await
            .expect("follows");
    };
    // Before its first start, there is nothing to follow.
    follow(&house, "192.0.2.1").await;
    assert!(!house.inside(RESOLV_CONF).exists());
    house.ensure().await;
    follow(&house, "192.0.2.2").await;
    let text = house.text(RESOLV_CONF);
    assert!(text.ends_with("change.\nnameserver 192.0.2.2\n"), "{text}");
    assert_eq!(house.stat(RESOLV_CONF), (0, 0, 0o644));

    // As a former release wrote it.
    let former = format!("{}nameserver 9.9.9.9\n", RESOLVERS_HEADERS[1]);
    fs::write(house.inside(RESOLV_CONF), former).expect("write");
    follow(&house, "192.0.2.3").await;
    assert!(house.text(RESOLV_CONF).ends_with("nameserver 192.0.2.3\n"));

    // A host without name servers for the moment takes none away.
    fs::write(&file, "").expect("write");
    let secrets = GuestSecrets::new(house.config.clone());
    secrets.follow_host(&house.guest).await.expect("follows");
    assert!(house.text(RESOLV_CONF).ends_with("nameserver 192.0.2.3\n"));

    let own = format!("{}options edns0\n", house.text(RESOLV_CONF));
    for own in [own.as_str(), "nameserver 10.0.0.1\n", ""] {
        fs::write(house.inside(RESOLV_CONF), own).expect("write");
        follow(&house, "192.0.2.4").await;
        assert_eq!(house.text(RESOLV_CONF), own);
    }
    fs::remove_file(house.inside(RESOLV_CONF)).expect("remove");
    symlink("/run/stub-resolv.conf", house.inside(RESOLV_CONF)).expect("link");
    follow(&house, "192.0.2.5").await;
    let link = fs::read_link(house.inside(RESOLV_CONF)).expect("a link");
    assert_eq!(link, Path::new("/run/stub-resolv.conf"));
}

#[tokio::test]
async fn a_preview_gets_no_credentials_and_loses_those_of_an_earlier_version() {
    let mut house = House::new(UserIds::Mapped).await;
    house.credential("oauth_token", "secret");
    house.ensure().await;
    assert_eq!(house.text("mnt/claude-creds/oauth_token"), "secret");
    house.guest.kind = GuestKind::Preview;
    house.ensure().await;
    assert!(!house.inside(CREDENTIALS).exists());
    assert!(!house.inside(TOKEN_PROFILE).exists());
    fs::write(house.inside(TOKEN_PROFILE), "the preview's own").expect("write");
    house.ensure().await;
    assert_eq!(house.text(TOKEN_PROFILE), "the preview's own");
}

#[tokio::test]
async fn a_copy_loses_what_made_it_another_guest_and_gets_its_own() {
    let house = House::new(UserIds::Mapped).await;
    let former = house.ensure().await;
    let rsa = "etc/ssh/ssh_host_rsa_key";
    let dbus = "var/lib/dbus/machine-id";
    fs::create_dir_all(house.inside("var/lib/dbus")).expect("directory");
    for path in [rsa, dbus] {
        fs::write(house.inside(path), "made by the guest").expect("write");
    }
    fs::remove_file(house.inside(MACHINE_ID)).expect("remove");
    let outside = house.dir.path().join("outside");
    fs::write(&outside, "the host's").expect("write");
    symlink(&outside, house.inside(MACHINE_ID)).expect("link");
    fs::write(house.inside("etc/hosts"), "10.0.0.1 mine\n").expect("write");

    let forget = async || {
        let secrets = GuestSecrets::new(house.config.clone());
        let forgotten = secrets.forget_identity(&house.guest, &house.guest.name);
        forgotten.await.expect("forgets");
    };
    forget().await;
    forget().await;
    for path in [HOST_KEY, HOST_KEY_PUBLIC, rsa, dbus, "etc/hostname"] {
        assert!(!house.inside(path).exists(), "{path}");
    }
    assert_eq!(house.text(MACHINE_ID), "");
    assert_eq!(house.stat(MACHINE_ID), (0, 0, 0o444));
    assert_eq!(fs::read_to_string(outside).expect("read"), "the host's");
    assert_eq!(house.text("etc/hosts"), "10.0.0.1 mine\n");
    assert!(house.text(AUTHORIZED_KEYS).contains(KEY));
    assert_ne!(house.ensure().await, former);
    assert_eq!(house.text("etc/hostname"), "web\n");
}

#[tokio::test]
async fn the_token_is_exported_when_it_can_be_read() {
    let house = House::new(UserIds::Mapped).await;
    house.ensure().await;
    let profile = house.text(TOKEN_PROFILE);
    let token = house.dir.path().join("token");
    let profile = profile.replace(
        "/mnt/claude-creds/oauth_token",
        token.to_str().expect("text"),
    );
    let script = format!("{profile}\nenv");
    let run = async || {
        let out = command::run("sh", ["-c", script.as_str()], b"")
            .await
            .expect("sh");
        let out = String::from_utf8(out).expect("text");
        out.lines().find_map(|line| {
            line.strip_prefix("CLAUDE_CODE_OAUTH_TOKEN=")
                .map(str::to_owned)
        })
    };
    assert_eq!(run().await, None);
    fs::write(&token, "a $(b) 'c'").expect("write");
    assert_eq!(run().await.as_deref(), Some("a $(b) 'c'"));
}

#[tokio::test]
async fn ssh_keygen_reads_the_host_key_as_we_do() {
    let house = House::new(UserIds::Mapped).await;
    let public = house.ensure().await;
    let key = house.inside(HOST_KEY);
    let read = command::run(
        "ssh-keygen",
        ["-y", "-P", "", "-f", key.to_str().expect("text")],
        b"",
    )
    .await
    .expect("a key");
    assert_eq!(String::from_utf8(read).expect("text").trim_end(), public);
}

#[tokio::test]
async fn the_host_key_is_made_once_and_a_damaged_one_is_replaced() {
    let house = House::new(UserIds::Mapped).await;
    let first = house.ensure().await;
    assert_eq!(house.ensure().await, first);
    type Damage = fn(&House);
    let damages: [(&str, Damage); 6] = [
        ("private half cut", |house| {
            fs::write(house.inside(HOST_KEY), "-----BEGIN").expect("write");
        }),
        ("private half empty", |house| {
            fs::write(house.inside(HOST_KEY), "").expect("write");
        }),
        ("private half missing", |house| {
            fs::remove_file(house.inside(HOST_KEY)).expect("remove");
        }),
        ("public half of another", |house| {
            fs::write(house.inside(HOST_KEY_PUBLIC), KEY).expect("write");
        }),
        ("public half missing", |house| {
            fs::remove_file(house.inside(HOST_KEY_PUBLIC)).expect("remove");
        }),
        ("a link out of the tree", |house| {
            fs::remove_file(house.inside(HOST_KEY)).expect("remove");
            symlink("/etc/shadow", house.inside(HOST_KEY)).expect("link");
        }),
    ];
    let mut former = first;
    for (damage, make) in damages {
        make(&house);
        let replaced = house.ensure().await;
        assert_ne!(replaced, former, "{damage}");
        assert_eq!(house.ensure().await, replaced, "{damage}");
        former = replaced;
    }
}

#[tokio::test]
async fn the_guests_own_links_redirect_nothing() {
    let house = House::new(UserIds::Mapped).await;
    house.credential("oauth_token", "secret");
    let outside = house.dir.path().join("outside");
    fs::create_dir(&outside).expect("outside");
    let replace = |path: &str| {
        tree::remove(&house.inside(path)).expect("removes");
        symlink(&outside, house.inside(path)).expect("link");
    };
    for path in ["mnt", "etc"] {
        replace(path);
    }
    house.ensure().await;
    for path in [
        "mnt/claude-creds",
        "etc/ssh",
        "etc/profile.d",
        "etc/resolv.conf",
        "etc/hosts",
    ] {
        replace(path);
    }
    house.ensure().await;
    for path in [
        HOST_KEY,
        AUTHORIZED_KEYS,
        TOKEN_PROFILE,
        "mnt/claude-creds/oauth_token",
    ] {
        replace(path);
    }
    house.ensure().await;
    assert_eq!(fs::read_dir(&outside).expect("list").count(), 0);
    assert_eq!(house.text("mnt/claude-creds/oauth_token"), "secret");
}

#[tokio::test]
async fn what_vanishes_on_the_host_vanishes_in_the_guest() {
    let mut house = House::new(UserIds::Mapped).await;
    house.credential("oauth_token", "secret");
    house.credential("other", "secret");
    house.ensure().await;
    fs::remove_file(house.dir.path().join("claude/other")).expect("remove");
    house.credential("oauth_token", "renewed");
    house.ensure().await;
    assert!(!house.inside("mnt/claude-creds/other").exists());
    assert_eq!(house.text("mnt/claude-creds/oauth_token"), "renewed");
    tree::remove(&house.dir.path().join("claude")).expect("removes");
    house.config.authorized_keys.clear();
    house.ensure().await;
    assert_eq!(
        fs::read_dir(house.inside(CREDENTIALS))
            .expect("list")
            .count(),
        0
    );
    assert!(!house.inside(AUTHORIZED_KEYS).exists());
    // A list that the guest wrote is the guest's.
    fs::write(house.inside(AUTHORIZED_KEYS), KEY).expect("write");
    house.ensure().await;
    assert_eq!(house.text(AUTHORIZED_KEYS), KEY);
}

#[tokio::test]
async fn the_administrators_key_comes_from_the_contracts_file() {
    let mut house = House::new(UserIds::Mapped).await;
    house.config.authorized_keys = vec!["not a key".to_owned(), format!("{KEY}\nevil")];
    fs::write(
        house.dir.path().join("preview.env"),
        format!("A=b\nADMIN_SSH_KEY='{KEY}'\n"),
    )
    .expect("write");
    house.ensure().await;
    let lines: Vec<_> = house
        .text(AUTHORIZED_KEYS)
        .lines()
        .skip(1)
        .map(str::to_owned)
        .collect();
    assert_eq!(lines, [KEY]);
    let checks = GuestSecrets::new(house.config.clone()).check().await;
    let keys = checks
        .iter()
        .find(|check| check.subject == "authorised keys")
        .expect("checked");
    assert_eq!(keys.verdict, Verdict::Warning);
    assert_eq!(keys.finding, "2 of 3 authorised keys are no keys");
}

#[tokio::test]
async fn the_guests_names_are_not_overwritten() {
    let house = House::new(UserIds::Mapped).await;
    symlink("/etc/static/hosts", house.inside("etc/hosts")).expect("link");
    fs::write(house.inside("etc/hostname"), "mine\n").expect("write");
    house.ensure().await;
    assert!(
        fs::symlink_metadata(house.inside("etc/hosts"))
            .expect("stat")
            .is_symlink()
    );
    assert_eq!(house.text("etc/hostname"), "mine\n");
}

#[tokio::test]
async fn checks_tell_what_does_not_reach_guests() {
    let house = House::new(UserIds::Mapped).await;
    let verdicts = async |config: &SecretsConfig| {
        let checks = GuestSecrets::new(config.clone()).check().await;
        checks
            .into_iter()
            .map(|check| check.verdict)
            .collect::<Vec<_>>()
    };
    assert_eq!(verdicts(&house.config).await, [Verdict::Ok; 3]);
    house.credential("oauth_token", "secret");
    symlink("oauth_token", house.dir.path().join("claude/link")).expect("link");
    assert_eq!(verdicts(&house.config).await[1], Verdict::Warning);
}

#[tokio::test]
async fn a_missing_tree_is_an_error_and_nothing_is_made() {
    let mut house = House::new(UserIds::Mapped).await;
    house.guest = test_guest("other");
    GuestSecrets::new(house.config.clone())
        .ensure(&house.guest)
        .await
        .expect_err("no tree");
    assert!(!house.config.guests.join("other").exists());
    fs::set_permissions(&house.config.guests, fs::Permissions::from_mode(0o700)).expect("chmod");
}

#[tokio::test]
async fn a_tree_that_outlives_its_guest_has_nothing_that_the_guest_was_given() {
    let house = House::new(UserIds::Mapped).await;
    house.credential("oauth_token", "secret");
    let former = house.ensure().await;
    fs::write(house.inside("home/work"), "the guest's own").expect("write");
    let given = [
        HOST_KEY,
        HOST_KEY_PUBLIC,
        AUTHORIZED_KEYS,
        CREDENTIALS,
        TOKEN_PROFILE,
        "etc/hostname",
        "etc/hosts",
    ];
    for path in given {
        assert!(house.inside(path).exists(), "{path}");
    }
    let secrets = GuestSecrets::new(house.config.clone());
    for _ in 0..2 {
        secrets.withdraw(&house.guest).await.expect("withdraws");
        for path in given {
            assert!(!house.inside(path).exists(), "{path}");
        }
    }
    assert_eq!(house.text("home/work"), "the guest's own");
    assert_ne!(house.ensure().await, former);
    assert_eq!(house.text("mnt/claude-creds/oauth_token"), "secret");
}
