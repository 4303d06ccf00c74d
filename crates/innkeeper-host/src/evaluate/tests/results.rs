//! Results of evaluations: closures, metadata, GC roots, errors.

use super::*;

#[tokio::test]
async fn evaluate_returns_the_closure_and_its_metadata() {
    let Some(shop) = workshop("evaluate_returns_the_closure_and_its_metadata") else {
        return;
    };
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let progress: ProgressSink =
        Arc::new(move |progress| sink.lock().expect("seen").push(progress));
    // Progress is sampled ten times a second, so a shorter build may not be reported.
    let config = shop.module(&format!(
        "{META} environment.etc.\"preview-meta.json\".text = builtins.toJSON config.system.build.previewMeta; \
         environment.etc.slow.source = pkgs.runCommand \"slow\" {{ }} \
         \"busybox sleep 1; echo ${{config.environment.etc.tag.text}} > $out\";"
    ));
    let made = shop
        .evaluator
        .evaluate(
            &SourceTree::single(&config),
            None,
            Effort::Background,
            progress,
        )
        .await
        .expect("evaluates");
    assert_eq!(
        made.key,
        shop.evaluator
            .key(&SourceTree::single(&config))
            .await
            .expect("key")
    );
    assert_eq!(made.meta.setup_service.as_str(), "setup.service");
    assert_eq!(made.meta.routes[0].port, 3000);
    let etc = made.closure.as_path().join("etc");
    let inside = fs::read_to_string(etc.join("preview-meta.json")).expect("meta in the guest");
    assert_eq!(Meta::parse(&inside), Ok(made.meta));
    // The base module is part of the closure.
    assert_eq!(
        fs::read_to_string(etc.join("innkeeper-guest")).expect("base"),
        "yes\n"
    );
    let seen = seen.lock().expect("seen").clone();
    let reported = |activity: &str| seen.iter().any(|progress| progress.activity == activity);
    assert!(reported("evaluating preview-config.nix"), "{seen:?}");
    assert!(reported("building slow"), "{seen:?}");
    shop.is_tidy();
}

#[tokio::test]
async fn metadata_can_be_a_built_or_imported_file() {
    let Some(shop) = workshop("metadata_can_be_a_built_or_imported_file") else {
        return;
    };
    let json = "let json = builtins.toJSON { setupService = \"x\"; appServices = [ \"y\" ]; \
                database = \"container\"; routes = [ { path = \"/\"; port = 1; } ]; }; in";
    for meta in [
        "pkgs.writeText \"meta.json\" json",
        "\"${pkgs.writeText \"meta.json\" json}\"",
        "builtins.toFile \"meta.json\" json",
        "\"${pkgs.runCommand \"d\" { inherit json; } \"mkdir $out; printf %s \\\"$json\\\" > $out/m\"}/m\"",
    ] {
        let config = shop.module(&format!("system.build.previewMeta = {json} {meta};"));
        let made = shop.evaluate(&config).await.expect(meta);
        assert_eq!(made.meta.setup_service.as_str(), "x.service", "{meta}");
    }
    shop.is_tidy();
}

#[tokio::test]
async fn metadata_is_rejected_if_unreadable_or_outside_the_store() {
    let Some(shop) = workshop("metadata_is_rejected_if_unreadable_or_outside_the_store") else {
        return;
    };
    let secret = shop.at("secret");
    let link = format!(
        "pkgs.runCommand \"m\" {{ }} \"ln -s {} $out\"",
        secret.display()
    );
    for (meta, reason) in [
        (link.as_str(), "it points outside the store"),
        (
            "pkgs.runCommand \"m\" { } \"ln -s /nix/store/nothing $out\"",
            "its file does not exist",
        ),
        (
            "pkgs.runCommand \"m\" { } \"mkdir $out\"",
            "it is not a regular file",
        ),
        (
            "pkgs.runCommand \"m\" { } \"busybox head -c 300000 /dev/zero > $out\"",
            "it exceeds 262144 bytes",
        ),
        (
            "pkgs.runCommand \"m\" { } \"printf '\\\\377' > $out\"",
            "it is not UTF-8",
        ),
        (
            "pkgs.writeText \"m\" \"[ ]\"",
            "expected an attribute set, found a list",
        ),
        ("pkgs.writeText \"m\" \"{\"", "not JSON: "),
        ("\"/etc/passwd\"", "its file is not part of the preview"),
        ("5", "system.build.previewMeta is a int"),
        (
            "builtins.listToAttrs (builtins.genList (n: { name = toString n; value = n; }) 40000)",
            "too large: ",
        ),
    ] {
        let failure = shop
            .refused(&shop.module(&format!("system.build.previewMeta = {meta};")))
            .await;
        assert_eq!(
            failure.code,
            Code::PreviewConfigInvalid,
            "{meta}: {failure:?}"
        );
        assert!(failure.message.contains(reason), "{meta}: {failure:?}");
    }
    let failure = shop.refused(&shop.module("")).await;
    assert!(
        failure.message.contains("set system.build.previewMeta"),
        "{failure:?}"
    );
}

