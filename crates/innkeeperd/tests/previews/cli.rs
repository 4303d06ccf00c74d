//! The program `preview`, against a real daemon and a real preview.

use std::process::Output;

use crate::host::PreviewHost;

fn output_text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn the_lifecycle_of_a_preview_in_the_cli() {
    let host = PreviewHost::new();
    let daemon = host.start();
    let first = host.commit_app("topic");
    let preview = |arguments: &[&str]| {
        let output = host.sandbox.program("preview", arguments, b"");
        (output.status.code(), output_text(&output))
    };
    let success = |arguments: &[&str]| {
        let (status, text) = preview(arguments);
        assert_eq!(status, Some(0), "{arguments:?}: {text}");
        text
    };
    let url = "http://mine.localhost:8080\n";
    assert_eq!(success(&["list"]), "(no previews)\n");

    let built = success(&["build", "octo/web", "topic"]);
    let expected = format!("topic of octo/web at {} is /nix/store/", first.short());
    assert!(built.contains(&expected), "{built}");

    let created = success(&["create", "octo/web", "topic", "--slug", "mine"]);
    assert!(
        created.contains("evaluating") && created.ends_with(url),
        "{created}"
    );
    assert!(host.page("mine").contains(first.as_str()));
    assert!(success(&["list"]).contains("live"));
    assert_eq!(success(&["open", "mine"]), url);
    assert!(success(&["explain", "mine"]).contains("nothing is broken"));

    let second = host.commit("topic", &[("x", "y")]);
    let updated = success(&["update", "mine"]);
    assert!(
        updated.contains(second.short()) && !updated.contains(first.short()),
        "{updated}"
    );
    assert!(host.page("mine").contains(second.as_str()));
    assert!(success(&["logs", "mine", "-n", "500"]).contains("serving on port 3000"));

    host.commit("topic", &[("preview-config.nix", "{ }: throw \"no\"")]);
    let (status, failed) = preview(&["update", "mine"]);
    assert_eq!(status, Some(6), "{failed}");
    assert!(failed.contains("stays live"), "{failed}");
    let (status, rejected) = preview(&["approve", "mine", "--sha", second.as_str()]);
    assert_eq!(status, Some(1), "{rejected}");
    let (status, rejected) = preview(&["db", "reset", "mine", "--yes"]);
    assert_eq!(status, Some(1), "{rejected}");

    let destroyed = success(&["destroy", "mine"]);
    assert!(destroyed.contains("Preview mine destroyed"), "{destroyed}");
    assert_eq!(success(&["list"]), "(no previews)\n");
    daemon.stop();
}
