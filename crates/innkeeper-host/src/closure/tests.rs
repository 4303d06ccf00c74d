//! Real builds by the real Nix of this machine, without nixpkgs: the builder is a static busybox.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use innkeeper_facilities::FacilityError;
use innkeeper_model::Code;

use super::*;

/// A flake, a Nix that notes how it is called, and a driver.
struct Workshop {
    dir: tempfile::TempDir,
    closures: Arc<NixClosures>,
}

/// A workshop, unless the machine cannot have one; then the test is listed as not run.
fn workshop(test: &str) -> Option<Workshop> {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"]
        .into_iter()
        .find(|p| Path::new(p).exists());
    let path = std::env::var_os("PATH").unwrap_or_default();
    let nix = std::env::split_paths(&path)
        .map(|dir| dir.join("nix"))
        .find(|nix| nix.exists());
    let (Some(busybox), Some(nix)) = (busybox, nix) else {
        eprintln!("INNKEEPER-NOT-RUN: {test}: it needs nix and busybox-static");
        return None;
    };
    let dir = tempfile::tempdir().expect("a directory for the test");
    let at = |name: &str| dir.path().join(name);
    // Builders, which are users of their own, write there.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).expect("chmod");
    fs::create_dir_all(at("flake/bb")).expect("flake");
    // From a folder, so that the program is still called `busybox` in the store.
    fs::copy(busybox, at("flake/bb/busybox")).expect("busybox");
    let noting = format!(
        "#!/bin/sh\necho \"$@\" >> {}\nexec {} \"$@\"\n",
        at("calls").display(),
        nix.display()
    );
    fs::write(at("nix"), noting).expect("write");
    fs::set_permissions(at("nix"), fs::Permissions::from_mode(0o755)).expect("chmod");
    symlink(nix.with_file_name("nix-store"), at("nix-store")).expect("link");
    let config = NixConfig {
        program: at("nix"),
        gcroots: at("gcroots"),
        links: at("state/closures"),
        options: BTreeMap::from(
            [("substituters", ""), ("sandbox", "false")]
                .map(|(name, value)| (name.to_owned(), value.to_owned())),
        ),
        // A number that nobody has.
        user: "64999".to_owned(),
        daemon_socket: at("daemon/socket"),
    };
    let workshop = Workshop {
        dir,
        closures: Arc::new(NixClosures::new(config, Identity::of('a'))),
    };
    workshop.flake(&workshop.derivation("guest", MAKE_INIT));
    Some(workshop)
}

const MAKE_INIT: &str = "mkdir -p $out; echo '#!/bin/sh' > $out/init; chmod +x $out/init";

impl Workshop {
    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// One output. The directory of the test makes it another derivation in each run.
    fn derivation(&self, name: &str, script: &str) -> String {
        format!(
            "{name} = derivation {{ name = \"{name}\"; system = \"{}-linux\"; tag = \"{}\"; \
             builder = \"${{./bb}}/busybox\"; \
             args = [ \"sh\" \"-c\" \"set -e; export PATH=/; bb=${{./bb}}/busybox; \
             for tool in mkdir chmod sleep; do alias $tool=\\\"$bb $tool\\\"; done; eval \\\"$script\\\"\" ]; \
             script = ''{script}''; }};",
            std::env::consts::ARCH,
            self.dir.path().display(),
        )
    }

    fn flake(&self, outputs: &str) {
        self.write(&format!("{{ outputs = {{ self }}: {{ {outputs} }}; }}"));
    }

    fn write(&self, flake: &str) {
        fs::write(self.at("flake/flake.nix"), flake).expect("write");
    }

    fn installable(&self, attribute: &str) -> Installable {
        let text = format!("{}#{attribute}", self.at("flake").display());
        Installable::parse(&text, "x").expect("valid")
    }

