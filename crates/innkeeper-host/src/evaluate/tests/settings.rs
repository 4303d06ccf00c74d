//! Isolation of builds from the host's Nix settings.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::super::nix::Nix;
use super::*;
use crate::command::{command, run};

/// Body of all responses of the server.
const CONTENTS: &[u8] = b"contents";

/// Creates wrappers of the real programs that use a configuration folder, as on a host.
fn host_nix(shop: &Workshop, config: &str) -> NixConfig {
    fs::create_dir(shop.at("etc")).expect("folder");
    fs::write(shop.at("etc/nix.conf"), config).expect("write");
    fs::create_dir(shop.at("bin")).expect("folder");
    for name in ["nix", "nix-store"] {
        let text = format!(
            "#!/bin/sh\nexport NIX_CONF_DIR={}\nexec {} \"$@\"\n",
            shop.at("etc").display(),
            program(name).expect("installed").display()
        );
        let file = shop.at("bin").join(name);
        fs::write(&file, text).expect("write");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("chmod");
    }
    NixConfig {
        program: shop.at("bin/nix"),
        options: std::collections::BTreeMap::new(),
        ..shop.config.nix.clone()
    }
}

async fn derivation(text: &str) -> StorePath {
    let output = run("nix-instantiate", ["--expr", text], b"").await;
    let output = String::from_utf8(output.expect("instantiates")).expect("text");
    StorePath::parse(output.trim()).expect("a derivation")
}

#[tokio::test]
async fn build_gets_no_host_passwords_keys_hooks_or_paths() {
    let test = "build_gets_no_host_passwords_keys_hooks_or_paths";
    let Some(shop) = workshop(test) else { return };
    let unique = shop.dir.path().file_name().expect("name").to_string_lossy();
    let unique = unique.replace('.', "");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("address");
    let (heads, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let server = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                if stream.read_buf(&mut head).await.expect("reads") == 0 {
                    break;
                }
            }
            heads
                .send(String::from_utf8_lossy(&head).into_owned())
                .expect("seen");
            let length = CONTENTS.len();
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
            let response = [head.as_bytes(), CONTENTS].concat();
            stream.write_all(&response).await.expect("responds");
        }
    });

    let netrc = "machine 127.0.0.1 login host password horse\n";
    fs::write(shop.at("netrc"), netrc).expect("write");
    let hook = format!("#!/bin/sh\n: > {}\n", shop.at("hooked").display());
    fs::write(shop.at("hook"), hook).expect("write");
    fs::set_permissions(shop.at("hook"), fs::Permissions::from_mode(0o755)).expect("chmod");
    let (key, public) = (shop.at("key"), shop.at("public"));
    let mut keys = command("nix-store");
    keys.args(["--generate-binary-cache-key", "host-key-1"]);
    let made = keys.args([&key, &public]).status().await.expect("runs");
    assert!(made.success());
    let host = host_nix(
        &shop,
        &format!(
            "substituters =\nnetrc-file = {}\nsecret-key-files = {}\n\
             post-build-hook = {}\nsandbox-paths = {}\naccess-tokens = 127.0.0.1=horse\n",
            shop.at("netrc").display(),
            key.display(),
            shop.at("hook").display(),
            shop.at("secret").display(),
        ),
    );
    let nix = Nix::new(&host, &shop.config.scratch);
    let limit = Duration::from_secs(60);
    let limits = &shop.config.builds;
    let cgroups = BuildCgroups::new(limits);

    let hash = run("sha256sum", Vec::<String>::new(), CONTENTS).await;
    let hash = String::from_utf8(hash.expect("sha256sum")).expect("text");
    let download = derivation(&format!(
        "derivation {{ name = \"{unique}\"; builder = \"builtin:fetchurl\"; system = \"builtin\"; \
         url = \"http://{address}/x\"; outputHashMode = \"flat\"; outputHashAlgo = \"sha256\"; \
         outputHash = \"{}\"; executable = false; unpack = false; }}",
        &hash[..64]
    ))
    .await;
    let built = nix
        .realise(
            &[&download],
            limit,
            limits,
            &cgroups,
            Effort::Normal,
            |_| {},
        )
        .await;
    let built = built.expect("downloads");
    server.abort();
    let head = seen.recv().await.expect("a request");
    assert!(head.starts_with("GET /x"), "{head}");
    assert!(!head.to_lowercase().contains("authorization"), "{head}");
    assert!(!shop.at("hooked").exists(), "the host's hook has run");
    let signatures = ["path-info", "--sigs", built[0].as_str()];
    let signatures = ["--extra-experimental-features", "nix-command"]
        .into_iter()
        .chain(signatures);
    let signatures = run("nix", signatures, b"").await.expect("path-info");
    let signatures = String::from_utf8_lossy(&signatures).into_owned();
    assert!(!signatures.contains("host-key-1"), "{signatures}");

    let busybox = shop.at("nixpkgs/bin");
    let spy = derivation(&format!(
        "derivation {{ name = \"{unique}-spy\"; system = \"{}\"; \
         builder = \"${{{}}}/busybox\"; \
         args = [ \"sh\" \"-c\" \"while read -r l; do echo $l; done < {} >&2; echo path=$PATH >&2; exit 1\" ]; \
         impureEnvVars = [ \"PATH\" \"CARGO_MANIFEST_DIR\" ]; outputHashMode = \"flat\"; \
         outputHashAlgo = \"sha256\"; outputHash = \"{}\"; }}",
        shop.config.system,
        busybox.display(),
        shop.at("secret").display(),
        "0".repeat(64),
    ))
    .await;
    let failed = nix
        .realise(&[&spy], limit, limits, &cgroups, Effort::Normal, |_| {})
        .await;
    let log = failed.expect_err("fails").log().join("\n");
    assert!(!log.contains(SECRET), "{log}");
    assert!(log.contains("path=/run/current-system/sw/bin:"), "{log}");
}
