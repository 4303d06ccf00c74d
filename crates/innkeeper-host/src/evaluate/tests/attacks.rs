//! Attacks by a preview-config.nix on the evaluation.

use super::*;

/// Returns a config that evaluates an expression.
pub(super) fn with_expression(shop: &Workshop, expression: &str) -> String {
    shop.module(&format!(
        "{META} environment.etc.value.text = builtins.toJSON ({expression});"
    ))
}

/// Returns the value of the expression.
fn value(made: &Evaluated) -> serde_json::Value {
    let text = fs::read_to_string(made.closure.as_path().join("etc/value")).expect("a value");
    serde_json::from_str(&text).expect("JSON")
}

/// Fails unless the evaluation of an expression fails with one of the reasons, which are separated by `|`.
async fn assert_fails(test: &str, expression: impl Fn(&str) -> String, reason: &str) {
    let Some(shop) = workshop(test) else { return };
    let secret = shop.at("secret").display().to_string();
    let failure = shop
        .refused(&with_expression(&shop, &expression(&secret)))
        .await;
    assert_eq!(failure.code, Code::PreviewConfigInvalid, "{failure:?}");
    let is_expected = |reason| failure.message.contains(reason);
    assert!(reason.split('|').any(is_expected), "{failure:?}");
}

/// Defines a test that an expression, built from the path of a secret, fails for a reason. A bar separates the messages of
/// different versions of Nix.
macro_rules! attack {
    ($name:ident, $reason:literal, $expression:expr) => {
        #[tokio::test]
        async fn $name() {
            assert_fails(stringify!($name), $expression, $reason).await;
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
    reading_a_path_beside_the_config_fails,
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

// With a hash, even a pure evaluation reads any path. Only the sandbox prevents this.
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
    escaping_from_a_store_path_fails,
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

attack!(search_path_is_empty, "cannot look up '<nixpkgs>'", |_| {
    "import <nixpkgs> { }".to_owned()
});

attack!(
    custom_search_path_fails,
    "cannot look up '<s>'|is forbidden in pure eval",
    |secret| {
        format!(
            "builtins.readFile (builtins.findFile [ {{ prefix = \"s\"; path = \"{secret}\"; }} ] \"s\")"
        )
    }
);

attack!(
    naming_foreign_store_paths_fails,
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

attack!(endless_recursion_fails, "stack overflow", |_| {
    "let f = n: 1 + f (n + 1); in f 0".to_owned()
});

#[tokio::test]
async fn environment_and_time_are_hidden() {
    let Some(shop) = workshop("environment_and_time_are_hidden") else {
        return;
    };
    let made = shop
        .evaluate(&with_expression(
            &shop,
            "builtins.getEnv \"PATH\" + builtins.getEnv \"HOME\"",
        ))
        .await
        .expect("harmless");
    assert_eq!(value(&made), "");
    for name in ["currentTime", "currentSystem"] {
        let failure = shop
            .refused(&with_expression(&shop, &format!("builtins.{name}")))
            .await;
        assert!(failure.message.contains("missing"), "{failure:?}");
    }
}

#[tokio::test]
async fn listing_folders_shows_at_most_the_sandbox() {
    let Some(shop) = workshop("listing_folders_shows_at_most_the_sandbox") else {
        return;
    };
    for folder in ["/", "/nix/store", "/nix", "/var", "/home"] {
        // Newer versions of Nix allow it for parents of readable paths.
        let listing = format!("builtins.attrNames (builtins.readDir {folder:?})");
        match shop.evaluate(&with_expression(&shop, &listing)).await {
            Err(error) => assert_eq!(error.code(), Code::PreviewConfigInvalid),
            Ok(made) => {
                for name in value(&made).as_array().expect("names") {
                    let name = name.as_str().expect("a name");
                    let known =
                        SANDBOX_FILES.contains(&name) || ["home", "store", "var"].contains(&name);
                    // The evaluated sources, and objects that the evaluation added.
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

/// Files in the sandbox, without the contents of the programs' folders.
const SANDBOX_FILES: [&str; 17] = [
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
async fn filter_with_a_hash_sees_only_the_sandbox() {
    let Some(shop) = workshop("filter_with_a_hash_sees_only_the_sandbox") else {
        return;
    };
    // Traces the names of all files that the evaluator can see, without the programs.
    let config = with_expression(
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
    // Newer versions of Nix traverse only readable paths.
    assert!(!seen.is_empty(), "{failure:?}");
    for path in seen {
        assert!(SANDBOX_FILES.contains(&path), "{path}");
    }
}

#[tokio::test]
async fn derivation_cannot_claim_a_foreign_output() {
    let Some(shop) = workshop("derivation_cannot_claim_a_foreign_output") else {
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
