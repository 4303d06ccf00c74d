# What every guest is: a NixOS container that leaves its network, its name and its keys to the manager, and has as few
# units as possible before the ones that it is made for.
{
  config,
  lib,
  options,
  ...
}:
{
  key = "innkeeper-guest-base";
  imports = [ ./preview-meta.nix ];

  config = {
    # NixOS 26.05 tells containers of systemd-nspawn apart from others.
    boot =
      if options.boot ? isNspawnContainer then
        { isNspawnContainer = lib.mkDefault true; }
      else
        { isContainer = lib.mkDefault true; };

    networking = {
      # The manager has set up eth0 before init runs, and the host's name comes from it too.
      useDHCP = false;
      dhcpcd.enable = false;
      hostName = lib.mkDefault "";
      # /etc/resolv.conf is written by the manager, with resolvers that the guest can reach.
      useHostResolvConf = lib.mkForce false;
      resolvconf.enable = lib.mkDefault false;
      # The host's rules decide what reaches a guest: nothing from outside, and what the host itself sends.
      firewall.enable = lib.mkDefault false;
    };
    services.resolved.enable = lib.mkDefault false;

    # The manager made the host key and knows it, so that nobody is asked whether to trust it.
    services.openssh = {
      enable = lib.mkDefault true;
      hostKeys = lib.mkDefault [
        {
          type = "ed25519";
          path = "/etc/ssh/ssh_host_ed25519_key";
        }
      ];
      settings = {
        PasswordAuthentication = lib.mkDefault false;
        KbdInteractiveAuthentication = lib.mkDefault false;
        PermitRootLogin = lib.mkDefault "no";
        UseDns = lib.mkDefault false;
      };
    };

    # Bounded by the guest's own settings: its disk is the host's.
    services.journald.extraConfig = ''
      SystemMaxUse=64M
      RuntimeMaxUse=16M
    '';

    documentation.enable = lib.mkDefault false;
    documentation.nixos.enable = lib.mkDefault false;
    programs.command-not-found.enable = lib.mkDefault false;
    environment.defaultPackages = lib.mkDefault [ ];
    fonts.fontconfig.enable = lib.mkDefault false;
    xdg = {
      autostart.enable = lib.mkDefault false;
      icons.enable = lib.mkDefault false;
      mime.enable = lib.mkDefault false;
      sounds.enable = lib.mkDefault false;
    };
    services.udisks2.enable = lib.mkDefault false;
    services.logrotate.enable = lib.mkDefault false;
    # A guest has no Nix daemon: its store is the host's, read-only.
    nix.enable = lib.mkDefault false;

    system.stateVersion = lib.mkDefault config.system.nixos.release;
  };
}
