use std::collections::BTreeMap;

use innkeeper_facilities::Closures;
use rusqlite::Connection;

use super::super::{NixClosures, NixConfig};
use super::*;

const CLOSURE: &str = "/nix/store/00000000000000000000000000000000-guest";
const LIBRARY: &str = "/nix/store/11111111111111111111111111111111-library";
const TOOL: &str = "/nix/store/22222222222222222222222222222222-tool";
const GARBAGE: &str = "/nix/store/33333333333333333333333333333333-garbage";

/// A host's Nix, with a database in WAL mode as Nix keeps it.
struct Host {
    dir: tempfile::TempDir,
    nix: Connection,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let db = dir.path().join("nix/db");
        fs::create_dir_all(&db).expect("directory");
        fs::write(db.join("schema"), "10").expect("write");
        let nix = Connection::open(db.join("db.sqlite")).expect("opens");
        nix.execute_batch(
            "PRAGMA journal_mode = WAL;
             CREATE TABLE ValidPaths (id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, path TEXT UNIQUE NOT NULL, sigs TEXT);
             CREATE TABLE Refs (referrer INTEGER NOT NULL, reference INTEGER NOT NULL, PRIMARY KEY (referrer, reference));
             CREATE INDEX IndexReferrer ON Refs (referrer);
             CREATE TRIGGER DeleteSelfRefs BEFORE DELETE ON ValidPaths
               BEGIN DELETE FROM Refs WHERE referrer = old.id AND reference = old.id; END;
             CREATE TABLE DerivationOutputs (drv INTEGER NOT NULL, id TEXT NOT NULL, path TEXT NOT NULL, PRIMARY KEY (drv, id));",
        )
        .expect("schema");
        let host = Self { dir, nix };
        for path in [LIBRARY, CLOSURE, TOOL, GARBAGE] {
            let sql = "INSERT INTO ValidPaths (path, sigs) VALUES (?1, 'signature')";
            host.nix.execute(sql, [path]).expect("registers");
        }
        host.refer(CLOSURE, LIBRARY);
        // Paths may refer to themselves.
        host.refer(LIBRARY, LIBRARY);
        host
    }

    fn refer(&self, from: &str, to: &str) {
        let sql = "INSERT INTO Refs SELECT a.id, b.id FROM ValidPaths a, ValidPaths b WHERE a.path = ?1 AND b.path = ?2";
        self.nix.execute(sql, [from, to]).expect("refers");
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn link(&self, link: &str, target: &str) {
        let link = self.at(link);
        fs::create_dir_all(link.parent().expect("parent")).expect("directory");
        symlink(target, link).expect("link");
    }

    fn gcroots(&self) -> PathBuf {
        self.at("nix/gcroots/innkeeper")
    }

    fn kept(&self) -> Vec<String> {
        let kept = kept::paths(&self.at("nix"), PARENT).expect("lists");
        kept.into_iter().map(Into::into).collect()
    }

    /// Writes a guest's database of these paths, and returns the paths in it.
    fn listed(&self, tops: &[&str]) -> Vec<String> {
        let to = self.at("guest-db");
        fs::create_dir_all(&to).expect("directory");
        let tops = tops.iter().map(|top| StorePath::parse(top).expect("valid"));
        database::write(&self.at("nix/db"), &to, &tops.collect()).expect("writes");
        let guest = Connection::open(to.join("db.sqlite")).expect("opens");
        let mut paths = guest
            .prepare("SELECT path FROM ValidPaths WHERE sigs = 'signature' ORDER BY path")
            .expect("query");
        let paths = paths.query_map([], |row| row.get(0)).expect("query");
        paths.collect::<Result<_, _>>().expect("paths")
    }
}

#[test]
fn database_lists_paths_with_their_references_only() {
    let host = Host::new();
    assert_eq!(host.listed(&[CLOSURE]), [CLOSURE, LIBRARY]);
    // Replaces it, and skips a path that is not valid.
    let missing = "/nix/store/44444444444444444444444444444444-missing";
    assert_eq!(host.listed(&[TOOL, missing]), [TOOL]);
    let guest = Connection::open(host.at("guest-db/db.sqlite")).expect("opens");
    let modes: String = guest
        .query_row("PRAGMA journal_mode", [], |row| row.get(0))
        .expect("mode");
    // A read-only directory has no place for a write-ahead log.
    assert_eq!(modes, "delete");
    assert_eq!(host.listed(&[CLOSURE]), [CLOSURE, LIBRARY]);
    let references: u32 = Connection::open(host.at("guest-db/db.sqlite"))
        .expect("opens")
        .query_row("SELECT count(*) FROM Refs", [], |row| row.get(0))
        .expect("count");
    assert_eq!(references, 2);
}

