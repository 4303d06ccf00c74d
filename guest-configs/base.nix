# The base of every guest: a NixOS container that leaves its network, its name and its keys to the daemon, and starts as few
# units of its own as possible.
{
  config,
  lib,
  options,
  ...
}:
{
  key = "innkeeper-guest-base";
  imports = [
    ./nix.nix
    ./preview-meta.nix
  ];

  config = {
    boot = lib.mkMerge [
      (
        # NixOS 26.05 distinguishes containers of systemd-nspawn from others.
        if options.boot ? isNspawnContainer then
          { isNspawnContainer = lib.mkDefault true; }
        else
          {
            isContainer = lib.mkDefault true;
            # Before 26.05, containers mount /proc, /dev and /run at each boot. nspawn has mounted them, and the guest's user
            # namespace cannot mount them again.
            specialFileSystems = lib.mkForce { };
          }
      )
      {
        # NixOS lets groups up to 2147483647 send ICMP echo requests. The guest's user namespace has 65536 ids, so the
        # kernel refuses that range and systemd-sysctl fails.
        kernel.sysctl."net.ipv4.ping_group_range" = "0 65535";
        # Requests kernel modules, which a guest may not load.
        enableContainers = lib.mkDefault false;
      }
    ];

    networking = {
      # The daemon configures eth0 before init runs, and sets the host name.
      useDHCP = false;
      dhcpcd.enable = false;
      hostName = lib.mkDefault "";
      # The daemon writes /etc/resolv.conf, with resolvers that the guest can reach.
      useHostResolvConf = lib.mkForce false;
      resolvconf.enable = lib.mkDefault false;
      # The host's rules filter the guest's traffic: only the host itself can connect to it.
      firewall.enable = lib.mkDefault false;
    };
    services.resolved.enable = lib.mkDefault false;

    # The daemon generates the host key and trusts it, so that `agent ssh` shows no prompt.
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

    # Bounded, because the guest's disk is the host's.
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
    # For machines: the host's memory is in a guest's /proc, and the host stops a guest.
    systemd.oomd.enable = lib.mkDefault false;
    systemd.shutdownRamfs.enable = lib.mkDefault false;
    services.udisks2.enable = lib.mkDefault false;
    services.logrotate.enable = lib.mkDefault false;
    # A guest has no Nix daemon, unless it asks for one of its own: nix.nix.
    nix.enable = lib.mkDefault false;

    system.stateVersion = lib.mkDefault config.system.nixos.release;
  };
}
