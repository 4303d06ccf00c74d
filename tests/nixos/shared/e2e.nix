# A scenario of tests/e2e in a virtual machine with NixOS. The script is the same text that tests/vm runs on Debian, and
# the host has what those scripts count on.
{
  pkgs,
  lib,
  host,
  closure,
  debug,
  fakeGithub,
}:
file:
let
  scenario = builtins.readFile file;
  # The header's last line lists the scenario's requirements.
  needs =
    let
      line =
        lib.findFirst (lib.hasPrefix "Needs: ")
          (throw "${toString file}: its header has no line `Needs: …`")
          (lib.splitString "\n" scenario);
    in
    lib.splitString ", " (lib.removeSuffix "." (lib.removePrefix "Needs: " line));
  guests = pkgs.runCommand "innkeeper-test-guests" { } ''
    mkdir $out
    cp ${./flake.nix} $out/flake.nix
    echo ${closure} > $out/system-closure
    cp -r ${../../fixtures/guest} $out/fixture
    chmod u+w $out/fixture
    mkdir $out/fixture/bin
    cp ${pkgs.pkgsStatic.busybox}/bin/busybox $out/fixture/bin/busybox
    echo ${pkgs.stdenv.hostPlatform.system} > $out/fixture/system
  '';
  settings = builtins.fromTOML (builtins.readFile ../../vm/config.toml);
  previewSettings = builtins.fromTOML (builtins.readFile ../../vm/previews.toml);
  previewFixtures = pkgs.runCommand "innkeeper-test-previews" { } ''
    mkdir $out
    cp -r ${../../fixtures/nixpkgs-standin} $out/nixpkgs
    cp -r ${../../fixtures/preview-app} $out/app
    chmod u+w $out/nixpkgs
    mkdir $out/nixpkgs/bin
    cp ${pkgs.pkgsStatic.busybox}/bin/busybox $out/nixpkgs/bin/busybox
  '';
  # The counterpart of tests/vm/previews on Debian. The secrets are world-readable because this is a test machine.
  previews = {
    services.innkeeper = {
      previews = {
        enable = true;
        inherit (previewSettings.previews) domain;
        environmentFile = "/etc/secrets/preview.env";
        nixpkgs = {
          path = previewSettings.evaluation.nixpkgs;
          narHash = null;
        };
        baseModule = previewSettings.evaluation.base_module;
      };
      caddy.certificate.internal = true;
      webhook = {
        secretFile = "/etc/secrets/webhook";
        allowedRepos = previewSettings.webhook.allowed_repos;
      };
      settings = { inherit (previewSettings) github; };
    };
    environment.etc = {
      "secrets/preview.env".text = "GITHUB_TOKEN=token-of-a-test";
      "secrets/webhook".text = "secret-of-a-test";
    };
    environment.systemPackages = [
      fakeGithub
      pkgs.git
    ];
    systemd.tmpfiles.settings.previews."/opt/innkeeper/previews".C.argument = "${previewFixtures}";
  };
  # A second disk, and a daemon that keeps guests' files on volumes of its own. The scenario makes the pool.
  thin = {
    virtualisation.emptyDiskImages = [ 4096 ];
    services.innkeeper.storage.guestVolumes = {
      enable = true;
      size = "256M";
    };
  };
in
{
  nodes.machine = {
    imports = [
      host
    ]
    ++ lib.optional (builtins.elem "device-mapper" needs) thin
    ++ lib.optional (builtins.elem "previews" needs) previews;
    services.innkeeper = {
      package = lib.mkIf (builtins.elem "debug-build" needs) (lib.mkForce debug);
      inherit settings;
    };
    systemd.tmpfiles.settings.guests = {
      "/opt/innkeeper".d.mode = "0755";
      "/opt/innkeeper/guests".C.argument = "${guests}";
    };
    environment.systemPackages = [
      pkgs.iproute2
      pkgs.nftables
      pkgs.borgbackup
      pkgs.perl # Answers questions for names.
      pkgs.procps
      pkgs.restic
      # Under this name alone: its programs would be in the way of others.
      (pkgs.writeShellScriptBin "busybox" ''exec ${pkgs.busybox}/bin/busybox "$@"'')
    ];
  };
  testScript = builtins.readFile ../../e2e/common.py + scenario;
}