    async fn build(&self, attribute: &str, known: Option<&Built>) -> Result<Built, FacilityError> {
        let (closures, deaf) = (&self.closures, Arc::new(|_: BuildProgress| {}));
        closures
            .build(&self.installable(attribute), Trust::Host, known, deaf)
            .await
    }

    /// What each call of Nix was about, and forgets it.
    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.at("calls")).unwrap_or_default();
        fs::remove_file(self.at("calls")).ok();
        calls
            .lines()
            .map(|call| call.split(' ').next().unwrap_or_default().to_owned())
            .collect()
    }

    /// The links to what was built, and everything that Nix may have left beside them.
    fn links(&self) -> Vec<PathBuf> {
        let links = fs::read_dir(self.at("state/closures"))
            .into_iter()
            .flatten();
        links.map(|entry| entry.expect("entry").path()).collect()
    }

    fn lines(&self, name: &str) -> usize {
        fs::read_to_string(self.at(name)).map_or(0, |text| text.lines().count())
    }
}

/// The roots of a store path as Nix sees them.
async fn roots_of(closure: &StorePath) -> String {
    let roots = command::run("nix-store", ["--query", "--roots", closure.as_str()], b"").await;
    String::from_utf8(roots.expect("nix-store")).expect("text")
}

/// Waits until something is so, for at most half a minute.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_closure_is_built_shown_verified_and_kept() {
    let Some(shop) = workshop("a_closure_is_built_shown_verified_and_kept") else {
        return;
    };
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let progress: ProgressSink = Arc::new(move |news| sink.lock().expect("seen").push(news));
    shop.flake(&shop.derivation("guest", &format!("{MAKE_INIT}; sleep 0.5")));
    let built = shop
        .closures
        .build(&shop.installable("guest"), Trust::Host, None, progress)
        .await
        .expect("builds");
    assert!(built.closure.as_str().ends_with("-guest"));
    assert!(!built.fingerprint.is_empty());
    let seen = seen.lock().expect("seen").clone();
    assert!(
        seen.iter()
            .any(|now| now.activity == "building guest" && now.to_build == 1),
        "{seen:?}"
    );
    shop.closures.verify(&built.closure).await.expect("boots");
    let links = shop.links();
    assert_eq!(links.len(), 1);
    assert_eq!(
        fs::read_link(&links[0]).expect("link"),
        built.closure.as_path()
    );
    let roots = roots_of(&built.closure).await;
    assert!(roots.contains(links[0].to_str().expect("text")), "{roots}");
    shop.closures
        .forget_link(&shop.installable("guest"))
        .await
        .expect("forgets");
    assert!(shop.links().is_empty());
    assert_eq!(roots_of(&built.closure).await, "");
}

#[tokio::test]
async fn what_is_known_is_not_evaluated_again_until_the_flake_changes() {
    let Some(shop) = workshop("what_is_known_is_not_evaluated_again_until_the_flake_changes")
    else {
        return;
    };
    let built = shop.build("guest", None).await.expect("builds");
    assert_eq!(shop.calls(), ["flake", "build", "flake"]);
    assert_eq!(
        shop.build("guest", Some(&built)).await.expect("is known"),
        built
    );
    assert_eq!(shop.calls(), ["flake"]);
    // Touched, but not changed.
    fs::copy(shop.at("flake/flake.nix"), shop.at("copy")).expect("copy");
    fs::copy(shop.at("copy"), shop.at("flake/flake.nix")).expect("copy");
    assert_eq!(
        shop.build("guest", Some(&built)).await.expect("is known"),
        built
    );
    assert_eq!(shop.calls(), ["flake"]);
    shop.flake(&shop.derivation("guest", &format!("{MAKE_INIT}; echo new > $out/new")));
    let rebuilt = shop.build("guest", Some(&built)).await.expect("builds");
    assert_ne!(rebuilt.closure, built.closure);
    assert_ne!(rebuilt.fingerprint, built.fingerprint);
    assert_eq!(shop.calls(), ["flake", "build", "flake"]);
    assert_eq!(shop.links().len(), 1);
}

