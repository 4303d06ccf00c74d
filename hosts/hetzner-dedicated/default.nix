# An example: a dedicated server with two NVMe disks, static addresses, previews behind a Cloudflare certificate.
# The addresses are those of documentation (RFC 5737, RFC 3849).
{
  imports = [
    ../../initial-install/configuration.nix
    (import ../../initial-install/two-disks.nix {
      first = "/dev/nvme0n1";
      second = "/dev/nvme1n1";
    })
  ];

  nixpkgs.hostPlatform = "x86_64-linux";
  networking.hostName = "inn-1";
  networking.nftables.enable = true;
  hardware.cpu.amd.updateMicrocode = true;
  users.users.root.openssh.authorizedKeys.keys = [
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExampleExampleExampleExampleExampleExampleExam operator"
  ];

  services.innkeeper = {
    enable = true;
    users = [ ];
    settings = {
      nix.flake = "/etc/nixos#agent";
      network.nameservers = [
        "9.9.9.9"
        "1.1.1.1"
      ];
      guest = {
        memory = "8G";
        cpus = "4";
      };
      ssh.authorized_keys = [
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExampleExampleExampleExampleExampleExampleExam operator"
      ];
    };
    network = {
      externalInterface = "enp3s0";
      addresses = [
        "203.0.113.10/26"
        "2001:db8:10::2/64"
      ];
      gateways = [
        "203.0.113.1"
        "fe80::1"
      ];
      nameservers = [
        "9.9.9.9"
        "2620:fe::fe"
      ];
    };
    secrets.agentCredentials.oauth_token = "/var/secrets/claude/oauth_token";
    # GitHub's token is in /var/secrets/preview.env.
    previews = {
      enable = true;
      domain = "preview.example.org";
    };
    caddy.certificate.files = { };
    webhook = {
      secretFile = "/var/secrets/webhook-secret";
      allowedRepos = [ "octo/web" ];
    };
  };
}
