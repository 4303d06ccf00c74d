//! Configurations of several files of a repository.

use innkeeper_model::preview::sources::{OmittedReason, SourcePath};

use super::*;

fn path(text: &str) -> SourcePath {
    SourcePath::parse(text).expect(text)
}

/// Returns a configuration with a main file and other files.
fn repository(shop: &Workshop, body: &str, files: &[(&str, &str)]) -> SourceTree {
    let mut sources = SourceTree::single(&shop.module(body));
    for (name, contents) in files {
        sources.add_file(
            path(name),
            contents.as_bytes().to_vec(),
            name.ends_with(".sh"),
        );
    }
    sources
}

/// Returns a file of `/etc` in a guest's closure.
fn etc(made: &Evaluated, name: &str) -> String {
    let file = made.closure.as_path().join("etc").join(name);
    fs::read_to_string(file).expect(name)
}

#[tokio::test]
async fn configuration_imports_files_of_its_repository() {
    let Some(shop) = workshop("configuration_imports_files_of_its_repository") else {
        return;
    };
    let mut sources = repository(
        &shop,
        "imports = [ ./nix/app.nix ./services ]; environment.etc.versions.text = \
         (builtins.fromJSON (builtins.readFile ./versions.json)).node;",
        &[
            ("versions.json", r#"{"node": "22"}"#),
            (
                "nix/app.nix",
                "{ pkgs, ... }: { environment.etc.script.source = ./run.sh; \
                 environment.etc.linked.text = import ../link.nix; }",
            ),
            ("nix/run.sh", "#!/bin/sh\n"),
            ("nix/value.nix", "\"through a link\""),
            ("services/default.nix", &format!("{{ ... }}: {{ {META} }}")),
        ],
    );
    sources.add_link(path("link.nix"), "nix/value.nix".to_owned());
    let made = shop.evaluate_tree(&sources).await.expect("evaluates");
    assert_eq!(made.meta.setup_service.as_str(), "setup.service");
    assert_eq!(etc(&made, "versions"), "22");
    assert_eq!(etc(&made, "linked"), "through a link");
    assert_eq!(etc(&made, "script"), "#!/bin/sh\n");
    let mode = fs::metadata(made.closure.as_path().join("etc/script")).expect("script");
    assert_eq!(mode.permissions().mode() & 0o111, 0o111);
    shop.is_tidy();
}

#[tokio::test]
async fn main_file_can_be_in_a_folder() {
    let Some(shop) = workshop("main_file_can_be_in_a_folder") else {
        return;
    };
    let mut sources = SourceTree::new(path("apps/we b/pre\"view.nix"));
    let module = shop.module(&format!("{META} environment.etc.x.text = import ../x.nix;"));
    sources.add_file(path("apps/we b/pre\"view.nix"), module.into_bytes(), false);
    sources.add_file(path("apps/x.nix"), b"\"x\"".to_vec(), false);
    let made = shop.evaluate_tree(&sources).await.expect("evaluates");
    assert_eq!(etc(&made, "x"), "x");
}

#[tokio::test]
async fn scripts_of_crlf_files_have_no_cr() {
    let Some(shop) = workshop("scripts_of_crlf_files_have_no_cr") else {
        return;
    };
    let module = shop.module(&format!(
        "{META}\nenvironment.etc.script.text = ''\n  one\n  two\n'';"
    ));
    let sources = SourceTree::single(&format!("\u{feff}{}", module.replace('\n', "\r\n")));
    let made = shop.evaluate_tree(&sources).await.expect("evaluates");
    assert_eq!(etc(&made, "script"), "one\ntwo\n");
}

#[tokio::test]
async fn copy_of_the_whole_repository_is_refused() {
    let Some(shop) = workshop("copy_of_the_whole_repository_is_refused") else {
        return;
    };
    let build = |src: &str| {
        format!(
            "{META} environment.etc.app.source = pkgs.runCommand \"app\" {{ src = {src}; }} \"echo $src > $out\";"
        )
    };
    let mut whole = repository(&shop, &build("./."), &[("package.json", "{}")]);
    whole.omit(path("src/main.js"), OmittedReason::Type);
    let failure = shop.refused_tree(&whole).await;
    assert_eq!(failure.code, Code::PreviewConfigInvalid);
    insta::assert_snapshot!(failure.message, @"preview-config.nix copies the whole repository (./.) into the Nix store, but the evaluation has only the configuration's files of it");
    insta::assert_snapshot!(failure.remedy.as_deref().unwrap_or_default(), @r#"Do not build the app in preview-config.nix: let the setup service clone the repository in the guest (`git clone "$PREVIEW_REPO_URL"`, then check out `$PREVIEW_COMMIT`), and build it there. To copy a few files, name each by its path."#);
    insta::assert_snapshot!(failure.log.join("\n"), @"src/main.js is not in the copy: it is not of a file type that configuration needs; the setting `previews.file_types` adds types");
    // Nothing was built or imported.
    assert!(shop.evaluator.kept().await.expect("lists").is_empty());

    // A folder that lacks files is refused, too; one that is complete is not.
    let files = &[("pkg/default.nix", "{ }"), ("other/a.json", "1")];
    let mut some = repository(&shop, &build("./pkg"), files);
    some.omit(path("pkg/src/main.c"), OmittedReason::Type);
    let failure = shop.refused_tree(&some).await;
    assert!(failure.message.contains("the folder pkg "), "{failure:?}");
    let mut complete = repository(&shop, &build("./other"), files);
    complete.omit(path("pkg/src/main.c"), OmittedReason::Type);
    shop.evaluate_tree(&complete).await.expect("builds");
    shop.is_tidy();
}

#[tokio::test]
async fn error_names_the_place_and_the_omitted_file() {
    let Some(shop) = workshop("error_names_the_place_and_the_omitted_file") else {
        return;
    };
    let broken = repository(
        &shop,
        &format!("{META} imports = [ ./nix/app.nix ];"),
        &[(
            "nix/app.nix",
            "{ ... }:\n{\n  environment.etc.x.text = nothing;\n}\n",
        )],
    );
    let failure = shop.refused_tree(&broken).await;
    assert!(
        failure.log.join("\n").contains("nix/app.nix:3:"),
        "{failure:?}"
    );

    let read = "environment.etc.x.text = builtins.readFile (./. + \"/logo.svg\");";
    let mut lacking = repository(&shop, &format!("{META} {read}"), &[]);
    lacking.omit(path("logo.svg"), OmittedReason::Type);
    let failure = shop.refused_tree(&lacking).await;
    let last = failure.log.last().expect("a note");
    assert!(
        last.starts_with("logo.svg is not part of the evaluation: it is not of a file type"),
        "{failure:?}"
    );
}

#[tokio::test]
async fn files_outside_the_repository_stay_out_of_reach() {
    let Some(shop) = workshop("files_outside_the_repository_stay_out_of_reach") else {
        return;
    };
    let secret = shop.at("secret");
    let secret = secret.to_str().expect("text");
    for (expression, target) in [
        ("builtins.readFile ./link.json", secret.to_owned()),
        ("builtins.readFile ./link.json", format!("../../..{secret}")),
        (
            "builtins.readFile (./link.json + \"/secret\")",
            shop.at("").display().to_string(),
        ),
        ("builtins.readFile ../../../etc/passwd", "x".to_owned()),
    ] {
        let body = format!("{META} environment.etc.x.text = {expression};");
        let mut sources = repository(&shop, &body, &[]);
        sources.add_link(path("link.json"), target);
        let failure = shop.refused_tree(&sources).await;
        assert_eq!(failure.code, Code::PreviewConfigInvalid, "{failure:?}");
    }
}
