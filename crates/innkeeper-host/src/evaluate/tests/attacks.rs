//! What a stranger may try in a preview-config.nix, one by one.

use super::*;

/// A config with an expression of the stranger's in it.
fn asking(shop: &Workshop, expression: &str) -> String {
    shop.module(&format!(
        "{META} environment.etc.answer.text = builtins.toJSON ({expression});"
    ))
}

/// What the expression was evaluated to.
fn answer(made: &Evaluated) -> serde_json::Value {
    let text = fs::read_to_string(made.closure.as_path().join("etc/answer")).expect("an answer");
    serde_json::from_str(&text).expect("JSON")
}

/// Tries an expression that must fail, and why.
async fn fails(test: &str, expression: impl Fn(&str) -> String, reason: &str) {
    let Some(shop) = workshop(test) else { return };
    let secret = shop.at("secret").display().to_string();
    let failure = shop.refused(&asking(&shop, &expression(&secret))).await;
    assert_eq!(failure.code, Code::PreviewConfigInvalid, "{failure:?}");
    let known = |reason| failure.message.contains(reason);
    assert!(reason.split('|').any(known), "{failure:?}");
}

/// A test that an expression, made from the path of a secret, fails for a reason. Versions of Nix differ in their
/// words; a bar stands between them.
macro_rules! attack {
    ($name:ident, $reason:literal, $expression:expr) => {
        #[tokio::test]
        async fn $name() {
            fails(stringify!($name), $expression, $reason).await;
        }
    };
}

attack!(
    reading_a_secret_fails,
    "is forbidden in pure eval",
    |secret| { format!("builtins.readFile \"{secret}\"") }
);
attack!(
    reading_a_secret_by_its_usual_name_fails,
    "is forbidden in pure eval",
    |_| "builtins.readFile \"/var/secrets/preview.env\"".to_owned()
);
attack!(
    naming_a_secret_as_a_path_fails,
    "is forbidden in pure eval",
    |secret| { format!("\"${{{secret}}}\"") }
);
attack!(
    a_path_beside_the_config_fails,
    "is forbidden in pure eval",
    |secret| {
        let up = "../".repeat(8);
        format!("builtins.readFile (./. + \"/{up}{secret}\")")
    }
);
attack!(
    importing_a_secret_fails,
    "is forbidden in pure eval",
    |secret| { format!("import {secret}") }
);
attack!(
    scoped_import_of_a_secret_fails,
    "is forbidden in pure eval",
    |secret| { format!("builtins.scopedImport {{ }} {secret}") }
);
attack!(
    filtering_a_source_fails,
    "is forbidden in pure eval",
    |secret| {
        format!("\"${{builtins.filterSource (path: type: true) (builtins.dirOf {secret})}}\"")
    }
);
// With a hash, any path is read even in a pure evaluation: it is the place that does not have it.
attack!(
    reading_a_secret_with_a_hash_fails,
    "No such file or directory|is forbidden in pure eval",
    |secret| {
        format!(
            "builtins.readFile (builtins.path {{ path = {secret}; recursive = false; name = \"s\"; \
         sha256 = \"sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\"; }})"
        )
    }
);
attack!(
    hashing_a_secret_fails,
    "is forbidden in pure eval",
    |secret| { format!("builtins.hashFile \"sha256\" {secret}") }
);
attack!(
    a_link_made_by_a_store_path_fails,
    "is forbidden in pure eval",
    |secret| { format!("builtins.readFile (builtins.toFile \"x\" \"y\" + \"/..{secret}\")") }
);
attack!(
    fetching_a_file_url_fails,
    "is forbidden in pure eval",
    |secret| { format!("builtins.readFile (builtins.fetchurl \"file://{secret}\")") }
);
attack!(
    fetching_a_file_url_with_a_hash_fails,
    "is forbidden in pure eval",
    |secret| {
        format!(
            "builtins.readFile (builtins.fetchurl {{ url = \"file://{secret}\"; \
         sha256 = \"sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\"; }})"
        )
    }
);
attack!(
    fetching_from_the_network_fails,
    "forbidden in restricted mode",
    |_| {
        "builtins.readFile (builtins.fetchurl { url = \"http://127.0.0.1:3100/health\"; \
     sha256 = \"sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\"; })"
            .to_owned()
    }
);
attack!(
    fetching_a_tarball_fails,
    "forbidden in restricted mode",
    |_| {
        "import (builtins.fetchTarball { url = \"https://example.org/x.tar.gz\"; \
     sha256 = \"sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\"; })"
            .to_owned()
    }
);
attack!(fetching_a_git_repository_fails, "forbidden in", |_| {
    "builtins.fetchGit { url = \"ext::sh -c id\"; rev = \"0000000000000000000000000000000000000000\"; }"
        .to_owned()
});
attack!(
    fetching_a_tree_fails,
    "feature 'flakes' is disabled|attribute 'fetchTree' missing",
    |secret| { format!("builtins.fetchTree {{ type = \"path\"; path = \"{secret}\"; }}") }
);
attack!(
    getting_a_flake_fails,
    "attribute 'getFlake' missing",
    |_| "builtins.getFlake \"path:/\"".to_owned()
);
attack!(
    running_a_program_fails,
    "attribute 'exec' missing",
    |secret| { format!("builtins.exec [ \"cat\" \"{secret}\" ]") }
);
attack!(
    importing_machine_code_fails,
    "attribute 'importNative' missing",
    |_| "builtins.importNative /usr/lib/x.so \"f\"".to_owned()
);
attack!(
    the_search_path_is_empty,
    "cannot look up '<nixpkgs>'",
    |_| "import <nixpkgs> { }".to_owned()
);
attack!(
    a_search_path_of_ones_own_fails,
    "cannot look up '<s>'|is forbidden in pure eval",
    |secret| {
        format!(
            "builtins.readFile (builtins.findFile [ {{ prefix = \"s\"; path = \"{secret}\"; }} ] \"s\")"
        )
    }
);
attack!(
    store_paths_of_others_cannot_be_named,
    "not allowed in pure evaluation mode",
    |_| "builtins.storePath /nix/store/00000000000000000000000000000000-x".to_owned()
);
attack!(
    import_from_derivation_fails,
    "option 'allow-import-from-derivation' is disabled",
    |_| "import (pkgs.writeText \"ifd.nix\" \"1\")".to_owned()
);
attack!(
    infinite_recursion_fails,
    "infinite recursion encountered",
    |_| "let x = x; in x".to_owned()
);
attack!(a_recursion_without_end_fails, "stack overflow", |_| {
    "let f = n: 1 + f (n + 1); in f 0".to_owned()
});

