# Declared agents: a unit applies them at each boot, and at each switch that changes them.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  cfg = config.services.innkeeper;

  agent = types.submodule {
    options = {
      flake = mkOption {
        type = types.nullOr types.str;
        default = null;
        example = "github:octo/fleet#web";
        description = ''
          The flake output that the agent boots from, as with `agent create --flake`. It is built by the daemon, again at
          each boot, and at each switch that changes a declaration. Without it and {option}`closure`, the daemon's default flake.
        '';
      };
      closure = mkOption {
        type = types.nullOr types.path;
        default = null;
        example = lib.literalExpression "self.nixosConfigurations.web.config.system.build.toplevel";
        description = "The system that the agent boots from, built together with the host. Excludes {option}`flake`.";
      };
      memory = mkOption {
        type = types.nullOr types.str;
        default = null;
        example = "4G";
        description = "The memory limit. Without it, a new agent has the daemon's default.";
      };
      cpus = mkOption {
        type = types.nullOr types.str;
        default = null;
        example = "2";
        description = "The processor limit. Without it, a new agent has the daemon's default.";
      };
      tasks = mkOption {
        type = types.nullOr types.ints.positive;
        default = null;
        example = 4096;
        description = "The limit of processes and threads. Without it, a new agent has the daemon's default.";
      };
    };
  };

  declaration = pkgs.writeText "innkeeper-agents.json" (
    builtins.toJSON {
      agents = builtins.mapAttrs (_: lib.filterAttrs (_: value: value != null)) cfg.agents;
      removeUndeclared = cfg.removeUndeclaredAgents;
    }
  );
in
{
  options.services.innkeeper = {
    agents = mkOption {
      type = types.attrsOf agent;
      default = { };
      example = lib.literalExpression ''{ web = { flake = "/etc/nixos#agent"; memory = "4G"; }; }'';
      description = ''
        Agents by name, created and changed by the host's switch. A running agent switches to another closure in place
        where it can, and gets its former closure back if it does not come up (`agent set`). The unit
        {file}`innkeeper-agents.service` reports what failed. An agent of the same name that was created by hand is not
        changed: `innkeeper apply --adopt` takes it over.
      '';
    };

    removeUndeclaredAgents = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Whether to destroy agents that were declared in {option}`services.innkeeper.agents` before and are not any more.
        Their files are retained for a while, as with `agent destroy`. Agents that were created by hand are never
        removed.
      '';
    };
  };

  config = lib.mkIf (cfg.enable && (cfg.agents != { } || cfg.removeUndeclaredAgents)) {
    # For `innkeeper switch-preview`.
    environment.etc."innkeeper/agents.json".source = declaration;

    systemd.services.innkeeper-agents = {
      description = "Innkeeper's declared agents";
      documentation = [ "man:innkeeper-apply(1)" ];
      wantedBy = [ "multi-user.target" ];
      wants = [ "innkeeper.service" ];
      after = [ "innkeeper.service" ];

      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        ExecStart = "${lib.getExe' cfg.package "innkeeper"} apply ${declaration}";
        # Builds take their time.
        TimeoutStartSec = "infinity";

        # It needs the daemon's socket, as root: only root may declare agents.
        CapabilityBoundingSet = "";
        LockPersonality = true;
        MemoryDenyWriteExecute = true;
        NoNewPrivileges = true;
        PrivateDevices = true;
        PrivateNetwork = true;
        PrivateTmp = true;
        ProtectClock = true;
        ProtectControlGroups = true;
        ProtectHome = true;
        ProtectHostname = true;
        ProtectKernelLogs = true;
        ProtectKernelModules = true;
        ProtectKernelTunables = true;
        ProtectProc = "invisible";
        ProtectSystem = "strict";
        RestrictAddressFamilies = [ "AF_UNIX" ];
        RestrictNamespaces = true;
        RestrictRealtime = true;
        RestrictSUIDSGID = true;
        SystemCallArchitectures = "native";
        SystemCallFilter = [
          "@system-service"
          "~@privileged"
          "~@resources"
        ];
        UMask = "0077";
      };
    };
  };
}
