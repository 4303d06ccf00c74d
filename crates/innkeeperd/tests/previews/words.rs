//! What people type into `preview`, against a real daemon and a real preview.

use std::process::Output;

use crate::town::Town;

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn a_previews_life_in_words() {
    let town = Town::new();
    let daemon = town.start();
    let first = town.commit_app("topic");
    let preview = |arguments: &[&str]| {
        let output = town.sandbox.program("preview", arguments, b"");
        (output.status.code(), said(&output))
    };
    let fine = |arguments: &[&str]| {
        let (status, text) = preview(arguments);
        assert_eq!(status, Some(0), "{arguments:?}: {text}");
        text
    };
    let url = "http://mine.localhost:8080\n";
    assert_eq!(fine(&["list"]), "(no previews)\n");

    let built = fine(&["build", "octo/web", "topic"]);
    let what = format!("topic of octo/web at {} is /nix/store/", first.short());
    assert!(built.contains(&what), "{built}");

    let created = fine(&["create", "octo/web", "topic", "--slug", "mine"]);
    assert!(
        created.contains("evaluating") && created.ends_with(url),
        "{created}"
    );
    assert!(town.page("mine").contains(first.as_str()));
    assert!(fine(&["list"]).contains("live"));
    assert_eq!(fine(&["open", "mine"]), url);
    assert!(fine(&["explain", "mine"]).contains("nothing is broken"));

    let second = town.commit("topic", &[("x", "y")]);
    let updated = fine(&["update", "mine"]);
    assert!(
        updated.contains(second.short()) && !updated.contains(first.short()),
        "{updated}"
    );
    assert!(town.page("mine").contains(second.as_str()));
    assert!(fine(&["logs", "mine", "-n", "500"]).contains("serving on port 3000"));

    town.commit("topic", &[("preview-config.nix", "{ }: throw \"no\"")]);
    let (status, failed) = preview(&["update", "mine"]);
    assert_eq!(status, Some(6), "{failed}");
    assert!(failed.contains("stays live"), "{failed}");
    let (status, refused) = preview(&["approve", "mine", "--sha", second.as_str()]);
    assert_eq!(status, Some(1), "{refused}");
    let (status, refused) = preview(&["db", "reset", "mine", "--yes"]);
    assert_eq!(status, Some(1), "{refused}");

    let destroyed = fine(&["destroy", "mine"]);
    assert!(destroyed.contains("Preview mine destroyed"), "{destroyed}");
    assert_eq!(fine(&["list"]), "(no previews)\n");
    daemon.stop();
}
