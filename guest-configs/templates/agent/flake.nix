{
  description = "The agent for work on this repository";

  # Where Innkeeper's repository is; the host must be able to fetch it, too.
  inputs.innkeeper.url = "github:REPLACE/innkeeper";

  outputs =
    { innkeeper, ... }:
    {
      # On the host, as root: agent create NAME --flake FOLDER#agent
      nixosConfigurations.agent = innkeeper.lib.mkGuest {
        system = "x86_64-linux";
        modules = [
          innkeeper.nixosModules.guest-agent
          (
            { pkgs, ... }:
            {
              # More programs. Names: https://search.nixos.org/packages
              environment.systemPackages = [ pkgs.sqlite ];
            }
          )
        ];
      };
    };
}