#[tokio::test]
async fn a_flake_that_changes_during_its_build_is_not_known() {
    let Some(shop) = workshop("a_flake_that_changes_during_its_build_is_not_known") else {
        return;
    };
    let flake = shop.at("flake/flake.nix");
    fs::set_permissions(&flake, fs::Permissions::from_mode(0o666)).expect("chmod");
    let script = format!("{MAKE_INIT}; echo >> {}", flake.display());
    shop.flake(&shop.derivation("guest", &script));
    let built = shop.build("guest", None).await.expect("builds");
    assert_eq!(built.fingerprint, "");
    shop.calls();
    let again = shop.build("guest", Some(&built)).await.expect("builds");
    assert_eq!(shop.calls(), ["flake", "build", "flake"]);
    assert_eq!(again.closure, built.closure);
    assert_ne!(again.fingerprint, "");
}

#[tokio::test]
async fn a_derivation_without_the_usual_output_is_refused_and_not_kept() {
    let Some(shop) = workshop("a_derivation_without_the_usual_output") else {
        return;
    };
    let derivation = shop.derivation("guest", "mkdir $bin");
    shop.flake(&derivation.replace("tag =", "outputs = [ \"bin\" ]; tag ="));
    let error = shop.build("guest", None).await.expect_err("no out");
    assert_eq!(error.code(), Code::InvalidClosure, "{}", chain(&error));
    assert!(shop.links().is_empty());
}

#[tokio::test]
async fn a_closure_that_a_loss_of_power_has_emptied_is_told_from_a_wrong_one() {
    let Some(shop) = workshop("a_closure_that_a_loss_of_power_has_emptied") else {
        return;
    };
    let script = "$bb mkdir $out; : > $out/init; $bb chmod 555 $out/init";
    shop.flake(&shop.derivation("guest", script));
    let error = shop.build("guest", None).await.expect_err("empty");
    assert_eq!(error.code(), Code::InvalidClosure, "{}", chain(&error));
    let remedy = error.remedy().expect("a remedy");
    assert!(remedy.contains("--check-contents --repair"), "{remedy}");
    assert!(shop.links().is_empty());
}

#[tokio::test]
async fn what_is_known_but_gone_is_built_again_and_what_is_known_but_loose_is_kept() {
    let Some(shop) = workshop("what_is_known_but_gone_is_built_again") else {
        return;
    };
    let built = shop.build("guest", None).await.expect("builds");
    shop.closures
        .forget_link(&shop.installable("guest"))
        .await
        .expect("forgets");
    shop.build("guest", Some(&built)).await.expect("is known");
    assert_eq!(
        fs::read_link(&shop.links()[0]).expect("link"),
        built.closure.as_path()
    );
    shop.closures
        .forget_link(&shop.installable("guest"))
        .await
        .expect("forgets");
    command::run("nix-store", ["--delete", built.closure.as_str()], b"")
        .await
        .expect("deletes");
    let missing = shop
        .closures
        .verify(&built.closure)
        .await
        .expect_err("is gone");
    assert_eq!(missing.code(), Code::ClosureNotFound);
    assert_eq!(
        shop.build("guest", Some(&built)).await.expect("builds"),
        built
    );
    shop.closures
        .verify(&built.closure)
        .await
        .expect("is there");
}

