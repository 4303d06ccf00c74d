//! Builds for callers who are not root.

use super::*;

/// A Nix daemon for users other than root, and a server on loopback for the workshop's flake.
struct RemoteFlake {
    url: String,
    _daemon: tokio::process::Child,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for RemoteFlake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl RemoteFlake {
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
        until("the Nix daemon responds", || {
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
        let no_progress = Arc::new(|_: BuildProgress| {});
        let built = shop.closures.build(
            &installable,
            Trust::Member,
            None,
            Effort::Normal,
            no_progress,
        );
        built.await
    }
}

/// Responds to any request with the folder `flake` as an archive.
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

/// Reports whether any source in the store contains a file of this name.
fn is_in_store(file: &str) -> bool {
    let mut sources = fs::read_dir(STORE_DIR).expect("the store");
    sources.any(|source| source.expect("entry").path().join(file).exists())
}

#[tokio::test]
async fn members_remote_flake_is_built_unprivileged_and_linked() {
    let Some(shop) = workshop("members_remote_flake_is_built_unprivileged_and_linked") else {
        return;
    };
    let remote = RemoteFlake::new(&shop).await;
    let missing = remote.build(&shop, "nope").await.expect_err("missing");
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
    let built = remote.build(&shop, "guest").await.expect("builds");
    assert_eq!(built.fingerprint, "", "it is not cached");
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
    let no_progress = Arc::new(|_: BuildProgress| {});
    let local = shop.closures.build(
        &installable,
        Trust::Member,
        None,
        Effort::Normal,
        no_progress,
    );
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
async fn members_flake_cannot_read_files_of_the_host() {
    let Some(shop) = workshop("members_flake_cannot_read_files_of_the_host") else {
        return;
    };
    let remote = RemoteFlake::new(&shop).await;
    let unique = shop.dir.path().file_name().expect("name").to_string_lossy();
    let marker = format!("marker-{unique}");
    let secret = shop.at("secret");
    fs::create_dir(&secret).expect("folder");
    // Nix quotes lines that it cannot parse.
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
        // The kernel denies access before Innkeeper checks the lock.
        (&as_flake, None, Code::BuildFailed),
        (&as_files, None, Code::BuildFailed),
        (&by_git, None, Code::BuildFailed),
        (&as_files, Some(locked.as_str()), Code::FlakeRefused),
    ] {
        write(input, lock);
        let error = remote.build(&shop, "guest").await.expect_err(input);
        let text = format!("{}\n{}", chain(&error), error.log().join("\n"));
        assert_eq!(error.code(), code, "{input}: {text}");
        assert!(!text.contains("horse"), "{text}");
        assert!(!is_in_store(&marker), "{input}");
    }
    // World-readable files are not copied to a guest, either.
    fs::set_permissions(shop.at("secret"), fs::Permissions::from_mode(0o755)).expect("chmod");
    fs::remove_file(shop.at("secret").join(&marker)).expect("remove");
    write(&as_files, None);
    let error = remote.build(&shop, "guest").await.expect_err("local");
    assert_eq!(error.code(), Code::FlakeRefused, "{}", chain(&error));
    // Nix itself rejects relative paths that leave their tree.
    fs::write(shop.at("secret").join(&marker), "").expect("write");
    write(
        &format!("{{ url = \"path:../../..{secret}\"; flake = false; }}"),
        None,
    );
    let error = remote
        .build(&shop, "guest")
        .await
        .expect_err("leaves its tree");
    assert_eq!(error.code(), Code::BuildFailed, "{}", chain(&error));
    assert!(!is_in_store(&marker));
    assert!(shop.links().is_empty());
}

#[tokio::test]
async fn members_need_the_nix_daemon() {
    let Some(shop) = workshop("members_need_the_nix_daemon") else {
        return;
    };
    let installable = Installable::parse("github:o/r#guest", "x").expect("valid");
    let built = shop.closures.build(
        &installable,
        Trust::Member,
        None,
        Effort::Normal,
        Arc::new(|_| {}),
    );
    let error = built.await.expect_err("no daemon");
    assert_eq!(error.code(), Code::NixMissing, "{}", chain(&error));
    assert!(shop.calls().is_empty());
}
