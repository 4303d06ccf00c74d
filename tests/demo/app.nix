# `nix run INNKEEPER#demo`: tests/demo/run with guests of NixOS. It takes nothing from the machine but its kernel and its
# Nix daemon: PATH has the programs of tests/demo/programs, and the closures of the guests are built with the demo.
{
  lib,
  pkgs,
  # This flake, and its nixpkgs.
  self,
  nixpkgs,
  # The programs, and the one that stands in for GitHub.
  manager,
  fakeGithub,
  # The closure of the agents, and the flake's output that has it.
  guest,
  guestOutput,
}:
let
  root = ../..;
  inherit (pkgs.stdenv.hostPlatform) system;

  words = line: builtins.filter (word: word != "") (lib.splitString " " line);
  lines = builtins.filter (line: line != "" && !lib.hasPrefix "#" line) (
    lib.splitString "\n" (builtins.readFile ./programs)
  );
  programs = lib.concatMap (
    line:
    map (name: {
      inherit name;
      package = pkgs.${builtins.head (words line)};
    }) (builtins.tail (words line))
  ) lines;
  path = pkgs.runCommand "innkeeper-demo-programs" { } ''
    mkdir -p $out/bin
    ${lib.concatMapStrings (
      { name, package }:
      ''
        test -x ${lib.getExe' package name}
        ln -s ${lib.getExe' package name} $out/bin/${name}
      ''
    ) programs}
  '';

  ours = pkgs.symlinkJoin {
    name = "innkeeper-demo-binaries";
    paths = [
      manager
      fakeGithub
    ];
  };

  files = lib.fileset.toSource {
    inherit root;
    fileset = lib.fileset.unions [
      ./github
      ./run
      ../fixtures/preview-app
      (root + "/crates/innkeeper-github/tests/payloads")
    ];
  };

  preview = import ../nixos/shared/composed.nix {
    inherit nixpkgs system;
    configuration = ../fixtures/preview-app/preview-config.nix;
  };
in
pkgs.writeTextFile {
  name = "innkeeper-demo";
  executable = true;
  destination = "/bin/innkeeper-demo";
  text = ''
    #!${pkgs.runtimeShell}
    # Built beforehand: ${guest} ${preview}
    export DEMO_PATH=${path}/bin
    export BIN=${ours}/bin
    export DEMO_COMMAND="$0" DEMO_PROGRAM="$0"
    export DEMO_GUEST=path:${self}#${guestOutput}
    export DEMO_NIXPKGS=${nixpkgs} DEMO_BASE_MODULE=${../../guest-configs}/base.nix
    # The machine's own: its sandbox, and caches for whatever is not built yet.
    export DEMO_NIX_OPTIONS=
    export DEMO_SECONDS=600
    # Of the machine's own Nix.
    unset NIX_PATH
    exec ${path}/bin/bash ${files}/tests/demo/run "$@"
  '';
  passthru.programs = path;
  meta = {
    description = "Shows agents and a preview come and go, on this machine";
    mainProgram = "innkeeper-demo";
    license = lib.licenses.mit;
    platforms = lib.platforms.linux;
  };
}
