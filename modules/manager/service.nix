# The unit of the daemon, with the least rights that its work needs.
#
# Guests are units of their own in innkeeper.slice, made over D-Bus, so nothing that happens to this unit
# happens to them: a switch may restart it.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.innkeeper;

  # Of what guests run from, and of what previews were evaluated to.
  gcroots = [
    "/nix/var/nix/gcroots/innkeeper"
    "/nix/var/nix/gcroots/innkeeper-evaluations"
  ];
in
{
  config = lib.mkIf cfg.enable {
    systemd.slices.innkeeper.description = "Innkeeper's guests";

    # Where Nix's garbage collector looks for what guests run from.
    systemd.tmpfiles.settings."10-innkeeper" = lib.genAttrs gcroots (_: {
      d = {
        user = "root";
        group = "root";
        mode = "0755";
      };
    });

    # Evaluates what pull requests bring; owns nothing.
    users.users.innkeeper-eval = {
      isSystemUser = true;
      group = "innkeeper-eval";
      description = "Evaluation of previews";
    };
    users.groups.innkeeper-eval = { };

    systemd.services.innkeeper = {
      description = "Innkeeper";
      # What people look for who know the program's name.
      aliases = [ "innkeeperd.service" ];
      documentation = [ "man:innkeeper(1)" ];
      wantedBy = [ "multi-user.target" ];
      wants = [ "network-online.target" ];
      after = [
        # When the host goes down, what is under way may still ask systemd, which has the answer that it goes down.
        "dbus.service"
        "dbus.socket"
        "network-online.target"
        "nix-daemon.socket"
        "systemd-machined.service"
      ];
      # What keeps it from starting, such as a full disk, may pass.
      startLimitIntervalSec = 0;
      unitConfig.RequiresMountsFor = [ cfg.settings.state_dir ];
      restartTriggers = [ config.environment.etc."innkeeper/config.toml".source ];
      # One short gap instead of a stop before the switch and a start after it.
      stopIfChanged = false;

      path = [
        pkgs.git # Nix fetches flakes with it.
        pkgs.nftables
        pkgs.systemd
        pkgs.util-linux # nsenter, setpriv, setsid for `agent exec`; the sandbox of evaluations.
      ];
      environment = {
        # Builds go through the Nix daemon: this unit may not write to the store.
        NIX_REMOTE = "daemon";
        XDG_CACHE_HOME = "%C/innkeeper";
      };

      serviceConfig = {
        Type = "notify";
        ExecStart = "${lib.getExe' cfg.package "innkeeperd"} --config /etc/innkeeper/config.toml";
        Restart = "on-failure";
        RestartSec = 2;
        # The daemon reports half as often as long as its database answers.
        WatchdogSec = 60;
        # Only what the daemon itself started (nix, nsenter) is in its cgroup; guests are not.
        KillMode = "mixed";
        # It gives operations under way 20 seconds; what is not done by then goes on at the next start.
        TimeoutStopSec = 45;
        OOMScoreAdjust = -500;

        # The second one says what each daemon of this host has for itself.
        StateDirectory = "innkeeper innkeeper-daemons";
        StateDirectoryMode = "0700";
        CacheDirectory = "innkeeper";
        CacheDirectoryMode = "0700";
        RuntimeDirectory = "innkeeper";
        RuntimeDirectoryMode = "0755";
        # Guests at their door wait on a socket in there while the daemon restarts.
        RuntimeDirectoryPreserve = true;
        ReadWritePaths = gcroots;

        # A guest's files, processes and namespaces belong to other users, so root alone is not enough.
        CapabilityBoundingSet = [
          "CAP_NET_ADMIN" # interfaces, addresses, routes, nftables
          "CAP_SYS_ADMIN" # entering a guest's namespaces
          "CAP_SYS_CHROOT" # the same, for the mount namespace
          "CAP_SYS_PTRACE" # reading /proc/<pid>/ns and exe of a guest's processes
          "CAP_KILL" # ending what `agent exec` started
          "CAP_CHOWN" # files for a guest's users, the API's socket for the group
          "CAP_FOWNER"
          "CAP_FSETID"
          "CAP_DAC_OVERRIDE"
          "CAP_SETUID" # `agent exec --user`, evaluations of previews
          "CAP_SETGID"
          "CAP_SETFCAP" # what files of guests may do, in copies of them
          "CAP_SETPCAP" # taking all capabilities from whoever evaluates a preview, for good
        ];

        ProtectSystem = "strict";
        ProtectHome = "read-only";
        PrivateTmp = true;
        PrivateDevices = false; # A terminal for `agent exec` is one of the guest's own pts.
        ProtectClock = true;
        # Forwarding is switched on by systemd-sysctl, so the daemon has nothing to write there.
        ProtectKernelTunables = true;
        PrivateMounts = true;
        ProtectKernelLogs = true;
        ProtectKernelModules = true;
        RemoveIPC = true;
        # Guests' own files are made with modes that a narrower mask would cut; the state directory is closed anyway.
        UMask = "0022";
        KeyringMode = "private";
        NotifyAccess = "main";
        DevicePolicy = "closed";

        # Not set, because what restricts system calls is inherited by what `agent exec` runs inside a guest, where sudo,
        # a JIT compiler and a container engine must work: SystemCallFilter, NoNewPrivileges,
        # MemoryDenyWriteExecute, RestrictAddressFamilies, RestrictNamespaces, RestrictRealtime, RestrictSUIDSGID,
        # LockPersonality, SystemCallArchitectures, ProtectHostname. (The filters that come with ProtectClock,
        # ProtectKernelLogs and ProtectKernelModules forbid what no guest may do anyway.) ProtectControlGroups would
        # keep `agent exec` from entering the guest's cgroup. `systemd-analyze security` counts all of them:
        # 7.1 with systemd 252 and 257; tests/nix/run and tests/nixos/agents.nix hold the figure that it must not exceed.
      };
    };
  };
}
