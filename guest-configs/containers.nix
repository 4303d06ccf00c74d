# Containers in an agent, off by default: rootless podman with user ids of its own.
#
#   innkeeper.guest.containers.enable = true;
#
# The agent must be created with `--nesting`, which gives it the user ids and the system calls that containers need.
{
  config,
  lib,
  ...
}:
let
  cfg = config.innkeeper.guest.containers;
  # The ids of the guest itself. Those above them are for its containers.
  first = 65536;
  count = cfg.userIds - first;
in
{
  options.innkeeper.guest.containers = {
    enable = lib.mkEnableOption "rootless podman for the user `agent`. The agent must be created with `agent create --nesting`";
    userIds = lib.mkOption {
      type = lib.types.enum [
        131072
        262144
        524288
        1048576
      ];
      default = 131072;
      description = ''
        The number of user ids of the agent: that of `agent create --user-ids`, or the default of `--nesting`. The ids from 65536
        on are the sub-ids of the user `agent`.
      '';
    };
  };

  config = lib.mkIf cfg.enable {
    virtualisation.podman.enable = true;
    # Commands of `agent exec` have no session, and so no systemd of the user that could create cgroups.
    virtualisation.containers.containersConf.settings.engine.cgroup_manager = lib.mkDefault "cgroupfs";
    users.users.agent = {
      subUidRanges = [
        {
          startUid = first;
          inherit count;
        }
      ];
      subGidRanges = [
        {
          startGid = first;
          inherit count;
        }
      ];
    };
  };
}
