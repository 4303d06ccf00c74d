//! The files of docs/previews.md, with the base module of guests and the stand-in for nixpkgs.

use std::collections::BTreeMap;

use innkeeper_model::preview::sources::SourceTree;
use innkeeper_model::preview::{RouteProtocol, RouteTimeout};

use super::*;

/// Returns the files of the guide by name. Each block of Nix must be one.
fn files() -> BTreeMap<String, String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/previews.md");
    let page = fs::read_to_string(page).expect("the guide");
    let mut files = BTreeMap::new();
    for part in page.split("<!-- file: ").skip(1) {
        let (name, rest) = part.split_once(" -->\n```nix\n").expect("a block of Nix");
        let (text, _) = rest.split_once("```\n").expect("the end of the block");
        files.insert(name.to_owned(), text.to_owned());
    }
    assert_eq!(files.len(), page.matches("```nix\n").count());
    files
}

fn workshop_with_base(test: &str) -> Option<Workshop> {
    workshop_with(test, |config| {
        config.base_module =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guest-configs/base.nix");
    })
}

#[tokio::test]
async fn files_of_the_guide_evaluate_and_build() {
    let Some(shop) = workshop_with_base("files_of_the_guide_evaluate_and_build") else {
        return;
    };
    let files = files();
    for stack in [
        "go", "image", "node", "phoenix", "php", "python", "ruby", "rust", "static",
    ] {
        assert!(files.contains_key(stack), "{stack}");
    }
    let made = futures_util::future::join_all(files.iter().map(async |(name, text)| {
        let evaluated = shop.evaluate(text).await;
        let evaluated =
            evaluated.unwrap_or_else(|error| panic!("{name}: {:?}", Failure::from(&error)));
        (name.as_str(), evaluated)
    }))
    .await;
    for (name, evaluated) in &made {
        let units = evaluated.closure.as_path().join("units");
        for service in [&evaluated.meta.setup_service]
            .into_iter()
            .chain(&evaluated.meta.app_services)
        {
            let unit = service.as_str().trim_end_matches(".service");
            assert!(units.join(unit).join("start").exists(), "{name}: {unit}");
        }
    }
    let meta = |name: &str| {
        let (_, evaluated) = made.iter().find(|(other, _)| *other == name).expect("made");
        serde_json::to_value(&evaluated.meta).expect("JSON")
    };
    insta::assert_json_snapshot!(meta("static"));
    insta::assert_json_snapshot!(meta("several"));
    shop.is_tidy();
}

#[tokio::test]
async fn setup_of_a_guide_file_runs_each_app_in_its_folder_with_its_variables() {
    let test = "setup_of_a_guide_file_runs_each_app_in_its_folder_with_its_variables";
    let Some(shop) = workshop_with_base(test) else {
        return;
    };
    let made = shop.evaluate(&files()["several"]).await.expect("evaluates");
    let unit =
        fs::read_to_string(made.closure.as_path().join("units/preview-setup/start")).expect("unit");
    let script = unit
        .split_whitespace()
        .rev()
        .find(|word| word.starts_with("/nix/store/"))
        .expect("the script");
    let script = fs::read_to_string(script.trim_matches('\'')).expect("script");
    // Paths of the store follow from the stand-in.
    let script: Vec<_> = (script.lines())
        .skip_while(|line| !line.starts_with("git reset"))
        .skip(1)
        .map(|line| match line.split_once("/nix/store/") {
            Some((start, rest)) => format!("{start}{}", rest.split_at(33).1),
            None => line.to_owned(),
        })
        .collect();
    insta::assert_snapshot!(script.join("\n"));
}

#[tokio::test]
async fn apps_have_each_protocol_and_timeout_that_routes_have() {
    let test = "apps_have_each_protocol_and_timeout_that_routes_have";
    let Some(shop) = workshop_with_base(test) else {
        return;
    };
    let apps: String = RouteTimeout::SECONDS.iter().map(|seconds| {
        format!("apps.a{seconds} = {{ run = \"x\"; port = {}; path = \"/{seconds}\"; timeout = {seconds}; }};\n", 5000 + seconds)
    }).collect();
    let text = format!(
        "{{ innkeeper.preview = {{ app = {{ run = \"x\"; port = 1; protocol = \"h2c\"; }};\n{apps} }}; }}"
    );
    let inspected = shop.evaluator.inspect(&SourceTree::single(&text)).await;
    let inspected = inspected.expect("the host can evaluate");
    assert_eq!(inspected.problems, []);
    let routes = inspected.meta.expect("known without a build").routes;
    for route in &routes {
        let seconds = route.path.as_str().trim_start_matches('/');
        let timeout = route.timeout.map(|timeout| timeout.seconds().to_string());
        assert_eq!(timeout.unwrap_or_default(), seconds);
        let protocol = match seconds {
            "" => RouteProtocol::H2c,
            _ => RouteProtocol::Http,
        };
        assert_eq!(route.protocol, protocol);
    }
    assert_eq!(routes.len(), RouteTimeout::SECONDS.len() + 1);
    shop.is_tidy();
}