#[tokio::test]
async fn the_environment_and_the_time_are_not_known() {
    let Some(shop) = workshop("the_environment_and_the_time_are_not_known") else {
        return;
    };
    let made = shop
        .evaluate(&asking(
            &shop,
            "builtins.getEnv \"PATH\" + builtins.getEnv \"HOME\"",
        ))
        .await
        .expect("harmless");
    assert_eq!(answer(&made), "");
    for name in ["currentTime", "currentSystem"] {
        let failure = shop
            .refused(&asking(&shop, &format!("builtins.{name}")))
            .await;
        assert!(failure.message.contains("missing"), "{failure:?}");
    }
}

#[tokio::test]
async fn listing_folders_fails_or_shows_only_the_place() {
    let Some(shop) = workshop("listing_folders_fails_or_shows_only_the_place") else {
        return;
    };
    for folder in ["/", "/nix/store", "/nix", "/var", "/home"] {
        // Newer versions of Nix allow it above what may be read.
        let listing = format!("builtins.attrNames (builtins.readDir {folder:?})");
        match shop.evaluate(&asking(&shop, &listing)).await {
            Err(error) => assert_eq!(error.code(), Code::PreviewConfigInvalid),
            Ok(made) => {
                for name in answer(&made).as_array().expect("names") {
                    let name = name.as_str().expect("a name");
                    let known = SEEN.contains(&name) || ["home", "store", "var"].contains(&name);
                    // What is evaluated, and what evaluating it has added.
                    let object = ["-source", "-preview-config.nix", "-guest", "-bin", ".drv"]
                        .iter()
                        .any(|end| name.ends_with(end))
                        || name == ".links";
                    assert!(
                        if folder == "/nix/store" {
                            object
                        } else {
                            known
                        },
                        "{name}"
                    );
                }
            }
        }
    }
}

/// What the place has, but for what is in the folders of the programs.
const SEEN: [&str; 17] = [
    "bin",
    "dev",
    "dev/null",
    "dev/urandom",
    "etc",
    "etc/passwd",
    "in",
    "in/expression",
    "in/nix.conf",
    "in/registration",
    "lib",
    "lib32",
    "lib64",
    "nix",
    "proc",
    "sbin",
    "usr",
];