#[tokio::test]
async fn a_failed_build_shows_the_last_lines_and_leaves_nothing() {
    let Some(shop) = workshop("a_failed_build_shows_the_last_lines_and_leaves_nothing") else {
        return;
    };
    let script = "mkdir $out; for i in $($bb seq 60); do echo line $i; done; exit 3";
    shop.flake(&shop.derivation("guest", script));
    let error = shop.build("guest", None).await.expect_err("fails");
    assert_eq!(error.code(), Code::BuildFailed);
    let text = chain(&error);
    assert!(
        text.contains("flake#guest': builder for '/nix/store/"),
        "{text}"
    );
    assert!(text.contains("failed with exit code 3"), "{text}");
    assert!(
        error.log().iter().any(|line| line == "line 60"),
        "{:?}",
        error.log()
    );
    assert_eq!(error.log().len(), 40);
    assert!(error.remedy().expect("a remedy").contains("nix build -L"));
    assert!(shop.links().is_empty());
}

#[tokio::test]
async fn a_broken_flake_is_a_failed_build_and_a_missing_one_is_not_found() {
    let Some(shop) = workshop("a_broken_flake_is_a_failed_build") else {
        return;
    };
    let code = async |attribute: &str| {
        let error = shop.build(attribute, None).await.expect_err(attribute);
        assert!(shop.links().is_empty(), "{attribute}");
        (error.code(), chain(&error), error.log().len())
    };
    shop.write("{ outputs = { self }: { guest = ; }; }");
    let (syntax, text, lines) = code("guest").await;
    assert_eq!(syntax, Code::BuildFailed);
    assert!(text.contains("syntax error") && lines > 0, "{text}");

    shop.flake(&format!(
        "a.\"b.c\".guest = throw \"on purpose\"; throwing = throw \"on purpose\"; {}",
        shop.derivation("guest", MAKE_INIT)
    ));
    for missing in [
        "nope",
        "a.nope",
        "a.b.c.guest",
        "guest.nope.nope",
        "a.\"$x\".\"${y}\"",
    ] {
        let (found, text, _) = code(missing).await;
        assert_eq!(found, Code::FlakeNotFound, "{missing}: {text}");
        assert!(
            text.ends_with(&format!("has no output '{missing}'")),
            "{text}"
        );
    }
    for broken in ["throwing", "throwing.below", "a.\"b.c\".guest"] {
        let (found, text, _) = code(broken).await;
        assert_eq!(found, Code::BuildFailed, "{broken}: {text}");
    }

    fs::remove_file(shop.at("flake/flake.nix")).expect("remove");
    let (empty, text, _) = code("guest").await;
    assert_eq!(empty, Code::FlakeNotFound);
    assert!(text.ends_with("it has no flake.nix"), "{text}");
    tree::remove(&shop.at("flake")).expect("removes");
    let (gone, text, _) = code("guest").await;
    assert_eq!(gone, Code::FlakeNotFound);
    assert!(text.ends_with("the directory does not exist"), "{text}");
}

#[tokio::test]
async fn a_closure_without_init_is_refused_and_not_kept() {
    let Some(shop) = workshop("a_closure_without_init_is_refused_and_not_kept") else {
        return;
    };
    shop.build("guest", None).await.expect("builds");
    assert_eq!(shop.links().len(), 1);
    for (script, reason) in [
        ("mkdir $out", "it has no 'init'"),
        ("echo x > $out", "it is not a directory"),
        (
            "mkdir $out; echo x > $out/init",
            "its 'init' is not an executable file",
        ),
    ] {
        shop.flake(&shop.derivation("guest", script));
        let error = shop.build("guest", None).await.expect_err(reason);
        assert_eq!(error.code(), Code::InvalidClosure);
        assert!(chain(&error).ends_with(reason), "{}", chain(&error));
        assert!(error.remedy().expect("a remedy").contains("toplevel"));
        assert!(shop.links().is_empty());
    }
}

