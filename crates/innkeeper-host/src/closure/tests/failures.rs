//! Failed builds, unusable closures and checks.

use super::*;

#[tokio::test]
async fn derivation_without_the_output_out_is_rejected() {
    let Some(shop) = workshop("derivation_without_the_output_out_is_rejected") else {
        return;
    };
    let derivation = shop.derivation("guest", "mkdir $bin");
    shop.flake(&derivation.replace("tag =", "outputs = [ \"bin\" ]; tag ="));
    let error = shop.build("guest", None).await.expect_err("no out");
    assert_eq!(error.code(), Code::InvalidClosure, "{}", chain(&error));
    assert!(shop.links().is_empty());
}

#[tokio::test]
async fn closure_with_an_empty_init_is_reported_as_damaged() {
    let Some(shop) = workshop("closure_with_an_empty_init_is_reported_as_damaged") else {
        return;
    };
    let script = "$bb mkdir $out; : > $out/init; $bb chmod 555 $out/init";
    shop.flake(&shop.derivation("guest", script));
    let error = shop.build("guest", None).await.expect_err("empty");
    assert_eq!(error.code(), Code::InvalidClosure, "{}", chain(&error));
    let remedy = error.remedy().expect("a remedy");
    assert!(remedy.contains("--check-contents --repair"), "{remedy}");
    assert!(shop.links().is_empty());
}

#[tokio::test]
async fn failed_build_shows_the_last_log_lines() {
    let Some(shop) = workshop("failed_build_shows_the_last_log_lines") else {
        return;
    };
    let script = "mkdir $out; for i in $($bb seq 60); do echo line $i; done; exit 3";
    shop.flake(&shop.derivation("guest", script));
    let error = shop.build("guest", None).await.expect_err("fails");
    assert_eq!(error.code(), Code::BuildFailed);
    let text = chain(&error);
    assert!(
        text.contains("flake#guest': builder for '/nix/store/"),
        "{text}"
    );
    assert!(text.contains("failed with exit code 3"), "{text}");
    assert!(
        error.log().iter().any(|line| line == "line 60"),
        "{:?}",
        error.log()
    );
    assert_eq!(error.log().len(), 40);
    assert!(error.remedy().expect("a remedy").contains("nix build -L"));
    assert!(shop.links().is_empty());
}

#[tokio::test]
async fn broken_and_missing_flakes_have_different_codes() {
    let Some(shop) = workshop("broken_and_missing_flakes_have_different_codes") else {
        return;
    };
    let code = async |attribute: &str| {
        let error = shop.build(attribute, None).await.expect_err(attribute);
        assert!(shop.links().is_empty(), "{attribute}");
        (error.code(), chain(&error), error.log().len())
    };
    shop.write("{ outputs = { self }: { guest = ; }; }");
    let (syntax, text, lines) = code("guest").await;
    assert_eq!(syntax, Code::BuildFailed);
    assert!(text.contains("syntax error") && lines > 0, "{text}");

    shop.flake(&format!(
        "a.\"b.c\".guest = throw \"on purpose\"; throwing = throw \"on purpose\"; {}",
        shop.derivation("guest", MAKE_INIT)
    ));
    for missing in [
        "nope",
        "a.nope",
        "a.b.c.guest",
        "guest.nope.nope",
        "a.\"$x\".\"${y}\"",
    ] {
        let (found, text, _) = code(missing).await;
        assert_eq!(found, Code::FlakeNotFound, "{missing}: {text}");
        assert!(
            text.ends_with(&format!("has no output '{missing}'")),
            "{text}"
        );
    }
    for broken in ["throwing", "throwing.below", "a.\"b.c\".guest"] {
        let (found, text, _) = code(broken).await;
        assert_eq!(found, Code::BuildFailed, "{broken}: {text}");
    }

    fs::remove_file(shop.at("flake/flake.nix")).expect("remove");
    let (empty, text, _) = code("guest").await;
    assert_eq!(empty, Code::FlakeNotFound);
    assert!(text.ends_with("it has no flake.nix"), "{text}");
    tree::remove(&shop.at("flake")).expect("removes");
    let (gone, text, _) = code("guest").await;
    assert_eq!(gone, Code::FlakeNotFound);
    assert!(text.ends_with("the directory does not exist"), "{text}");
}

#[tokio::test]
async fn closure_without_init_is_rejected() {
    let Some(shop) = workshop("closure_without_init_is_rejected") else {
        return;
    };
    shop.build("guest", None).await.expect("builds");
    assert_eq!(shop.links().len(), 1);
    for (script, reason) in [
        ("mkdir $out", "it has no 'init'"),
        ("echo x > $out", "it is not a directory"),
        (
            "mkdir $out; echo x > $out/init",
            "its 'init' is not an executable file",
        ),
    ] {
        shop.flake(&shop.derivation("guest", script));
        let error = shop.build("guest", None).await.expect_err(reason);
        assert_eq!(error.code(), Code::InvalidClosure);
        assert!(chain(&error).ends_with(reason), "{}", chain(&error));
        assert!(error.remedy().expect("a remedy").contains("toplevel"));
        assert!(shop.links().is_empty());
    }
}

#[tokio::test]
async fn missing_nix_is_reported_with_its_package() {
    let dir = tempfile::tempdir().expect("directory");
    fs::write(dir.path().join("flake.nix"), "{ }").expect("write");
    let closures = NixClosures::new(
        NixConfig {
            program: "/nonexistent/nix".into(),
            gcroots: dir.path().join("gcroots"),
            state: dir.path().join("state"),
            links: dir.path().join("links"),
            options: BTreeMap::new(),
            user: "64999".to_owned(),
            daemon_socket: "/nonexistent/socket".into(),
        },
        Identity::of('a'),
    );
    let text = format!("{}#guest", dir.path().display());
    let installable = Installable::parse(&text, "x").expect("valid");
    let error = closures
        .build(
            &installable,
            Trust::Host,
            None,
            Effort::Normal,
            Arc::new(|_| {}),
        )
        .await
        .expect_err("no nix");
    assert_eq!(error.code(), Code::NixMissing);
    assert!(error.remedy().expect("a remedy").contains("nix-bin"));
    assert_eq!(closures.check().await[0].verdict, Verdict::Broken);
}

#[tokio::test]
async fn checks_show_nixs_version_and_unwritable_folders() {
    let Some(shop) = workshop("checks_show_nixs_version_and_unwritable_folders") else {
        return;
    };
    let checks = shop.closures.check().await;
    assert!(
        checks.iter().all(|check| check.verdict == Verdict::Ok),
        "{checks:?}"
    );
    assert!(
        checks[0].finding.starts_with("nix (Nix"),
        "{}",
        checks[0].finding
    );
    // Even root cannot write below a file.
    fs::write(shop.at("file"), "x").expect("write");
    let check = check_writable("GC roots", &shop.at("file/below"));
    assert_eq!(check.verdict, Verdict::Broken);
    assert!(
        check.finding.contains("file cannot be written"),
        "{}",
        check.finding
    );
}

#[test]
fn missing_store_is_a_warning() {
    let directory = tempfile::tempdir().expect("a folder");
    let check = check_store(&directory.path().join("store"));
    assert_eq!(check.verdict, Verdict::Warning);
    assert!(check.finding.contains("first build"), "{}", check.finding);
    assert_eq!(check_store(directory.path()).verdict, Verdict::Ok);
}