#[tokio::test]
async fn a_filter_with_a_hash_sees_only_the_place() {
    let Some(shop) = workshop("a_filter_with_a_hash_sees_only_the_place") else {
        return;
    };
    // Tells the names of all files that the evaluator can see, but for the programs.
    let config = asking(
        &shop,
        "builtins.path { path = /.; name = \"s\"; \
         filter = path: type: builtins.trace \"sees ${path}\" \
           (type == \"directory\" && ! builtins.elem (baseNameOf path) [ \"usr\" \"proc\" \"nix\" ]); \
         sha256 = \"sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\"; }",
    );
    let failure = shop.refused(&config).await;
    let seen: Vec<_> = failure
        .log
        .iter()
        .filter_map(|line| Some(line.split_once("sees ")?.1.trim_start_matches('/')))
        .collect();
    // Newer versions of Nix look only where something may be read.
    assert!(!seen.is_empty(), "{failure:?}");
    for path in seen {
        assert!(SEEN.contains(&path), "{path}");
    }
}

#[tokio::test]
async fn a_derivation_cannot_claim_the_place_of_another() {
    let Some(shop) = workshop("a_derivation_cannot_claim_the_place_of_another") else {
        return;
    };
    let (victim, text) = usurper(&shop);
    let config = shop.module(&format!(
        "{META} system.build.toplevel = lib.mkForce {{ outPath = \"{victim}\"; \
         drvPath = builtins.toFile \"usurper.drv\" ''{text}''; }};"
    ));
    let failure = shop.refused(&config).await;
    assert_eq!(failure.code, Code::PreviewConfigInvalid);
    assert!(failure.message.contains("incorrect output"), "{failure:?}");
    assert!(!Path::new(&victim).exists());
}

#[tokio::test]
async fn memory_has_an_end() {
    let set = |config: &mut EvaluatorConfig| config.limits.memory = MemorySize::from_bytes(1 << 29);
    let Some(shop) = workshop_with("memory_has_an_end", set) else {
        return;
    };
    for bomb in [
        "builtins.length (builtins.attrNames (builtins.listToAttrs \
         (builtins.genList (n: { name = toString n; value = n; }) 100000000)))",
        "let f = s: n: if n == 0 then s else f (s + s) (n - 1); \
         in builtins.stringLength (f \"xxxxxxxxxxxxxxxx\" 40)",
        "builtins.foldl' (a: b: a + b) 0 (builtins.genList (n: n) 1000000000)",
    ] {
        let failure = shop.refused(&asking(&shop, bomb)).await;
        assert_eq!(failure.code, Code::PreviewConfigInvalid);
        assert!(
            failure.message.ends_with("takes more than 512M of memory"),
            "{failure:?}"
        );
    }
}

#[tokio::test]
async fn processor_time_has_an_end() {
    let set = |config: &mut EvaluatorConfig| config.limits.cpu = Duration::from_secs(1);
    let Some(shop) = workshop_with("processor_time_has_an_end", set) else {
        return;
    };
    let failure = shop.refused(&asking(&shop, ENDLESS)).await;
    assert_eq!(failure.code, Code::PreviewConfigInvalid);
    assert!(
        failure
            .message
            .ends_with("stopped after 1 s of processor time"),
        "{failure:?}"
    );
}

/// Takes an hour and little memory.
const ENDLESS: &str = "let inner = n: builtins.foldl' (a: b: a + b) n (builtins.genList (x: x) 1000); \
                       in builtins.foldl' (a: b: inner b) 0 (builtins.genList (n: n) 1000000)";

#[tokio::test]
async fn time_has_an_end_and_takes_all_processes_with_it() {
    let set = |config: &mut EvaluatorConfig| config.limits.time = Duration::from_secs(1);
    let Some(shop) = workshop_with("time_has_an_end", set) else {
        return;
    };
    let failure = shop.refused(&asking(&shop, ENDLESS)).await;
    assert_eq!(failure.code, Code::PreviewConfigInvalid);
    assert!(
        failure.message.ends_with("was stopped after 1 s"),
        "{failure:?}"
    );
    taken_over::until_nothing_runs(&shop).await;
}