#[tokio::test]
async fn without_nix_the_error_says_what_to_install() {
    let dir = tempfile::tempdir().expect("directory");
    fs::write(dir.path().join("flake.nix"), "{ }").expect("write");
    let closures = NixClosures::new(
        NixConfig {
            program: "/nonexistent/nix".into(),
            gcroots: dir.path().join("gcroots"),
            links: dir.path().join("links"),
            options: BTreeMap::new(),
            user: "64999".to_owned(),
            daemon_socket: "/nonexistent/socket".into(),
        },
        Identity::of('a'),
    );
    let text = format!("{}#guest", dir.path().display());
    let installable = Installable::parse(&text, "x").expect("valid");
    let error = closures
        .build(&installable, Trust::Host, None, Arc::new(|_| {}))
        .await
        .expect_err("no nix");
    assert_eq!(error.code(), Code::NixMissing);
    assert!(error.remedy().expect("a remedy").contains("nix-bin"));
    assert_eq!(closures.check().await[0].verdict, Verdict::Broken);
}

#[tokio::test]
async fn two_builds_of_the_same_at_the_same_time_are_one() {
    let Some(shop) = workshop("two_builds_of_the_same_at_the_same_time_are_one") else {
        return;
    };
    let begun = shop.at("begun");
    let script = format!("echo begun >> {}; {MAKE_INIT}; exit 1", begun.display());
    let other = shop.derivation("other", MAKE_INIT);
    // A failure is not kept in the store: a second build would show.
    shop.flake(&(shop.derivation("guest", &script) + &other));
    let (a, b, c) = tokio::join!(
        shop.build("guest", None),
        shop.build("guest", None),
        shop.build("other", None)
    );
    c.expect("builds");
    assert_eq!(chain(&a.expect_err("fails")), chain(&b.expect_err("fails")));
    assert_eq!(shop.lines("begun"), 1);
    shop.build("guest", None).await.expect_err("fails");
    assert_eq!(shop.lines("begun"), 2);
}

#[tokio::test]
async fn a_build_that_nobody_waits_for_ends_and_leaves_nothing() {
    let Some(shop) = workshop("a_build_that_nobody_waits_for_ends_and_leaves_nothing") else {
        return;
    };
    let pid = shop.at("pid");
    // The builder's own child must go as well.
    let script = format!("{MAKE_INIT}; sleep 600 & echo $! > {}; wait", pid.display());
    shop.flake(&shop.derivation("guest", &script));
    let mut first = Box::pin(shop.build("guest", None));
    let mut second = Box::pin(shop.build("guest", None));
    let begun = until("the build begins", || shop.lines("pid") == 1);
    tokio::select! {
        built = &mut first => panic!("{built:?}"),
        built = &mut second => panic!("{built:?}"),
        () = begun => {}
    }
    let sleeper = fs::read_to_string(&pid).expect("pid");
    let alive = || {
        Path::new("/proc")
            .join(sleeper.trim())
            .join("exe")
            .read_link()
            .is_ok()
    };
    drop(first);
    assert!(alive());
    drop(second);
    until("the builder ends", || !alive()).await;
    assert!(shop.links().is_empty());
}

#[tokio::test]
async fn a_guests_root_keeps_its_closure() {
    let Some(shop) = workshop("a_guests_root_keeps_its_closure") else {
        return;
    };
    let built = shop.build("guest", None).await.expect("builds");
    shop.closures
        .forget_link(&shop.installable("guest"))
        .await
        .expect("forgets");
    let unique = shop
        .dir
        .path()
        .file_name()
        .expect("name")
        .to_string_lossy()
        .replace('.', "");
    let gcroots = PathBuf::from(format!("/nix/var/nix/gcroots/innkeeper-test-{unique}"));
    let config = NixConfig {
        gcroots: gcroots.clone(),
        ..(*shop.closures.config).clone()
    };
    let closures = NixClosures::new(config, Identity::of('a'));
    let guest = GuestName::parse("web").expect("name");
    assert_eq!(closures.observe().await.expect("observes"), []);
    closures
        .ensure(&guest, &built.closure)
        .await
        .expect("roots");
    let roots = roots_of(&built.closure).await;
    assert!(
        roots.contains(gcroots.join("web").to_str().expect("text")),
        "{roots}"
    );
    let found = closures.observe().await.expect("observes");
    assert_eq!(
        found.iter().map(|f| f.guest.as_ref()).collect::<Vec<_>>(),
        [Some(&guest)]
    );
    closures.remove(&guest).await.expect("removes");
    closures.remove(&guest).await.expect("is gone");
    assert_eq!(roots_of(&built.closure).await, "");
    symlink("/nowhere", gcroots.join("stale")).expect("link");
    let stale = closures.observe().await.expect("observes");
    closures.sweep(&stale[0]).await.expect("sweeps");
    assert_eq!(closures.observe().await.expect("observes"), []);
    fs::remove_dir(&gcroots).expect("nothing else is there");
}

