{
  description = "Our Innkeeper hosts";

  # Where Innkeeper's repository is: your fork of it, or "git+file:///home/you/innkeeper" on each machine that builds.
  inputs.innkeeper.url = "github:REPLACE/innkeeper";

  outputs =
    inputs@{ innkeeper, ... }:
    let
      inherit (innkeeper.inputs) nixpkgs disko;
    in
    {
      nixosConfigurations = {
        # nixos-rebuild switch --flake .#inn
        inn = nixpkgs.lib.nixosSystem {
          specialArgs = { inherit inputs; };
          modules = [
            innkeeper.nixosModules.default
            disko.nixosModules.disko
            ./host.nix
          ];
        };
        # The guest that `agent create` boots: services.innkeeper.settings.nix.flake in host.nix.
        agent = innkeeper.lib.mkGuest {
          system = "x86_64-linux";
          modules = [ innkeeper.nixosModules.guest-agent ];
        };
      };
    };
}