#[tokio::test]
async fn metadata_errors_are_reported_all_at_once() {
    let Some(shop) = workshop("metadata_errors_are_reported_all_at_once") else {
        return;
    };
    let wrong = META
        .replace("3000", "0")
        .replace("setupService", "setupServce");
    let failure = shop.refused(&shop.module(&wrong)).await;
    assert_eq!(failure.code, Code::PreviewConfigInvalid);
    assert_eq!(failure.log.len(), 3, "{failure:?}");
    insta::assert_snapshot!(failure.message, @"system.build.previewMeta has 3 problems; the first: preview-config.nix:3:46: /setupServce: unknown field; did you mean 'setupService'?");
    insta::assert_snapshot!(failure.log.join("\n"), @r#"
    preview-config.nix:3:46: /setupServce: unknown field; did you mean 'setupService'? (write 'setupService', or remove it)
    preview-config.nix:3:30: /setupService: this required field is missing (add it)
    preview-config.nix:3:131: /routes/0/port: 0 is not a port (write the number of the port that the app listens on, 1 to 65535)
    "#);
    // It was not built.
    assert!(shop.evaluator.kept().await.expect("lists").is_empty());
}

#[tokio::test]
async fn evaluate_caches_and_coalesces_by_key() {
    let Some(shop) = workshop("evaluate_caches_and_coalesces_by_key") else {
        return;
    };
    let config = shop.module(META);
    let (one, two) = tokio::join!(shop.evaluate(&config), shop.evaluate(&config));
    let made = one.expect("evaluates");
    assert_eq!(two.expect("evaluates"), made);
    assert_eq!(shop.evaluations(), 1);
    let again = async |config: &str| {
        shop.evaluator
            .evaluate(
                &SourceTree::single(config),
                Some(&made),
                Effort::Normal,
                no_progress(),
            )
            .await
            .expect("evaluates")
    };
    // A push with an unchanged configuration.
    assert_eq!(again(&config).await, made);
    assert_eq!(shop.evaluations(), 1);
    assert_eq!(
        shop.evaluator.kept().await.expect("lists"),
        std::slice::from_ref(&made.key)
    );
    // Another text has another key, even if the closure is the same.
    let other = again(&format!("{config}\n")).await;
    assert_eq!(shop.evaluations(), 2);
    assert_eq!(other.closure, made.closure);
    assert_ne!(other.key, made.key);
    // A deleted closure is built again.
    for key in [&made.key, &other.key] {
        shop.evaluator.forget(key).await.expect("forgets");
        shop.evaluator.forget(key).await.expect("is forgotten");
    }
    assert!(shop.evaluator.kept().await.expect("lists").is_empty());
    command::run("nix-store", ["--delete", made.closure.as_str()], b"")
        .await
        .expect("deletes");
    assert_eq!(again(&config).await, made);
    assert_eq!(shop.evaluations(), 3);
    assert!(made.closure.init().exists());
}

#[tokio::test]
async fn waiting_evaluation_reports_why() {
    let one = |config: &mut EvaluatorConfig| config.concurrent = 1;
    let Some(shop) = workshop_with("waiting_evaluation_reports_why", one) else {
        return;
    };
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let progress: ProgressSink =
        Arc::new(move |progress| sink.lock().expect("seen").push(progress));
    let first = shop.module(META);
    let second = SourceTree::single(&shop.module(&format!("{META} a = 1;")));
    let (first, second) = tokio::join!(
        shop.evaluate(&first),
        shop.evaluator
            .evaluate(&second, None, Effort::Normal, progress)
    );
    assert_ne!(
        first.expect("evaluates").key,
        second.expect("evaluates").key
    );
    let seen = seen.lock().expect("seen").clone();
    assert_eq!(seen[0].activity, "waiting for other evaluations");
}

#[tokio::test]
async fn closure_has_a_gc_root_that_nix_finds() {
    let roots = tempfile::Builder::new()
        .prefix("innkeeper-test-")
        .tempdir_in("/nix/var/nix/gcroots");
    let Ok(roots) = roots else {
        eprintln!(
            "INNKEEPER-NOT-RUN: closure_has_a_gc_root_that_nix_finds: Nix's roots cannot be written"
        );
        return;
    };
    let set = |config: &mut EvaluatorConfig| config.roots = roots.path().to_owned();
    let Some(shop) = workshop_with("closure_has_a_gc_root_that_nix_finds", set) else {
        return;
    };
    let made = shop.evaluate(&shop.module(META)).await.expect("evaluates");
    let query = ["--query", "--roots", made.closure.as_str()];
    let known = command::run("nix-store", query, b"").await.expect("asks");
    let known = String::from_utf8(known).expect("text");
    assert!(
        known.contains(roots.path().to_str().expect("text")),
        "{known}"
    );
    let kept: Vec<_> = fs::read_dir(roots.path().join(made.key.as_str()))
        .expect("list")
        .map(|entry| entry.expect("entry").file_name())
        .collect();
    assert_eq!(kept, ["closure"]);
}

#[tokio::test]
async fn second_preview_imports_only_new_objects() {
    let Some(shop) = workshop("second_preview_imports_only_new_objects") else {
        return;
    };
    let first = format!(
        "{META} environment.etc.mark.text = \"first {}\";",
        shop.dir.path().display()
    );
    shop.evaluate(&shop.module(&first))
        .await
        .expect("evaluates");
    let config = shop.module(&first.replace("first", "second"));
    let base = shop.evaluator.shared.base().await.expect("base");
    let scratch = shop.config.scratch.join("second");
    let sandbox = Sandbox::evaluate(
        &shop.config,
        base,
        scratch,
        &SourceTree::single(&config),
        Effort::Normal,
        |_| {},
    )
    .await
    .expect("evaluates");
    let nix = Nix::new(&shop.config.nix, &shop.config.scratch);
    let made = Instantiated::from_output(&sandbox, &SourceTree::single(&config)).expect("made");
    let count = async || {
        import::import(
            &nix,
            &sandbox.store(),
            &sandbox.registry,
            &made.roots,
            1 << 20,
        )
        .await
        .expect("imports")
    };
    // The toplevel and the changed file, but not busybox and its source.
    assert_eq!(count().await, 2);
    assert_eq!(count().await, 0);
}

#[tokio::test]
async fn errors_show_the_position_but_no_host_paths() {
    let Some(shop) = workshop("errors_show_the_position_but_no_host_paths") else {
        return;
    };
    let failure = shop.refused("{ ... }: {\n  a = nope;\n}\n").await;
    assert_eq!(failure.code, Code::PreviewConfigInvalid);
    insta::assert_snapshot!(failure.message, @"preview-config.nix cannot be evaluated: preview-config.nix:2:7: undefined variable 'nope'");
    insta::assert_snapshot!(failure.log.join("\n"), @r"
    preview-config.nix:2:7: undefined variable 'nope'
    2 |   a = nope;
      |       ^
    ");
    assert!(
        failure
            .remedy
            .expect("a remedy")
            .contains("Evaluation is pure")
    );

    let failure = shop.refused("{ ... }: {").await;
    assert!(
        failure
            .message
            .contains("syntax error, unexpected end of file"),
        "{failure:?}"
    );

    let noisy = "builtins.trace \"\\u001b[31m a ${toString 1}\" (throw \"on purpose\")";
    let failure = shop
        .refused(&shop.module(&format!("system.build.previewMeta = {noisy};")))
        .await;
    assert!(
        failure
            .message
            .ends_with("cannot be evaluated: preview-config.nix:3:3: on purpose"),
        "{failure:?}"
    );
    assert!(
        failure.log.iter().any(|line| line.starts_with("trace:")),
        "{failure:?}"
    );

    let failing =
        "environment.etc.x.source = pkgs.runCommand \"failing\" { } \"echo some words; exit 3\";";
    let failure = shop
        .refused(&shop.module(&format!("{META} {failing}")))
        .await;
    assert_eq!(failure.code, Code::BuildFailed, "{failure:?}");
    assert!(
        failure.log.iter().any(|line| line == "some words"),
        "{failure:?}"
    );

    let config = shop.module(META);
    let toplevel =
        "system.build.toplevel = lib.mkForce (pkgs.runCommand \"no-init\" { } \"mkdir $out\");";
    let failure = shop
        .refused(&config.replace("system.build", &format!("{toplevel} system.build")))
        .await;
    assert_eq!(failure.code, Code::InvalidClosure, "{failure:?}");
    assert!(failure.message.ends_with("it has no 'init'"), "{failure:?}");
}

type Change = fn(&mut EvaluatorConfig);

#[tokio::test]
async fn invalid_base_is_reported_as_the_hosts_fault() {
    let name = "invalid_base_is_reported_as_the_hosts_fault";
    let hash = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
    let changes: [(Change, &str); 6] = [
        (
            |config| config.nixpkgs = "/nonexistent".into(),
            "it has no flake.nix",
        ),
        (
            |config| config.base_module = "/nonexistent".into(),
            "not a file",
        ),
        (
            |config| config.nixpkgs_hash = Some("x".into()),
            "not of the form",
        ),
        (
            |config| config.nixpkgs_hash = Some("HASH".into()),
            "the configured hash",
        ),
        (|config| config.user = "root".into(), "must be unprivileged"),
        (
            |config| config.user = "innkeeper-nobody".into(),
            "the user does not exist",
        ),
    ];
    for (change, reason) in changes {
        let set = |config: &mut EvaluatorConfig| {
            change(config);
            if config.nixpkgs_hash.as_deref() == Some("HASH") {
                config.nixpkgs_hash = Some(hash.to_owned());
            }
        };
        let Some(shop) = workshop_with(name, set) else {
            return;
        };
        let error = shop.evaluate(&shop.module(META)).await.expect_err(reason);
        assert_eq!(error.code(), Code::InvalidConfig);
        assert!(chain(&error).contains(reason), "{}", chain(&error));
        let remedy = error.remedy().expect("a remedy");
        if reason == "the user does not exist" {
            assert!(remedy.contains("useradd --system"), "{remedy}");
        }
    }
    let Some(shop) = workshop(name) else { return };
    for check in shop.evaluator.check().await {
        assert_eq!(check.verdict, Verdict::Ok, "{check:?}");
    }
    let set = |config: &mut EvaluatorConfig| config.nix.program = "/nonexistent/nix".into();
    let Some(shop) = workshop_with(name, set) else {
        return;
    };
    let error = shop.evaluate(&shop.module(META)).await.expect_err("no nix");
    assert_eq!(error.code(), Code::NixMissing);
    assert!(
        shop.evaluator
            .check()
            .await
            .iter()
            .any(|c| c.verdict == Verdict::Broken)
    );
}

/// Evaluates a preview on the nixpkgs in `INNKEEPER_NIXPKGS`, with the base module in `INNKEEPER_BASE_MODULE` if set.
#[tokio::test]
async fn real_nixos_evaluates_within_the_limits() {
    let name = "real_nixos_evaluates_within_the_limits";
    let Some(nixpkgs) = std::env::var_os("INNKEEPER_NIXPKGS") else {
        eprintln!("INNKEEPER-NOT-RUN: {name}: INNKEEPER_NIXPKGS does not name a nixpkgs");
        return;
    };
    let set = |config: &mut EvaluatorConfig| {
        config.nixpkgs = nixpkgs.into();
        if let Some(module) = std::env::var_os("INNKEEPER_BASE_MODULE") {
            config.base_module = module.into();
        }
    };
    let Some(shop) = workshop_with(name, set) else {
        return;
    };
    let base = shop.evaluator.shared.base().await.expect("base");
    let nix = Nix::new(&shop.config.nix, &shop.config.scratch);
    let import = async |extra: &str| {
        let config = shop.module(&format!(
            "{META} boot.isContainer = true; system.stateVersion = \"24.11\"; {extra}"
        ));
        let key = key(&SourceTree::single(&config), base);
        let scratch = shop.config.scratch.join("nixos");
        let sandbox = Sandbox::evaluate(
            &shop.config,
            base,
            scratch,
            &SourceTree::single(&config),
            Effort::Normal,
            |_| {},
        )
        .await
        .expect("evaluates");
        let made = Instantiated::from_output(&sandbox, &SourceTree::single(&config)).expect("made");
        made.set_roots(&shop.config.roots.join(key.as_str()))
            .expect("keeps");
        let all = sandbox.registry.closure(&made.roots).expect("whole").len();
        let limit = shop.config.limits.disk.bytes();
        let store = sandbox.store();
        let imported = import::import(&nix, &store, &sandbox.registry, &made.roots, limit)
            .await
            .expect("imports");
        (all, imported)
    };
    import("").await;
    let (all, imported) = import("environment.etc.more.text = \"more\";").await;
    assert!(all > 100 && imported > 0, "{all}, {imported}");
    assert!(imported < all / 4, "{all}, {imported}");
    // The fixture of the daemon's tests evaluates on NixOS too. Its own metadata would conflict with META.
    import(&format!(
        "imports = [ ({}) ];",
        app().replace("previewMeta", "meta")
    ))
    .await;
}

#[tokio::test]
async fn canceled_build_leaves_no_gc_root() {
    let Some(shop) = workshop("canceled_build_leaves_no_gc_root") else {
        return;
    };
    let endless = format!(
        "{META} environment.etc.made.source = \
         pkgs.runCommand \"endless\" {{ }} \"busybox sleep 1000; echo ${{config.environment.etc.tag.text}} > $out\";"
    );
    let module = shop.module(&endless);
    let roots = || roots::list(&shop.at("roots")).expect("listed");
    let started = async {
        while roots().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        made = shop.evaluate(&module) => panic!("it ended: {made:?}"),
        () = started => {}
    }
    assert_eq!(roots(), []);
}

#[tokio::test]
async fn full_disk_is_reported_as_the_hosts_fault() {
    let Some(mut shop) = workshop("full_disk_is_reported_as_the_hosts_fault") else {
        return;
    };
    // While the file `full` exists, this Nix fails with Nix's message for a full disk.
    let (real, bin, full) = (
        shop.config.nix.program.clone(),
        shop.at("bin"),
        shop.at("full"),
    );
    fs::create_dir(&bin).expect("folder");
    for name in ["nix", "nix-instantiate"] {
        std::os::unix::fs::symlink(real.with_file_name(name), bin.join(name)).expect("link");
    }
    let error =
        r#"{"action":"msg","level":0,"msg":"error: writing to file: No space left on device"}"#;
    let script = format!(
        "#!/bin/sh\ncase \" $* \" in *' --realise '*)\n\
         [ ! -e {full} ] || {{ echo '@nix {error}' >&2; exit 1; }};; esac\nexec {store} \"$@\"\n",
        full = full.display(),
        store = real.with_file_name("nix-store").display(),
    );
    fs::write(bin.join("nix-store"), script).expect("write");
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(bin.join("nix-store"), mode).expect("chmod");
    shop.config.nix.program = bin.join("nix");
    shop.evaluator = NixEvaluator::new(shop.config.clone(), Arc::new(Unfiltered(Ok(()))));

    fs::write(&full, "").expect("write");
    let config = shop.module(META);
    let failure = shop.refused(&config).await;
    assert_eq!(failure.code, Code::DiskFull, "{failure:?}");
    let remedy = failure.remedy.clone().expect("one");
    assert!(!remedy.contains("preview-config.nix"), "{failure:?}");
    fs::remove_file(&full).expect("remove");
    shop.evaluate(&config).await.expect("the same builds");
}

#[tokio::test]
async fn killed_builder_leaves_the_cause_unclear() {
    let Some(shop) = workshop("killed_builder_leaves_the_cause_unclear") else {
        return;
    };
    let made = |script: &str| {
        shop.module(&format!(
            "{META} environment.etc.made.source = pkgs.runCommand \"made\" {{ }} ''{script}'';"
        ))
    };
    // A duration that identifies this process.
    let long = format!("1000{}", std::process::id());
    let asleep = made(&format!("exec busybox sleep {long}"));
    let killed = async {
        loop {
            if let Some(pid) = running(&long) {
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kills");
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let (outcome, ()) = tokio::join!(shop.evaluate(&asleep), killed);
    let full = made("echo 'write error: No space left on device' >&2; exit 1");
    let wrong = made("echo 'syntax error' >&2; exit 1");
    for (outcome, is_inconclusive) in [
        (outcome, true),
        (shop.evaluate(&full).await, true),
        (shop.evaluate(&wrong).await, false),
    ] {
        let error = outcome.expect_err("fails");
        assert_eq!(error.is_inconclusive(), is_inconclusive, "{error:?}");
        assert_eq!(error.code(), Code::BuildFailed, "{error:?}");
    }
}

/// Returns the process whose command line ends with an argument.
fn running(argument: &str) -> Option<rustix::process::Pid> {
    let end = format!("\0{argument}\0");
    let mut processes = fs::read_dir("/proc").expect("proc").flatten();
    let found = processes.find(|process| {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        line.ends_with(end.as_bytes())
    })?;
    let pid = found.file_name().to_str()?.parse().ok()?;
    rustix::process::Pid::from_raw(pid)
}