#[tokio::test]
async fn problems_of_apps_name_their_options() {
    let Some(shop) = workshop_with_base("problems_of_apps_name_their_options") else {
        return;
    };
    for (body, expected) in [
        (
            "app = { run = \"x\"; port = 1; }; apps.app = { run = \"y\"; port = 2; path = \"/y\"; };",
            "innkeeper.preview.app and innkeeper.preview.apps.app have the same unit preview-app.service",
        ),
        (
            "app = { run = \"x\"; port = 1; }; apps.b = { run = \"y\"; port = 1; path = \"/y\"; };",
            "innkeeper.preview.app.port and innkeeper.preview.apps.b.port are all 1",
        ),
        (
            "app = { run = \"x\"; port = 1; }; apps.b = { run = \"y\"; port = 2; };",
            "innkeeper.preview.app.path and innkeeper.preview.apps.b.path contain the same path '/'",
        ),
        (
            "app = { run = \"x\"; port = 1; hostPrefix = \"x\"; };",
            "innkeeper.preview.app.hostPrefix: no app answers at the preview's own host name",
        ),
        (
            "app = { run = \"x\"; port = 1; directory = \"a/../..\"; };",
            "innkeeper.preview.app.directory is 'a/../..', which leaves the repository",
        ),
        (
            "app = { run = \"x\"; port = 1; environment.PREVIEW_URL = \"x\"; };",
            "innkeeper.preview.app.environment.PREVIEW_URL: the host sets this variable",
        ),
        (
            "app = { run = \"x\"; port = 1; environment.\"a b\" = \"x\"; };",
            "innkeeper.preview.app.environment.a b: this is not the name of a variable",
        ),
        (
            "app = { run = \"x\"; port = 1; workers.Jobs = \"x\"; };",
            "innkeeper.preview.app.workers.Jobs: 'Jobs' cannot be a name",
        ),
        (
            "apps.setup = { run = \"x\"; port = 1; };",
            "innkeeper.preview.apps.setup: the name 'setup' is reserved",
        ),
        (
            "app = { run = \"x\"; port = \"1\"; };",
            "A definition for option `innkeeper.preview.app.port' is not of type",
        ),
        (
            "app = { run = \"x\"; };",
            "The option `innkeeper.preview.app.port' was accessed but has no value defined",
        ),
        (
            "app = { run = \"x\"; port = 1; timeout = 7; };",
            "A definition for option `innkeeper.preview.app.timeout' is not of type `null or one of 1, 2, 5,",
        ),
        (
            "app = { run = \"x\"; port = 1; protocol = \"grpc\"; };",
            "A definition for option `innkeeper.preview.app.protocol' is not of type",
        ),
        (
            "app = { run = \"x\"; port = 1; prot = 2; };",
            "The option `innkeeper.preview.app.prot' does not exist",
        ),
    ] {
        let failure = shop
            .refused(&format!("{{ innkeeper.preview = {{ {body} }}; }}"))
            .await;
        assert_eq!(failure.code, Code::PreviewConfigInvalid);
        let log = failure.log.join("\n");
        assert!(log.contains(expected), "{body}: {log}");
    }
}

#[tokio::test]
async fn inspection_lists_all_problems_with_their_places_and_builds_nothing() {
    let test = "inspection_lists_all_problems_with_their_places_and_builds_nothing";
    let Some(shop) = workshop_with_base(test) else {
        return;
    };
    let inspect = async |text: &str| {
        let inspected = shop.evaluator.inspect(&SourceTree::single(text)).await;
        inspected.expect("the host can evaluate")
    };
    let valid = inspect(&files()["several"]).await;
    assert_eq!(valid.problems, []);
    let meta = valid.meta.expect("known without a build");
    assert_eq!(meta.app_services.len(), 4);
    let mut shown = Vec::new();
    for text in [
        "{\n  innkeeper.preview = {\n    app = {\n      run = \"x\";\n      port = 1;\n      environment.PREVIEW_URL = \"x\";\n    };\n    apps.b = {\n      run = \"y\";\n      port = 1;\n      path = \"/b\";\n    };\n  };\n}\n",
        "{\n  innkeeper.preview.app = {\n    run = \"x\";\n    port = \"1\";\n  };\n}\n",
        "{\n  innkeeper.preview.app = {\n    run = \"x\"\n    port = 1;\n  };\n}\n",
        "{\n  innkeeper.preview.app = {\n    run = \"x\";\n    port = 0;\n  };\n}\n",
    ] {
        let inspected = inspect(text).await;
        assert_eq!(inspected.meta, None);
        shown.extend(inspected.problems.iter().map(ToString::to_string));
    }
    let shown = shown.join("\n");
    for expected in [
        "innkeeper.preview.app.port and innkeeper.preview.apps.b.port are all 1",
        "innkeeper.preview.app.environment.PREVIEW_URL: the host sets this variable",
        "option `innkeeper.preview.app.port' is not of type",
        "syntax error",
        "0 is not a port",
    ] {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
    assert_eq!(shop.evaluator.kept().await.expect("list"), []);
    shop.is_tidy();
}
