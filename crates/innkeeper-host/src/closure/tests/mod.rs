//! Builds with this machine's real Nix, without nixpkgs: the builder is a static busybox.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, Instant};

use innkeeper_facilities::FacilityError;
use innkeeper_model::Code;

use super::*;

mod builds;
mod failures;
mod members;

/// A flake, a Nix that records its calls, and a driver.
struct Workshop {
    dir: tempfile::TempDir,
    closures: Arc<NixClosures>,
}

/// Creates a workshop, or reports the test as not run on a machine that lacks something.
fn workshop(test: &str) -> Option<Workshop> {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"]
        .into_iter()
        .find(|p| Path::new(p).exists());
    let path = std::env::var_os("PATH").unwrap_or_default();
    let nix = std::env::split_paths(&path)
        .map(|dir| dir.join("nix"))
        .find(|nix| nix.exists());
    let (Some(busybox), Some(nix)) = (busybox, nix) else {
        eprintln!("INNKEEPER-NOT-RUN: {test}: it needs nix and busybox-static");
        return None;
    };
    let dir = tempfile::tempdir().expect("a directory for the test");
    let at = |name: &str| dir.path().join(name);
    // Build users write there.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).expect("chmod");
    fs::create_dir_all(at("flake/bb")).expect("flake");
    // In a folder, so that the program's name in the store is `busybox`.
    fs::copy(busybox, at("flake/bb/busybox")).expect("busybox");
    let recording = format!(
        "#!/bin/sh\necho \"$@\" >> {}\nexec {} \"$@\"\n",
        at("calls").display(),
        nix.display()
    );
    fs::write(at("nix"), recording).expect("write");
    fs::set_permissions(at("nix"), fs::Permissions::from_mode(0o755)).expect("chmod");
    symlink(nix.with_file_name("nix-store"), at("nix-store")).expect("link");
    let config = NixConfig {
        program: at("nix"),
        gcroots: at("gcroots"),
        state: at("nix-state"),
        links: at("state/closures"),
        options: BTreeMap::from(
            [("substituters", ""), ("sandbox", "false")]
                .map(|(name, value)| (name.to_owned(), value.to_owned())),
        ),
        // An unused UID.
        user: "64999".to_owned(),
        daemon_socket: at("daemon/socket"),
    };
    let workshop = Workshop {
        dir,
        closures: Arc::new(NixClosures::new(config, Identity::of('a'))),
    };
    workshop.flake(&workshop.derivation("guest", MAKE_INIT));
    Some(workshop)
}

const MAKE_INIT: &str = "mkdir -p $out; echo '#!/bin/sh' > $out/init; chmod +x $out/init";

impl Workshop {
    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Returns one output. Its derivation contains the test's directory, so it is unique to this run.
    fn derivation(&self, name: &str, script: &str) -> String {
        format!(
            "{name} = derivation {{ name = \"{name}\"; system = \"{}-linux\"; tag = \"{}\"; \
             builder = \"${{./bb}}/busybox\"; \
             args = [ \"sh\" \"-c\" \"set -e; export PATH=/; bb=${{./bb}}/busybox; \
             for tool in mkdir chmod sleep; do alias $tool=\\\"$bb $tool\\\"; done; eval \\\"$script\\\"\" ]; \
             script = ''{script}''; }};",
            std::env::consts::ARCH,
            self.dir.path().display(),
        )
    }

    fn flake(&self, outputs: &str) {
        self.write(&format!("{{ outputs = {{ self }}: {{ {outputs} }}; }}"));
    }

    fn write(&self, flake: &str) {
        fs::write(self.at("flake/flake.nix"), flake).expect("write");
    }

    fn installable(&self, attribute: &str) -> Installable {
        let text = format!("{}#{attribute}", self.at("flake").display());
        Installable::parse(&text, "x").expect("valid")
    }

    async fn build(&self, attribute: &str, known: Option<&Built>) -> Result<Built, FacilityError> {
        let no_progress = Arc::new(|_: BuildProgress| {});
        self.closures
            .build(
                &self.installable(attribute),
                Trust::Host,
                known,
                Effort::Normal,
                no_progress,
            )
            .await
    }

    /// Removes the link to the last build of an output, so that Nix can collect it.
    fn forget_link(&self, attribute: &str) {
        let installable = self.installable(attribute);
        let link = Link::of(&self.closures.config, Trust::Host, &installable);
        link.remove().expect("removes");
    }

    /// Returns the subcommands of the recorded calls of Nix, and clears the record.
    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.at("calls")).unwrap_or_default();
        fs::remove_file(self.at("calls")).ok();
        calls
            .lines()
            .map(|call| call.split(' ').next().unwrap_or_default().to_owned())
            .collect()
    }

    /// Returns the links to builds, including files that Nix may have left beside them.
    fn links(&self) -> Vec<PathBuf> {
        let links = fs::read_dir(self.at("state/closures"))
            .into_iter()
            .flatten();
        links.map(|entry| entry.expect("entry").path()).collect()
    }

    fn lines(&self, name: &str) -> usize {
        fs::read_to_string(self.at(name)).map_or(0, |text| text.lines().count())
    }
}

/// Returns the roots of a store path that Nix finds.
async fn roots_of(closure: &StorePath) -> String {
    let roots = command::run("nix-store", ["--query", "--roots", closure.as_str()], b"").await;
    String::from_utf8(roots.expect("nix-store")).expect("text")
}

/// Waits for a condition, up to 30 seconds.
async fn until(description: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "{description}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