#[tokio::test]
async fn an_evaluation_that_nobody_waits_for_ends() {
    let Some(shop) = workshop("an_evaluation_that_nobody_waits_for_ends") else {
        return;
    };
    let config = asking(&shop, ENDLESS);
    let evaluation = shop.evaluate(&config);
    tokio::select! {
        ended = evaluation => panic!("ended: {ended:?}"),
        () = taken_over::until_something_runs(&shop) => {}
    }
    taken_over::until_nothing_runs(&shop).await;
    shop.is_tidy();
}

#[tokio::test]
async fn an_evaluation_whose_daemon_is_killed_ends() {
    let Some(shop) = workshop("an_evaluation_whose_daemon_is_killed_ends") else {
        return;
    };
    let base = shop.evaluator.shared.base().await.expect("base");
    let folder = shop.at("evaluations/killed");
    let config = asking(&shop, ENDLESS);
    let mut child = sandbox::start(&shop.config, base, &config, &folder)
        .await
        .expect("starts");
    // All that the place learns of the daemon's death.
    drop(child.stdin.take());
    child.wait().await.expect("ends");
    tree::remove(&folder).expect("removes");
    taken_over::until_nothing_runs(&shop).await;
}

#[tokio::test]
async fn output_has_an_end() {
    let set = |config: &mut EvaluatorConfig| config.limits.output = 1 << 20;
    let Some(shop) = workshop_with("output_has_an_end", set) else {
        return;
    };
    let long =
        "let f = s: n: if n == 0 then s else f (s + s) (n - 1); in f \"xxxxxxxxxxxxxxxx\" 18";
    let config = shop.module(&format!("system.build.previewMeta.x = {long};"));
    let failure = shop.refused(&config).await;
    assert_eq!(failure.code, Code::PreviewConfigInvalid);
    assert!(
        failure.message.contains("more than 1048576 bytes"),
        "{failure:?}"
    );

    // What is told on the way is not kept.
    let noisy = "builtins.foldl' (a: b: builtins.trace (toString b) a) (throw \"end\") (builtins.genList (n: n) 30000)";
    let failure = shop.refused(&asking(&shop, noisy)).await;
    assert!(failure.log.len() <= 40, "{}", failure.log.len());
}

#[tokio::test]
async fn disk_has_an_end() {
    let set = |config: &mut EvaluatorConfig| config.limits.disk = MemorySize::from_bytes(16 << 20);
    let Some(shop) = workshop_with("disk_has_an_end", set) else {
        return;
    };
    let large = "let f = s: n: if n == 0 then s else f (s + s) (n - 1); \
                 in builtins.stringLength (toString (map \
                   (n: builtins.toFile \"large-${toString n}\" (f \"xxxxxxxxxxxxxxxx\" 17 + toString n)) \
                   (builtins.genList (n: n) 20)))";
    let failure = shop.refused(&asking(&shop, large)).await;
    assert_eq!(failure.code, Code::PreviewConfigInvalid, "{failure:?}");
    assert!(
        failure.message.contains("No space left on device"),
        "{failure:?}"
    );
}

#[tokio::test]
async fn a_config_that_is_too_large_is_not_looked_at() {
    let Some(shop) = workshop("a_config_that_is_too_large_is_not_looked_at") else {
        return;
    };
    let failure = shop.refused(&" ".repeat((256 << 10) + 1)).await;
    assert_eq!(failure.code, Code::PreviewConfigInvalid);
    assert_eq!(shop.evaluator.evaluations(), 0);
}

