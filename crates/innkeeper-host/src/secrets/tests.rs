//! Tests with a real tree and real keys.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;
use innkeeper_facilities::{Rootfs, Secrets};
use innkeeper_model::api::Verdict;

use crate::resolver::Resolver;
use crate::rootfs::{DirConfig, DirRootfs, test_guest};
use crate::{command, tree};

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOex2CfxWX+uNNHSdY3u8arfZZ5fvdXmEppCaKrbqNvk test";

struct Fixture {
    dir: tempfile::TempDir,
    config: SecretsConfig,
    guest: Guest,
}

impl Fixture {
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
            range: "10.100.0.0/16".parse().expect("range"),
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
async fn ensure_writes_all_files_with_their_owners() {
    for (user_ids, base) in [
        (UserIds::Mapped, 0),
        (UserIds::Shifted, 0x8_0000 + 3 * 0x1_0000),
    ] {
        let fixture = Fixture::new(user_ids).await;
        fixture.credential("oauth_token", "secret");
        let public = fixture.ensure().await;
        assert!(fixture.text(HOST_KEY_PUBLIC).starts_with(&public));
        assert_eq!(fixture.stat(HOST_KEY), (base, base, 0o600));
        assert_eq!(fixture.stat(HOST_KEY_PUBLIC), (base, base, 0o644));
        assert_eq!(fixture.stat(AUTHORIZED_KEYS), (base, base, 0o644));
        assert!(
            fixture
                .text(AUTHORIZED_KEYS)
                .lines()
                .any(|line| line == KEY)
        );
        assert_eq!(fixture.stat(CREDENTIALS), (base + 1_000, base + 100, 0o500));
        assert_eq!(
            fixture.stat("mnt/claude-creds/oauth_token"),
            (base + 1_000, base + 100, 0o400)
        );
        assert_eq!(fixture.text("mnt/claude-creds/oauth_token"), "secret");
        assert_eq!(fixture.stat(TOKEN_PROFILE), (base, base, 0o644));
        assert!(
            fixture
                .text("etc/resolv.conf")
                .ends_with("nameserver 9.9.9.9\n")
        );
        assert_eq!(fixture.text("etc/hostname"), "web\n");
        assert!(fixture.text("etc/hosts").contains("127.0.0.2 web"));
        let beside: Vec<_> = fs::read_dir(fixture.config.guests.join("web"))
            .expect("list")
            .map(|entry| entry.expect("entry").file_name())
            .collect();
        assert_eq!(beside, ["rootfs"], "a file is left beside the tree");
    }
}

#[tokio::test]
async fn follow_host_updates_only_innkeepers_name_servers() {
    let mut fixture = Fixture::new(UserIds::Mapped).await;
    let file = fixture.dir.path().join("resolv.conf");
    fixture.config.nameservers = NameServers::in_files(vec![file.clone()]);
    let follow = async |fixture: &Fixture, address: &str| {
        let text = format!("nameserver 127.0.0.53\nnameserver {address}\n");
        fs::write(&file, text).expect("write");
        GuestSecrets::new(fixture.config.clone())
            .follow_host(&fixture.guest)
            .await
            .expect("follows");
    };
    // Before the first start, the guest has no file to update.
    follow(&fixture, "192.0.2.1").await;
    assert!(!fixture.inside(RESOLV_CONF).exists());
    fixture.ensure().await;
    follow(&fixture, "192.0.2.2").await;
    let text = fixture.text(RESOLV_CONF);
    assert!(text.ends_with("change.\nnameserver 192.0.2.2\n"), "{text}");
    assert_eq!(fixture.stat(RESOLV_CONF), (0, 0, 0o644));

    // A file of a former release.
    let former = format!("{}nameserver 9.9.9.9\n", RESOLVERS_HEADERS[1]);
    fs::write(fixture.inside(RESOLV_CONF), former).expect("write");
    follow(&fixture, "192.0.2.3").await;
    assert!(
        fixture
            .text(RESOLV_CONF)
            .ends_with("nameserver 192.0.2.3\n")
    );

    // A host that temporarily has no name servers removes none.
    fs::write(&file, "").expect("write");
    let secrets = GuestSecrets::new(fixture.config.clone());
    secrets.follow_host(&fixture.guest).await.expect("follows");
    assert!(
        fixture
            .text(RESOLV_CONF)
            .ends_with("nameserver 192.0.2.3\n")
    );

    let own = format!("{}options edns0\n", fixture.text(RESOLV_CONF));
    for own in [own.as_str(), "nameserver 10.0.0.1\n", ""] {
        fs::write(fixture.inside(RESOLV_CONF), own).expect("write");
        follow(&fixture, "192.0.2.4").await;
        assert_eq!(fixture.text(RESOLV_CONF), own);
    }
    fs::remove_file(fixture.inside(RESOLV_CONF)).expect("remove");
    symlink("/run/stub-resolv.conf", fixture.inside(RESOLV_CONF)).expect("link");
    follow(&fixture, "192.0.2.5").await;
    let link = fs::read_link(fixture.inside(RESOLV_CONF)).expect("a link");
    assert_eq!(link, Path::new("/run/stub-resolv.conf"));
}

#[tokio::test]
async fn resolver_precedes_the_name_servers_while_it_listens() {
    let mut fixture = Fixture::new(UserIds::Mapped).await;
    let servers = [1, 2, 3, 4].map(|last| format!("192.0.2.{last}"));
    let listening = fixture.dir.path().join("listening");
    let parsed = servers
        .iter()
        .map(|address| address.parse().expect("address"));
    fixture.config.nameservers = NameServers::new(parsed.collect()).behind(Some(Resolver {
        port: 3053,
        listening: listening.clone(),
        table: fixture.dir.path().join("table"),
    }));
    fixture.ensure().await;
    let found = |fixture: &Fixture| {
        let text = fixture.text(RESOLV_CONF);
        let servers = text
            .lines()
            .filter_map(|line| line.strip_prefix("nameserver "));
        servers.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(found(&fixture), servers[..3]);
    let gateway = fixture.config.range.addresses(fixture.guest.slot);
    let gateway = gateway.expect("addresses").host.to_string();
    for (is_listening, expected) in [
        (true, [&gateway, &servers[0], &servers[1]]),
        (false, [&servers[0], &servers[1], &servers[2]]),
    ] {
        if is_listening {
            fs::write(&listening, "").expect("written");
        } else {
            fs::remove_file(&listening).expect("removed");
        }
        let secrets = GuestSecrets::new(fixture.config.clone());
        secrets.follow_host(&fixture.guest).await.expect("follows");
        assert_eq!(found(&fixture).iter().collect::<Vec<_>>(), expected);
    }
}

#[tokio::test]
async fn previews_get_no_credentials_and_lose_legacy_ones() {
    let mut fixture = Fixture::new(UserIds::Mapped).await;
    fixture.credential("oauth_token", "secret");
    fixture.ensure().await;
    assert_eq!(fixture.text("mnt/claude-creds/oauth_token"), "secret");
    fixture.guest.kind = GuestKind::Preview;
    fixture.ensure().await;
    assert!(!fixture.inside(CREDENTIALS).exists());
    assert!(!fixture.inside(TOKEN_PROFILE).exists());
    fs::write(fixture.inside(TOKEN_PROFILE), "the preview's own").expect("write");
    fixture.ensure().await;
    assert_eq!(fixture.text(TOKEN_PROFILE), "the preview's own");
}

#[tokio::test]
async fn forget_identity_removes_the_former_guests_identity() {
    let fixture = Fixture::new(UserIds::Mapped).await;
    let former = fixture.ensure().await;
    let rsa = "etc/ssh/ssh_host_rsa_key";
    let dbus = "var/lib/dbus/machine-id";
    fs::create_dir_all(fixture.inside("var/lib/dbus")).expect("directory");
    for path in [rsa, dbus] {
        fs::write(fixture.inside(path), "made by the guest").expect("write");
    }
    fs::remove_file(fixture.inside(MACHINE_ID)).expect("remove");
    let outside = fixture.dir.path().join("outside");
    fs::write(&outside, "the host's").expect("write");
    symlink(&outside, fixture.inside(MACHINE_ID)).expect("link");
    fs::write(fixture.inside("etc/hosts"), "10.0.0.1 mine\n").expect("write");

    let forget = async || {
        let secrets = GuestSecrets::new(fixture.config.clone());
        let outcome = secrets.forget_identity(&fixture.guest, &fixture.guest.name);
        outcome.await.expect("forgets");
    };
    forget().await;
    forget().await;
    for path in [HOST_KEY, HOST_KEY_PUBLIC, rsa, dbus, "etc/hostname"] {
        assert!(!fixture.inside(path).exists(), "{path}");
    }
    assert_eq!(fixture.text(MACHINE_ID), "");
    assert_eq!(fixture.stat(MACHINE_ID), (0, 0, 0o444));
    assert_eq!(fs::read_to_string(outside).expect("read"), "the host's");
    assert_eq!(fixture.text("etc/hosts"), "10.0.0.1 mine\n");
    assert!(fixture.text(AUTHORIZED_KEYS).contains(KEY));
    assert_ne!(fixture.ensure().await, former);
    assert_eq!(fixture.text("etc/hostname"), "web\n");
}

#[tokio::test]
async fn token_is_exported_if_readable() {
    let fixture = Fixture::new(UserIds::Mapped).await;
    fixture.ensure().await;
    let profile = fixture.text(TOKEN_PROFILE);
    let token = fixture.dir.path().join("token");
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
async fn host_key_is_the_same_for_ssh_keygen() {
    let fixture = Fixture::new(UserIds::Mapped).await;
    let public = fixture.ensure().await;
    let key = fixture.inside(HOST_KEY);
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
async fn host_key_is_stable_and_replaced_if_damaged() {
    let fixture = Fixture::new(UserIds::Mapped).await;
    let first = fixture.ensure().await;
    assert_eq!(fixture.ensure().await, first);
    type Damage = fn(&Fixture);
    let damages: [(&str, Damage); 6] = [
        ("private half cut", |fixture| {
            fs::write(fixture.inside(HOST_KEY), "-----BEGIN").expect("write");
        }),
        ("private half empty", |fixture| {
            fs::write(fixture.inside(HOST_KEY), "").expect("write");
        }),
        ("private half missing", |fixture| {
            fs::remove_file(fixture.inside(HOST_KEY)).expect("remove");
        }),
        ("public half of another", |fixture| {
            fs::write(fixture.inside(HOST_KEY_PUBLIC), KEY).expect("write");
        }),
        ("public half missing", |fixture| {
            fs::remove_file(fixture.inside(HOST_KEY_PUBLIC)).expect("remove");
        }),
        ("a link out of the tree", |fixture| {
            fs::remove_file(fixture.inside(HOST_KEY)).expect("remove");
            symlink("/etc/shadow", fixture.inside(HOST_KEY)).expect("link");
        }),
    ];
    let mut former = first;
    for (damage, apply) in damages {
        apply(&fixture);
        let replaced = fixture.ensure().await;
        assert_ne!(replaced, former, "{damage}");
        assert_eq!(fixture.ensure().await, replaced, "{damage}");
        former = replaced;
    }
}

#[tokio::test]
async fn guests_links_redirect_no_write() {
    let fixture = Fixture::new(UserIds::Mapped).await;
    fixture.credential("oauth_token", "secret");
    let outside = fixture.dir.path().join("outside");
    fs::create_dir(&outside).expect("outside");
    let replace = |path: &str| {
        tree::remove(&fixture.inside(path)).expect("removes");
        symlink(&outside, fixture.inside(path)).expect("link");
    };
    for path in ["mnt", "etc"] {
        replace(path);
    }
    fixture.ensure().await;
    for path in [
        "mnt/claude-creds",
        "etc/ssh",
        "etc/profile.d",
        "etc/resolv.conf",
        "etc/hosts",
    ] {
        replace(path);
    }
    fixture.ensure().await;
    for path in [
        HOST_KEY,
        AUTHORIZED_KEYS,
        TOKEN_PROFILE,
        "mnt/claude-creds/oauth_token",
    ] {
        replace(path);
    }
    fixture.ensure().await;
    assert_eq!(fs::read_dir(&outside).expect("list").count(), 0);
    assert_eq!(fixture.text("mnt/claude-creds/oauth_token"), "secret");
}

#[tokio::test]
async fn removals_on_the_host_are_mirrored_in_the_guest() {
    let mut fixture = Fixture::new(UserIds::Mapped).await;
    fixture.credential("oauth_token", "secret");
    fixture.credential("other", "secret");
    fixture.ensure().await;
    fs::remove_file(fixture.dir.path().join("claude/other")).expect("remove");
    fixture.credential("oauth_token", "renewed");
    fixture.ensure().await;
    assert!(!fixture.inside("mnt/claude-creds/other").exists());
    assert_eq!(fixture.text("mnt/claude-creds/oauth_token"), "renewed");
    tree::remove(&fixture.dir.path().join("claude")).expect("removes");
    fixture.config.authorized_keys.clear();
    fixture.ensure().await;
    assert_eq!(
        fs::read_dir(fixture.inside(CREDENTIALS))
            .expect("list")
            .count(),
        0
    );
    assert!(!fixture.inside(AUTHORIZED_KEYS).exists());
    // A list that the guest wrote stays.
    fs::write(fixture.inside(AUTHORIZED_KEYS), KEY).expect("write");
    fixture.ensure().await;
    assert_eq!(fixture.text(AUTHORIZED_KEYS), KEY);
}

#[tokio::test]
async fn admin_key_is_read_from_the_environment_file() {
    let mut fixture = Fixture::new(UserIds::Mapped).await;
    fixture.config.authorized_keys = vec!["not a key".to_owned(), format!("{KEY}\nevil")];
    fs::write(
        fixture.dir.path().join("preview.env"),
        format!("A=b\nADMIN_SSH_KEY='{KEY}'\n"),
    )
    .expect("write");
    fixture.ensure().await;
    let lines: Vec<_> = fixture
        .text(AUTHORIZED_KEYS)
        .lines()
        .skip(1)
        .map(str::to_owned)
        .collect();
    assert_eq!(lines, [KEY]);
    let checks = GuestSecrets::new(fixture.config.clone()).check().await;
    let keys = checks
        .iter()
        .find(|check| check.subject == "authorized keys")
        .expect("checked");
    assert_eq!(keys.verdict, Verdict::Warning);
    assert_eq!(keys.finding, "2 of 3 authorized keys are invalid");
}

#[tokio::test]
async fn existing_names_are_not_overwritten() {
    let fixture = Fixture::new(UserIds::Mapped).await;
    symlink("/etc/static/hosts", fixture.inside("etc/hosts")).expect("link");
    fs::write(fixture.inside("etc/hostname"), "mine\n").expect("write");
    fixture.ensure().await;
    assert!(
        fs::symlink_metadata(fixture.inside("etc/hosts"))
            .expect("stat")
            .is_symlink()
    );
    assert_eq!(fixture.text("etc/hostname"), "mine\n");
}

#[tokio::test]
async fn checks_report_skipped_credentials() {
    let fixture = Fixture::new(UserIds::Mapped).await;
    let verdicts = async |config: &SecretsConfig| {
        let checks = GuestSecrets::new(config.clone()).check().await;
        checks
            .into_iter()
            .map(|check| check.verdict)
            .collect::<Vec<_>>()
    };
    assert_eq!(verdicts(&fixture.config).await, [Verdict::Ok; 3]);
    fixture.credential("oauth_token", "secret");
    symlink("oauth_token", fixture.dir.path().join("claude/link")).expect("link");
    assert_eq!(verdicts(&fixture.config).await[1], Verdict::Warning);
}

#[tokio::test]
async fn missing_tree_is_an_error() {
    let mut fixture = Fixture::new(UserIds::Mapped).await;
    fixture.guest = test_guest("other");
    GuestSecrets::new(fixture.config.clone())
        .ensure(&fixture.guest)
        .await
        .expect_err("no tree");
    assert!(!fixture.config.guests.join("other").exists());
    fs::set_permissions(&fixture.config.guests, fs::Permissions::from_mode(0o700)).expect("chmod");
}

#[tokio::test]
async fn withdraw_removes_all_that_ensure_wrote() {
    let fixture = Fixture::new(UserIds::Mapped).await;
    fixture.credential("oauth_token", "secret");
    let former = fixture.ensure().await;
    fs::write(fixture.inside("home/work"), "the guest's own").expect("write");
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
        assert!(fixture.inside(path).exists(), "{path}");
    }
    let secrets = GuestSecrets::new(fixture.config.clone());
    for _ in 0..2 {
        secrets.withdraw(&fixture.guest).await.expect("withdraws");
        for path in given {
            assert!(!fixture.inside(path).exists(), "{path}");
        }
    }
    assert_eq!(fixture.text("home/work"), "the guest's own");
    assert_ne!(fixture.ensure().await, former);
    assert_eq!(fixture.text("mnt/claude-creds/oauth_token"), "secret");
}

#[tokio::test]
async fn guest_takes_over_the_files_of_one_that_was_never_used() {
    let fixture = Fixture::new(UserIds::Shifted).await;
    let seat = GuestName::parse("0-door-3").expect("a name");
    let secrets = GuestSecrets::new(fixture.config.clone());
    // Written under the seat's name. Its tree is renamed before this.
    let mut former = fixture.guest.clone();
    former.name = seat.clone();
    let guests = &fixture.config.guests;
    fs::rename(guests.join("web"), guests.join(seat.as_str())).expect("renamed");
    let public = secrets.ensure(&former).await.expect("written");
    fs::rename(guests.join(seat.as_str()), guests.join("web")).expect("renamed");
    assert_eq!(fixture.text("etc/hostname"), "0-door-3\n");

    fixture.credential("oauth_token", "later");
    let key = fs::read(fixture.inside(HOST_KEY)).expect("a key");
    // Also after a crash.
    for _ in 0..2 {
        let taken = secrets.take_over(&fixture.guest, &seat).await;
        assert_eq!(taken.expect("written"), public);
        assert_eq!(fixture.text(HOST_KEY_PUBLIC), format!("{public} web\n"));
        assert_eq!(fixture.text("etc/hostname"), "web\n");
        assert!(fixture.text("etc/hosts").contains("127.0.0.2 web\n"));
        assert!(!fixture.text("etc/hosts").contains("door"));
        assert_eq!(fixture.text("mnt/claude-creds/oauth_token"), "later");
    }
    assert_eq!(fs::read(fixture.inside(HOST_KEY)).expect("a key"), key);

    // A name that the guest's system chose stays.
    fs::write(fixture.inside("etc/hostname"), "chosen\n").expect("written");
    let taken = secrets.take_over(&fixture.guest, &seat).await;
    taken.expect("written");
    assert_eq!(fixture.text("etc/hostname"), "chosen\n");
}
