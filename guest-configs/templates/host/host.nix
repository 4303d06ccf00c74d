# One host. Every option: docs/options.md of Innkeeper. Your public SSH key belongs in two places.
{ inputs, ... }:
{
  # The second has what a server needs to boot: drivers, and SSH with keys only.
  imports = [
    ./disks.nix
    "${inputs.innkeeper}/initial-install/configuration.nix"
  ];

  nixpkgs.hostPlatform = "x86_64-linux";
  networking.hostName = "inn";
  system.stateVersion = "26.05";

  users.users.root.openssh.authorizedKeys.keys = [ "REPLACE" ];

  services.innkeeper = {
    enable = true;
    settings.nix.flake = "/etc/nixos#agent";
    settings.ssh.authorized_keys = [ "REPLACE" ];
    settings.network.nameservers = [
      "9.9.9.9"
      "1.1.1.1"
    ];

    # Previews of pull requests, once the secrets are on the host: "The first preview" in docs/install.md of Innkeeper.
    #   previews = {
    #     enable = true;
    #     domain = "preview.example.org";
    #   };
    #   caddy.certificate.files = { };
    #   webhook = {
    #     secretFile = "/var/secrets/webhook-secret";
    #     allowedRepos = [ "octo/web" ];
    #   };
  };
}
