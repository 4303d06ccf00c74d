# The units of modules/ as they are without the rest of NixOS, for tests/nix/debian-units: section, key, value. The paths
# are those of Debian, so that nothing has to be left out of the comparison.
#
# The modules use few functions of nixpkgs for their units, and those are defined here.
let
  lib = {
    mkIf = condition: content: if condition then content else { };
    mkDefault = content: content;
    mkOverride = _priority: content: content;
    genAttrs =
      names: f:
      builtins.listToAttrs (
        map (name: {
          inherit name;
          value = f name;
        }) names
      );
    getExe' = package: name: "${package}/bin/${name}";
    defaultTo = default: value: if value == null then default else value;
    concatStringsSep = builtins.concatStringsSep;
    hasInfix = _: _: false;
    hasPrefix = _: _: false;
    optional = condition: value: if condition then [ value ] else [ ];
    optionalAttrs = condition: set: if condition then set else { };
    filterAttrs = _: set: set;
    # Texts of options, which are not used here.
    literalExpression = null;
    mkOption = null;
    types = null;
  };
  pkgs = {
    coreutils = "";
    git = "git";
    nftables = "nftables";
    systemd = "systemd";
    util-linux = "util-linux";
    writeText = _: _: "/etc/innkeeper/agents.json";
  };
  config = {
    environment.etc."innkeeper/config.toml".source = "";
    nix.enable = true;
    services.caddy.group = "caddy";
    services.innkeeper = {
      enable = true;
      users = [ ];
      agents.web = { };
      removeUndeclaredAgents = false;
      package = "/usr/local";
      settings = {
        state_dir = "/var/lib/innkeeper";
        runtime_dir = "/run/innkeeper";
        api.group = "innkeeper";
        webhook = { };
        gateway = { };
      };
      webhook = {
        enable = true;
        listen = "127.0.0.1:3100";
        # In /etc/credstore.
        secretFile = "innkeeper.webhook-secret";
        previousSecretFile = "innkeeper.webhook-secret-previous";
        environmentFile = null;
        allowedRepos = null;
      };
      gateway = {
        enable = true;
        host = "";
        metricsListen = "127.0.0.1:3301";
        tokensFile = null;
        sandboxPreviewKeyFile = null;
        relayProviders = [ ];
      };
      pages.enable = true;
      previews = {
        enable = true;
        secretsDirectory = "/var/secrets/previews";
        environmentFile = "/var/secrets/preview.env";
      };
      dns.enable = true;
      backup = {
        enable = true;
        directory = "/var/lib/innkeeper-backup";
        schedule = "daily";
        withClosures = false;
        extraPaths = [ ];
        restic = null;
        borg = null;
      };
      prefetch = {
        enable = true;
        schedule = "hourly";
      };
      builds.allowedNetworks = [ ];
      caddy = {
        enable = true;
        importDirectory = "/etc/caddy/previews";
      };
    };
  };
  load = file: (import file { inherit config lib pkgs; }).config;
  manager = load ../../modules/manager/default.nix;
  daemon = load ../../modules/manager/service.nix;
  agents = load ../../modules/manager/agents.nix;
  webhook = load ../../modules/webhook.nix;
  gateway = load ../../modules/gateway.nix;
  pages = load ../../modules/pages.nix;
  previews = load ../../modules/previews.nix;
  dns = load ../../modules/dns.nix;
  caddy = load ../../modules/caddy.nix;
  builds = load ../../modules/builds.nix;
  backup = load ../../modules/backup.nix;
  prefetch = load ../../modules/prefetch.nix;

  service = unit: {
    Unit = {
      Description = unit.description;
      Documentation = unit.documentation or [ ];
      Wants = unit.wants or [ ];
      Requires = unit.requires or [ ];
      After = unit.after;
      Before = unit.before or [ ];
      StartLimitIntervalSec = unit.startLimitIntervalSec or [ ];
    }
    // unit.unitConfig or { };
    Service = unit.serviceConfig // {
      Environment = map (name: "${name}=${unit.environment.${name}}") (
        builtins.attrNames (unit.environment or { })
      );
    };
    Install = {
      WantedBy = unit.wantedBy or [ ];
      Alias = unit.aliases or [ ];
    };
  };
  innkeeper = service daemon.systemd.services.innkeeper;

  users =
    module:
    map (name: "u ${name} - \"${module.users.users.${name}.description}\"") (
      builtins.attrNames module.users.users
    );
