# A Nix of the guest's own over the host's store, off by default: docs/guests.md.
#
#   innkeeper.guest.nix.enable = true;
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.innkeeper.guest.nix;
  # Mounted read-only by the host, for guests with the file /etc/innkeeper/nix in their closure.
  lower = "/run/host/innkeeper/store";
  lowerState = "/run/host/innkeeper/nix";
  # Part of the guest's own files.
  layer = "/nix/.guest";

  encode = builtins.replaceStrings [ ":" "/" "?" "&" "=" ] [ "%3A" "%2F" "%3F" "%26" "%3D" ];
  remount = pkgs.writeShellScript "remount-store" ''
    exec ${lib.getExe' pkgs.util-linux "mount"} -o remount "$1"
  '';
  parameters = {
    lower-store = "local://?real=${lower}&state=${lowerState}&read-only=true";
    upper-layer = "${layer}/upper";
    # After a garbage collection in the guest deleted a path that the host has meanwhile.
    remount-hook = remount;
  };
  store =
    "local-overlay://?"
    + lib.concatStringsSep "&" (
      lib.mapAttrsToList (name: value: "${name}=${encode "${value}"}") parameters
    );

  # Overlay's marks of deleted paths would hide paths that the host offers by now. A second mount, after a restart of the unit
  # or with a system of the guest's own, would add a second layer.
  mountStore = pkgs.writeShellScript "mount-guest-store" ''
    set -e
    if ! ${lib.getExe' pkgs.util-linux "findmnt"} --types overlay --mountpoint /nix/store > /dev/null; then
      ${lib.getExe' pkgs.coreutils "mkdir"} -p ${layer}/upper ${layer}/work
      ${lib.getExe' pkgs.findutils "find"} ${layer}/upper -maxdepth 1 -type c -delete
      ${lib.getExe' pkgs.util-linux "mount"} -t overlay overlay /nix/store \
        -o lowerdir=${lower},upperdir=${layer}/upper,workdir=${layer}/work,userxattr
    fi
  '';
  # Process 1, in place of this system's init, when the guest boots a system of its own: the argument. The system's paths are in
  # the guest's layer.
  bootOwn = pkgs.writeShellScript "boot-own" ''
    set -e
    ${mountStore}
    exec "$1/init"
  '';

  version = lib.getVersion config.nix.package;
in
{
  options.innkeeper.guest.nix.enable = lib.mkEnableOption ''
    Nix in the guest: a daemon of its own over the host's read-only store, which it shares without copying. What the guest builds
    is part of its own files'';

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = version == "" || lib.versionAtLeast version "2.26";
        message = "innkeeper.guest.nix needs Nix 2.26 or newer, and nix.package is ${version}. Set nix.package = pkgs.nixVersions.latest.";
      }
    ];

    nix = {
      enable = true;
      settings = {
        experimental-features = [
          "nix-command"
          "flakes"
          "local-overlay-store"
          "read-only-local-store"
        ];
        # For root too, whose Nix would otherwise use the upper layer alone.
        store = "daemon";
        # For `nixos-rebuild --target-host`, which copies paths without signatures. These users may use sudo anyway.
        trusted-users = [
          "root"
          "@wheel"
        ];
      };
    };
    programs.direnv.enable = lib.mkDefault true;

    environment.etc = {
      # The settings of the daemon alone. The file is also the request to the host.
      "innkeeper/nix".text = ''
        store = ${store}
      '';
      # The host looks for it here.
      "innkeeper/boot-own".source = bootOwn;
    };
    systemd.services = {
      nix-daemon = {
        requires = [ "innkeeper-nix-store.service" ];
        after = [ "innkeeper-nix-store.service" ];
        environment.NIX_USER_CONF_FILES = "/etc/innkeeper/nix";
      };
      innkeeper-nix-store = {
        description = "Writable layer over the host's Nix store";
        wantedBy = [ "sysinit.target" ];
        before = [
          "sysinit.target"
          "nix-daemon.socket"
          "nix-daemon.service"
        ];
        unitConfig = {
          DefaultDependencies = false;
          # From a host without this feature.
          AssertPathExists = "${lowerState}/db/db.sqlite";
        };
        serviceConfig = {
          Type = "oneshot";
          RemainAfterExit = true;
        };
        script = "${mountStore}";
      };
    };
  };
}
