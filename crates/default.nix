# The programs, with crane: dependencies are built apart from our own code, and every check reuses them.
{
  lib,
  pkgs,
  craneLib,
}:
let
  root = ../.;
  fileset = lib.fileset;

  # Pages and Nix files are not among the sources, so changing them rebuilds nothing.
  cargoSources = [
    (root + "/Cargo.toml")
    (root + "/Cargo.lock")
    (root + "/.cargo")
    (root + "/.clippy.toml")
    (root + "/.rustfmt.toml")
    (root + "/.config")
    (craneLib.fileset.commonCargoSources ./.)
    # Files that the code includes or tests compare with.
    ./innkeeper-host/src/evaluate/compose.nix
    ./innkeeper-host/src/closure/supervise.sh
    ./innkeeper-host/src/evaluate/sandbox.sh
    ./innkeeper-cli/src/commands/man
    ./innkeeper-cli/src/commands/completions
    # Pages of the manual are made from it.
    (root + "/docs/configuration.md")
    (fileset.fileFilter (file: file.hasExt "sql" || file.hasExt "snap" || file.hasExt "txt") ./.)
  ];
  src = fileset.toSource {
    inherit root;
    fileset = fileset.unions cargoSources;
  };
  # Tests read pages, fixtures and recorded payloads as well.
  srcOfTests = fileset.toSource {
    inherit root;
    fileset = fileset.unions (
      cargoSources
      ++ [
        (root + "/docs")
        (root + "/tests")
        (fileset.fileFilter (
          file: file.hasExt "json" || file.hasExt "log" || file.hasExt "md" || file.hasExt "stderr"
        ) ./.)
      ]
    );
  };

  inherit ((craneLib.crateNameFromCargoToml { cargoToml = ../Cargo.toml; })) version;

  commonArgs = {
    inherit src version;
    pname = "innkeeper";
    strictDeps = true;
    # The helper that waits at a guest's door is static: crates/innkeeper-host/build.rs.
    buildInputs = lib.optional pkgs.stdenv.hostPlatform.isGnu pkgs.glibc.static;
    # SQLite is compiled from the source that the crate brings.
    nativeBuildInputs = [ pkgs.installShellFiles ];
  };
  cargoArtifacts = craneLib.buildDepsOnly commonArgs;
  # The project has no homepage.
  meta = {
    license = lib.licenses.mit;
    platforms = [
      "x86_64-linux"
      "aarch64-linux"
    ];
  };
  withArtifacts = extra: commonArgs // { inherit cargoArtifacts; } // extra;

  manager = craneLib.buildPackage (withArtifacts {
    # The tests are the check `tests`.
    doCheck = false;
    # A stand-in for tests is none of it, should it be built.
    postInstall = ''
      rm -f $out/bin/innkeeper-fake-github
    ''
    + lib.optionalString (pkgs.stdenv.buildPlatform.canExecute pkgs.stdenv.hostPlatform) ''
      $out/bin/innkeeper man --out man
      installManPage man/*
      for program in agent preview innkeeper; do
        for shell in bash fish zsh; do
          $out/bin/innkeeper completions "$shell" --program "$program" > "$program.$shell"
          installShellCompletion --name "$program" --"$shell" "$program.$shell"
        done
      done
    '';
    meta = meta // {
      description = "Keeps isolated guests on one NixOS server";
      mainProgram = "innkeeper";
    };
  });

  # What the programs consist of: bills of materials, and the licenses of all crates in them with their texts.
  sbom = craneLib.mkCargoDerivation {
    pname = "innkeeper-sbom";
    inherit version;
    src = fileset.toSource {
      inherit root;
      fileset = fileset.unions (cargoSources ++ [ (root + "/.ci/sbom") ]);
    };
    cargoArtifacts = null;
    doInstallCargoArtifacts = false;
    nativeBuildInputs = [
      pkgs.cargo-cyclonedx
      pkgs.jq
    ];
    buildPhaseCargoCommand = "bash .ci/sbom sbom";
    installPhaseCommand = "mkdir -p $out/share && cp -r sbom $out/share/innkeeper-sbom";
    meta = meta // {
      description = "Bills of materials of Innkeeper's programs (CycloneDX), and the licenses of their dependencies";
    };
  };

  # For tests that kill it at a chosen point, which a release does not know: the same sources, as developers build them.
  debug = craneLib.buildPackage (
    commonArgs
    // {
      pname = "innkeeper-debug";
      CARGO_PROFILE = "dev";
      doCheck = false;
      meta = meta // {
        description = "Innkeeper's programs with points at which tests kill them";
      };
    }
  );
  # GitHub, as far as tests need it.
  fakeGithub = craneLib.buildPackage (
    commonArgs
    // {
      pname = "innkeeper-fake-github";
      CARGO_PROFILE = "dev";
      cargoExtraArgs = "--locked --package innkeeper-github --features fake --bin innkeeper-fake-github";
      doCheck = false;
      meta = meta // {
        description = "GitHub's API as far as Innkeeper's tests need it, in memory";
        mainProgram = "innkeeper-fake-github";
      };
    }
  );
in
{
  inherit
    debug
    fakeGithub
    manager
    sbom
    ;

  checks = {
    package = manager;
    clippy = craneLib.cargoClippy (withArtifacts {
      src = srcOfTests;
      cargoClippyExtraArgs = "--workspace --all-targets -- --deny warnings";
    });
    fmt = craneLib.cargoFmt { inherit (commonArgs) src pname version; };
    # Tests that need root, namespaces or guests report that they were not run; tests/nixos covers them.
    tests = craneLib.cargoNextest (withArtifacts {
      src = srcOfTests;
      cargoNextestExtraArgs = "--workspace";
    });
    doc-tests = craneLib.cargoDocTest (withArtifacts {
      src = srcOfTests;
    });
    doc = craneLib.cargoDoc (withArtifacts {
      env.RUSTDOCFLAGS = "--deny warnings";
    });
    deny = craneLib.cargoDeny {
      inherit (commonArgs) src pname version;
    };
  };
}