#[test]
fn unknown_schema_is_refused() {
    let host = Host::new();
    fs::write(host.at("nix/db/schema"), "11").expect("write");
    let refused = database::write(&host.at("nix/db"), &host.at("nix"), &BTreeSet::new());
    let error = ClosureError::from(refused.expect_err("unknown"));
    let chain = innkeeper_model::chain(&error);
    assert!(chain.contains("has the schema '11'"), "{chain}");
}

#[test]
fn kept_are_roots_and_current_profiles_but_no_garbage_or_other_guests_paths() {
    let host = Host::new();
    host.link("nix/gcroots/innkeeper/web", CLOSURE);
    host.link("home/result", &format!("{TOOL}/bin/tool"));
    host.link(
        "nix/gcroots/auto/0",
        &host.at("home/result").to_string_lossy(),
    );
    host.link("nix/gcroots/auto/1", "/nowhere");
    host.link("nix/profiles/system-1-link", GARBAGE);
    host.link("nix/profiles/system-2-link", LIBRARY);
    host.link("nix/profiles/system", "system-2-link");
    // Of guests of this daemon, and of another one.
    for gcroots in ["innkeeper", "other-daemon"] {
        let root = format!("nix/gcroots/{gcroots}/.nix/guest/roots/x");
        host.link(&root, GARBAGE);
    }
    assert_eq!(host.kept(), [CLOSURE, LIBRARY, TOOL]);
}

#[test]
fn roots_are_added_inherited_and_removed() {
    let host = Host::new();
    let gcroots = host.gcroots();
    let us = Identity::of('a');
    let [web, fork] = ["web", "fork"].map(|name| GuestName::parse(name).expect("name"));
    inherit(&gcroots, &us, &web, &fork).expect("has none");
    assert_eq!(observe(&gcroots, &us).expect("observes"), []);

    let dir = GuestDir::of(&gcroots, &web);
    dir.create(&us).expect("creates");
    for paths in [&[CLOSURE, TOOL][..], &[CLOSURE]] {
        let paths = paths
            .iter()
            .map(|path| StorePath::parse(path).expect("valid"));
        dir.keep(&paths.collect()).expect("keeps");
    }
    inherit(&gcroots, &us, &web, &fork).expect("inherits");
    let kept = GuestDir::of(&gcroots, &fork).kept().expect("lists");
    let kept: Vec<_> = kept.iter().map(StorePath::as_str).collect();
    assert_eq!(kept, [CLOSURE, TOOL]);

    let found = observe(&gcroots, &us).expect("observes");
    assert_eq!(found.len(), 2);
    for found in found {
        assert!(is_guest_dir(&gcroots, &found), "{found:?}");
        let them = Identity::of('b');
        if found.ownership == Ownership::Ours {
            let guest = found.guest.clone().expect("guest");
            remove(&gcroots, &them, &guest).expect("skips another daemon's");
            sweep(&them, &found).expect("skips another daemon's");
            assert!(Path::new(&found.object).exists());
            GuestDir::of(&gcroots, &guest)
                .create(&them)
                .expect_err("another daemon's");
        }
        sweep(&us, &found).expect("sweeps");
    }
    remove(&gcroots, &us, &web).expect("is gone");
    assert_eq!(observe(&gcroots, &us).expect("observes"), []);
    let elsewhere = Found::ours(None, "/etc".to_owned());
    assert!(!is_guest_dir(&gcroots, &elsewhere));
}

#[test]
fn database_lists_valid_paths() {
    let host = Host::new();
    let lists = |path: &str| {
        let path = StorePath::parse(path).expect("valid");
        lists(&host.at("nix"), &path)
    };
    assert_eq!(lists(CLOSURE), Some(true));
    assert_eq!(
        lists("/nix/store/44444444444444444444444444444444-missing"),
        Some(false)
    );
    host.nix
        .execute("DELETE FROM ValidPaths WHERE path = ?1", [GARBAGE])
        .expect("deletes");
    assert_eq!(lists(GARBAGE), Some(false));
    fs::write(host.at("nix/db/schema"), "11").expect("write");
    assert_eq!(lists(CLOSURE), None, "an unknown schema");
    fs::remove_file(host.at("nix/db/schema")).expect("remove");
    assert_eq!(lists(CLOSURE), None, "no database");
}

#[tokio::test]
async fn registered_path_is_found_without_a_program() {
    let host = Host::new();
    let config = NixConfig {
        program: "/no/such/nix".into(),
        gcroots: host.gcroots(),
        state: host.at("nix"),
        links: host.at("links"),
        options: BTreeMap::new(),
        user: "64999".to_owned(),
        daemon_socket: host.at("socket"),
    };
    let closures = NixClosures::new(config, Identity::of('a'));
    let registered = async |path: &str| {
        let path = StorePath::parse(path).expect("valid");
        closures.require_registered(&path).await
    };
    registered(CLOSURE).await.expect("listed");
    // Nix decides about all others.
    let missing = "/nix/store/44444444444444444444444444444444-missing";
    let error = registered(missing).await.expect_err("no Nix");
    assert!(innkeeper_model::chain(&error).contains("/no/such/nix"));
}