#[tokio::test]
async fn checks_show_nixs_version_and_what_cannot_be_written() {
    let Some(shop) = workshop("checks_show_nixs_version") else {
        return;
    };
    let checks = shop.closures.check().await;
    assert!(
        checks.iter().all(|check| check.verdict == Verdict::Ok),
        "{checks:?}"
    );
    assert!(
        checks[0].finding.starts_with("nix (Nix"),
        "{}",
        checks[0].finding
    );
    // A file in the way stops even root.
    fs::write(shop.at("file"), "x").expect("write");
    let check = check_writable("GC roots", &shop.at("file/below"));
    assert_eq!(check.verdict, Verdict::Broken);
    assert!(
        check.finding.contains("file cannot be written"),
        "{}",
        check.finding
    );
}

#[test]
fn a_store_that_no_build_has_made_yet_is_not_broken() {
    let directory = tempfile::tempdir().expect("a folder");
    let check = check_store(&directory.path().join("store"));
    assert_eq!(check.verdict, Verdict::Warning);
    assert!(check.finding.contains("first build"), "{}", check.finding);
    assert_eq!(check_store(directory.path()).verdict, Verdict::Ok);
}

/// A Nix daemon for users other than root, and the workshop's flake at an address on the loopback interface.
struct Outside {
    url: String,
    _daemon: tokio::process::Child,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Outside {
    async fn new(shop: &Workshop) -> Self {
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
        };
        mode(shop.dir.path(), 0o755);
        fs::create_dir(shop.at("daemon")).expect("folder");
        mode(&shop.at("daemon"), 0o755);
        let daemon = command::command("nix-daemon")
            .env("NIX_DAEMON_SOCKET_PATH", shop.at("daemon/socket"))
            .env(
                "NIX_CONFIG",
                "experimental-features = nix-command flakes\nsubstituters =\nsandbox = false",
            )
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn();
        let socket = shop.at("daemon/socket");
        until("the Nix daemon answers", || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        })
        .await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a port");
        let address = listener.local_addr().expect("address");
        let folder = shop.dir.path().to_owned();
        Self {
            url: format!("http://{address}/flake.tar.gz"),
            _daemon: daemon.expect("nix-daemon"),
            server: tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    serve(stream, &folder).await.expect("serves");
                }
            }),
        }
    }

    async fn build(&self, shop: &Workshop, attribute: &str) -> Result<Built, FacilityError> {
        let text = format!("{}#{attribute}", self.url);
        let installable = Installable::parse(&text, "x").expect("valid");
        let deaf = Arc::new(|_: BuildProgress| {});
        let built = shop.closures.build(&installable, Trust::Member, None, deaf);
        built.await
    }
}

/// Answers any request with the folder `flake` as an archive.
async fn serve(mut stream: tokio::net::TcpStream, folder: &Path) -> io::Result<()> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let folder = folder.to_str().expect("text");
    let archive = command::run("tar", ["-C", folder, "-cz", "flake"], b"").await;
    let archive = archive.expect("tar");
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        archive.len()
    );
    stream.write_all(head.as_bytes()).await?;
    if !request.starts_with(b"HEAD ") {
        stream.write_all(&archive).await?;
    }
    stream.shutdown().await
}

