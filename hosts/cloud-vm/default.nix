# An example: a small cloud VM with DHCP, agents only.
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
    };
    tailscale = {
      enable = true;
      authKeyFile = "/var/secrets/tailscale";
      tags = [ "tag:innkeeper" ];
    };
  };
}
