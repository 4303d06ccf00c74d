//! Isolation and limits of builds.

use super::*;

#[tokio::test]
async fn builder_sees_no_secrets_and_no_environment_of_the_daemon() {
    let Some(shop) = workshop("builder_sees_no_secrets_and_no_environment_of_the_daemon") else {
        return;
    };
    let secret = shop.at("secret");
    // `|| true`: the build continues, and its output shows the accessible files. CARGO_MANIFEST_DIR is in the test's own
    // environment. Only fixed-output builds can read variables, so the output has a (wrong) hash.
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

    let with_expression = "environment.etc.spied.source = derivation { name = \"spied\"; \
        system = pkgs.system; builder = \"${pkgs.busybox}/bin/sh\"; \
        args = [ \"-c\" \"echo \\\"saw <$CARGO_MANIFEST_DIR>\\\" >&2; exit 1\" ]; \
        impureEnvVars = [ \"CARGO_MANIFEST_DIR\" ]; outputHashMode = \"flat\"; outputHashAlgo = \"sha256\"; \
        outputHash = \"sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\"; };";
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    let failure = shop
        .refused(&shop.module(&format!("{META} {with_expression}")))
        .await;
    assert!(
        failure.log.iter().any(|line| line == "saw <>"),
        "{failure:?}"
    );

    // A derivation can request a build without the sandbox.
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
async fn builder_that_floods_or_hangs_is_stopped() {
    let set = |config: &mut EvaluatorConfig| {
        config.limits.build = Duration::from_secs(60);
        let name = "max-build-log-size".to_owned();
        config.nix.options.insert(name, "65536".to_owned());
    };
    let Some(shop) = workshop_with("builder_that_floods_or_hangs_is_stopped", set) else {
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
    let shop = workshop_with("builder_that_floods_or_hangs_is_stopped", set).expect("as above");
    // Two derivations, each within Nix's own limit. The tag makes them unique to this run.
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
async fn builder_cannot_change_its_inputs() {
    let Some(shop) = workshop("builder_cannot_change_its_inputs") else {
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
async fn builds_require_build_users() {
    let test = "builds_require_build_users";
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
        let check = check.expect("a check");
        assert_eq!(check.verdict, Verdict::Broken);
        let remedy = check.remedy.as_deref().expect("a remedy");
        assert!(remedy.contains("nix-setup-systemd"), "{remedy}");
    }
}

#[tokio::test]
async fn builds_require_firewall_rules() {
    let test = "builds_require_firewall_rules";
    let Some(mut shop) = workshop(test) else {
        return;
    };
    let unfiltered = Arc::new(Unfiltered(Err(())));
    shop.evaluator = NixEvaluator::new(shop.config.clone(), unfiltered);
    let failure = shop.refused(&shop.module(META)).await;
    assert_eq!(failure.code, Code::NetworkFailed, "{failure:?}");
}

#[tokio::test]
async fn builds_run_in_cgroups_with_limits() {
    let test = "builds_run_in_cgroups_with_limits";
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
async fn builds_are_limited_by_free_space_and_derivations() {
    let test = "builds_are_limited_by_free_space_and_derivations";
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
