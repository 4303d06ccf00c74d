# An example: a small cloud VM with DHCP, and a certificate from Let's Encrypt. Its previews bring databases of their own.
{
  imports = [
    ../../initial-install/configuration.nix
    (import ../../initial-install/cloud.nix { device = "/dev/sda"; })
  ];

  nixpkgs.hostPlatform = "aarch64-linux";
  networking.hostName = "inn-small";
  users.users.root.openssh.authorizedKeys.keys = [
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExampleExampleExampleExampleExampleExampleExam operator"
  ];

  services.innkeeper = {
    enable = true;
    settings = {
      nix.flake = "/etc/nixos#agent";
      network.nameservers = [ "9.9.9.9" ];
      guest = {
        memory = "1G";
        cpus = "1";
      };
      previews.limit = 10;
    };
    # GitHub's token is in /var/secrets/preview.env.
    previews = {
      enable = true;
      domain = "preview.example.org";
      databases = false;
    };
    caddy.certificate.acme = {
      email = "ops@example.org";
      dnsProvider = "cloudflare";
      environmentFile = "/var/secrets/acme.env";
    };
    webhook = {
      secretFile = "/var/secrets/webhook-secret";
      allowedRepos = [ "octo/web" ];
    };
    tailscale = {
      enable = true;
      authKeyFile = "/var/secrets/tailscale";
      tags = [ "tag:innkeeper" ];
    };
  };
}