in
{
  units = {
    "innkeeper.service" = innkeeper // {
      Service = innkeeper.Service // {
        ReadWritePaths =
          innkeeper.Service.ReadWritePaths
          ++ pages.systemd.services.innkeeper.serviceConfig.ReadWritePaths
          ++ previews.systemd.services.innkeeper.serviceConfig.ReadWritePaths
          ++ caddy.systemd.services.innkeeper.serviceConfig.ReadWritePaths;
      };
    };
    "nix-daemon.conf".Service = builds.systemd.services.nix-daemon.serviceConfig;
    "innkeeper.slice".Unit.Description = daemon.systemd.slices.innkeeper.description;
    "innkeeper-webhook.service" = service webhook.systemd.services.innkeeper-webhook;
    "innkeeper-dns.service" = service dns.systemd.services.innkeeper-dns;
    "innkeeper-gateway.service" = service gateway.systemd.services.innkeeper-gateway;
    "innkeeper-gateway.socket" = {
      Unit.Description = gateway.systemd.sockets.innkeeper-gateway.description;
      Socket = gateway.systemd.sockets.innkeeper-gateway.socketConfig // {
        ListenStream = gateway.systemd.sockets.innkeeper-gateway.listenStreams;
      };
      Install.WantedBy = gateway.systemd.sockets.innkeeper-gateway.wantedBy;
    };
    "innkeeper-pages.service" = service pages.systemd.services.innkeeper-pages;
    "innkeeper-pages.socket" = {
      Unit.Description = pages.systemd.sockets.innkeeper-pages.description;
      Socket = pages.systemd.sockets.innkeeper-pages.socketConfig // {
        ListenStream = pages.systemd.sockets.innkeeper-pages.listenStreams;
      };
      Install.WantedBy = pages.systemd.sockets.innkeeper-pages.wantedBy;
    };
    "innkeeper-agents.service" = service agents.systemd.services.innkeeper-agents;
    "innkeeper-backup.service" = service backup.systemd.services.innkeeper-backup;
    "innkeeper-backup.timer" = {
      Unit.Description = backup.systemd.timers.innkeeper-backup.description;
      Timer = backup.systemd.timers.innkeeper-backup.timerConfig;
      Install.WantedBy = backup.systemd.timers.innkeeper-backup.wantedBy;
    };
    "innkeeper-prefetch.service" = service prefetch.systemd.services.innkeeper-prefetch;
    "innkeeper-prefetch.timer" = {
      Unit.Description = prefetch.systemd.timers.innkeeper-prefetch.description;
      Timer = prefetch.systemd.timers.innkeeper-prefetch.timerConfig;
      Install.WantedBy = prefetch.systemd.timers.innkeeper-prefetch.wantedBy;
    };
    "innkeeper-webhook.socket" = {
      Unit.Description = webhook.systemd.sockets.innkeeper-webhook.description;
      Socket.ListenStream = webhook.systemd.sockets.innkeeper-webhook.listenStreams;
      Install.WantedBy = webhook.systemd.sockets.innkeeper-webhook.wantedBy;
    };
  };
  # The lines of the files beside them.
  files = {
    "modules-load.conf" = manager.boot.kernelModules;
    "sysctl.conf" = map (
      name:
      let
        value = manager.boot.kernel.sysctl.${name};
      in
      # On Debian, a kernel that lacks a limit is no failure; NixOS sets each by itself.
      if builtins.isBool value then
        "${name} = ${if value then "1" else "0"}"
      else
        "-${name} = ${toString value}"
    ) (builtins.attrNames manager.boot.kernel.sysctl);
    "tmpfiles.conf" =
      let
        folders =
          daemon.systemd.tmpfiles.settings."10-innkeeper"
          // pages.systemd.tmpfiles.settings."10-innkeeper-pages"
          // {
            inherit (previews.systemd.tmpfiles.settings."10-innkeeper-previews") "/var/secrets/previews";
          };
      in
      map (
        path:
        let
          inherit (folders.${path}) d;
        in
        "d ${path} ${d.mode} ${d.user} ${d.group} -"
      ) (builtins.attrNames folders);
    "sysusers.conf" =
      map (name: "g ${name} -") (builtins.attrNames manager.users.groups)
      ++ users daemon
      ++ users dns
      ++ users gateway
      ++ users pages
      ++ users webhook;
  };
}
