# A repository of hosts, as `nix flake init` makes it: what its host and its guests come to, as JSON for tests/nix/run.
# Compared for two states of the repository, it shows what a change to the host does to guests.
{ nixpkgs, template }:
let
  lib = import (nixpkgs + "/lib");
  nixosSystem =
    arguments: import (nixpkgs + "/nixos/lib/eval-config.nix") ({ system = null; } // arguments);
  innkeeper = {
    outPath = toString ../..;
    inputs = {
      nixpkgs.lib = lib // {
        inherit nixosSystem;
      };
      # Its options describe the disk layout and define the file systems; this container has none.
      disko.nixosModules.disko =
        { pkgs, ... }:
        {
          options.disko.devices = lib.mkOption { type = lib.types.anything; };
          config = {
            boot.isContainer = true;
            boot.loader.grub.devices = [ "nodev" ];
            fileSystems."/".device = "/dev/vda3";
            services.innkeeper.package = pkgs.hello;
          };
        };
    };
    nixosModules = import ../../modules/list.nix // {
      guest-agent = ../../guest-configs/agent.nix;
    };
    lib.mkGuest = import ../../guest-configs/mk-guest.nix { inherit (innkeeper.inputs) nixpkgs; };
  };
  inherit ((import (template + "/flake.nix")).outputs { inherit innkeeper; }) nixosConfigurations;
  closure = system: system.config.system.build.toplevel.drvPath;
  inherit (nixosConfigurations.inn) config;
in
{
  host = closure nixosConfigurations.inn;
  guests = {
    closures = lib.mapAttrs (_: closure) (removeAttrs nixosConfigurations [ "inn" ]);
    # The daemon creates a guest's unit from these and from the request that created the guest.
    settings = lib.getAttrs [
      "credentials"
      "guest"
      "network"
      "ssh"
      "supervisor"
    ] ({ guest = { }; } // config.services.innkeeper.settings);
    slice = config.systemd.units."innkeeper.slice".text;
    # NixOS knows none of the units themselves, so a switch cannot stop or restart them.
    units = builtins.filter (
      name:
      lib.hasPrefix "innkeeper-guest" name
      || lib.hasPrefix "container@" name && name != "container@.service"
    ) (builtins.attrNames config.systemd.units);
  };
}
