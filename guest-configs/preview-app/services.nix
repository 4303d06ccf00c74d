# The units of a preview's apps: one that sets up a commit, one for each app and worker, a timer for each schedule.
{ lib, pkgs }:
let
  home = "/home/preview";
  folderOf = app: if app.directory == "." then "${home}/app" else "${home}/app/${app.directory}";
  variablesOf =
    app: extra:
    {
      PORT = toString app.port;
    }
    # Interpolation makes files of the repository part of the guest's closure.
    // lib.mapAttrs (_: value: if builtins.isInt value then toString value else "${value}") (
      app.environment // extra
    );
  # In a unit, `%` introduces a specifier.
  inUnit = lib.mapAttrs (_: builtins.replaceStrings [ "%" ] [ "%%" ]);
  tools = [
    pkgs.bash
    pkgs.git
  ];
  common = {
    User = "preview";
    Group = "users";
    # The daemon writes the file. A guest that is tried by hand has none.
    EnvironmentFile = "-/etc/preview.env";
  };

  variables = {
    HOME = home;
    # nix-ld's loader and libraries.
    NIX_LD = "/run/current-system/sw/share/nix-ld/lib/ld.so";
    NIX_LD_LIBRARY_PATH = "/run/current-system/sw/share/nix-ld/lib";
  };

  # A program that runs as long as the guest.
  program = description: app: environment: run: {
    inherit description;
    after = [ "preview-setup.service" ];
    path = tools ++ app.packages;
    environment = variables // inUnit (variablesOf app environment);
    # Restarted for ever: a database or another app may become available later.
    unitConfig.StartLimitIntervalSec = 0;
    serviceConfig = common // {
      WorkingDirectory = folderOf app;
      Restart = "always";
      RestartSec = 2;
    };
    script = run;
  };
  appUnits =
    entry:
    [
      {
        name = entry.unit;
        value = program "The preview's app ${entry.name}" entry.app { } entry.app.run;
      }
    ]
    ++ map (worker: {
      name = worker.unit;
      value =
        program "The worker ${worker.name} of the preview's app ${entry.name}" entry.app
          worker.value.environment
          worker.value.run;
    }) entry.workers
    ++ map (schedule: {
      name = schedule.unit;
      value = scheduled entry schedule;
    }) entry.schedules;

  scheduled =
    { app, name, ... }:
    schedule: {
      description = "The schedule ${schedule.name} of the preview's app ${name}";
      path = tools ++ app.packages;
      environment = variables // inUnit (variablesOf app schedule.value.environment);
      serviceConfig = common // {
        Type = "oneshot";
        WorkingDirectory = folderOf app;
        # Skipped while a commit is being set up: its files are incomplete.
        ExecCondition = "+/run/current-system/sw/bin/systemctl is-active --quiet preview-setup.service";
      };
      script = schedule.value.run;
    };

  # The commands of one app in a subshell, so that its folder and its variables do not affect the next app.
  inApp = app: commands: ''
    (
      cd ${lib.escapeShellArg (folderOf app)}
      ${lib.optionalString (app.packages != [ ]) "export PATH=${lib.makeBinPath app.packages}:$PATH"}
      ${lib.concatStringsSep "\n" (
        lib.mapAttrsToList (name: value: "export ${name}=${lib.escapeShellArg value}") (variablesOf app { })
      )}
      ${commands}
    )
  '';
  # The seed runs once for each database. Without one on the host, the guest's files are the database.
  seed = name: app: ''
    database=''${PREVIEW_DATABASE_ID:-files} seeded=$HOME/.innkeeper-seeded-${name}
    if [ "$(cat "$seeded" 2> /dev/null || true)" != "$database" ]; then
      ${inApp app app.seed}
      printf %s "$database" > "$seeded.new"
      mv "$seeded.new" "$seeded"
    fi
  '';
  setup =
    { name, app, ... }:
    lib.optionalString (app.setup != "") (inApp app app.setup)
    + lib.optionalString (app.seed != "") (seed name app);
in
apps: {
  # Wanted by no unit: the daemon starts them in this order, at the start and for each commit.
  services = {
    preview-setup = {
      description = "Checks out the preview's commit and sets it up";
      path = tools;
      environment = variables;
      serviceConfig = common // {
        Type = "oneshot";
        RemainAfterExit = true;
        # The daemon has a limit of its own (previews.setup_timeout_seconds).
        TimeoutStartSec = "infinity";
      };
      script = ''
        set -euo pipefail
        ${import ./checkout.nix}
        ${lib.concatMapStrings setup apps}
      '';
    };
  }
  // builtins.listToAttrs (lib.concatMap appUnits apps);

  timers = builtins.listToAttrs (
    lib.concatMap (
      entry:
      map (schedule: {
        name = schedule.unit;
        value = {
          description = "Times of the schedule ${schedule.name} of the preview's app ${entry.name}";
          wantedBy = [ "${entry.unit}.service" ];
          timerConfig.OnCalendar = schedule.value.at;
        };
      }) entry.schedules
    ) apps
  );
}