/// Whether any source in the store holds a file of this name.
fn is_in_store(file: &str) -> bool {
    let mut sources = fs::read_dir(STORE_DIR).expect("the store");
    sources.any(|source| source.expect("entry").path().join(file).exists())
}

#[tokio::test]
async fn a_members_remote_flake_is_built_without_rights_and_kept() {
    let Some(shop) = workshop("a_members_remote_flake_is_built_without_rights_and_kept") else {
        return;
    };
    let outside = Outside::new(&shop).await;
    let missing = outside.build(&shop, "nope").await.expect_err("missing");
    assert_eq!(missing.code(), Code::FlakeNotFound, "{}", chain(&missing));
    // A relative input in the same tree is allowed.
    fs::create_dir(shop.at("flake/sub")).expect("folder");
    let sub = "{ outputs = { self }: { word = \"below\"; }; }";
    fs::write(shop.at("flake/sub/flake.nix"), sub).expect("write");
    let script = format!("{MAKE_INIT}; echo $tag > $out/word");
    let guest = shop
        .derivation("guest", &script)
        .replace("tag = \"", "tag = sub.word + \"");
    shop.write(&format!(
        "{{ inputs.sub.url = \"path:./sub\"; outputs = {{ self, sub }}: {{ {guest} }}; }}"
    ));
    let built = outside.build(&shop, "guest").await.expect("builds");
    assert_eq!(built.fingerprint, "", "it is not remembered");
    shop.closures.verify(&built.closure).await.expect("boots");
    let registered = shop.closures.require_registered(&built.closure).await;
    registered.expect("is valid");
    let word = fs::read_to_string(built.closure.as_path().join("word")).expect("word");
    assert!(word.starts_with("below"), "{word}");
    let links = shop.links();
    assert_eq!(links.len(), 1);
    let roots = roots_of(&built.closure).await;
    assert!(roots.contains(links[0].to_str().expect("text")), "{roots}");

    let installable = shop.installable("guest");
    let deaf = Arc::new(|_: BuildProgress| {});
    let local = shop.closures.build(&installable, Trust::Member, None, deaf);
    let local = local.await.expect_err("local");
    assert_eq!(local.code(), Code::FlakeRefused);
    let homes = format!("innkeeper-nix-{}-", std::process::id());
    let homes = fs::read_dir(std::env::temp_dir())
        .expect("list")
        .filter(|entry| {
            let name = entry.as_ref().expect("entry").file_name();
            name.to_string_lossy().starts_with(&homes)
        });
    assert_eq!(homes.count(), 0, "a home directory is left");
}

