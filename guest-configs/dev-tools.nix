# Tools for the development of web apps, off by default: PostgreSQL, Node.js in any version, a browser for tests, an identity for Git.
#
#   innkeeper.guest.devTools.enable = true;
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.innkeeper.guest.devTools;
  # Programs that not every nixpkgs has under this name.
  whereThere = names: lib.concatMap (name: lib.optional (pkgs ? ${name}) pkgs.${name}) names;
  database = "dev";
in
{
  options.innkeeper.guest.devTools.enable =
    lib.mkEnableOption ''
      tools for the development of web apps: PostgreSQL on localhost:5432 with the user, password and database `dev`, the version
      manager fnm for Node.js with npm, yarn and pnpm, Chromium where Playwright finds it, and an identity for Git'';

  config = lib.mkIf cfg.enable {
    services.postgresql = {
      enable = true;
      ensureDatabases = [ database ];
      ensureUsers = [
        {
          name = database;
          ensureDBOwnership = true;
          ensureClauses.createdb = true;
        }
      ];
      # Added to those of the agent, which are forced too.
      authentication = lib.mkForce ''
        host all ${database} 127.0.0.1/32 scram-sha-256
        host all ${database} ::1/128 scram-sha-256
      '';
    };
    systemd.services.innkeeper-dev-database = {
      description = "The password of the database user ${database}";
      wantedBy = [ "multi-user.target" ];
      requires = [ "postgresql.target" ];
      after = [ "postgresql.target" ];
      path = [ config.services.postgresql.package ];
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        User = "postgres";
      };
      script = ''
        psql --quiet --dbname=postgres --command="ALTER ROLE ${database} PASSWORD '${database}'"
      '';
    };
    environment.sessionVariables = {
      DATABASE_URL = "postgresql://${database}:${database}@localhost:5432/${database}";
      PGHOST = "localhost";
      PGPORT = "5432";
      PGUSER = database;
      PGPASSWORD = database;
      PGDATABASE = database;
    };

    # The usual ports of Node.js servers and of Vite, for guests with a firewall of their own.
    networking.firewall.allowedTCPPorts = [
      3000
      5173
    ];

    environment.systemPackages = [
      pkgs.nodejs_22
    ]
    ++ whereThere [
      "fnm"
      "pnpm"
      "yarn"
    ];
    # Versions of Node.js that fnm downloads expect the loader of a usual Linux.
    programs.nix-ld.enable = lib.mkDefault true;
    programs.bash.interactiveShellInit = ''
      if command -v fnm > /dev/null; then eval "$(fnm env --use-on-cd)"; fi
    '';

    # Where Playwright searches for `channel: "chrome"`.
    systemd.tmpfiles.rules = [ "L+ /opt/google/chrome/chrome - - - - ${lib.getExe pkgs.chromium}" ];

    programs.git = {
      enable = true;
      config = {
        init.defaultBranch = "main";
        user.name = "Dev Sandbox";
        user.email = "dev@sandbox.local";
      };
    };
  };
}
