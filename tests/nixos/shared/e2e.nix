# A scenario of tests/e2e in a virtual machine with NixOS. The script is the same text that tests/vm runs on Debian, and
# the host has what those scripts count on.
{
  pkgs,
  lib,
  host,
  closure,
  debug,
}:
file:
let
  scenario = builtins.readFile file;
  # The header's last line says what the scenario needs.
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
    imports = [ host ] ++ lib.optional (builtins.elem "device-mapper" needs) thin;
    services.innkeeper = {
      package = lib.mkIf (builtins.elem "debug-build" needs) (lib.mkForce debug);
      settings = settings // {
        nix = {
          inherit (settings.nix) flake;
          options.substituters = "";
        };
      };
    };
    systemd.tmpfiles.settings.guests = {
      "/opt/innkeeper".d.mode = "0755";
      "/opt/innkeeper/guests".C.argument = "${guests}";
    };
    environment.systemPackages = [
      pkgs.iproute2
      pkgs.nftables
      pkgs.procps
    ];
  };
  testScript = builtins.readFile ../../e2e/common.py + scenario;
}