#[tokio::test]
async fn a_builder_sees_neither_secrets_nor_the_daemons_environment() {
    let Some(shop) = workshop("a_builder_sees_neither_secrets_nor_the_daemons_environment") else {
        return;
    };
    let secret = shop.at("secret");
    // `|| true`: the build goes on, and its result tells what it saw. CARGO_MANIFEST_DIR is in our own environment;
    // only builds with a fixed output may ask for variables, so the output's hash is given and wrong.
    let spying = format!(
        "{META} environment.etc.spied.source = pkgs.runCommand \"spied\" {{ }} \
         \"{{ cat {} 2>&1 || true; ls / /tmp /root /home /var /run /nix/var 2>&1 || true; busybox id; }} > $out\";",
        secret.display()
    );
    let made = shop
        .evaluate(&shop.module(&spying))
        .await
        .expect("harmless");
    let spied = fs::read_to_string(made.closure.as_path().join("etc/spied")).expect("spied");
    assert!(
        !spied.contains(SECRET) && spied.contains("No such file"),
        "{spied}"
    );
    assert!(spied.contains("/nix/var: No such file"), "{spied}");
    assert!(!spied.contains("uid=0"), "{spied}");

    let asking = "environment.etc.spied.source = derivation { name = \"spied\"; \
        system = pkgs.system; builder = \"${pkgs.busybox}/bin/sh\"; \
        args = [ \"-c\" \"echo \\\"saw <$CARGO_MANIFEST_DIR>\\\" >&2; exit 1\" ]; \
        impureEnvVars = [ \"CARGO_MANIFEST_DIR\" ]; outputHashMode = \"flat\"; outputHashAlgo = \"sha256\"; \
        outputHash = \"sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\"; };";
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    let failure = shop
        .refused(&shop.module(&format!("{META} {asking}")))
        .await;
    assert!(
        failure.log.iter().any(|line| line == "saw <>"),
        "{failure:?}"
    );

    // A derivation may ask to be built without the sandbox.
    let open = format!(
        "{META} environment.etc.spied.source = pkgs.runCommand \"open\" \
         {{ __noChroot = true; }} \"cat {} > $out\";",
        secret.display()
    );
    let failure = shop.refused(&shop.module(&open)).await;
    assert_eq!(failure.code, Code::BuildFailed);
    assert!(failure.message.contains("__noChroot"), "{failure:?}");
}

#[tokio::test]
async fn a_builder_that_floods_or_never_ends_is_stopped() {
    let set = |config: &mut EvaluatorConfig| {
        config.limits.build = Duration::from_secs(60);
        let name = "max-build-log-size".to_owned();
        config.nix.options.insert(name, "65536".to_owned());
    };
    let Some(shop) = workshop_with("a_builder_that_floods_or_never_ends_is_stopped", set) else {
        return;
    };
    let flood = format!(
        "{META} environment.etc.made.source = pkgs.runCommand \"flood\" {{ }} ''exec busybox yes '@nix {{\"action\":\"start\",\"id\":1,\"level\":3,\"type\":101,\"fields\":[\"https://a/b\"],\"text\":\"\"}}' >&2'';"
    );
    let failure = shop.refused(&shop.module(&flood)).await;
    assert_eq!(failure.code, Code::BuildFailed);
    let limited = |line: &String| line.contains("more than 65536 bytes");
    assert!(failure.log.iter().any(limited), "{failure:?}");

    let set = |config: &mut EvaluatorConfig| config.limits.build = Duration::from_secs(1);
    let shop =
        workshop_with("a_builder_that_floods_or_never_ends_is_stopped", set).expect("as above");
    // Two derivations, each within Nix's own limit. The tag keeps the store from having them already.
    let slow = format!(
        "{META} environment.etc.made.source = let first = pkgs.runCommand \"first\" {{ }} \"busybox sleep 0.8; echo ${{config.environment.etc.tag.text}} > $out\"; \
         in pkgs.runCommand \"second\" {{ }} \"busybox sleep 0.8; cat ${{first}} > $out\";"
    );
    let failure = shop.refused(&shop.module(&slow)).await;
    assert_eq!(failure.code, Code::BuildFailed);
    assert!(
        failure.message.ends_with("was stopped after 1 s"),
        "{failure:?}"
    );
}

#[tokio::test]
async fn a_builder_cannot_change_its_inputs() {
    let Some(shop) = workshop("a_builder_cannot_change_its_inputs") else {
        return;
    };
    let changing = format!(
        "{META} environment.etc.made.source = \
         let input = pkgs.runCommand \"input\" {{ }} \"echo ${{config.environment.etc.tag.text}} > $out\"; \
         in pkgs.runCommand \"changing\" {{ }} \"busybox chmod 666 ${{input}} || true; \
         (echo changed > ${{input}}) || true; echo ${{input}} > $out\";"
    );
    let made = shop.evaluate(&shop.module(&changing)).await;
    let made = made.expect("harmless").closure;
    let input = fs::read_to_string(made.as_path().join("etc/made")).expect("made");
    let contents = fs::read_to_string(input.trim()).expect("the input");
    assert_eq!(contents.trim(), shop.dir.path().to_str().expect("text"));
}

