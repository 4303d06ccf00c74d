//! Builds, cached results, cancellation and GC roots.

use std::sync::Mutex;

use innkeeper_model::GuestKind;

use super::*;

#[tokio::test]
async fn build_reports_progress_and_links_the_closure() {
    let Some(shop) = workshop("build_reports_progress_and_links_the_closure") else {
        return;
    };
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let progress: ProgressSink =
        Arc::new(move |progress| sink.lock().expect("seen").push(progress));
    shop.flake(&shop.derivation("guest", &format!("{MAKE_INIT}; sleep 0.5")));
    let built = shop
        .closures
        .build(
            &shop.installable("guest"),
            Trust::Host,
            None,
            Effort::Background,
            progress,
        )
        .await
        .expect("builds");
    assert!(built.closure.as_str().ends_with("-guest"));
    assert!(!built.fingerprint.is_empty());
    let seen = seen.lock().expect("seen").clone();
    assert!(
        seen.iter()
            .any(|progress| progress.activity == "building guest" && progress.to_build == 1),
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
    shop.forget_link("guest");
    assert!(shop.links().is_empty());
    assert_eq!(roots_of(&built.closure).await, "");
}

#[tokio::test]
async fn unchanged_flake_is_not_evaluated_again() {
    let Some(shop) = workshop("unchanged_flake_is_not_evaluated_again") else {
        return;
    };
    let built = shop.build("guest", None).await.expect("builds");
    assert_eq!(shop.calls(), ["flake", "build", "flake"]);
    assert_eq!(
        shop.build("guest", Some(&built)).await.expect("is known"),
        built
    );
    assert_eq!(shop.calls(), ["flake"]);
    // A touched file is not a change.
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
async fn flake_that_changes_during_its_build_is_not_cached() {
    let Some(shop) = workshop("flake_that_changes_during_its_build_is_not_cached") else {
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
async fn cached_closure_is_linked_or_rebuilt_if_deleted() {
    let Some(shop) = workshop("cached_closure_is_linked_or_rebuilt_if_deleted") else {
        return;
    };
    let built = shop.build("guest", None).await.expect("builds");
    shop.forget_link("guest");
    shop.build("guest", Some(&built)).await.expect("is known");
    assert_eq!(
        fs::read_link(&shop.links()[0]).expect("link"),
        built.closure.as_path()
    );
    shop.forget_link("guest");
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
async fn concurrent_builds_of_an_output_are_coalesced() {
    let Some(shop) = workshop("concurrent_builds_of_an_output_are_coalesced") else {
        return;
    };
    let started = shop.at("started");
    // Writable for all: the second build may run as another build user.
    fs::write(&started, "").expect("write");
    fs::set_permissions(&started, fs::Permissions::from_mode(0o666)).expect("chmod");
    let script = format!("echo started >> {}; {MAKE_INIT}; exit 1", started.display());
    let other = shop.derivation("other", MAKE_INIT);
    // The store does not cache a failure, so a second build would be visible.
    shop.flake(&(shop.derivation("guest", &script) + &other));
    let (a, b, c) = tokio::join!(
        shop.build("guest", None),
        shop.build("guest", None),
        shop.build("other", None)
    );
    c.expect("builds");
    assert_eq!(chain(&a.expect_err("fails")), chain(&b.expect_err("fails")));
    assert_eq!(shop.lines("started"), 1);
    let error = shop.build("guest", None).await.expect_err("fails");
    assert_eq!(shop.lines("started"), 2, "{}", chain(&error));
}

#[tokio::test]
async fn canceled_build_ends_and_leaves_nothing() {
    let Some(shop) = workshop("canceled_build_ends_and_leaves_nothing") else {
        return;
    };
    let pid = shop.at("pid");
    // The builder's child must end, too.
    let script = format!("{MAKE_INIT}; sleep 600 & echo $! > {}; wait", pid.display());
    shop.flake(&shop.derivation("guest", &script));
    let mut first = Box::pin(shop.build("guest", None));
    let mut second = Box::pin(shop.build("guest", None));
    let started = until("the build starts", || shop.lines("pid") == 1);
    tokio::select! {
        built = &mut first => panic!("{built:?}"),
        built = &mut second => panic!("{built:?}"),
        () = started => {}
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
async fn guests_root_protects_its_closure() {
    let Some(shop) = workshop("guests_root_protects_its_closure") else {
        return;
    };
    let built = shop.build("guest", None).await.expect("builds");
    shop.forget_link("guest");
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
    let web = crate::network::testing::guest("web", 1);
    let guest = web.name.clone();
    assert_eq!(closures.observe().await.expect("observes"), []);
    closures.ensure(&web, &built.closure).await.expect("roots");
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
    fs::remove_dir(&gcroots).expect("an empty folder");
}

/// The closure of a preview is the work of strangers.
#[tokio::test]
async fn only_agents_get_the_hosts_store_for_a_nix_of_their_own() {
    let Some(shop) = workshop("only_agents_get_the_hosts_store_for_a_nix_of_their_own") else {
        return;
    };
    let request = "mkdir -p $out/etc/innkeeper; echo > $out/etc/innkeeper/nix";
    let plain = shop.derivation("guest", MAKE_INIT);
    let builder = shop.derivation("builder", &format!("{MAKE_INIT}; {request}"));
    shop.flake(&format!("{plain} {builder}"));
    let plain = shop.build("guest", None).await.expect("builds").closure;
    let builder = shop.build("builder", None).await.expect("builds").closure;
    let agent = crate::network::testing::guest("web", 1);
    let preview = Guest {
        kind: GuestKind::Preview,
        ..agent.clone()
    };
    for (guest, closure, expected) in [
        (&agent, &plain, false),
        (&agent, &builder, true),
        (&preview, &plain, false),
        (&preview, &builder, false),
    ] {
        let builds = shop.closures.builds_with_nix(guest, closure).await;
        assert_eq!(builds.expect("reads"), expected, "{:?}", guest.kind);
    }
    let (ensured, objects) = (&shop.closures, shop.at("gcroots/.nix"));
    ensured.ensure(&preview, &builder).await.expect("a root");
    assert!(!objects.exists(), "a preview has roots of the host's store");
    // There is no database of Nix in this state directory, but the agent's directory precedes it.
    ensured.ensure(&agent, &builder).await.ok();
    assert!(objects.join("web/roots").exists());
}

#[tokio::test]
async fn require_registered_rejects_unregistered_paths() {
    let Some(shop) = workshop("require_registered_rejects_unregistered_paths") else {
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
    bootable.expect("bootable");
    let error = registered.expect_err("not registered");
    assert_eq!(error.code(), Code::InvalidClosure, "{}", chain(&error));
}
