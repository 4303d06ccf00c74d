# The scenarios in virtual machines: each file here is a test with the file's name.
{
  self,
  pkgs,
  lib,
}:
let
  files = lib.filterAttrs (
    name: type: type == "regular" && lib.hasSuffix ".nix" name && name != "default.nix"
  ) (builtins.readDir ./.);

  # A guest that answers on port 8080, built beforehand: the machines have no network to build with.
  guest = self.lib.mkGuest {
    inherit (pkgs.stdenv.hostPlatform) system;
    modules = [
      (
        { pkgs, ... }:
        {
          environment.systemPackages = [
            pkgs.curl
            pkgs.dnsutils
          ];
          systemd.services.web = {
            wantedBy = [ "multi-user.target" ];
            serviceConfig.ExecStart = "${lib.getExe pkgs.python3} -m http.server 8080 --directory /etc";
          };
        }
      )
    ];
  };
  closure = guest.config.system.build.toplevel;

  # A host of ours, with the guest's closure in its store.
  host = {
    environment.systemPackages = [
      pkgs.curl
      pkgs.jq
    ];
    imports = [ self.nixosModules.default ];
    services.innkeeper.enable = true;
    system.extraDependencies = [ closure ];
    virtualisation = {
      cores = 2;
      memorySize = 2048;
      writableStore = true;
    };
  };

  # What each script starts with.
  prelude = ''
    CLOSURE = "${closure}"


    def create(machine, name):
        machine.succeed(f"agent create {name} --closure {CLOSURE} --wait --wait-port 8080")


    def address(machine, name):
        return machine.succeed(
            f"agent list --json | jq --raw-output '.[] | select(.name == \"{name}\") | .guest_address'"
        ).strip()

  '';
in
lib.mapAttrs' (
  file: _:
  lib.nameValuePair (lib.removeSuffix ".nix" file) (
    pkgs.testers.runNixOSTest {
      name = "innkeeper-${lib.removeSuffix ".nix" file}";
      globalTimeout = 1800;
      imports = [ (import (./. + "/${file}") { inherit host prelude pkgs; }) ];
    }
  )
) files
