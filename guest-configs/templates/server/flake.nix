{
  description = "A NixOS server with Innkeeper";

  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";
    # Where Innkeeper's repository is: your fork of it, or "git+file:///home/you/innkeeper".
    innkeeper.url = "github:REPLACE/innkeeper";
    # One nixpkgs for the host and its guests, which share the store.
    innkeeper.inputs.nixpkgs.follows = "nixpkgs";
  };

  outputs =
    { nixpkgs, innkeeper, ... }:
    {
      nixosConfigurations = {
        # nixos-rebuild switch --flake /etc/nixos#server
        server = nixpkgs.lib.nixosSystem {
          modules = [
            ./configuration.nix
            innkeeper.nixosModules.default
            {
              services.innkeeper = {
                enable = true;
                # The guest that `agent create` boots.
                settings.nix.flake = "/etc/nixos#agent";
                # Public SSH keys for `agent ssh`.
                settings.ssh.authorized_keys = [ "REPLACE" ];
                settings.network.nameservers = [
                  "9.9.9.9"
                  "1.1.1.1"
                ];
              };
            }
          ];
        };

        agent = innkeeper.lib.mkGuest {
          system = "x86_64-linux";
          modules = [ innkeeper.nixosModules.guest-agent ];
        };
      };
    };
}