#[tokio::test]
async fn nothing_is_built_without_build_users() {
    let test = "nothing_is_built_without_build_users";
    for (group, reason) in [("", "is empty"), ("nogroup", "has no members")] {
        let set = |config: &mut EvaluatorConfig| {
            let name = "build-users-group".to_owned();
            config.nix.options.insert(name, group.to_owned());
        };
        let Some(shop) = workshop_with(test, set) else {
            return;
        };
        let failure = shop.refused(&shop.module(META)).await;
        assert_eq!(failure.code, Code::BuildUsersMissing, "{failure:?}");
        assert!(failure.message.contains(reason), "{failure:?}");
        let checks = shop.evaluator.check().await;
        let check = checks.iter().find(|check| check.subject == "build users");
        let check = check.expect("doctor looks at it");
        assert_eq!(check.verdict, Verdict::Broken);
        let remedy = check.remedy.as_deref().expect("a remedy");
        assert!(remedy.contains("nix-setup-systemd"), "{remedy}");
    }
}

#[tokio::test]
async fn nothing_is_built_while_builds_are_not_filtered() {
    let test = "nothing_is_built_while_builds_are_not_filtered";
    let Some(mut shop) = workshop(test) else {
        return;
    };
    let unfiltered = Arc::new(Unfiltered(Err(())));
    shop.evaluator = NixEvaluator::new(shop.config.clone(), unfiltered);
    let failure = shop.refused(&shop.module(META)).await;
    assert_eq!(failure.code, Code::NetworkFailed, "{failure:?}");
}

#[tokio::test]
async fn builds_of_previews_have_limits() {
    let test = "builds_of_previews_have_limits";
    let set = |config: &mut EvaluatorConfig| config.builds.tasks = 40;
    let Some(shop) = workshop_with(test, set) else {
        return;
    };
    if let Some(check) = limits::check(&shop.config.builds, true) {
        eprintln!("INNKEEPER-NOT-RUN: {test}: {}", check.finding);
        return;
    }
    let many = format!(
        "{META} environment.etc.made.source = pkgs.runCommand \"many\" {{ }} \
         ''i=0; while [ $i -lt 100 ]; do busybox sleep 1000 & i=$((i + 1)); done; busybox touch $out'';"
    );
    let failure = shop.refused(&shop.module(&many)).await;
    assert_eq!(failure.code, Code::BuildFailed, "{failure:?}");
    let forks = |line: &String| line.contains("fork");
    assert!(failure.log.iter().any(forks), "{failure:?}");

    let (entered, slot) = BuildCgroups::new(&shop.config.builds)
        .enter()
        .await
        .expect("cgroups");
    let written = |names: [&str; 2]| {
        let dirs = entered.limits.iter();
        let mut files = dirs.flat_map(|dir| names.map(|name| dir.join(name)));
        let text = files.find_map(|file| fs::read_to_string(file).ok());
        let number = text.as_deref().and_then(|text| text.split(' ').next());
        number.and_then(|number| number.trim().parse::<u64>().ok())
    };
    let host = shop.config.builds.of_host();
    let memory = written(["memory.max", "memory.limit_in_bytes"]).expect("memory");
    assert!(host.memory.bytes().abs_diff(memory) < 1 << 20, "{memory}");
    let quota = u64::from(host.cpus.percent()) * 1000;
    assert_eq!(written(["cpu.max", "cpu.cfs_quota_us"]), Some(quota));
    slot.release().await;
    for dir in entered.limits {
        let parent = dir.ancestors().nth(2).expect("below");
        assert!(!parent.exists(), "{}", parent.display());
    }
}

#[tokio::test]
async fn builds_need_free_space_and_have_a_bounded_number_of_derivations() {
    let test = "builds_need_free_space_and_have_a_bounded_number_of_derivations";
    let set = |config: &mut EvaluatorConfig| {
        config.builds.min_free = MemorySize::from_bytes(u64::MAX);
    };
    let Some(shop) = workshop_with(test, set) else {
        return;
    };
    let failure = shop.refused(&shop.module(META)).await;
    assert_eq!(failure.code, Code::DiskFull, "{failure:?}");
    let error = shop.config.builds.until_full().await;
    assert!(matches!(error, EvaluateError::StoreFull { .. }), "{error}");

    let set = |config: &mut EvaluatorConfig| config.builds.derivations = 1;
    let shop = workshop_with(test, set).expect("as above");
    let failure = shop.refused(&shop.module(META)).await;
    assert_eq!(failure.code, Code::BuildFailed, "{failure:?}");
    assert!(failure.message.contains("more than 1 "), "{failure:?}");
}