#[tokio::test]
async fn a_members_flake_cannot_have_the_host_read_its_files() {
    let Some(shop) = workshop("a_members_flake_cannot_have_the_host_read_its_files") else {
        return;
    };
    let outside = Outside::new(&shop).await;
    let unique = shop.dir.path().file_name().expect("name").to_string_lossy();
    let marker = format!("marker-{unique}");
    let secret = shop.at("secret");
    fs::create_dir(&secret).expect("folder");
    // Nix quotes a line that it cannot read as Nix.
    fs::write(secret.join("flake.nix"), "correct horse battery staple").expect("write");
    fs::write(secret.join(&marker), "").expect("write");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o700)).expect("chmod");
    let secret = secret.display();
    let guest = shop.derivation("guest", MAKE_INIT);
    let write = |input: &str, lock: Option<&str>| {
        shop.write(&format!(
            "{{ inputs.evil = {input}; outputs = {{ self, evil }}: {{ x = evil; {guest} }}; }}"
        ));
        fs::remove_file(shop.at("flake/flake.lock")).ok();
        if let Some(locked) = lock {
            let lock = format!(
                r#"{{"version": 7, "root": "root", "nodes": {{
                    "root": {{"inputs": {{"evil": "evil"}}}},
                    "evil": {{"flake": false, "locked": {locked}, "original": {{"type": "path", "path": "{secret}"}}}}
                }}}}"#
            );
            fs::write(shop.at("flake/flake.lock"), lock).expect("write");
        }
    };
    let hash = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let locked = format!(
        r#"{{"type": "path", "path": "{secret}", "narHash": "{hash}", "lastModified": 1}}"#
    );
    let as_flake = format!("{{ url = \"path:{secret}\"; }}");
    let as_files = format!("{{ url = \"path:{secret}\"; flake = false; }}");
    let by_git = format!("{{ url = \"git+file://{secret}\"; flake = false; }}");
    for (input, lock, code) in [
        // The kernel refuses to read it before we know of it.
        (&as_flake, None, Code::BuildFailed),
        (&as_files, None, Code::BuildFailed),
        (&by_git, None, Code::BuildFailed),
        (&as_files, Some(locked.as_str()), Code::FlakeRefused),
    ] {
        write(input, lock);
        let error = outside.build(&shop, "guest").await.expect_err(input);
        let text = format!("{}\n{}", chain(&error), error.log().join("\n"));
        assert_eq!(error.code(), code, "{input}: {text}");
        assert!(!text.contains("horse"), "{text}");
        assert!(!is_in_store(&marker), "{input}");
    }
    // What everybody may read is not given to a guest either.
    fs::set_permissions(shop.at("secret"), fs::Permissions::from_mode(0o755)).expect("chmod");
    fs::remove_file(shop.at("secret").join(&marker)).expect("remove");
    write(&as_files, None);
    let error = outside.build(&shop, "guest").await.expect_err("local");
    assert_eq!(error.code(), Code::FlakeRefused, "{}", chain(&error));
    // Nix itself keeps relative paths in the tree that they are in.
    fs::write(shop.at("secret").join(&marker), "").expect("write");
    write(
        &format!("{{ url = \"path:../../..{secret}\"; flake = false; }}"),
        None,
    );
    let error = outside.build(&shop, "guest").await.expect_err("leads out");
    assert_eq!(error.code(), Code::BuildFailed, "{}", chain(&error));
    assert!(!is_in_store(&marker));
    assert!(shop.links().is_empty());
}

#[tokio::test]
async fn a_member_needs_the_nix_daemon() {
    let Some(shop) = workshop("a_member_needs_the_nix_daemon") else {
        return;
    };
    let installable = Installable::parse("github:o/r#guest", "x").expect("valid");
    let built = shop
        .closures
        .build(&installable, Trust::Member, None, Arc::new(|_| {}));
    let error = built.await.expect_err("no daemon");
    assert_eq!(error.code(), Code::NixMissing, "{}", chain(&error));
    assert!(shop.calls().is_empty());
}

#[tokio::test]
async fn a_path_that_nix_does_not_know_is_not_registered() {
    let Some(shop) = workshop("a_path_that_nix_does_not_know_is_not_registered") else {
        return;
    };
    let built = shop.build("guest", None).await.expect("builds");
    let registered = shop.closures.require_registered(&built.closure).await;
    registered.expect("is valid");
    let unique = shop.dir.path().file_name().expect("name").to_string_lossy();
    let path = format!(
        "{STORE_DIR}/00000000000000000000000000000000-{}",
        unique.replace('.', "")
    );
    let path = StorePath::parse(&path).expect("a store path");
    fs::create_dir(path.as_path()).expect("folder");
    fs::copy(
        built.closure.as_path().join("init"),
        path.as_path().join("init"),
    )
    .expect("init");
    let bootable = shop.closures.verify(&path).await;
    let registered = shop.closures.require_registered(&path).await;
    tree::remove(path.as_path()).expect("removes");
    bootable.expect("a guest could boot from it");
    let error = registered.expect_err("not registered");
    assert_eq!(error.code(), Code::InvalidClosure, "{}", chain(&error));
}
