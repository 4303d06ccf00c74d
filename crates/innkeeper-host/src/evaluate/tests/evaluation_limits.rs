//! Limits of evaluations, and their end by cancellation.

use super::attacks::with_expression;
use super::*;

#[tokio::test]
async fn memory_is_limited() {
    let set = |config: &mut EvaluatorConfig| config.limits.memory = MemorySize::from_bytes(1 << 29);
    let Some(shop) = workshop_with("memory_is_limited", set) else {
        return;
    };
    for bomb in [
        "builtins.length (builtins.attrNames (builtins.listToAttrs \
         (builtins.genList (n: { name = toString n; value = n; }) 100000000)))",
        "let f = s: n: if n == 0 then s else f (s + s) (n - 1); \
         in builtins.stringLength (f \"xxxxxxxxxxxxxxxx\" 40)",
        "builtins.foldl' (a: b: a + b) 0 (builtins.genList (n: n) 1000000000)",
    ] {
        let failure = shop.refused(&with_expression(&shop, bomb)).await;
        assert_eq!(failure.code, Code::PreviewConfigInvalid);
        assert!(
            failure.message.ends_with("takes more than 512M of memory"),
            "{failure:?}"
        );
    }
}

#[tokio::test]
async fn cpu_time_is_limited() {
    let set = |config: &mut EvaluatorConfig| config.limits.cpu = Duration::from_secs(1);
    let Some(shop) = workshop_with("cpu_time_is_limited", set) else {
        return;
    };
    let failure = shop.refused(&with_expression(&shop, SLOW)).await;
    assert_eq!(failure.code, Code::PreviewConfigInvalid);
    assert!(
        failure
            .message
            .ends_with("stopped after 1 s of processor time"),
        "{failure:?}"
    );
}

/// Takes an hour and little memory.
const SLOW: &str = "let inner = n: builtins.foldl' (a: b: a + b) n (builtins.genList (x: x) 1000); \
                       in builtins.foldl' (a: b: inner b) 0 (builtins.genList (n: n) 1000000)";

#[tokio::test]
async fn timeout_ends_all_processes() {
    let set = |config: &mut EvaluatorConfig| config.limits.time = Duration::from_secs(1);
    let Some(shop) = workshop_with("timeout_ends_all_processes", set) else {
        return;
    };
    let failure = shop.refused(&with_expression(&shop, SLOW)).await;
    assert_eq!(failure.code, Code::PreviewConfigInvalid);
    assert!(
        failure.message.ends_with("was stopped after 1 s"),
        "{failure:?}"
    );
    compromised::until_nothing_runs(&shop).await;
}

#[tokio::test]
async fn canceled_evaluation_ends() {
    let Some(shop) = workshop("canceled_evaluation_ends") else {
        return;
    };
    let config = with_expression(&shop, SLOW);
    let evaluation = shop.evaluate(&config);
    tokio::select! {
        ended = evaluation => panic!("ended: {ended:?}"),
        () = compromised::until_something_runs(&shop) => {}
    }
    compromised::until_nothing_runs(&shop).await;
    shop.is_tidy();
}

#[tokio::test]
async fn evaluation_ends_when_the_daemon_is_killed() {
    let Some(shop) = workshop("evaluation_ends_when_the_daemon_is_killed") else {
        return;
    };
    let base = shop.evaluator.shared.base().await.expect("base");
    let folder = shop.at("evaluations/killed");
    let config = with_expression(&shop, SLOW);
    let (mut child, _) = sandbox::start(
        &shop.config,
        base,
        &SourceTree::single(&config),
        Effort::Normal,
        &folder,
    )
    .await
    .expect("starts");
    // The sandbox's only sign of the daemon's death.
    drop(child.stdin.take());
    child.wait().await.expect("ends");
    tree::remove(&folder).expect("removes");
    compromised::until_nothing_runs(&shop).await;
}

#[tokio::test]
async fn output_is_limited() {
    let set = |config: &mut EvaluatorConfig| config.limits.output = 1 << 20;
    let Some(shop) = workshop_with("output_is_limited", set) else {
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

    // Traces are not kept.
    let noisy = "builtins.foldl' (a: b: builtins.trace (toString b) a) (throw \"end\") (builtins.genList (n: n) 30000)";
    let failure = shop.refused(&with_expression(&shop, noisy)).await;
    assert!(failure.log.len() <= 40, "{}", failure.log.len());
}

#[tokio::test]
async fn disk_is_limited() {
    let set = |config: &mut EvaluatorConfig| config.limits.disk = MemorySize::from_bytes(16 << 20);
    let Some(shop) = workshop_with("disk_is_limited", set) else {
        return;
    };
    let large = "let f = s: n: if n == 0 then s else f (s + s) (n - 1); \
                 in builtins.stringLength (toString (map \
                   (n: builtins.toFile \"large-${toString n}\" (f \"xxxxxxxxxxxxxxxx\" 17 + toString n)) \
                   (builtins.genList (n: n) 20)))";
    let failure = shop.refused(&with_expression(&shop, large)).await;
    assert_eq!(failure.code, Code::PreviewConfigInvalid, "{failure:?}");
    assert!(
        failure.message.contains("No space left on device"),
        "{failure:?}"
    );
}
