use std::sync::Arc;

use innkeeper_model::Explain;
use innkeeper_model::preview::check::{CheckConfig, CheckSettings};
use innkeeper_model::preview::sources::FileTypes;

use super::*;
use crate::fixture::{Harness, repo};
use crate::sources::tests::Stage;

const TEXT: &str =
    "{ system.build.previewMeta = {\n  extraHosts = [ { prefix = \"api\"; } ];\n}; }";
const PROBLEM: &str = "preview-config.nix:2:29: /extraHosts/0/prefix: the prefix 'api' of extraHosts is reserved: it is reserved for a host of Innkeeper";
const REMEDY: &str = "choose another prefix, such as 'my-api'";

/// Returns previews on a host where the text describes an extra host with a reserved prefix.
async fn harness() -> Harness {
    let harness = Harness::with(|config| {
        config.file_types = FileTypes::with(&["*.tmpl".to_owned()]).expect("valid");
    })
    .await;
    let meta = r#"{"setupService":"setup","appServices":["app"],"database":"container",
        "routes":[{"path":"/","port":1}],
        "extraHosts":[{"prefix":"api","routes":[{"path":"/","port":2}]}]}"#;
    let meta = Meta::parse(meta).expect("valid");
    harness.host.world().metas.insert(TEXT.to_owned(), meta);
    harness
}

#[tokio::test]
async fn commit_with_a_reserved_prefix_is_refused_with_its_place() {
    let stage = Stage::new().await;
    stage.write("preview-config.nix", TEXT);
    let sha = stage.commit();
    let harness = harness().await;
    let git = stage.directory.path().join(".git");
    harness.github.with(|world| _ = world.add_repo(repo(), git));
    let evaluation = &harness.parts.parts.executor.evaluation;
    // A cached result is refused, too.
    for _ in 0..2 {
        let progress = Arc::new(|_| ());
        let evaluated = evaluation
            .evaluate(&repo(), &sha, None, Effort::Normal, progress)
            .await;
        let error = evaluated.expect_err("refused");
        assert_eq!(error.code(), Code::PreviewConfigInvalid);
        assert_eq!(error.to_string(), PROBLEM);
        assert_eq!(error.remedy().as_deref(), Some(REMEDY));
    }
}

#[tokio::test]
async fn check_knows_the_hosts_file_types_and_reserved_prefixes() {
    let harness = harness().await;
    let settings = harness.previews.check_settings();
    let file_types = vec!["*.tmpl".to_owned()];
    assert_eq!(settings, CheckSettings { file_types });
    let request = serde_json::json!({
        "main": "preview-config.nix", "files": { "preview-config.nix": { "text": TEXT } },
    });
    let request: CheckConfig = serde_json::from_value(request).expect("valid");
    let checked = harness.previews.check_config(request).await;
    let checked = checked.expect("checked");
    let [problem] = checked.problems.as_slice() else {
        panic!("{:?}", checked.problems);
    };
    assert_eq!(problem.text, PROBLEM);
    assert_eq!(problem.remedy.as_deref(), Some(REMEDY));
    assert_eq!(checked.preview, None);
}
