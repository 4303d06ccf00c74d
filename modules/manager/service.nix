# The unit of the daemon, with the least privileges that its work needs.
#
# Guests are units of their own in innkeeper.slice, created over D-Bus, so a restart of this unit does not affect them.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.innkeeper;

  # GC roots of guests' closures, and of previews' evaluations.
  gcroots = [
    "/nix/var/nix/gcroots/innkeeper"
    "/nix/var/nix/gcroots/innkeeper-evaluations"
  ];
in
{
  config = lib.mkIf cfg.enable {
    systemd.slices.innkeeper.description = "Innkeeper's guests";

    # Directories of the GC roots.
    systemd.tmpfiles.settings."10-innkeeper" = lib.genAttrs gcroots (_: {
      d = {
        user = "root";
        group = "root";
        mode = "0755";
      };
    });

    # Evaluates the Nix code of pull requests; owns no files.
    users.users.innkeeper-eval = {
      isSystemUser = true;
      group = "innkeeper-eval";
      description = "Evaluation of previews";
    };
    users.groups.innkeeper-eval = { };

    systemd.services.innkeeper = {
      description = "Innkeeper";
      # For people who know the unit by the program's name.
      aliases = [ "innkeeperd.service" ];
      documentation = [ "man:innkeeper(1)" ];
      wantedBy = [ "multi-user.target" ];
      wants = [ "network-online.target" ];
      after = [
        # During shutdown, operations in flight may still call systemd, which answers that the host is stopping.
        "dbus.service"
        "dbus.socket"
        "network-online.target"
        "nix-daemon.socket"
        "systemd-machined.service"
      ];
      # Retries without end: a cause such as a full disk may pass.
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
        # The daemon reports every 30 s while its database answers.
        WatchdogSec = 60;
        # Only what the daemon itself started (nix, nsenter) is in its cgroup; guests are not.
        KillMode = "mixed";
        # The daemon gives operations in flight 20 seconds; the next start continues the rest.
        TimeoutStopSec = 45;
        OOMScoreAdjust = -500;

        # The second one registers the objects of each daemon on this host; the third one is for backup sets.
        StateDirectory = "innkeeper innkeeper-daemons innkeeper-backup";
        StateDirectoryMode = "0700";
        CacheDirectory = "innkeeper";
        CacheDirectoryMode = "0700";
        RuntimeDirectory = "innkeeper";
        RuntimeDirectoryMode = "0755";
        # Guests at the door wait on a socket in there while the daemon restarts.
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
          "CAP_SETPCAP" # dropping all capabilities of an evaluation permanently
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
