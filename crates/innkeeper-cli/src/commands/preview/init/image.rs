//! Apps that are built as a container image.

use super::app::App;
use super::repository::{Repository, is_plain};

/// The unit of the app runs in the image's files.
const REST: &str = r#"
  systemd.services.preview-app.serviceConfig = {
    RootDirectory = "/home/preview/image/rootfs";
    WorkingDirectory = lib.mkForce "/";
    MountAPIVFS = true;
    BindReadOnlyPaths = [
      "/nix/store"
      "/etc/resolv.conf"
    ];
  };
"#;

pub(super) fn app(repository: &Repository) -> App {
    let mut notes = vec![
        "Your CI must push an image of each commit, with the commit's full hash as its tag."
            .to_owned(),
    ];
    let name = name(&repository.text(".git/config")).unwrap_or_else(|| {
        notes.push("Replace octo/web by the name of your image.".to_owned());
        "octo/web".to_owned()
    });
    let text = repository
        .first(&["Dockerfile", "Containerfile"])
        .map(|file| repository.text(file))
        .unwrap_or_default();
    let run = entry(&text).unwrap_or_else(|| {
        notes.push(
            "Replace /usr/local/bin/server by the image's command (ENTRYPOINT and CMD).".to_owned(),
        );
        "/usr/local/bin/server".to_owned()
    });
    App {
        packages: vec!["skopeo", "umoci"],
        setup: [
            &*format!("image=docker://ghcr.io/{name}:$PREVIEW_COMMIT"),
            r#"until skopeo inspect --raw "$image" > /dev/null; do"#,
            r#"  echo "waiting for $image""#,
            "  sleep 10",
            "done",
            "rm -rf ~/oci ~/image.new",
            r#"skopeo copy --quiet --insecure-policy "$image" oci:$HOME/oci:app"#,
            "umoci unpack --rootless --image ~/oci:app ~/image.new",
            "rm -rf ~/image",
            "mv ~/image.new ~/image",
        ]
        .map(str::to_owned)
        .into(),
        run: vec![format!("exec {run}")],
        port: exposed(&text).unwrap_or(8080),
        rest: REST,
        notes,
        ..App::default()
    }
}

/// Returns `owner/repository` of a Git configuration's remote on GitHub.
fn name(config: &str) -> Option<String> {
    let url = (config.lines())
        .filter_map(|line| line.trim().strip_prefix("url = "))
        .find(|url| url.contains("github.com"))?;
    let (_, name) = url.split_once("github.com")?;
    let name = name.trim_start_matches([':', '/']).trim_end_matches(".git");
    let is_name = is_plain(name) && name.matches('/').count() == 1;
    // Names of images are in lower case.
    is_name.then(|| name.to_lowercase())
}

/// Returns the last ENTRYPOINT or CMD in the form of a list, if its words are plain.
fn entry(dockerfile: &str) -> Option<String> {
    let of = |instruction: &str| {
        let list = dockerfile
            .lines()
            .rev()
            .find_map(|line| line.trim().strip_prefix(instruction))?;
        serde_json::from_str::<Vec<String>>(list.trim()).ok()
    };
    let words = match (of("ENTRYPOINT "), of("CMD ")) {
        (Some(entry), rest) => [entry, rest.unwrap_or_default()].concat(),
        (None, words) => words?,
    };
    let is_word = |word: &String| is_plain(word.trim_start_matches('-'));
    (words.first()?.starts_with('/') && words.iter().all(is_word)).then(|| words.join(" "))
}

/// Returns the first port of EXPOSE.
fn exposed(dockerfile: &str) -> Option<u16> {
    (dockerfile.lines())
        .find_map(|line| line.trim().strip_prefix("EXPOSE "))?
        .split(['/', ' '])
        .next()?
        .parse()
        .ok()
        .filter(|port| *port > 0)
}
